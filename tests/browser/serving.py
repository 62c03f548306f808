"""`paperworks serve` as a process for a browser: a home and folders of its own, and what a test asks of it besides pages."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

PATIENCE = 180.0  # seconds that a job of the budget smoke may take on a machine that does other things too


class Server:
    """A server in `folder`: its home, its runs (`runs`) and the data that jobs may use (`data`)."""

    def __init__(self, folder: Path, cache: Path, environment: dict[str, str] | None = None, *more: str) -> None:
        self.home, self.runs, self.data = folder / "home", folder / "runs", folder / "data"
        self.home.mkdir()
        self.data.mkdir()
        (self.home / "cache").symlink_to(cache)  # what the commands take, figures, the tiny model: made once for all
        self._log = folder / "server.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "paperworks", "serve", "--port", "0", "--runs", str(self.runs),
                 "--folder", str(self.data), *more],
                stdout=subprocess.PIPE, stderr=log, text=True,
                env={**os.environ, "PAPERWORKS_HOME": str(self.home), **(environment or {})},
            )  # fmt: skip
        assert self.process.stdout is not None
        printed = self.process.stdout.readline()
        address = re.search(r"http://\S+", printed)
        assert address, printed + self._log.read_text()
        self.address = address[0]
        self._open = urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open
        self._csrf: str = self.ask("/api/session")["csrf"]

    def ask(self, path: str, content: object = None) -> Any:
        """The JSON that an address of the API answers; `content` is sent to it."""
        headers = {"Content-Type": "application/json", "X-CSRF-Token": getattr(self, "_csrf", "")}
        data = None if content is None else json.dumps(content).encode()
        with self._open(urllib.request.Request(self.address + path, data, headers), timeout=PATIENCE) as answer:
            return json.loads(answer.read())

    def start_job(self, name: str, **options: str) -> str:
        """Queues a paper's experiment; its job's id."""
        job: str = self.ask("/api/jobs", {"verb": "run", "names": [name], "options": options})["id"]
        return job

    def wait(self, job_id: str, *statuses: str) -> dict[str, Any]:
        """The job once it has one of these states."""
        deadline = time.monotonic() + PATIENCE
        while (job := self.ask(f"/api/jobs/{job_id}"))["status"] not in statuses:
            assert time.monotonic() < deadline, job
            time.sleep(0.2)
        found: dict[str, Any] = job
        return found

    def stop(self) -> None:
        """Ends the server and the jobs that it began."""
        with contextlib.suppress(OSError):
            for job in self.ask("/api/jobs"):
                if job["status"] in ("queued", "running"):
                    self.ask(f"/api/jobs/{job['id']}/cancel", {})
                    self.wait(job["id"], "finished", "failed", "cancelled", "killed")
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
