"""What the server's rooms share: its settings, folders, queue and run store, and what it keeps of what it has made."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import Request

from paperworks.catalog import Catalog
from paperworks.catalog.meaning import Meaning
from paperworks.core.jobs import JobQueue
from paperworks.core.runs import RunStore
from paperworks.web.descriptions import Descriptions
from paperworks.web.drawings import Drawings
from paperworks.web.folders import Folders
from paperworks.web.freshness import Freshness, PageCache
from paperworks.web.meaning_process import QueryEncoder
from paperworks.web.run_reports import Reports
from paperworks.web.security import RateLimit
from paperworks.web.settings import WebSettings
from paperworks.web.streams import Streams
from paperworks.web.workers import Workers


@dataclass
class Rooms:
    """What the routes share: one of each a server."""

    settings: WebSettings
    folders: Folders
    freshness: Freshness = field(default_factory=Freshness)
    cache: PageCache = field(default_factory=PageCache)
    descriptions: Descriptions = field(default_factory=Descriptions)
    drawings: Drawings = field(default_factory=Drawings)
    reports: Reports = field(default_factory=Reports)
    queue: JobQueue = field(default_factory=JobQueue)
    runs: RunStore = field(default_factory=RunStore)
    encoder: QueryEncoder = field(default_factory=QueryEncoder)
    tries: RateLimit = field(default_factory=lambda: RateLimit(most=10, seconds=60.0))  # of the token
    workers: Workers = field(init=False)
    streams: Streams = field(init=False)
    _meaning: tuple[Catalog, Meaning] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.workers = Workers(self.queue, self.settings.runs, self.settings.jobs)
        self.streams = Streams(self.queue)

    def meaning(self) -> Meaning:
        """The vectors of the cards as they are now. Raises DataError where the file is missing or damaged."""
        catalog = self.freshness.catalog()
        if self._meaning is None or self._meaning[0] is not catalog:
            self._meaning = catalog, Meaning.open(catalog.cards())
        return self._meaning[1]


def rooms(request: Request) -> Rooms:
    """The shared parts of the server that answers a request."""
    found: Rooms = request.app.state.rooms
    return found
