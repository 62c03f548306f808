"""The nearest rows of a table, exactly: by a k-d tree in few dimensions, by matrix products in many.

Of rows that are equally near, the lowest numbers are taken.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from paperworks.core.devices import cores

Search = Literal["auto", "tree", "matrix"]

MOST_TREE_DIMENSIONS = 20
CHUNK_ROWS = 1 << 16
MANY_POINTS = 512  # fewer are found sooner than threads start
SPARE = 8  # candidates kept beyond k: squared distances by products are rounded, and are computed again


class NearestRows:
    """Rows [n, d] that are searched often. `auto`: a tree on the CPU up to 20 dimensions, else products."""

    def __init__(self, rows: Float[Tensor, "n d"], search: Search = "auto") -> None:
        by_tree = rows.device.type == "cpu" and rows.shape[1] <= MOST_TREE_DIMENSIONS
        self._rows = rows
        self._tree: Any = (
            cKDTree(rows.double().cpu().numpy()) if search == "tree" or (search == "auto" and by_tree) else None
        )
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
        more = min(k + 1, len(self._rows))
        workers = cores() if len(asked) >= MANY_POINTS else 1
        distance, found = self._tree.query(asked, k=more, workers=workers)
        distance, found = distance.reshape(len(asked), -1), found.reshape(len(asked), -1)
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
