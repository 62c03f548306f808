"""How far the members of a reward ensemble agree, and whether they disagree where the ensemble is wrong.

Numbers in, figures out, beside `reward_evaluation`. An ensemble whose members agree everywhere protects from nothing; one
whose disagreement goes with its errors can be combined conservatively.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paperworks.core.statistics import Interval, clustered_mean, spearman
from paperworks.language.rewards.ensemble import checked_scores, member_correlation

_RESAMPLES = 2000
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class ErrorBin:
    """Rows of like disagreement: their mean variance over members, and their mean error."""

    variance: float
    error: Interval
    rows: int


@dataclass(frozen=True)
class Agreement:
    """Of K members on the same rows; the error is 1 for a pair ranked wrongly (1/2 for a tie), or the squared error."""

    members: tuple[str, ...]
    correlation: tuple[tuple[float, ...], ...]  # Pearson's, of members' standardised scores, members by members
    mean_correlation: float
    variance: Interval  # of the members' standardised scores of a response, mean over responses
    differ: Interval | None  # share of pairs that not all members rank alike; None for scored rows
    member_accuracy: tuple[Interval, ...]  # of each member alone, on pairs; empty for scored rows
    error_correlation: float  # Spearman's, of the variance of a row over members with the combined reward's error there
    bins: tuple[ErrorBin, ...]  # fifths of the rows by rising variance


def agreement_on_pairs(
    chosen: Any, rejected: Any, combined_margins: ArrayLike, clusters: Sequence[Hashable], members: Sequence[str]
) -> Agreement:
    """From members' scores of chosen and rejected responses, each [members, pairs], and the combined reward's margins.

    The variance of a pair is that of the members' margins.
    """
    first, second = checked_scores(chosen), checked_scores(rejected)
    margins = first - second
    both = np.concatenate([first, second], axis=1)
    errors = (1 - np.sign(np.asarray(combined_margins, float))) / 2
    signs = np.sign(margins)
    return _agreement(
        both,
        _mean(both.var(axis=0), [*clusters, *clusters]),
        margins.var(axis=0),
        errors,
        clusters,
        members,
        differ=_mean((np.ptp(signs, axis=0) > 0).astype(float), clusters),
        accuracy=tuple(_mean((row + 1) / 2, clusters) for row in signs),
    )


def agreement_on_scores(
    scores: Any, squared_errors: ArrayLike, clusters: Sequence[Hashable], members: Sequence[str]
) -> Agreement:
    """From members' scores of responses [members, rows] and the combined reward's squared errors there."""
    array = checked_scores(scores)
    variance = array.var(axis=0)
    return _agreement(array, _mean(variance, clusters), variance, np.asarray(squared_errors, float), clusters, members)


def _agreement(
    scores: Numbers,
    variance: Interval,
    by_row: Numbers,
    errors: Numbers,
    clusters: Sequence[Hashable],
    members: Sequence[str],
    *,
    differ: Interval | None = None,
    accuracy: tuple[Interval, ...] = (),
) -> Agreement:
    correlation = member_correlation(scores)
    above = correlation[np.triu_indices(len(members), 1)]
    bins = tuple(
        ErrorBin(float(by_row[part].mean()), _mean(errors[part], [clusters[i] for i in part.tolist()]), len(part))
        for part in np.array_split(np.argsort(by_row, kind="stable"), min(5, max(1, len(errors) // 5)))
    )
    return Agreement(
        tuple(members),
        tuple(tuple(map(float, row)) for row in correlation),
        float(above.mean()) if len(above) else math.nan,
        variance,
        differ,
        accuracy,
        spearman(by_row, errors),
        bins,
    )


def _mean(values: Numbers, clusters: Sequence[Hashable]) -> Interval:
    return clustered_mean(values, clusters, resamples=_RESAMPLES)
