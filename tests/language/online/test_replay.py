"""Rows of past iterations come back from disk as they were, number by number."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from paperworks.core.errors import RunError
from paperworks.language.online import replay
from paperworks.language.online.batches import Batch, pairs
from paperworks.language.online.rollouts import Rollouts


@pytest.fixture
def batch(four: Rollouts) -> Batch:
    scored = four.replace(reference=torch.tensor([-0.1, -1 / 3, -1e-9, -7.7, -2.0, -0.3, -0.123456789]))
    return pairs(scored, [(0, 1), (2, 3)], [0.3, 1 / 3])


def test_rows_come_back_bit_for_bit(batch: Batch, tmp_path: Path) -> None:
    replay.write(tmp_path, 0, batch)
    found = replay.read(tmp_path, 0)
    assert found.items.roles == batch.items.roles and len(found.items) == 2
    for before, after in zip(batch.items.items, found.items.items, strict=True):
        assert (after.prompt, dict(after.responses), after.weight, after.where) == (
            before.prompt, dict(before.responses), before.weight, before.where,
        )  # fmt: skip
        assert math.isnan(after.numbers["explored"])
        assert after.numbers["probability"] == before.numbers["probability"]
    for role in ("chosen", "rejected"):
        for old, new in zip(batch.reference.tokens[role], found.reference.tokens[role], strict=True):
            assert old is not None and new is not None and torch.equal(old, new)


def test_a_damaged_or_missing_iteration_is_said(batch: Batch, tmp_path: Path) -> None:
    replay.write(tmp_path, 3, batch)
    (file,) = (tmp_path / "replay").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(RunError, match=r"iteration-000003\.json: missing or damaged"):
        replay.read(tmp_path, 3)
    with pytest.raises(RunError, match=r"iteration-000004\.json: missing or damaged"):
        replay.read(tmp_path, 4)
