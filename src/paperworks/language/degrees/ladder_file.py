"""Ladders as JSON lines, for people to look at and for training to take as `degrees`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from paperworks.core.files import write_atomic
from paperworks.language.data.schemas import Text
from paperworks.language.degrees.ladder import Ladder


def write_ladders(path: str | Path, ladders: Iterable[tuple[Text, str, Ladder]]) -> None:
    """One line a version: prompt, role (which response it is a version of), degree, text, removed. Raises RunError."""
    lines = [
        json.dumps(
            {"prompt": prompt, "role": role, "degree": version.degree, "text": version.text, "removed": removed},
            ensure_ascii=False,
        )
        for prompt, role, ladder in ladders
        for version, removed in zip(ladder.versions, ladder.removed, strict=True)
    ]
    write_atomic(path, "".join(f"{line}\n" for line in lines))
