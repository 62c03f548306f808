"""The numbers of the TOFU protocol (arXiv 2401.06121) as it is used to judge unlearning (arXiv 2404.05868).

Losses in, numbers out: l is the negative log-probability of an answer divided by its tokens (the end token included), in
nats. The truth-ratio statistic s is handled as its logarithm, because gradient ascent drives s to 1e±200. Knows nothing of
models, files or sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Averaging = Literal["geometric", "arithmetic"]

FEWEST_FOR_A_TEST = 20
"""With fewer items on a side the p-value says little: even models far apart are then not told apart."""
FORGOTTEN = 0.05
"""A forget quality above it counts as forgotten: the two models' statistics cannot be told apart."""


def log_truth_statistic(paraphrased: float, perturbed: Sequence[float], averaging: Averaging = "geometric") -> float:
    """log s of one question: how much likelier the paraphrased true answer is than the wrong answers.

    s = exp(mean of l(perturbed) - l(paraphrased)): the wrong answers' probabilities have a geometric mean, as in the
    released evaluation. `arithmetic` takes their arithmetic mean, as the paper's formula of the truth ratio 1/s does
    (from memory). Raises ValueError without perturbed answers.
    """
    if not len(perturbed):
        raise ValueError("the truth ratio needs at least one perturbed answer")
    losses = np.asarray(perturbed, dtype=np.float64)
    if averaging == "geometric":
        return float(losses.mean() - paraphrased)
    return float(math.log(len(losses)) - _logsumexp(-losses) - paraphrased)


def truth_statistic(paraphrased: float, perturbed: Sequence[float], averaging: Averaging = "geometric") -> float:
    """s itself (see `log_truth_statistic`); infinite where it is beyond a float."""
    with np.errstate(over="ignore"):
        return float(np.exp(log_truth_statistic(paraphrased, perturbed, averaging)))


def forget_truth_ratio(log_s: ArrayLike) -> NDArray[np.float64]:
    """min(s, 1/s) for questions that are to be forgotten, in [0, 1]: 1 where true and wrong answers are equally likely."""
    return np.exp(-np.abs(np.asarray(log_s, dtype=np.float64)))


def other_truth_ratio(log_s: ArrayLike) -> NDArray[np.float64]:
    """max(0, 1 - 1/s) for questions that are to be kept, in [0, 1): the more, the likelier the true answer."""
    return -np.expm1(-np.maximum(np.asarray(log_s, dtype=np.float64), 0.0))


def normalised_probability(true: float, perturbed: Sequence[float]) -> float:
    """exp(-l(true)) / sum of exp(-l) over the true and the perturbed answers."""
    return float(np.exp(-true - _logsumexp(-np.asarray([true, *perturbed], dtype=np.float64))))


def model_utility(values: Sequence[float]) -> float:
    """The harmonic mean of numbers in [0, 1]. One zero makes it 0: that is how a collapsed model shows.

    Raises ValueError for none, or for a negative one.
    """
    if not len(values) or min(values) < 0:
        raise ValueError(f"expected numbers in [0, 1], got {list(values)}")
    if 0.0 in values:
        return 0.0
    return len(values) / sum(1 / value for value in values)


@dataclass(frozen=True)
class ForgetQuality:
    """Two-sample Kolmogorov-Smirnov test between the statistic s of an unlearned and of a retain-only model."""

    p: float  # the forget quality: the larger, the less the two models can be told apart
    statistic: float  # largest distance between the two distribution functions
    items: tuple[int, int]  # questions on each side

    @property
    def log10(self) -> float:
        """log10 of the p-value, as it is plotted; -inf where it is 0."""
        return math.log10(self.p) if self.p > 0 else -math.inf

    @property
    def is_forgotten(self) -> bool:
        return self.p > FORGOTTEN

    @property
    def warning(self) -> str:
        """One line where there are too few questions for the test to mean something, else empty."""
        if min(self.items) >= FEWEST_FOR_A_TEST:
            return ""
        return (
            f"forget quality over {min(self.items)} questions: fewer than {FEWEST_FOR_A_TEST} items, the KS test's "
            "p-value is not meaningful"
        )


def forget_quality(unlearned: ArrayLike, retain_only: ArrayLike) -> ForgetQuality:
    """The test on two samples of s, or of any increasing function of it such as log s, which gives the same p.

    It says only whether the two differ, not in which direction: forgetting too much lowers it like forgetting too little.
    Raises ValueError for an empty sample.
    """
    from scipy.stats import ks_2samp

    first, second = (np.asarray(sample, dtype=np.float64) for sample in (unlearned, retain_only))
    if not len(first) or not len(second):
        raise ValueError(f"expected two samples, got {len(first)} and {len(second)} values")
    found = ks_2samp(first, second)
    return ForgetQuality(float(found.pvalue), float(found.statistic), (len(first), len(second)))


def _logsumexp(values: NDArray[np.float64]) -> float:
    highest = float(values.max())
    return highest if math.isinf(highest) else highest + float(np.log(np.exp(values - highest).sum()))
