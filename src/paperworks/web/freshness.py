"""Whether what is shown is still so: a number that changes when a card, a record or the run store changes.

Rendered pages are kept under that number, so that reading costs no database. It is looked at anew at most twice a second.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from pathlib import Path

from paperworks.catalog import Catalog
from paperworks.catalog.evidence import results_folder
from paperworks.catalog.index import CARDS_FOLDER
from paperworks.core.files import home

SECONDS = 0.5  # between two looks
LIVE_SECONDS = 3.0  # that a page of something running is kept: it may end without a word in the store


class Freshness:
    """The catalogue of now, and the number of its state."""

    def __init__(self) -> None:
        self._store = home().absolute() / "runs.sqlite"
        self._looked = -SECONDS
        self._seen: tuple[object, ...] = ()
        self._number = 0
        self._catalog: Catalog | None = None

    def number(self) -> int:
        """Grows with every change seen."""
        now = time.monotonic()
        if now - self._looked >= SECONDS:
            self._looked = now
            seen = tuple(_stamp(path) for path in self._watched())
            if seen != self._seen:
                self._seen, self._catalog = seen, None
                self._number += 1
        return self._number

    def catalog(self) -> Catalog:
        """The cards and what is known of their experiments, as of the number."""
        self.number()
        if self._catalog is None:
            self._catalog = Catalog.open()
        return self._catalog

    def _watched(self) -> list[Path]:
        write_ahead = self._store.with_name(f"{self._store.name}-wal")
        return [self._store, write_ahead, CARDS_FOLDER, results_folder(), *results_folder().glob("*.json")]


class PageCache:
    """Answers kept as bytes, the least lately used ones dropped; a new state of things empties it."""

    def __init__(self, most: int = 512) -> None:
        self._most, self._number = most, -1
        self._kept: OrderedDict[object, tuple[float, tuple[bytes, ...]]] = OrderedDict()

    def get(self, key: object, number: int) -> tuple[bytes, ...] | None:
        """What was put under the key in this state."""
        if number != self._number:
            self._kept.clear()
            self._number = number
        until, found = self._kept.get(key, (0.0, None))
        if found is None or time.monotonic() > until:
            return None
        self._kept.move_to_end(key)
        return found

    def put(self, key: object, number: int, content: tuple[bytes, ...], *, is_live: bool = False) -> None:
        """Keeps an answer, unless things have changed while it was made; a live one for a few seconds."""
        if number == self._number:
            self._kept[key] = (time.monotonic() + LIVE_SECONDS if is_live else math.inf, content)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # SQLite makes and removes an empty log beside its file at each reading; only one that holds something is news.
    return (status.st_mtime_ns, status.st_size) if status.st_size else None
