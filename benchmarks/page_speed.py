"""How fast the page answers while a job runs: requests a second and waiting times with 50 connections, 200 open event streams,
and the server's memory. `python -m benchmarks.page_speed`; everything stays on this machine's loopback and ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SECONDS = 8.0  # of load on each page
CONNECTIONS = 50
RATE = 300.0  # requests a second that are asked for; how many can be had at most is measured apart
STREAMS = 200
PAGES = ("/", "/?q=noisy+labels&wing=language", "/papers/rdpo", "/papers/ipo-md")


async def request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, host: str, more: str = "", body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """One HTTP/1.1 exchange on an open connection: status, headers, body. A request generator that costs little."""
    method = "POST" if body else "GET"
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: gzip\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in raw[1:])}
    content = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(raw[0].split()[1]), headers, content


async def load(port: int, path: str, rate: float | None) -> tuple[float, list[float]]:
    """Requests a second that were answered, and each one's waiting time in ms. `rate` None: as many as can be had.

    With a rate, requests are due at fixed times: a wait in the queue counts, whoever is late.
    """
    host, waits, turn = f"127.0.0.1:{port}", [], 0
    began = time.perf_counter()

    async def connection() -> None:
        nonlocal turn
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() - began < SECONDS:
            due = time.perf_counter()
            if rate is not None:
                due, turn = began + turn / rate, turn + 1
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            status, _, body = await request(reader, writer, path, host)
            assert status == 200 and body, (status, path)
            waits.append(1000 * (time.perf_counter() - due))
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return len(waits) / (time.perf_counter() - began), waits


async def streams(port: int, job: str) -> tuple[int, int]:
    """Opens event streams of a running job; how many are open, and how many were told something within 3 s."""
    told = 0

    async def follow() -> asyncio.StreamWriter:
        nonlocal told
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /api/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.readuntil(b"event: state"), 3)
            told += 1
        return writer

    writers = await asyncio.gather(*(follow() for _ in range(STREAMS)))
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await request(reader, writer, "/", f"127.0.0.1:{port}")
    print(f"  a page beside {len(writers)} open streams: {1000 * (time.perf_counter() - started):.1f} ms")
    for each in (*writers, writer):
        each.close()
    return len(writers), told


async def start_job(port: int, budget: str) -> str:
    """A job that keeps a core busy for as long as the load takes."""
    host = f"127.0.0.1:{port}"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _, headers, body = await request(reader, writer, "/api/session", host)
    cookie = headers["set-cookie"].split(";")[0]
    more = f"Cookie: {cookie}\r\nX-CSRF-Token: {json.loads(body)['csrf']}\r\nContent-Type: application/json\r\n"
    wanted = json.dumps(
        {"verb": "run", "names": ["prdc"], "options": {"budget": budget, "seeds": "60", "workers": "1"}}
    ).encode()
    status, _, body = await request(reader, writer, "/api/jobs", host, more, wanted)
    assert status == 201, body
    writer.close()
    return str(json.loads(body)["id"])


def memory_mb(pid: int) -> float:
    """The memory that a process has in use."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000  # type: ignore[index]


def summary(path: str, rate: float, waits: Sequence[float]) -> str:
    """A line of the result."""
    cuts = statistics.quantiles(waits, n=100)
    return f"  {path:34} {rate:7.0f} requests/s   median {cuts[49]:6.1f} ms   95 % {cuts[94]:6.1f} ms   99 % {cuts[98]:6.1f} ms"


async def measure(port: int, pid: int) -> None:
    """Everything, on a server that has just begun."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for path in PAGES:  # what is drawn once is drawn before
        await request(reader, writer, path, f"127.0.0.1:{port}")
    writer.close()
    print(f"memory of the server, pages read: {memory_mb(pid):.0f} MB")
    job = await start_job(port, "small")
    await asyncio.sleep(8)  # its process has loaded what it needs, and computes
    print(f"{RATE:.0f} requests/s asked for, {CONNECTIONS} connections, beside a running job:")
    for path in PAGES:
        print(summary(path, *await load(port, path, RATE)), flush=True)
    print(f"as many as can be had, {CONNECTIONS} connections, beside a running job:")
    for path in PAGES:
        print(summary(path, *await load(port, path, None)), flush=True)
    opened, told = await streams(port, job)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _, _, body = await request(reader, writer, f"/api/jobs/{job}", f"127.0.0.1:{port}")
    writer.close()
    assert json.loads(body)["status"] == "running", body  # else nothing was measured beside a job
    print(f"event streams: {told} of {opened} told the job's state within 3 s; memory {memory_mb(pid):.0f} MB")


def main() -> int:
    """Starts a server with a home of its own, measures, stops it and its job."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PAPERWORKS_HOME": f"{folder}/home"}
        server = subprocess.Popen(
            [sys.executable, "-m", "paperworks", "serve", "--port", "0", "--runs", f"{folder}/runs"],
            stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert server.stdout is not None
        try:
            port = int(re.search(r":(\d+)$", server.stdout.readline().strip())[1])  # type: ignore[index]
            asyncio.run(measure(port, server.pid))
        finally:
            _stop_jobs(environment["PAPERWORKS_HOME"])
            server.send_signal(signal.SIGINT)
            server.wait(timeout=30)
    return 0


def _stop_jobs(home: str) -> None:
    from paperworks.core.jobs import JobQueue

    queue = JobQueue(home)
    for job in queue.list():
        queue.cancel(job.id)
        if job.status == "running" and job.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(job.pid, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main())
