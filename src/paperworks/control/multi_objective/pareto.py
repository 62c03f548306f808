"""Vectors of returns: which beat which, what a set of them is worth, which stand alone. Numbers only, no policies.

Larger is better in every objective. x is dominated where some y is at least as good everywhere and better somewhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from paperworks.core.errors import OptionError

Vector = tuple[float, ...]


def dominated(
    points: Float[ndarray, "some objectives"], by: Float[ndarray, "others objectives"]
) -> Bool[ndarray, " some"]:
    """Whether each of `points` is dominated by one of `by`; an equal vector does not dominate."""
    at_least = (by[None] >= points[:, None]).all(-1)
    better = (by[None] > points[:, None]).any(-1)
    found: ndarray = np.any(at_least & better, axis=1)
    return found


def front(points: Float[ndarray, "some objectives"]) -> Int[ndarray, " kept"]:
    """Places of the points that none dominates, in their order; of equal points the first alone."""
    _, first = np.unique(points, axis=0, return_index=True)
    first = np.sort(first)
    return first[~dominated(points[first], points[first])]


def crowding(points: Float[ndarray, "some objectives"]) -> Float[ndarray, " some"]:
    """sum_i (next_i - previous_i) / (max_i - min_i) over the neighbours in the order of each objective i.

    The ends of an objective have an infinite distance; an objective in which all are equal counts nothing.
    """
    distance = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        span = values[order[-1]] - values[order[0]] if len(points) else 0.0
        if span == 0:
            if len(points) == 1:
                distance[:] = math.inf
            continue
        distance[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / span
        distance[order[[0, -1]]] = math.inf
    return distance


def select(points: Float[ndarray, "some objectives"], count: int, chosen: Collection[Vector] = ()) -> list[int]:
    """At most `count` points of largest crowding distance among those whose vectors are not in `chosen`.

    Infinite distances are ordered by objective: the best of the first, of the second, ..., then the worst of each.
    """
    if not len(points):
        return []
    ends = [*(int(place) for place in points.argmax(0)), *(int(place) for place in points.argmin(0))]
    distance = crowding(points)

    def rank(place: int) -> tuple[float, int]:
        return -distance[place], ends.index(place) if place in ends else len(ends)

    fresh = [place for place in range(len(points)) if vector(points[place]) not in chosen]
    return sorted(fresh, key=rank)[:count]


def vector(point: Float[ndarray, " objectives"]) -> Vector:
    """A point as a value that can be looked up."""
    return tuple(float(value) for value in point)


class Archive:
    """The vectors at or above a reference point that none dominates; at most `capacity`, the least crowded ones."""

    def __init__(self, reference: Sequence[float], capacity: int = 200) -> None:
        self.reference = np.asarray(reference, dtype=np.float64)
        self.capacity = capacity
        self.points: Float[ndarray, "kept objectives"] = np.zeros((0, len(self.reference)))

    def __len__(self) -> int:
        return len(self.points)

    def offer(self, candidates: Float[ndarray, "some objectives"]) -> Int[ndarray, " kept"]:
        """Take in what belongs; returns the places of those kept among the old points followed by the candidates."""
        old, count = self.points, len(self.points)
        new = np.flatnonzero((candidates >= self.reference).all(1))
        new = new[front(candidates[new])]
        is_known = (candidates[new][:, None] == old[None]).all(-1).any(1)
        new = new[~is_known & ~dominated(candidates[new], old)]
        kept = np.flatnonzero(~dominated(old, candidates[new]))
        places = np.concatenate([kept, count + new])
        points = np.concatenate([old[kept], candidates[new]])
        if len(points) > self.capacity:
            cut = np.sort(select(points, self.capacity))
            places, points = places[cut], points[cut]
        self.points = points
        return places


def hypervolume(points: Float[ndarray, "some objectives"], reference: Float[ndarray, " objectives"]) -> float:
    """The volume between a reference point and what the points dominate; exact.

    By sweeping in two and three objectives; beyond, by what each point adds to those behind it (While, Bradstreet and
    Barone 2012), whose time grows fast with objectives: `SampledVolume` is for many points there. Points not above the
    reference add nothing.
    """
    above = points[(points > reference).all(1)] - reference
    return _volume(above[front(above)]) if len(above) else 0.0


def _volume(points: ndarray) -> float:
    """That of points that do not dominate each other, above 0."""
    objectives = points.shape[1]
    if objectives == 1:
        return float(points.max())
    if objectives == 2:
        first, second = points[np.argsort(-points[:, 0])].T
        return float((first * np.diff(second, prepend=0.0)).sum())
    if objectives == 3:
        return _swept(points[np.argsort(-points[:, 2])])
    points, total = points[np.argsort(-points[:, -1])], 0.0
    for place, point in enumerate(points):
        behind = np.minimum(points[place + 1 :], point)
        total += float(point.prod()) - (_volume(behind[front(behind)]) if len(behind) else 0.0)
    return total


def _swept(points: ndarray) -> float:
    """Three objectives, highest third first: the area so far, times the height to the next."""
    total, lower = 0.0, np.append(points[1:, 2], 0.0)
    for place in range(len(points)):
        height = points[place, 2] - lower[place]
        if height > 0:
            flat = points[: place + 1, :2]
            total += _volume(flat[front(flat)]) * height
    return float(total)


class SampledVolume:
    """The hypervolume by `samples` fixed random points of the box from `reference` to `best`.

    The points are the same in every call, so that fronts are compared on the same ones and a larger front is never worth
    less. The standard error is at most the box's volume / (2 sqrt(samples)).
    """

    def __init__(
        self, reference: Sequence[float], best: Sequence[float], *, samples: int = 20_000, seed: int = 0
    ) -> None:
        low, high = np.asarray(reference, dtype=np.float64), np.asarray(best, dtype=np.float64)
        self.volume = float(np.prod(high - low))
        self._drawn = np.random.default_rng(seed).uniform(low, high, (samples, len(low)))

    def __call__(self, points: Float[ndarray, "some objectives"]) -> float:
        covered = np.zeros(len(self._drawn), dtype=bool)
        for point in points:
            left = np.flatnonzero(~covered)
            covered[left] = (self._drawn[left] < point).all(1)
        return self.volume * float(covered.mean())


def expected_utility(
    points: Float[ndarray, "some objectives"], weights: Float[ndarray, "preferences objectives"]
) -> float:
    """mean over preferences w of max over points of w . G; minus infinity without a point."""
    return float((weights @ points.T).max(1).mean()) if len(points) else -math.inf


def sparsity(points: Float[ndarray, "some objectives"]) -> float:
    """1 / (n - 1) times the sum over objectives of squared gaps between neighbours; 0 for fewer than two points.

    Small is not good by itself: a single point has 0.
    """
    if len(points) < 2:
        return 0.0
    return float(np.square(np.diff(np.sort(points, 0), axis=0)).sum() / (len(points) - 1))


def simplex_grid(objectives: int, parts: int) -> Float[ndarray, "weights objectives"]:
    """Every weight vector whose entries are multiples of 1/`parts` and sum to 1, by whole numbers: C(parts + m - 1, m - 1)."""
    bars = itertools.combinations(range(parts + objectives - 1), objectives - 1)
    rows = [np.diff([-1, *places, parts + objectives - 1]) - 1 for places in bars]
    return np.asarray(rows[::-1], dtype=np.float64) / parts


def training_weights(objectives: int, step: float) -> Float[ndarray, "weights objectives"]:
    """The grid of a step, and the one-hot vectors where it lacks them (a step that does not divide 1)."""
    parts = max(1, math.floor(1 / step + 1e-9))
    if abs(parts * step - 1) < 1e-6:
        return simplex_grid(objectives, parts)
    counts = itertools.product(range(parts + 1), repeat=objectives - 1)
    rows = [[*(step * n for n in each), 1 - step * sum(each)] for each in counts if step * sum(each) <= 1 + 1e-9]
    grid = np.concatenate([np.eye(objectives), np.asarray(rows)])
    _, first = np.unique(grid.round(9), axis=0, return_index=True)
    return grid[np.sort(first)]


@dataclass(frozen=True)
class Gap:
    """Two neighbours in the order of an objective with nothing between them."""

    objective: int
    low: Vector
    high: Vector
    share: float  # of the objective's range


def gaps(points: Float[ndarray, "some objectives"], count: int = 5) -> list[Gap]:
    """The widest gaps of a front, in shares of each objective's range, widest first."""
    found = []
    for objective, values in enumerate(points.T):
        order = np.argsort(values, kind="stable")
        span = float(np.ptp(values)) if len(values) else 0.0
        for low, high in itertools.pairwise(order):
            if span > 0 and values[high] > values[low]:
                share = float(values[high] - values[low]) / span
                found.append(Gap(objective, vector(points[low]), vector(points[high]), share))
    return sorted(found, key=lambda gap: -gap.share)[:count]


