"""A job followed as it goes on: server-sent events of its state, its progress and what it prints.

However many browsers follow a job, its files are read once for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

from paperworks.core.errors import RunError
from paperworks.core.jobs import Job, JobQueue

SECONDS_BETWEEN_LOOKS = 0.4
SECONDS_BETWEEN_SIGNS = 15.0  # of life, where nothing happens: proxies close silent connections
LONGEST_LOG = 200_000  # bytes of it that are sent; the rest is in its file
MOST_STREAMS = 500


class _Watch:
    """One job as last seen; `changed` is set anew at each change."""

    def __init__(self, queue: JobQueue, job: Job) -> None:
        self._queue, self._log, self._progress = queue, queue.log(job.id), queue.progress(job.id)
        self.job, self.progress = job, ""
        self.begin, self.text = 0, b""  # of the log: where what is kept begins, and what is kept
        self.followers = 0
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def watch(self) -> None:
        """Looks at the job until it has ended, or nobody follows it."""
        while self.followers:
            is_last = self.job.has_ended
            self.look()
            if is_last:  # looked at once more after it had ended: nothing is printed any more
                return
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    def look(self) -> None:
        """Takes in what is new."""
        before = (self.job, self.progress, self.begin + len(self.text))
        with contextlib.suppress(RunError):  # taken off the list meanwhile: what is known stays
            self.job = self._queue.get(self.job.id)
        self.progress = _text(self._progress)
        self._read_log()
        if (self.job, self.progress, self.begin + len(self.text)) != before:
            self.changed.set()
            self.changed = asyncio.Event()

    def _read_log(self) -> None:
        try:
            with self._log.open("rb") as file:
                size = file.seek(0, 2)
                end = self.begin + len(self.text)
                if size < end or size - end > LONGEST_LOG:  # written anew, or far more than is kept
                    self.begin, self.text = max(0, size - LONGEST_LOG), b""
                    end = self.begin
                file.seek(end)
                self.text += file.read(LONGEST_LOG)
        except OSError:
            return
        if len(self.text) > 2 * LONGEST_LOG:
            self.begin, self.text = self.begin + len(self.text) - LONGEST_LOG, self.text[-LONGEST_LOG:]

    def since(self, place: int) -> tuple[str, int]:
        """Whole lines of the log from a place on, and where they end; the last half line once the job has ended."""
        begin = place if self.begin <= place <= self.begin + len(self.text) else self.begin
        piece = self.text[begin - self.begin :]
        if not self.job.has_ended:
            piece = piece[: piece.rfind(b"\n") + 1]
        return piece.decode("utf-8", "replace"), begin + len(piece)


class Streams:
    """The jobs that are followed."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._watches: dict[str, _Watch] = {}
        self._is_closing = asyncio.Event()

    def close(self) -> None:
        """Ends every stream: the server stops. Browsers ask again by themselves."""
        self._is_closing.set()

    @property
    def followers(self) -> int:
        return sum(watch.followers for watch in self._watches.values())

    async def follow(self, job: Job, place: int = 0) -> AsyncIterator[str]:
        """The events of a job from a place in its log on, until it has ended. Each carries the place reached as its id."""
        watch = self._watches.get(job.id)
        if watch is None:
            watch = self._watches[job.id] = _Watch(self._queue, job)
            watch.look()
        watch.followers += 1
        if watch.task is None or watch.task.done():
            watch.task = asyncio.create_task(watch.watch())
        try:
            async for event in self._events(watch, place):
                yield event
        finally:
            watch.followers -= 1
            if not watch.followers:
                self._watches.pop(job.id, None)

    async def _events(self, watch: _Watch, place: int) -> AsyncIterator[str]:
        sent: tuple[Job | None, str] = (None, "")
        yield "retry: 2000\n\n"
        while True:
            changed = watch.changed
            job, progress = watch.job, watch.progress
            text, place = watch.since(place)
            if text:
                yield _event("log", text, place)
            if progress and progress != sent[1]:
                yield _event("progress", progress, place, is_json=True)
            if job != sent[0]:
                yield _event("state", {"status": job.status, "has_ended": job.has_ended, "error": job.error}, place)
            sent = (job, progress)
            if job.has_ended or self._is_closing.is_set():
                return
            closing = asyncio.create_task(self._is_closing.wait())
            waiting = asyncio.create_task(changed.wait())
            try:
                done, _ = await asyncio.wait(
                    (waiting, closing), timeout=SECONDS_BETWEEN_SIGNS, return_when=asyncio.FIRST_COMPLETED
                )
            finally:  # also where whoever followed has gone
                waiting.cancel()
                closing.cancel()
            if not done:
                yield ": still here\n\n"


def _event(name: str, value: object, place: int, *, is_json: bool = False) -> str:
    text = str(value).replace("\n", " ") if is_json else json.dumps(value, ensure_ascii=False)
    return f"event: {name}\nid: {place}\ndata: {text}\n\n"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")[:100_000]
    except (OSError, UnicodeDecodeError):
        return ""
