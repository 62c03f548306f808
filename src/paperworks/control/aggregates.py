"""Scores of runs on several tasks in a few numbers with intervals, as rliable has them (arXiv 2108.13264).

Scores are [tasks, runs]. Every interval resamples runs within each task with replacement (a stratified bootstrap), tasks
are never resampled: they are the ones that are asked about.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

from paperworks.core.statistics import Interval

Scores = Float[ndarray, "tasks runs"]
Aggregate = Callable[[NDArray[np.float64]], NDArray[np.float64]]

RESAMPLES = 2_000


def interquartile_mean(scores: Float[ndarray, "*resamples tasks runs"]) -> Float[ndarray, "*resamples"]:
    """The mean of the middle half of all runs of all tasks: a quarter (rounded down) is left out at each end."""
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return np.asarray(flat[..., cut : flat.shape[-1] - cut].mean(-1))


def mean(scores: Float[ndarray, "*resamples tasks runs"]) -> Float[ndarray, "*resamples"]:
    """The mean over tasks of each task's mean."""
    return np.asarray(scores.mean((-2, -1)))


def median(scores: Float[ndarray, "*resamples tasks runs"]) -> Float[ndarray, "*resamples"]:
    """The median over tasks of each task's mean."""
    return np.asarray(np.median(scores.mean(-1), axis=-1))


def profile(scores: Scores, at: Float[ndarray, " points"]) -> Float[ndarray, " points"]:
    """The share of runs whose score is above each of the points."""
    return np.asarray((scores.reshape(-1, 1) > at).mean(0))


def improvement(first: Scores, second: Float[ndarray, "tasks others"]) -> float:
    """P(a run of the first beats one of the second), a tie counting half, on a task drawn at random."""
    difference = first[..., :, None] - second[..., None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def aggregated(scores: Scores, aggregate: Aggregate, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """An aggregate and its interval; with one run a task there is none."""
    found = float(aggregate(scores))
    if scores.shape[1] == 1:
        return Interval(found, float("nan"), float("nan"), scores.size)
    low, high = np.quantile(aggregate(resampled(scores, seed)), _ends(confidence))
    return Interval(found, float(low), float(high), scores.size)


def improvement_interval(first: Scores, second: Scores, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """`improvement` and its interval; runs of both are resampled independently."""
    found = improvement(first, second)
    if min(first.shape[1], second.shape[1]) == 1:
        return Interval(found, float("nan"), float("nan"), first.size)
    pairs = zip(resampled(first, seed), resampled(second, seed + 1), strict=True)
    low, high = np.quantile([improvement(one, other) for one, other in pairs], _ends(confidence))
    return Interval(found, float(low), float(high), first.size)


def profile_band(
    scores: Scores, at: Float[ndarray, " points"], *, confidence: float = 0.95, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The interval of `profile` at each point."""
    drawn = np.stack([profile(each, at) for each in resampled(scores, seed)])
    low, high = np.quantile(drawn, _ends(confidence), axis=0)
    return low, high


def resampled(scores: Scores, seed: int = 0, count: int = RESAMPLES) -> Float[ndarray, "{count} tasks runs"]:
    """Runs drawn with replacement within each task."""
    draw = np.random.default_rng(seed)
    tasks, runs = scores.shape
    picks = draw.integers(0, runs, size=(count, tasks, runs))
    return np.take_along_axis(np.broadcast_to(scores, (count, tasks, runs)), picks, axis=2)


def _ends(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2
