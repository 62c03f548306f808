"""Means with bootstrap intervals, paired comparisons, verdicts, frontiers.

Every interval is a percentile bootstrap with a fixed generator: the same values give the same interval. With few values
(five seeds) such an interval is narrower than its level says; the reports therefore show every seed beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Verdict = Literal["holds", "reversed", "not shown"]

_NUMBERS_AT_ONCE = 2_000_000  # resampled values in memory at a time


@dataclass(frozen=True)
class Interval:
    """A mean of `n` values and its confidence interval; bounds are NaN where `n` is too small to have one."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return self.format()

    def format(self, spec: str = ".3f") -> str:
        """`0.123 [0.100, 0.150]`, or the mean alone where there are no bounds."""
        if math.isnan(self.low):
            return format(self.mean, spec)
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def bootstrap_mean(values: ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of `values` [n] and its percentile bootstrap interval (Efron 1979).

    One value has no interval (NaN bounds); a NaN or infinite value makes the mean and the bounds NaN.
    """
    array = _vector(values)
    if not len(array) or not np.isfinite(array).all():
        return Interval(math.nan, math.nan, math.nan, len(array))

    def means(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        return array[rng.integers(0, len(array), size=(count, len(array)))].mean(axis=1)

    if len(array) == 1:
        return Interval(float(array[0]), math.nan, math.nan, 1)
    low, high = _percentiles(means, len(array), confidence, resamples, seed)
    return Interval(float(array.mean()), low, high, len(array))


def paired_difference(
    a: ArrayLike, b: ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean of a - b over pairs (the same seed, the same prompt). Raises ValueError when the lengths differ."""
    first, second = _pairs(a, b)
    return bootstrap_mean(first - second, confidence, resamples, seed)


def win_rate(a: ArrayLike, b: ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """P(a > b) + P(a = b) / 2 over pairs, bootstrapped over the items. Raises ValueError when the lengths differ."""
    first, second = _pairs(a, b)
    wins = np.where(first > second, 1.0, np.where(first == second, 0.5, 0.0))
    wins[~(np.isfinite(first) & np.isfinite(second))] = math.nan
    return bootstrap_mean(wins, confidence, resamples, seed)


def clustered_mean(
    values: ArrayLike,
    clusters: Sequence[Any],
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    *,
    resample_items: bool = False,
) -> Interval:
    """Mean of `values` [n] whose errors go together within a cluster [n] (a training seed, a prompt).

    Whole clusters are drawn with replacement; with `resample_items` the items within each drawn cluster too. Items that
    share a cluster are not counted as independent, so the interval is not too narrow. `n` is the number of clusters.
    """
    array = _vector(values)
    if len(array) != len(clusters):
        raise ValueError(f"{len(array)} values but {len(clusters)} cluster names")
    if not len(array) or not np.isfinite(array).all():
        return Interval(math.nan, math.nan, math.nan, len(set(clusters)))
    groups: dict[Any, list[float]] = {}
    for cluster, value in zip(clusters, array):
        groups.setdefault(cluster, []).append(float(value))
    items = [np.asarray(group) for group in groups.values()]
    sizes, sums = np.array([len(group) for group in items]), np.array([group.sum() for group in items])
    if len(items) == 1:
        return Interval(float(array.mean()), math.nan, math.nan, 1)

    def means(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        drawn = rng.integers(0, len(items), size=(count, len(items)))
        drawn_sums = sums[drawn]
        if resample_items:
            for index, group in enumerate(items):
                here = drawn == index
                picks = rng.integers(0, len(group), size=(int(here.sum()), len(group)))
                drawn_sums[here] = group[picks].sum(axis=1)
        return drawn_sums.sum(axis=1) / sizes[drawn].sum(axis=1)

    numbers_each = len(array) + len(items) if resample_items else len(items)
    low, high = _percentiles(means, numbers_each, confidence, resamples, seed)
    return Interval(float(array.mean()), low, high, len(items))


def verdict(interval: Interval, direction: int = +1) -> Verdict:
    """ "holds" when the interval of a difference lies beyond 0 on the side of `direction`, "reversed" on the other.

    An interval that touches 0, or has no bounds, shows nothing.
    """
    low, high = (interval.low, interval.high) if direction > 0 else (-interval.high, -interval.low)
    return "holds" if low > 0 else "reversed" if high < 0 else "not shown"


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices, by rising cost, of the points (cost, value) that no other point matches at lower cost or beats at equal.

    Points with a NaN are never on the front.
    """
    order = sorted(
        (i for i, point in enumerate(points) if not any(map(math.isnan, point))),
        key=lambda i: (points[i][0], -points[i][1]),
    )
    front: list[int] = []
    best = -math.inf
    for index in order:
        if points[index][1] > best:
            front.append(index)
            best = points[index][1]
    return front


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation in [-1, 1]; NaN for fewer than two pairs or a constant side."""
    first, second = _pairs(a, b)
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def _vector(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"expected a list of numbers, got shape {array.shape}")
    return array


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = _vector(a), _vector(b)
    if len(first) != len(second):
        raise ValueError(f"expected pairs, got {len(first)} and {len(second)} values")
    return first, second


def _percentiles(
    means: Callable[[np.random.Generator, int], NDArray[np.float64]],
    numbers_each: int,
    confidence: float,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    chunk = max(1, _NUMBERS_AT_ONCE // numbers_each)
    drawn = np.concatenate([means(rng, min(chunk, resamples - done)) for done in range(0, resamples, chunk)])
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
