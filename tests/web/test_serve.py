"""`paperworks serve` as a process: what it prints, a job followed to its end, a server killed in the middle of one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from paperworks.core.jobs import JobQueue

EXPERIMENT = ("prdc", {"budget": "smoke"})


class Server:
    """A server in a process of its own, and a client of its API."""

    def __init__(self, runs: Path, *more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "paperworks", "serve", "--port", "0", "--runs", str(runs), *more],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.printed = []
        while not self.printed or not self.printed[-1].startswith("stop"):
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            self.printed.append(line)
        self.base = re.search(r"http://\S+", self.printed[0])[0]
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        self._open = opener.open
        self._csrf = self.ask("/api/session")["csrf"]

    def ask(self, path, content=None, method=None):
        """The JSON that an address answers."""
        with self.open(path, content, method) as answer:
            return json.loads(answer.read() or "null")

    def open(self, path, content=None, method=None):
        """An address opened: `content` is sent as JSON."""
        data = None if content is None else json.dumps(content).encode()
        headers = {"Content-Type": "application/json", "X-CSRF-Token": getattr(self, "_csrf", "")}
        return self._open(urllib.request.Request(self.base + path, data, headers, method=method), timeout=60)

    def start_job(self, name, options):
        return self.ask("/api/jobs", {"verb": "run", "names": [name], "options": options})["id"]

    def wait(self, job_id, *statuses):
        """The job once it has one of these states."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            job = self.ask(f"/api/jobs/{job_id}")
            if job["status"] in statuses:
                return job
            time.sleep(0.1)
        raise AssertionError(job)

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


@pytest.fixture
def serve(tmp_path, known_options):
    """Starts servers, and ends them and what they began."""
    started = []

    def start(*more):
        started.append(Server(tmp_path / "runs", *more))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)
        server.process.stdout.close()
        server.process.stderr.close()
    for job in JobQueue().list():
        if job.status == "running" and job.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(job.pid, signal.SIGKILL)


def test_a_job_is_followed_to_its_end_and_its_result_is_on_the_papers_page(serve):
    server = serve()
    job_id = server.start_job(*EXPERIMENT)
    with server.open(f"/api/jobs/{job_id}/events") as stream:
        events = stream.read().decode()
    names = re.findall(r"^event: (\w+)$", events, re.MULTILINE)
    assert {"state", "progress", "log"} <= set(names) and names[-1] == "state"
    assert '"status": "finished"' in events.split("event: state")[-1]
    run = server.ask("/api/runs")["runs"][0]
    assert (run["name"], run["status"]) == ("prdc", "finished")
    with server.open("/papers/prdc") as page:
        assert f"/runs/{run['id']}" in page.read().decode()
    assert server.stop() == 0


def test_a_server_killed_during_a_job_leaves_it_going_on_and_the_next_one_knows(serve):
    server = serve()
    job_id = server.start_job(*EXPERIMENT)
    server.wait(job_id, "running")
    server.stop(signal.SIGKILL)
    again = serve()
    job = again.wait(job_id, "running", "finished")
    assert again.wait(job_id, "finished")["attempts"] == job["attempts"]


def test_a_job_that_was_killed_with_its_server_is_taken_up_again(serve):
    server = serve()
    job_id = server.start_job(*EXPERIMENT)
    pid = wait_for_process(job_id, server.process.pid)
    server.stop(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    until(lambda: JobQueue().get(job_id).status == "killed")
    job = serve().wait(job_id, "finished")
    assert job["attempts"] == 2


def test_a_running_job_is_cancelled_and_resumed(serve):
    server = serve()
    job_id = server.start_job("prdc", {"budget": "small", "seeds": "1"})
    wait_for_process(job_id, server.process.pid)
    server.ask(f"/api/jobs/{job_id}/cancel", {})
    assert server.wait(job_id, "cancelled", "finished", "failed")["status"] == "cancelled"
    assert server.ask(f"/api/jobs/{job_id}/resume", {})["status"] in ("queued", "running")
    server.ask(f"/api/jobs/{job_id}/cancel", {})
    server.wait(job_id, "cancelled")


def test_another_address_prints_its_token_once_and_asks_for_it(tmp_path):
    server = subprocess.Popen(
        [sys.executable, "-m", "paperworks", "serve", "--host", "0.0.0.0", "--port", "0", "--runs", str(tmp_path / "runs")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    printed = [server.stdout.readline() for _ in range(2)]
    port, token = re.search(r":(\d+)$", printed[0].strip())[1], printed[1].split()[1]
    try:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/papers", timeout=30)
        known = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/papers", headers={"Authorization": f"Bearer {token}"}
        )
        assert (refused.value.code, urllib.request.urlopen(known, timeout=30).status) == (401, 200)
    finally:
        server.send_signal(signal.SIGINT)
        rest = server.communicate(timeout=30)
    assert token not in "".join(rest)


def test_the_server_loads_no_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from paperworks.web.app import create_app;"
        "from paperworks.web.settings import WebSettings; from fastapi.testclient import TestClient;"
        f"client = TestClient(create_app(WebSettings(runs=Path({str(tmp_path)!r}), works_queue=False)),"
        " base_url='http://127.0.0.1');"
        "assert client.get('/papers/rdpo').status_code == 200;"
        "print([name for name in ('torch', 'transformers', 'matplotlib', 'scipy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def wait_for_process(job_id, server):
    """The number of the job's own process, once that has begun."""
    until(lambda: JobQueue().get(job_id).status == "running" and JobQueue().get(job_id).pid != server)
    return JobQueue().get(job_id).pid


def until(is_so):
    """Waits for something that is about to be so."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)
