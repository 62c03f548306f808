"""Intervals for figures measured on the same prompts under several training seeds.

Seeds and prompts are crossed: every seed answers every prompt, so a hard prompt is hard in all of them. Both are resampled,
independently of one another (Owen 2007, "The pigeonhole bootstrap"); resampling prompts anew within each seed would treat
one hard prompt as several and give intervals that are too narrow. Knows nothing of models or reports.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from paperworks.core.statistics import Interval

Matrix = NDArray[np.float64]  # [seeds, prompts]
RESAMPLES = 4000


def crossed_interval(values: Matrix, sizes: NDArray[np.float64] | None = None) -> Interval:
    """Mean of `values` [seeds, prompts] with its 95% interval; `n` is the number of seeds.

    `sizes` [prompts] weighs prompts (rows that share one). With one seed the interval covers the choice of prompts
    alone. NaN bounds where there is one value; NaN throughout where there is none, or one is not finite.
    """
    seeds, prompts = values.shape
    if not values.size or not np.isfinite(values).all():
        return Interval(math.nan, math.nan, math.nan, seeds)
    weights = np.ones(prompts) if sizes is None else sizes
    mean = float((values @ weights).mean() / weights.sum())
    if values.size == 1:
        return Interval(mean, math.nan, math.nan, 1)
    by_seed, by_prompt = _draws(seeds, 1), _draws(prompts, 2)
    weighted = by_prompt * weights
    means = ((by_seed @ values) * weighted).sum(axis=1) / weighted.sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(mean, float(low), float(high), seeds)


def wins(a: NDArray[np.float64], b: NDArray[np.float64]) -> Matrix:
    """The share of responses of `a` that beat those of `b` to the same prompt and seed, ties half.

    Both are [seeds, prompts, samples]; all pairs of samples are compared. Returns [seeds, prompts].
    """
    difference = np.sign(a[..., :, None] - b[..., None, :])
    return (0.5 + 0.5 * difference).mean(axis=(-1, -2))


def slope_on_length(arms: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> float:
    """Reward a token: the least-squares slope of rewards on tokens within arms, one for all of them; 0 where none varies.

    Each arm is (rewards, tokens) of the same shape. Differences between arms do not enter, only those within.
    """
    products = squares = 0.0
    for rewards, tokens in arms:
        centred = tokens - tokens.mean()
        products += float((centred * (rewards - rewards.mean())).sum())
        squares += float((centred**2).sum())
    return products / squares if squares > 0 else 0.0


@functools.lru_cache(maxsize=8)
def _draws(count: int, stream: int) -> NDArray[np.float64]:
    """How often each of `count` things is in each resample, as shares: [resamples, count]. The same for every figure."""
    rng = np.random.default_rng([count, stream])
    return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
