"""The nearest rows of a table, exactly: by a k-d tree in few dimensions, by matrix products in many.

Of equal rows the lowest numbers are taken. So are they of different rows that are equally near, but for a tree asked for one
row alone: to look for a second as near costs it many times the search, and but for points made by hand there is none.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.spatial import cKDTree
from torch import Tensor

from paperworks.core.devices import cores

Search = Literal["auto", "tree", "matrix"]

MOST_TREE_DIMENSIONS = 32
CHUNK_ROWS = 1 << 16
MANY_POINTS = 512  # fewer are found sooner than threads start,
MANY_ROWS = 1 << 18  # unless among so many rows
SPARE = 8  # candidates kept beyond k: squared distances by products are rounded, and are computed again


def first_of_equals(rows: Float[ndarray, "n d"]) -> Int[ndarray, " n"]:
    """The lowest number of a row equal to each row."""
    same = np.ascontiguousarray(rows + 0.0)  # no zero has a sign
    key = np.zeros(len(same), np.uint64)
    for column in same.view(f"u{same.itemsize}").T:
        key = (key ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    found = first[inverse]
    differ = (same[found] != same).any(1)  # the key of another row: leave it alone
    return np.where(differ, np.arange(len(same)), found)


class NearestRows:
    """Rows [n, d] that are searched often. `auto`: a tree on the CPU up to 32 dimensions, else products.

    A tree is quick where points lie near rows, as those do that are made of one of them; in many dimensions, far from all
    rows, products are quicker.
    """

    def __init__(self, rows: Float[Tensor, "n d"], search: Search = "auto") -> None:
        by_tree = rows.device.type == "cpu" and rows.shape[1] <= MOST_TREE_DIMENSIONS
        self._rows = rows
        self._tree: Any = None
        if search == "tree" or (search == "auto" and by_tree):
            numbers = rows.cpu().numpy()
            # cells cut in their middle are rounder than those cut at the median: half as much is looked at in 23 dimensions
            self._tree = cKDTree(numbers.astype(np.float64), balanced_tree=False)
            self._first = torch.from_numpy(first_of_equals(numbers))
            return
        self._centre = rows.mean(0)
        self._moved = rows - self._centre  # smaller numbers lose less in |x|^2 - 2xy + |y|^2
        self._norms = self._moved.square().sum(1)

    def query(self, points: Float[Tensor, "m d"], k: int = 1) -> Int[Tensor, "m k"]:
        """The k nearest rows of every point, nearest first."""
        k = min(k, len(self._rows))
        if self._tree is not None:
            return self._by_tree(points, k)
        return self._by_products(points, k)

    def _by_tree(self, points: Tensor, k: int) -> Tensor:
        asked = points.double().cpu().numpy()
        workers = cores() if len(asked) >= MANY_POINTS or len(self._rows) >= MANY_ROWS else 1
        if k == 1:
            return self._first[torch.from_numpy(self._tree.query(asked, k=[1], workers=workers)[1])].to(points.device)
        distance, found = self._tree.query(asked, k=range(1, min(k + 1, len(self._rows)) + 1), workers=workers)
        for at in np.flatnonzero((np.diff(distance) == 0).any(1)):  # ties: all rows as near, lowest numbers first
            within = self._tree.query_ball_point(asked[at], distance[at, k - 1] * (1 + 1e-12))
            squares = np.square(self._tree.data[within] - asked[at]).sum(1)
            order = np.lexsort((within, squares))[:k]
            found[at, :k] = np.asarray(within)[order]
        return torch.from_numpy(np.ascontiguousarray(found[:, :k])).to(points.device)

    def _by_products(self, points: Tensor, k: int) -> Tensor:
        moved = points - self._centre
        best = torch.full((len(points), 0), torch.inf, device=points.device)
        places = torch.zeros((len(points), 0), dtype=torch.long, device=points.device)
        for start in range(0, len(self._rows), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            squares = torch.addmm(self._norms[None, part], moved, self._moved[part].T, alpha=-2.0)
            value, at = squares.topk(min(k + SPARE, squares.shape[1]), largest=False)
            best, places = torch.cat([best, value], 1), torch.cat([places, at + start], 1)
            if best.shape[1] > k + SPARE:
                best, keep = best.topk(k + SPARE, largest=False)
                places = places.gather(1, keep)
        exact = (self._rows[places].double() - points.double()[:, None]).square().sum(-1)
        by_number = places.argsort(1)
        exact, places = exact.gather(1, by_number), places.gather(1, by_number)
        return places.gather(1, exact.sort(dim=1, stable=True).indices[:, :k])