def best_for(points: Float[ndarray, "some objectives"], weights: Sequence[float]) -> int:
    """The place of the point with the largest w . G; the first of equals. Raises OptionError for weights that do not fit.

    A positive factor of the weights changes nothing.
    """
    given = np.asarray(weights, dtype=np.float64)
    if given.shape != points.shape[1:]:
        raise OptionError(f"a preference of {given.size} numbers; the front has {points.shape[1]} objectives")
    if not np.isfinite(given).all() or (given < 0).any() or given.sum() <= 0:
        raise OptionError(f"preference {list(weights)}: expected numbers of at least 0, not all 0")
    return int((points @ (given / given.sum())).argmax())


def even_preference(objectives: int) -> str:
    """The same weight for each objective, as the command line takes it."""
    shares = [round(1 / objectives, 3)] * (objectives - 1)
    return ",".join(f"{value:g}" for value in (*shares, round(1 - sum(shares), 3)))


def check_preference(weights: Sequence[float], objectives: int) -> None:
    """Raises OptionError unless these are `objectives` numbers of at least 0 that sum to 1."""
    shown = ",".join(f"{value:g}" for value in weights)
    if len(weights) != objectives:
        raise OptionError(f"preference {shown}: {len(weights)} numbers; the front has {objectives} objectives")
    if any(not math.isfinite(value) or value < 0 for value in weights):
        raise OptionError(f"preference {shown}: expected numbers of at least 0")
    total = sum(weights)
    if abs(total - 1) > 1e-3:
        scaled = ",".join(f"{value / total:.4g}" for value in weights) if total > 0 else "numbers that do"
        raise OptionError(f"preference {shown}: sums to {total:g}, not 1; give {scaled}")
