"""Figures for the page, drawn by processes of their own so that the server never waits for matplotlib, and kept in the cache.

`python -m paperworks.web.drawings` is that process: a request as JSON on its input, figures as JSON on its output.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperworks import __version__
from paperworks.core.errors import PaperworksError
from paperworks.core.files import cache_dir, read_json, write_atomic
from paperworks.web.children import answer_of

if TYPE_CHECKING:
    from paperworks.experiment.figures import RecordFigure

FORMAT = 1  # raise it when figures are drawn otherwise
SECONDS = 120.0


class Drawings:
    """Figures by what they are made from; the same request is drawn once, and one process draws at a time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def of_record(self, path: Path, *, at_leisure: bool = False) -> dict[str, list[dict[str, Any]]]:
        """The figures of a recorded result by part: `kind`, `svg`, `caption`, `is_first` (of the paper's page) each.

        `at_leisure` lets everything else go first. Raises RunError where drawing fails.
        """
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found: dict[str, list[dict[str, Any]]] = await self._drawn({"record": str(path), "digest": digest}, at_leisure)
        return found

    async def of_curves(self, curves: Sequence[Mapping[str, Any]]) -> list[str]:
        """Figures as SVG; each of `curves` has `title`, `x`, `y` and `series`: {name: [xs, ys]}. Raises RunError."""
        found: list[str] = await self._drawn({"curves": list(curves)})
        return found

    async def _drawn(self, request: Mapping[str, Any], at_leisure: bool = False) -> Any:
        text = json.dumps(request, sort_keys=True)
        key = hashlib.sha256(f"{FORMAT} {__version__} {text}".encode()).hexdigest()[:32]
        kept = cache_dir("web", "figures") / f"{key}.json"
        if not kept.is_file():
            async with self._lock:
                if not kept.is_file():
                    words = ("paperworks.web.drawings", *(["at-leisure"] if at_leisure else []))
                    write_atomic(kept, await answer_of(*words, what="drawing", seconds=SECONDS, given=text.encode()))
        return read_json(kept)


def draw(request: Mapping[str, Any]) -> Any:
    """What one request asks for (see `Drawings`)."""
    from paperworks.core import plots

    if "record" in request:
        from paperworks.experiment.figures import record_figures

        return _of_record(record_figures(read_json(request["record"])))
    names = [name for each in request["curves"] for name in each["series"]]
    colours = plots.colours(names)
    known: dict[str, str] = {}  # outlines of letters: once for all figures of a page
    return [
        plots.with_shared_glyphs(
            plots.lines(
                {name: plots.Curve(*points) for name, points in each["series"].items()},
                each["x"], each["y"], title=each["title"], colours_by_name=colours,
            ),
            known,
        )
        for each in request["curves"]
    ]  # fmt: skip


def _of_record(figures: Mapping[str, Sequence[RecordFigure]]) -> dict[str, list[dict[str, Any]]]:
    """The figures as plain values. `is_first` marks those that stand on the paper's page: they need no other's letters."""
    from paperworks.core import plots

    arms = {name: next((each for each in part if each.kind == "arms"), None) for name, part in figures.items()}
    known: dict[str, str] = {}
    drawn: dict[int, dict[str, Any]] = {}
    for is_first in (True, False):
        for name, part in figures.items():
            for each in part:
                if (each.kind == "differences" or each is arms[name]) == is_first:
                    svg = plots.with_shared_glyphs(each.svg, known)
                    drawn[id(each)] = {"kind": each.kind, "svg": svg, "caption": each.caption, "is_first": is_first}
    return {name: [drawn[id(each)] for each in part] for name, part in figures.items()}


def main() -> int:
    """Draws what standard input asks for."""
    if "at-leisure" in sys.argv[1:]:
        os.nice(15)
    try:
        json.dump(draw(json.load(sys.stdin)), sys.stdout, ensure_ascii=False)
    except PaperworksError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
