"""Starts the jobs whose turn it is, stops those that were cancelled. The jobs are processes that outlive the server.

Several servers may do this on one run store: a job is claimed by one of them. A server that begins after another was killed
finds its jobs going on, or takes up those whose processes are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from paperworks.core.errors import PaperworksError, first_line
from paperworks.core.files import home
from paperworks.core.jobs import Job, JobQueue
from paperworks.core.processes import process_is_alive
from paperworks.core.progress_mirror import VARIABLE as PROGRESS_VARIABLE
from paperworks.web.children import environment

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_STOP = 20.0  # after Ctrl-C, before the kill


class Workers:
    """The server's hand in the queue."""

    def __init__(self, queue: JobQueue, runs: Path, most: int) -> None:
        self._queue, self._runs, self._most = queue, runs, most
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._cancelled: dict[str, float] = {}
        self.problem = ""  # why no job can be started, in one line

    async def work(self) -> None:
        """Looks at the queue until it is cancelled. Jobs that are going on then go on."""
        while True:
            try:
                await asyncio.to_thread(self.look)
                self.problem = ""
            except PaperworksError as error:  # a full disk, a locked store: said on the page, tried again
                self.problem = str(error)
            except OSError as error:
                self.problem = first_line(error)
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    def look(self) -> None:
        """One look: what ended is noted, what was cancelled is stopped, what has its turn is started."""
        for job_id, process in list(self._processes.items()):
            if process.poll() is not None:
                del self._processes[job_id]
                self._note_end(job_id, process)
        for job in self._queue.list():
            if job.has_ended:
                break  # those that have not stand in front
            if job.status == "running" and job.is_cancelled:
                self._stop(job)
        while (job_or_none := self._queue.claim(self._most)) is not None:
            self._start(job_or_none)

    def interrupt(self, job: Job) -> None:
        """Ctrl-C for a running job's process, so that it stops between two steps and keeps what it has."""
        if job.pid and job.pid != os.getpid() and process_is_alive(job.pid, job.process or ""):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(job.pid, signal.SIGINT)

    def _start(self, job: Job) -> None:
        log = self._queue.log(job.id)
        log.parent.mkdir(parents=True, exist_ok=True)
        variables = {
            **environment(),
            "PAPERWORKS_HOME": str(home().absolute()),
            PROGRESS_VARIABLE: str(self._queue.progress(job.id)),
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
        }
        with log.open("ab") as out:
            self._processes[job.id] = subprocess.Popen(
                [sys.executable, "-m", "paperworks.cli.work", job.id],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self._runs, env=variables,
                start_new_session=True,  # a Ctrl-C in the server's terminal is the server's
            )  # fmt: skip

    def _note_end(self, job_id: str, process: subprocess.Popen[bytes]) -> None:
        job = self._queue.get(job_id)
        # A process that died before it said that it began: its claimer, this server, is alive and would stand for it.
        if job.status == "running" and job.pid == os.getpid():
            self._queue.end(job_id, process.returncode or 1, "its process did not begin; its log says why")

    def _stop(self, job: Job) -> None:
        since = self._cancelled.setdefault(job.id, time.monotonic())
        if time.monotonic() - since > SECONDS_TO_STOP and job.pid and job.pid != os.getpid():
            if process_is_alive(job.pid, job.process or ""):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(job.pid, signal.SIGKILL)
            self._cancelled.pop(job.id, None)
