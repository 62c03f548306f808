"""The process of one job of the page: `python -m paperworks.cli.work JOB` runs the job's command line in this process.

What it prints is in the job's log, which it inherits as its standard output. It tells the queue that it began and how it
ended; if it is killed, its process number tells. It outlives the server that started it.
"""

from __future__ import annotations

import signal
import sys

from paperworks.core.errors import RunError
from paperworks.core.jobs import Job, JobQueue

INTERRUPTED = 130


def main(job_id: str) -> int:
    """Runs the job and returns its command's exit code. Raises RunError where the job is not to be run."""
    from paperworks.cli.main import main as command_line

    # A server in a shell's background ignores Ctrl-C, and so would what it starts: a cancelled job must hear it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    queue = JobQueue()
    try:
        job = queue.began(job_id)
    except RunError:
        if queue.get(job_id).is_cancelled:  # before it could begin
            queue.end(job_id, INTERRUPTED)
            return INTERRUPTED
        raise
    code = 1
    try:
        sys.argv = ["paperworks", *arguments(job)]  # as runs write down what made them
        code = command_line(sys.argv[1:])
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        queue.end(job_id, code, None if code == 0 else last_error(job_id, queue))
    return code


def arguments(job: Job) -> list[str]:
    """The job's command line; where its run has begun already, the one that goes on with it."""
    has_begun = (job.folder / "run.yaml").is_file()
    # The same `run` or `compare` goes on by itself; `train` is told to.
    return [*job.arguments, "--resume"] if job.verb == "train" and has_begun else list(job.arguments)


def last_error(job_id: str, queue: JobQueue) -> str | None:
    """The last line that begins as the command line's errors do, without that beginning."""
    log = queue.log(job_id)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    for line in reversed(lines):
        if line.startswith("paperworks: "):
            return line.removeprefix("paperworks: ").removeprefix("error: ")[:500]
    return None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
