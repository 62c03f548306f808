"""How far a process is, for another process to read: its bars and what it said last, as JSON in a file.

The file is named by the environment variable PAPERWORKS_PROGRESS, which is taken out of the environment: processes started
later have nothing to do with it. Nothing here prints, and a file that cannot be written never ends the work.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperworks.core.files import json_value

if TYPE_CHECKING:
    from paperworks.core.progress import Bar

VARIABLE = "PAPERWORKS_PROGRESS"
SECONDS_BETWEEN_WRITES = 0.5
MOST_BARS = 40  # the oldest finished ones give way
MOST_LINES, LONGEST_LINE = 20, 1000


class ProgressMirror:
    """Keeps a file up to date with the bars shown: `{"bars": [{label, done, total, note, seconds, finished}], "said": […]}`.

    `total` is null where the amount of work is not known. The file is whole at any time: it is replaced by a rename.
    """

    def __init__(self, file: str | Path) -> None:
        self._file = Path(file).absolute()
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._bars: list[Bar] = []
        self._ended: dict[Bar, float] = {}
        self._said: deque[str] = deque(maxlen=MOST_LINES)
        self._written = -SECONDS_BETWEEN_WRITES

    def add(self, bar: Bar) -> None:
        """One bar more, below the others."""
        with self._lock:
            if len(self._bars) >= MOST_BARS and self._ended:
                oldest = next(each for each in self._bars if each in self._ended)
                self._bars.remove(oldest)
                del self._ended[oldest]
            self._bars.append(bar)
        self.update()

    def finish(self, bar: Bar) -> None:
        """A bar is complete; said at once."""
        self._ended.setdefault(bar, time.monotonic())
        self.update(at_once=True)

    def say(self, text: str) -> None:
        """A line that was shown above the bars."""
        self._said.append(text[:LONGEST_LINE])
        self.update()

    def update(self, *, at_once: bool = False) -> None:
        """Writes the file, unless it was written less than half a second ago; `at_once` writes it in any case."""
        if os.getpid() != self._owner:  # a forked worker: its bars are not the command's
            return
        with self._lock:
            now = time.monotonic()
            if not at_once and now - self._written < SECONDS_BETWEEN_WRITES:
                return
            self._written = now
            with contextlib.suppress(OSError):  # the work matters more than that somebody sees it
                self._write({"bars": [self._state(bar, now) for bar in self._bars], "said": list(self._said)})

    def _state(self, bar: Bar, now: float) -> dict[str, Any]:
        ended = self._ended.get(bar)
        return {
            "label": bar.label,
            "done": bar.done if ended is None or bar.total is None else bar.total,
            "total": bar.total,
            "note": bar.note,
            "seconds": round((now if ended is None else ended) - bar.began, 3),
            "finished": ended is not None,
        }

    def _write(self, values: dict[str, Any]) -> None:
        temporary = self._file.with_name(f".{self._file.name}.{self._owner}.tmp")
        text = json.dumps(json_value(values), ensure_ascii=False)
        temporary.write_text(text, encoding="utf-8", errors="replace")
        temporary.replace(self._file)


def mirror_asked_for() -> ProgressMirror | None:
    """The mirror that the environment asks for, which then asks for none any more; None where it asks for none."""
    file = os.environ.pop(VARIABLE, "")
    return ProgressMirror(file) if file else None
