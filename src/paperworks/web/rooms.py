"""What the server's rooms share: its settings, folders, queue and run store, and what it keeps of what it has made."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import Request

from paperworks.core.jobs import JobQueue
from paperworks.core.runs import RunStore
from paperworks.web.drawings import Drawings
from paperworks.web.folders import Folders
from paperworks.web.freshness import Freshness, PageCache
from paperworks.web.settings import WebSettings


@dataclass
class Rooms:
    """What the routes share: one of each a server."""

    settings: WebSettings
    folders: Folders
    freshness: Freshness = field(default_factory=Freshness)
    cache: PageCache = field(default_factory=PageCache)
    drawings: Drawings = field(default_factory=Drawings)
    queue: JobQueue = field(default_factory=JobQueue)
    runs: RunStore = field(default_factory=RunStore)


def rooms(request: Request) -> Rooms:
    """The shared parts of the server that answers a request."""
    found: Rooms = request.app.state.rooms
    return found
