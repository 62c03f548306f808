"""The queue of jobs: command lines that wait for their turn, and what became of them. A table in the run store's file.

Any number of servers and workers act on it at once. A job is a process of its own that outlives whoever started it; what
is true of it is read from that process, not from what was hoped. Nothing here starts a process or knows what a job does.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from paperworks.core.database import Database
from paperworks.core.errors import RunError
from paperworks.core.processes import process_identity, process_is_alive
from paperworks.core.runs import now

JobStatus = Literal["queued", "running", "finished", "failed", "cancelled", "killed"]
ENDED: tuple[JobStatus, ...] = ("finished", "failed", "cancelled", "killed")
MOST_ATTEMPTS = 3  # a job whose process died is begun again by itself so many times in all

_COLUMNS = (
    "id, arguments, verb, name, folder, status, submitted, started, ended, attempts, pid, process, host, exit_code, error, "
    "is_cancelled"
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, arguments TEXT NOT NULL, verb TEXT NOT NULL, name TEXT NOT NULL, folder TEXT NOT NULL,
    status TEXT NOT NULL, submitted TEXT NOT NULL, started TEXT, ended TEXT, attempts INTEGER NOT NULL DEFAULT 0,
    pid INTEGER, process TEXT, host TEXT NOT NULL, exit_code INTEGER, error TEXT, is_cancelled INTEGER NOT NULL DEFAULT 0
)"""


@dataclass(frozen=True)
class Job:
    """One command line in the queue. `arguments` are those behind `paperworks`; times are ISO 8601 with zone."""

    id: str
    arguments: tuple[str, ...]
    verb: str
    name: str
    folder: Path  # of the run that it makes or goes on with
    status: JobStatus
    submitted: str
    started: str | None
    ended: str | None
    attempts: int
    pid: int | None
    process: str | None
    host: str
    exit_code: int | None
    error: str | None  # the line that the command ended with
    is_cancelled: bool  # someone asked it to stop

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    def to_json(self) -> dict[str, Any]:
        """The job as plain values."""
        return {**vars(self), "arguments": list(self.arguments), "folder": str(self.folder)}


