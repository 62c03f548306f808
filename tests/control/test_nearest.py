"""The nearest rows, exactly, whichever way they are searched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paperworks.control import nearest
from paperworks.control.nearest import NearestRows, first_of_equals


def brute(rows: torch.Tensor, points: torch.Tensor, k: int) -> torch.Tensor:
    squares = (points.double()[:, None] - rows.double()[None]).square().sum(-1)
    return squares.sort(dim=1, stable=True).indices[:, :k]


@pytest.mark.parametrize("search", ["tree", "matrix"])
@pytest.mark.parametrize("k", [1, 3])
def test_both_ways_are_exact(search: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "CHUNK_ROWS", 128)  # several chunks
    draw = torch.Generator().manual_seed(0)
    rows, points = torch.randn(500, 6, generator=draw) + 100, torch.randn(40, 6, generator=draw) + 100
    assert torch.equal(NearestRows(rows, search).query(points, k), brute(rows, points, k))  # type: ignore[arg-type]


@pytest.mark.parametrize("search", ["tree", "matrix"])
def test_of_equals_the_lowest_number(search: str) -> None:
    rows = torch.tensor([[1.0], [0.0], [1.0], [0.0], [0.0]])
    found = NearestRows(rows, search)  # type: ignore[arg-type]
    assert found.query(torch.tensor([[0.1], [0.9]]), 1).tolist() == [[1], [0]]
    assert found.query(torch.tensor([[0.1]]), 3).tolist() == [[1, 3, 4]]
    assert found.query(torch.tensor([[0.1]]), 9).shape == (1, 5)


def test_the_first_of_equal_rows() -> None:
    rows = np.array([[0.0, 1.0], [2.0, 3.0], [-0.0, 1.0], [2.0, 3.0], [3.0, 2.0]], np.float32)
    assert first_of_equals(rows).tolist() == [0, 1, 0, 1, 4]


def test_a_tree_finds_the_row_that_a_point_was_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many points are searched by several workers, and a doubled row is found under its lowest number."""
    monkeypatch.setattr(nearest, "MANY_POINTS", 1)
    rows = torch.randn(300, 23, generator=torch.Generator().manual_seed(1))
    doubled = torch.cat([rows, rows])
    assert NearestRows(doubled).query(doubled + 1e-4)[:, 0].tolist() == list(range(300)) * 2
