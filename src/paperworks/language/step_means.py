"""Weighted means of a step, added up over micro-batches and processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class StepMeans:
    """Weighted means over a step's rows, added up over micro-batches and then over processes."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self._shares: dict[str, Tensor] = {}

    def add_all(self, values: Mapping[str, Tensor | tuple[Tensor, Tensor]], weight: Tensor) -> None:
        """Values with a weight each: the rows' `weight`, or their own where they are (values, weights)."""
        for name, given in values.items():
            value, of_value = given if isinstance(given, tuple) else (given, weight)
            self._sums[name] = self._sums.get(name, 0) + (value.detach() * of_value).sum().double().cpu()
            self._weights[name] = self._weights.get(name, 0) + of_value.sum().double().cpu()

    def add_share(self, name: str, share: Tensor) -> None:
        self._shares[name] = self._shares.get(name, 0) + share.detach().double().cpu()

    def reduced(self, over_processes: Callable[[Tensor], Tensor]) -> dict[str, float]:
        shares = sorted(self._shares)
        names = sorted(self._sums)
        flat = [self._shares[n] for n in shares] + [self._sums[n] for n in names] + [self._weights[n] for n in names]
        total = over_processes(torch.stack(flat)).tolist() if flat else []
        out = dict(zip(shares, total, strict=False))
        sums, weights = total[len(shares) : len(shares) + len(names)], total[len(shares) + len(names) :]
        out.update({n: s / w if w else math.nan for n, s, w in zip(names, sums, weights, strict=True)})
        return out
