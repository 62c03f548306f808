"""What the commands take, as they say themselves: asked once of a process of its own, and kept until the program changes.

The command line's options are made from dataclasses that live beside torch, which the server does not load.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paperworks import __version__
from paperworks.catalog.evidence import PACKAGE
from paperworks.core.errors import OptionError, RunError, did_you_mean
from paperworks.core.files import cache_dir, read_json
from paperworks.web.children import answer_of

SECONDS = 300.0


class Descriptions:
    """The options of every command that the page has a form for. `prepare` in the background, `of` where they are needed."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._found: Mapping[str, Any] | None = None

    async def prepare(self) -> Mapping[str, Any]:
        """All that the commands say. Raises RunError where they cannot be asked."""
        async with self._lock:
            if self._found is None:
                path = cache_dir("web") / f"options-{_state_of_program()}.json"
                if not path.is_file():
                    await answer_of("paperworks.cli.describe", str(path), what="asking the commands", seconds=SECONDS)
                self._found = read_json(path)
            return self._found

    async def of(self, command: str) -> Mapping[str, Any]:
        """The options of one command (`run`, `compare`, `train rdpo`). Raises OptionError for one that is not known."""
        commands = (await self.prepare())["commands"]
        if command not in commands:
            raise OptionError(f"no command {command!r} with a form here{did_you_mean(command, commands)}")
        found: Mapping[str, Any] = commands[command]
        if "problem" in found:
            raise RunError(f"{command}: {found['problem']}")
        return found

    async def methods(self) -> Mapping[str, Mapping[str, Any]]:
        """What `train` and `compare` know by name: family, what it trains, the kind of rows."""
        found: Mapping[str, Mapping[str, Any]] = (await self.prepare())["methods"]
        return found


def _state_of_program() -> str:
    """Changes with every source file of the package, and with the packages that bring further methods."""
    total = hashlib.sha256(f"{__version__} {sys.version}".encode())
    for path in sorted(PACKAGE.rglob("*.py")):
        status = path.stat()
        total.update(f"{path.relative_to(PACKAGE)} {status.st_size} {status.st_mtime_ns}\n".encode())
    for site in map(Path, sys.path):
        if site.name == "site-packages" and site.is_dir():
            total.update(f"{site} {site.stat().st_mtime_ns}".encode())
    return total.hexdigest()[:24]
