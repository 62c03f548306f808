"""Best and worst of n from more samples than n, without drawing subsets: order-statistic weights, curves, win rates.

Every subset of n of the N samples at hand is counted once, so that estimates are unbiased and have no noise of their own.
Numbers in, numbers out; knows nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paperworks.core.errors import OptionError, RewardError

Kind = Literal["sample", "bon", "won"]  # one sample, the best of n, the worst of n
Ties = Literal["first", "average"]
Numbers = NDArray[np.float64]


def kl_of_best_of(n: int) -> float:
    """log n - (n-1)/n nats: most KL between best-of-n and the policy sampled, reached when no two responses tie.

    Raises OptionError for n below 1.
    """
    if n < 1:
        raise OptionError(f"option n={n}: expected at least 1")
    return math.log(n) - (n - 1) / n


def best_of_weights(total: int, n: int) -> Numbers:
    """The chance that the sample of rank i (ascending, of `total`) is the best of a random subset of n, [total].

    C(i-1, n-1) / C(total, n), in logarithms (arXiv 2310.02743, equation 4). Raises OptionError unless 1 <= n <= total.
    """
    from scipy.special import gammaln

    if not 1 <= n <= total:
        raise OptionError(f"best of n={n}: expected between 1 and the {total} samples there are")
    ranks = np.arange(n, total + 1, dtype=float)
    logs = gammaln(ranks) - gammaln(ranks - n + 1) - gammaln(n)
    logs -= gammaln(total + 1) - gammaln(n + 1) - gammaln(total - n + 1)
    weights = np.zeros(total)
    weights[n - 1 :] = np.exp(logs)
    return weights / weights.sum()  # the logarithms of large totals round


def best_of_curve(
    proxy: ArrayLike, values: ArrayLike, ns: Sequence[int], *, ties: Ties = "first"
) -> NDArray[np.float64]:
    """Mean of `values` of the response that `proxy` likes best of n, [..., len(ns)], for samples [..., total].

    Of equal proxy scores the later sample counts as the higher one, or, with ties=average, each as their mean. Raises
    OptionError where an n exceeds the samples, RewardError for shapes that differ or a score that is not finite.
    """
    by, of = np.asarray(proxy, float), np.asarray(values, float)
    if by.shape != of.shape or by.ndim < 1:
        raise RewardError(
            f"best-of-n curve: proxy scores of shape {by.shape}, values of shape {of.shape}; expected the same"
        )
    if not (np.isfinite(by).all() and np.isfinite(of).all()):
        raise RewardError("best-of-n curve: a score is not finite; expected finite numbers")
    total = by.shape[-1]
    weights = np.stack([best_of_weights(total, n) for n in ns], axis=-1)
    order = np.argsort(by, axis=-1, kind="stable")
    ordered = np.take_along_axis(of, order, -1)
    if ties == "average":
        ordered = _averaged_over_ties(np.take_along_axis(by, order, -1), ordered)
    return np.asarray(ordered @ weights)


def win_rate(policy: ArrayLike, reference: ArrayLike, *, kind: Kind = "sample", n: int = 1) -> NDArray[np.float64]:
    """P(policy's response beats the reference's), a tie counting 1/2, with the procedure applied to both sides: [...].

    `policy` [..., m] and `reference` [..., l] are rewards of samples of the same prompt. All subsets of n are counted, by
    sorting: O(m log m). Raises OptionError where n exceeds the samples or is not 1 for kind=sample, RewardError for NaN.
    """
    mine, theirs = np.asarray(policy, float), np.asarray(reference, float)
    if mine.shape[:-1] != theirs.shape[:-1]:
        raise RewardError(f"win rate: prompts of shape {mine.shape[:-1]} and {theirs.shape[:-1]}; expected the same")
    if np.isnan(mine).any() or np.isnan(theirs).any():
        raise RewardError("win rate: a reward is NaN; expected numbers")
    if kind == "sample" and n != 1:
        raise OptionError(f"win rate of single samples: n={n} goes with kind bon or won")
    first, second = (best_of_weights(scores.shape[-1], n) for scores in (mine, theirs))
    if kind == "won":
        first, second = first[::-1], second[::-1]
    below = np.concatenate([[0.0], np.cumsum(second)])
    flat, other = np.sort(mine, -1).reshape(-1, mine.shape[-1]), np.sort(theirs, -1).reshape(-1, theirs.shape[-1])
    out = np.empty(len(flat))
    for row, (scores, against) in enumerate(zip(flat, other, strict=True)):
        left, right = (np.searchsorted(against, scores, side=side) for side in ("left", "right"))
        out[row] = first @ (below[left] + below[right]) / 2
    return out.reshape(mine.shape[:-1])


def win_rate_of_levels(
    policy: ArrayLike, reference: ArrayLike, *, kind: Kind = "sample", n: int = 1
) -> NDArray[np.float64]:
    """The exact win rate of distributions over reward levels in rising order, [..., levels]; a tie counts 1/2.

    Equal rewards must be one level. Raises OptionError for n below 1.
    """
    if n < 1:
        raise OptionError(f"win rate: n={n}: expected at least 1")
    mine, theirs = (_after(np.asarray(p, float), kind, n) for p in (policy, reference))
    below = np.cumsum(theirs, -1) - theirs / 2
    return np.asarray((mine * below).sum(-1))


def _after(levels: Numbers, kind: Kind, n: int) -> Numbers:
    """The distribution of the best or worst of n."""
    if kind == "sample":
        return levels
    if kind == "won":
        return _after(levels[..., ::-1], "bon", n)[..., ::-1]
    below = np.minimum(np.cumsum(levels, -1), 1.0) ** n
    return np.diff(below, axis=-1, prepend=0.0)


def _averaged_over_ties(scores: Numbers, values: Numbers) -> Numbers:
    """Values [..., total] with those of equal neighbouring scores replaced by their mean."""
    flat, of = scores.reshape(-1, scores.shape[-1]), values.reshape(-1, values.shape[-1])
    starts = np.concatenate([np.ones((len(flat), 1), bool), np.diff(flat, axis=-1) != 0], axis=1)
    group = np.cumsum(starts.ravel()) - 1
    means = np.bincount(group, of.ravel()) / np.bincount(group)
    return means[group].reshape(values.shape)
