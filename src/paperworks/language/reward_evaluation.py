"""How good a reward is, from the numbers it gave: does it rank as people do, is it calibrated, does it follow length?

Numbers in, figures with 95% intervals out; rows that share a prompt are resampled together. Knows nothing of models, files
or pages.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paperworks.core.statistics import Interval, clustered_mean, spearman

LengthUnit = Literal["tokens", "words"]
BINS = 10
_RESAMPLES = 2000

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class ReliabilityBin:
    """The pairs whose confidence, sigmoid(|margin|), lies in [low, high): how often the preferred one was chosen."""

    low: float
    high: float
    confidence: float
    accuracy: Interval
    pairs: int


@dataclass(frozen=True)
class Calibration:
    """Whether sigmoid(margin) is the probability that the response is chosen (arXiv 1706.04599, section 2).

    `error` is the expected calibration error over `bins`, `brier` the mean of (1 - sigmoid(margin))^2, `log_loss` of
    -log sigmoid(margin). Margins divided by `temperature` have the lowest log-loss on these same pairs; None where no
    positive finite one has: every pair is ranked as labelled, or the mean margin is not positive.
    """

    bins: tuple[ReliabilityBin, ...]
    error: float
    brier: Interval
    log_loss: Interval
    temperature: float | None
    error_at_temperature: float | None


@dataclass(frozen=True)
class LengthBin:
    """Responses of like length: their mean length and reward."""

    length: float
    reward: Interval


@dataclass(frozen=True)
class LengthDependence:
    """How reward goes with length over all responses, and within pairs, where the prompt is the same."""

    unit: LengthUnit
    correlation: float  # Spearman, over all responses
    slope: Interval  # reward for 10 units more, within pairs: sum of d_reward d_length / sum of d_length^2
    longer_preferred: Interval  # share of pairs of unequal length where the reward ranks the longer one first
    longer_chosen: Interval  # share of those where the longer one was chosen: what a perfect reward would have
    accuracy_longer: Interval  # accuracy where the chosen response is the longer one
    accuracy_shorter: Interval
    chosen: tuple[LengthBin, ...]
    rejected: tuple[LengthBin, ...]


@dataclass(frozen=True)
class PairMeasures:
    """A reward on preference pairs. `margins` are reward of chosen - rejected, a pair each."""

    margins: tuple[float, ...]
    accuracy: Interval  # share ranked as labelled; a tie counts 1/2
    margin: Interval
    calibration: Calibration
    length: LengthDependence


@dataclass(frozen=True)
class ScoreMeasures:
    """A reward against scores on the same scale; correlations do not need the same scale."""

    squared_error: Interval
    r_squared: float  # 1 - squared error / variance of the scores: 0 for always saying their mean
    rank_correlation: float  # Spearman
    correlation: float  # Pearson
    unit: LengthUnit
    length_correlation: float  # Spearman of reward and length
    score_length_correlation: float  # the same of the scores: what a perfect reward would have
    bins: tuple[tuple[float, Interval], ...]  # mean reward and mean score of tenths of the rows, by rising reward


def measure_pairs(
    chosen: ArrayLike,
    rejected: ArrayLike,
    chosen_lengths: ArrayLike,
    rejected_lengths: ArrayLike,
    clusters: Sequence[Hashable],
    *,
    unit: LengthUnit = "tokens",
) -> PairMeasures:
    """Measures of the rewards of chosen and rejected responses [pairs] and their lengths; `clusters` are the prompts."""
    first, second = np.asarray(chosen, float), np.asarray(rejected, float)
    margins = first - second
    return PairMeasures(
        tuple(margins.tolist()),
        clustered_mean((np.sign(margins) + 1) / 2, clusters),
        _mean(margins, clusters),
        calibration(margins, clusters),
        _length_dependence(
            first, second, np.asarray(chosen_lengths, float), np.asarray(rejected_lengths, float), clusters, unit
        ),
    )


def measure_scores(
    rewards: ArrayLike,
    scores: ArrayLike,
    lengths: ArrayLike,
    clusters: Sequence[Hashable],
    *,
    unit: LengthUnit = "tokens",
) -> ScoreMeasures:
    """Measures of rewards [rows] against scores [rows]. R² and correlations are NaN where one side is constant."""
    reward, score, length = np.asarray(rewards, float), np.asarray(scores, float), np.asarray(lengths, float)
    squared, variance = (reward - score) ** 2, float(score.var())
    is_constant = np.ptp(reward) == 0 or np.ptp(score) == 0
    bins = tuple(
        (float(reward[part].mean()), _mean(score[part], [clusters[i] for i in part])) for part in _tenths(reward)
    )
    return ScoreMeasures(
        _mean(squared, clusters),
        1 - float(squared.mean()) / variance if variance > 0 else math.nan,
        spearman(reward, score),
        math.nan if is_constant else float(np.corrcoef(reward, score)[0, 1]),
        unit,
        spearman(reward, length),
        spearman(score, length),
        bins,
    )


# ------------------------------------------------------------------------------------------------------------ calibration


def calibration(margins: ArrayLike, clusters: Sequence[Hashable]) -> Calibration:
    """Calibration of sigmoid(margin), margins [pairs] being reward of chosen - rejected."""
    array = np.asarray(margins, float)
    bins = reliability(array, clusters)
    temperature = calibrating_temperature(array)
    return Calibration(
        bins,
        _calibration_error(bins),
        _mean((1 - _sigmoid(array)) ** 2, clusters),
        _mean(np.logaddexp(0, -array), clusters),
        temperature,
        None if temperature is None else _calibration_error(reliability(array / temperature, clusters)),
    )


def reliability(margins: Numbers, clusters: Sequence[Hashable]) -> tuple[ReliabilityBin, ...]:
    """The bins of equal width over confidence in [1/2, 1] that have pairs."""
    confidence, correct = _sigmoid(np.abs(margins)), (np.sign(margins) + 1) / 2
    edges = np.linspace(0.5, 1.0, BINS + 1)
    place = np.clip(np.digitize(confidence, edges) - 1, 0, BINS - 1)
    found = []
    for index in np.unique(place):
        inside = np.flatnonzero(place == index)
        accuracy = _mean(correct[inside], [clusters[i] for i in inside.tolist()])
        low, high = float(edges[index]), float(edges[index + 1])
        found.append(ReliabilityBin(low, high, float(confidence[inside].mean()), accuracy, len(inside)))
    return tuple(found)


def calibrating_temperature(margins: Numbers) -> float | None:
    """The T > 0 of lowest mean -log sigmoid(margin / T); None where there is no finite positive one."""
    from scipy.optimize import brentq

    if margins.mean() <= 0 or margins.min() >= 0:
        return None
    unit = float(np.abs(margins).mean())
    scaled = margins / unit

    def slope(inverse: float) -> float:
        """d/ds of the mean log-loss at s = 1/T, rising in s; below 0 at s = 0, above 0 for large s."""
        return float(np.mean(-scaled * _sigmoid(-scaled * inverse)))

    high = 1.0
    while slope(high) < 0 and high < 1e6:
        high *= 2
    return None if slope(high) < 0 else unit / float(brentq(slope, 0.0, high))


def _calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    pairs = sum(each.pairs for each in bins)
    return sum(each.pairs * abs(each.accuracy.mean - each.confidence) for each in bins) / pairs


def _mean(values: Numbers, clusters: Sequence[Hashable]) -> Interval:
    """Mean with an interval over clusters, from fewer resamples than a headline has: there are many of them."""
    return clustered_mean(values, clusters, resamples=_RESAMPLES)


def _sigmoid(values: Numbers) -> Numbers:
    return np.exp(-np.logaddexp(0, -values))


# ----------------------------------------------------------------------------------------------------------------- length


def _length_dependence(
    chosen: Numbers,
    rejected: Numbers,
    chosen_lengths: Numbers,
    rejected_lengths: Numbers,
    clusters: Sequence[Hashable],
    unit: LengthUnit,
) -> LengthDependence:
    margins, longer_by = chosen - rejected, chosen_lengths - rejected_lengths
    correct = (np.sign(margins) + 1) / 2

    def mean(values: Numbers, where: NDArray[np.bool_]) -> Interval:
        return _mean(values[where], [clusters[i] for i in np.flatnonzero(where).tolist()])

    unequal = longer_by != 0
    return LengthDependence(
        unit,
        spearman(np.concatenate([chosen, rejected]), np.concatenate([chosen_lengths, rejected_lengths])),
        _ratio(10 * margins * longer_by, longer_by**2, clusters),
        mean((np.sign(margins * longer_by) + 1) / 2, unequal),
        mean((longer_by > 0).astype(float), unequal),
        mean(correct, longer_by > 0),
        mean(correct, longer_by < 0),
        _by_length(chosen, chosen_lengths, clusters),
        _by_length(rejected, rejected_lengths, clusters),
    )


def _by_length(rewards: Numbers, lengths: Numbers, clusters: Sequence[Hashable]) -> tuple[LengthBin, ...]:
    return tuple(
        LengthBin(float(lengths[part].mean()), _mean(rewards[part], [clusters[i] for i in part]))
        for part in _tenths(lengths)
    )


def _tenths(values: Numbers) -> list[list[int]]:
    """Indices in up to ten parts of nearly equal size by rising value; fewer where there are few."""
    order = np.argsort(values, kind="stable")
    return [part.tolist() for part in np.array_split(order, min(10, max(1, len(values) // 5))) if len(part)]


def _ratio(numerators: Numbers, denominators: Numbers, clusters: Sequence[Hashable]) -> Interval:
    """Sum / sum with a bootstrap interval over clusters; NaN where nothing can be divided by."""
    names = {cluster: index for index, cluster in enumerate(dict.fromkeys(clusters))}
    place = np.array([names[cluster] for cluster in clusters])
    tops, bottoms = (np.bincount(place, values, len(names)) for values in (numerators, denominators))
    if bottoms.sum() == 0:
        return Interval(math.nan, math.nan, math.nan, len(names))
    mean = float(tops.sum() / bottoms.sum())
    if len(names) == 1:
        return Interval(mean, math.nan, math.nan, 1)
    rng, drawn = np.random.default_rng(0), []
    for _ in range(_RESAMPLES):
        picks = rng.integers(0, len(names), len(names))
        bottom = bottoms[picks].sum()
        drawn.append(tops[picks].sum() / bottom if bottom > 0 else mean)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(mean, float(low), float(high), len(names))
