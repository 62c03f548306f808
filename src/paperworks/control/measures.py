"""What a log is good for, in numbers: trajectory quality and state-action coverage (arXiv 2111.04714), and what goes with them.

Quality compares the log's returns with those of a random and of a good policy; coverage counts distinct (state, action)
pairs and compares them with a reference log of equal size. Neither is clipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.typing import NDArray

from paperworks.control.transitions import Transitions
from paperworks.core.errors import DataError, OptionError

Keys = NDArray[np.uint64]

_ROWS_AT_ONCE = 1 << 14
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing


@dataclass(frozen=True)
class Grid:
    """Bins of every dimension, with the limits of a reference log; what lies outside falls into the first or the last."""

    low: Float[ndarray, " dimensions"]
    high: Float[ndarray, " dimensions"]
    bins: int = 100

    @classmethod
    def of(cls, log: Transitions, bins: int = 100) -> Grid:
        """The limits of a log. Raises OptionError for fewer than 2 bins."""
        if bins < 2:
            raise OptionError(f"bins {bins}: expected at least 2")
        values = _table(log)
        return cls(values.min(0), values.max(0), bins)

    def keys(self, log: Transitions) -> Keys:
        """A 64-bit key of each (state, action): equal where every number falls into the same bin.

        Of numpy.digitize(x, linspace(low, high, bins)), by arithmetic. Two different pairs share a key with probability
        2^-64 or so.
        """
        found = np.zeros(len(log), dtype=np.uint64)
        for begin in range(0, len(log), _ROWS_AT_ONCE):  # what the processor's cache holds
            rows = slice(begin, begin + _ROWS_AT_ONCE)
            key = found[rows]
            columns = [*log.observations[rows].T, *(() if log.is_discrete else log.actions[rows].T)]
            places = [self._places(column, number) for number, column in enumerate(columns)]
            for place in [*places, log.actions[rows].astype(np.uint64)] if log.is_discrete else places:
                key ^= place
                key *= _MULTIPLIER
                key ^= key >> np.uint64(29)
        return found

    def _places(self, values: Float[ndarray, " n"], dimension: int) -> Keys:
        """The bin of each number, 0 to bins."""
        low, high = self.low[dimension], self.high[dimension]
        place = (values.astype(np.float64) - low) / (high - low if high > low else 1.0)
        place *= self.bins - 1
        np.floor(place, out=place)
        place += 1
        np.clip(place, 0, self.bins, out=place)
        place[values >= high] = self.bins
        return place.astype(np.uint64)


def trajectory_quality(mean_return: float, random_return: float, best_return: float) -> float:
    """(g(D) - g(random)) / (g(best) - g(random)). Raises DataError where the two references are equal."""
    if random_return == best_return:
        raise DataError(f"random and best return are both {best_return:g}: quality has no scale; give other references")
    return (mean_return - random_return) / (best_return - random_return)


def unique(keys: Keys) -> int:
    """How many keys differ."""
    ordered = np.sort(keys)  # much faster than numpy's own unique
    return int((ordered[1:] != ordered[:-1]).sum()) + min(1, len(ordered))


def coverage(keys: Keys, reference: Keys, *, draws: int = 5, seed: int = 0) -> float:
    """SACo: distinct pairs of a log over those of the reference, both at the size of the smaller one.

    The larger one is subsampled `draws` times, and the mean is taken.
    """
    own, other = _at_equal_size(keys, reference, draws, seed)
    return own / other


def log_coverage(keys: Keys, reference: Keys, *, draws: int = 5, seed: int = 0) -> float | None:
    """lSACo: the same of the logarithms of both counts; None where the reference has one pair alone."""
    own, other = _at_equal_size(keys, reference, draws, seed)
    return math.log(own) / math.log(other) if other > 1 else None


def entropy(keys: Keys) -> float:
    """Of the empirical distribution of pairs, in nats; exp(entropy) is at most the count of distinct ones."""
    counts = np.unique(keys, return_counts=True)[1] / len(keys)
    return float(-(counts * np.log(counts)).sum())


def coverage_curve(keys: Keys, *, points: int = 12, seed: int = 0) -> list[tuple[int, float]]:
    """(transitions, distinct pairs) of random parts of the log, doubling: a curve that still climbs wants more data."""
    sizes = sorted({max(1, math.ceil(len(keys) / 2**halved)) for halved in range(points)})
    return [(size, _subsampled(keys, size, 3, seed)) for size in sizes]


def advantage_share(log: Transitions, *, gamma: float = 0.99, neighbours: int = 50, most: int = 20_000) -> float:
    """Share of transitions that earned more than is usual near their state.

    Earned is the discounted return to go; usual its mean over the nearest logged states (the transition itself left
    out). Of at most `most` transitions, evenly chosen.
    """
    import torch

    from paperworks.control.nearest import NearestRows
    from paperworks.control.policy import Normaliser

    rows = np.linspace(0, len(log) - 1, min(most, len(log))).astype(np.int64)
    earned = log.returns_to_go(gamma)[rows]
    scale = Normaliser.of(log.observations)
    states = torch.from_numpy((log.observations[rows] - scale.mean) / scale.deviation)
    near = NearestRows(states).query(states, neighbours + 1).numpy()
    own = near == np.arange(len(rows))[:, None]
    usual = (np.where(own, 0.0, earned[near])).sum(1) / (~own).sum(1).clip(min=1)
    return float((earned > usual).mean())


@dataclass(frozen=True)
class Advice:
    """Which families of methods suit, and why."""

    methods: tuple[str, ...]
    reason: str


def advise(quality: float | None, covered: float | None) -> Advice:
    """The study's rule: what performs where, by quality and coverage (None: not known)."""
    if quality is None and covered is None:
        return Advice(
            (), "neither quality nor coverage is known: give --random-return and --best-return, or --reference"
        )
    high, moderate = 0.8, 0.4
    good, wide = quality or 0.0, covered or 0.0
    if quality is not None and good >= high:
        return Advice(("BC", "BCQ", "CRR"), "its returns are near the best, so that imitating it is hard to beat")
    if covered is not None and wide >= high:
        return Advice(("DQN", "QR-DQN", "REM", "CQL"), "it covers much and earns less: learn values, do not imitate")
    if good >= moderate and wide >= moderate:
        return Advice(
            ("BCQ", "CQL", "CRR"), "quality and coverage are both moderate: learn values, and stay near the log"
        )
    if quality is None or covered is None:
        return Advice((), f"{'quality' if quality is None else 'coverage'} is not known, and the other is not high")
    return Advice((), "it neither earns nor covers much: collect more, or better, data first")


def _at_equal_size(keys: Keys, reference: Keys, draws: int, seed: int) -> tuple[float, float]:
    size = min(len(keys), len(reference))
    return _subsampled(keys, size, draws, seed), _subsampled(reference, size, draws, seed)


def _subsampled(keys: Keys, size: int, draws: int, seed: int) -> float:
    if size == len(keys):
        return float(unique(keys))
    draw = np.random.default_rng(seed)
    return float(np.mean([unique(keys[draw.choice(len(keys), size, replace=False)]) for _ in range(draws)]))


def _table(log: Transitions) -> Float[ndarray, "n dimensions"]:
    actions = log.actions[:, None] if log.is_discrete else log.actions
    return np.concatenate([log.observations.astype(np.float64), actions.astype(np.float64)], 1)


def run_lengths(log: Transitions) -> Int[ndarray, " episodes"]:
    """Transitions of each episode."""
    return np.array([episode.stop - episode.start for episode in log.episodes()])
