"""Rows of past iterations on disk, for methods that train on all of them: token ids, numbers and reference scores."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from paperworks.core.errors import RunError
from paperworks.core.files import write_atomic
from paperworks.language.items import Item
from paperworks.language.online.batches import Batch, items_of
from paperworks.language.reference_scores import Reference


def write(folder: Path, iteration: int, batch: Batch) -> None:
    """Keep an iteration's rows in `folder`, whole or not at all."""
    rows = [
        {
            "prompt": item.prompt,
            "responses": item.responses,
            "weight": item.weight,
            "where": item.where,
            "numbers": {name: None if value != value else value for name, value in item.numbers.items()},
        }
        for item in batch.items.items
    ]
    tokens = {
        role: [None if part is None else part.tolist() for part in parts]
        for role, parts in batch.reference.tokens.items()
    }
    text = json.dumps({"roles": batch.items.roles, "rows": rows, "reference": tokens})
    _path(folder, iteration).parent.mkdir(exist_ok=True)
    write_atomic(_path(folder, iteration), text.encode())


def read(folder: Path, iteration: int) -> Batch:
    """What `write` kept. Raises RunError where it is missing or damaged."""
    path = _path(folder, iteration)
    try:
        found = json.loads(path.read_bytes())
        items = [
            Item(
                tuple(row["prompt"]),
                {role: tuple(map(tuple, answers)) for role, answers in row["responses"].items()},
                row["weight"],
                row["where"],
                {name: float("nan") if value is None else value for name, value in row["numbers"].items()},
            )
            for row in found["rows"]
        ]
        tokens: dict[str, list[Tensor | None]] = {
            role: [None if part is None else torch.tensor(part) for part in parts]
            for role, parts in found["reference"].items()
        }
        return Batch(items_of(items, tuple(found["roles"])), Reference(tokens))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path}: missing or damaged, so that the run cannot go on; start again with --overwrite"
        ) from error


def _path(folder: Path, iteration: int) -> Path:
    return folder / "replay" / f"iteration-{iteration:06d}.json"
