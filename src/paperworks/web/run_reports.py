"""A run's report as it is sent to browsers: that one file, of the run's own folder, made anew by a process where it is old.

Nothing of a report is computed here, and no other file of the folder can be had.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from paperworks.core.errors import RunError
from paperworks.core.runs import RunRecord
from paperworks.web.children import answer_of
from paperworks.web.run_view import own_file

NAME = "report.html"
MOST_BYTES = 50_000_000
SECONDS = 120.0


class Reports:
    """The reports of runs; one is made at a time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def of(self, record: RunRecord) -> bytes:
        """The report of a run. Raises RunError where it cannot be made, or is not to be sent (see `own_file`)."""
        if not await asyncio.to_thread(is_current, record):
            async with self._lock:
                if not await asyncio.to_thread(is_current, record):
                    await answer_of(
                        "paperworks", "report", record.id, what=f"the report of run {record.id}", seconds=SECONDS
                    )
        return await asyncio.to_thread(_content, record.folder)


def is_current(record: RunRecord) -> bool:
    """Whether a run's report is there, and no cell of an experiment was finished after it.

    Raises RunError for one that is a link out of the folder: making it anew would write there.
    """
    path = record.folder / NAME
    if not os.path.lexists(path):
        return False
    written = own_file(record.folder, NAME, MOST_BYTES).stat().st_mtime_ns
    cells = record.folder.glob("cells/*/*/*/*.json") if record.verb == "run" else ()
    return not any(cell.stat().st_mtime_ns > written for cell in cells)


def _content(folder: Path) -> bytes:
    path = own_file(folder, NAME, MOST_BYTES)
    try:
        # Links were followed and checked: one that was put there since is not followed.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