class JobQueue:
    """The jobs in `home`/runs.sqlite (default: `files.home()`); what they print is kept in `home`/jobs/ID/."""

    def __init__(self, home: str | Path | None = None) -> None:
        self._database = Database(home, _SCHEMA)
        self._folder = self._database.path.parent / "jobs"

    def log(self, job_id: str) -> Path:
        """The file that takes what the job prints."""
        return self._folder / job_id / "log.txt"

    def progress(self, job_id: str) -> Path:
        """The file in which the job's process says how far it is (core.progress)."""
        return self._folder / job_id / "progress.json"

    def submit(self, arguments: Sequence[str], verb: str, name: str, folder: str | Path) -> Job:
        """Puts a command line at the end of the queue.

        Raises RunError where a job that has not ended has the same folder: two would write over one another.
        """
        target = Path(folder).absolute()
        with self._database.transaction(writes=True) as database:
            self._settle(database)
            other = database.execute(
                "SELECT id FROM jobs WHERE folder = ? AND status IN ('queued', 'running')", (str(target),)
            ).fetchone()
            if other:
                raise RunError(
                    f"{target}: job {other['id']} has this folder and has not ended; wait for it or cancel it"
                )
            job_id = secrets.token_hex(4)
            database.execute(
                "INSERT INTO jobs (id, arguments, verb, name, folder, status, submitted, host)"
                " VALUES (?, ?, ?, ?, ?, 'queued', ?, ?)",
                (job_id, json.dumps(list(arguments)), verb, name, str(target), now(), socket.gethostname()),
            )
        self.log(job_id).parent.mkdir(parents=True, exist_ok=True)
        return self.get(job_id)

    def list(self, limit: int | None = None) -> list[Job]:
        """Jobs that have not ended first, in the order of their turn; then the ended ones, newest first."""
        with self._database.transaction() as database:
            rows = database.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY submitted, rowid").fetchall()
        jobs = [_job(row) for row in rows]
        going_on = [job for job in jobs if not job.has_ended]
        return [*going_on, *reversed([job for job in jobs if job.has_ended])][:limit]

    def get(self, job_id: str) -> Job:
        """The job of that id. Raises RunError when there is none."""
        with self._database.transaction() as database:
            return self._one(database, job_id)

    def claim(self, most: int) -> Job | None:
        """Takes the next job off the queue where fewer than `most` are running on this machine; None otherwise.

        The caller starts its process at once. Jobs whose process died are put in front of the queue again first.
        """
        with self._database.transaction(writes=True) as database:
            self._settle(database)
            here = socket.gethostname()
            running = database.execute(
                "SELECT count(*) AS n FROM jobs WHERE status = 'running' AND host = ?", (here,)
            ).fetchone()["n"]
            row = database.execute(
                f"SELECT {_COLUMNS} FROM jobs WHERE status = 'queued' AND host = ? ORDER BY submitted, rowid LIMIT 1",
                (here,),
            ).fetchone()
            if row is None or running >= most:
                return None
            # Until its own process says `began`, the claimer stands for it: if that dies, the job is queued again.
            database.execute(
                "UPDATE jobs SET status = 'running', started = ?, ended = NULL, attempts = attempts + 1, pid = ?,"
                " process = ?, exit_code = NULL, error = NULL WHERE id = ?",
                (now(), os.getpid(), process_identity(), row["id"]),
            )
            return self._one(database, row["id"])

    def began(self, job_id: str) -> Job:
        """Says that this process is the job's. Raises RunError where the job is not to be run (any more)."""
        with self._database.transaction(writes=True) as database:
            job = self._one(database, job_id)
            if job.status != "running" or job.is_cancelled:
                raise RunError(f"job {job_id} is {job.status}, not waiting for a process; nothing was begun")
            database.execute(
                "UPDATE jobs SET pid = ?, process = ? WHERE id = ?", (os.getpid(), process_identity(), job_id)
            )
            return self._one(database, job_id)

    def end(self, job_id: str, exit_code: int, error: str | None = None) -> Job:
        """Writes down how the job's command ended: 0 finished; what was cancelled, cancelled; the rest failed."""
        with self._database.transaction(writes=True) as database:
            job = self._one(database, job_id)
            status: JobStatus = "finished" if exit_code == 0 else "cancelled" if job.is_cancelled else "failed"
            database.execute(
                "UPDATE jobs SET status = ?, ended = ?, exit_code = ?, error = ? WHERE id = ?",
                (status, now(), exit_code, error, job_id),
            )
            return self._one(database, job_id)

    def cancel(self, job_id: str) -> Job:
        """Takes a queued job out of the queue; marks a running one, whose process the caller then interrupts.

        A job that has ended stays as it is.
        """
        with self._database.transaction(writes=True) as database:
            job = self._one(database, job_id)
            if job.status == "queued":
                database.execute(
                    "UPDATE jobs SET status = 'cancelled', ended = ?, is_cancelled = 1 WHERE id = ?", (now(), job_id)
                )
            elif job.status == "running":
                database.execute("UPDATE jobs SET is_cancelled = 1 WHERE id = ?", (job_id,))
            return self._one(database, job_id)

    def resume(self, job_id: str) -> Job:
        """Queues a job again that was cancelled, killed or failed. Raises RunError for any other."""
        with self._database.transaction(writes=True) as database:
            self._settle(database)
            job = self._one(database, job_id)
            if job.status not in ("cancelled", "killed", "failed"):
                raise RunError(f"job {job_id} is {job.status}; only a job that was stopped or failed goes on")
            other = database.execute(
                "SELECT id FROM jobs WHERE folder = ? AND status IN ('queued', 'running')", (str(job.folder),)
            ).fetchone()
            if other:
                raise RunError(f"{job.folder}: job {other['id']} has this folder and has not ended; wait for it")
            database.execute(
                "UPDATE jobs SET status = 'queued', submitted = ?, ended = NULL, pid = NULL, process = NULL,"
                " exit_code = NULL, error = NULL, is_cancelled = 0, attempts = 0 WHERE id = ?",
                (now(), job_id),
            )
            return self._one(database, job_id)

    def forget(self, job_id: str) -> None:
        """Takes an ended job off the list, and removes what it printed; its run's folder stays. Raises RunError else."""
        import shutil

        with self._database.transaction(writes=True) as database:
            job = self._one(database, job_id)
            if not job.has_ended:
                raise RunError(f"job {job_id} is {job.status}; cancel it first")
            database.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        shutil.rmtree(self.log(job_id).parent, ignore_errors=True)

    def _settle(self, database: sqlite3.Connection) -> None:
        """Jobs of this machine whose process is gone are queued again, in front; after too many attempts they are killed."""
        rows = database.execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE status = 'running' AND host = ?", (socket.gethostname(),)
        ).fetchall()
        for job in map(_job, rows):
            if job.status != "killed":
                continue
            again = job.attempts < MOST_ATTEMPTS and not job.is_cancelled
            status: JobStatus = "queued" if again else "cancelled" if job.is_cancelled else "killed"
            database.execute(
                "UPDATE jobs SET status = ?, ended = ?, pid = NULL, process = NULL, error = ? WHERE id = ?",
                (status, None if again else now(), None if job.is_cancelled else "its process was killed", job.id),
            )

    def _one(self, database: sqlite3.Connection, job_id: str) -> Job:
        row = database.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise RunError(f"no job {job_id!r}")
        return _job(row)


def _job(row: sqlite3.Row) -> Job:
    values = {**dict(row), "arguments": tuple(json.loads(row["arguments"])), "folder": Path(row["folder"])}
    job = Job(**{**values, "is_cancelled": bool(row["is_cancelled"])})
    if job.status != "running" or job.host != socket.gethostname() or job.pid is None:
        return job
    is_alive = process_is_alive(job.pid, job.process or "")
    return job if is_alive else Job(**{**vars(job), "status": "killed"})
