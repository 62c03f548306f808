"""Statistical rejection sampling (RSO, Liu et al. 2023, arXiv 2309.06657): from samples of one policy to samples of a better.

Candidates drawn from pi become samples of pi_r, proportional to pi(y|x) exp(r(x, y) / beta). They are chosen by index, all
prompts at once: rewards [prompts, candidates] in, indices [prompts, samples] out. `available` marks the candidates that
may be taken: `first_of_each` makes a text that was drawn several times one candidate, which is what language models want.
The draws of a prompt depend on the seed and its place alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paperworks.core.errors import DataError, OptionError, RewardError
from paperworks.core.options import check_ranges, option
from paperworks.core.seeding import derive_seed

Sampler = Literal["paper", "exact"]
Numbers = NDArray[np.float64]
Indices = NDArray[np.int64]
Marks = NDArray[np.bool_]

CLOSEST = 1e-6  # probabilities are held this far from 0 and 1 before they become rewards
LOWEST_RATE = 1e-3  # below it rejection sampling is best-of-n in all but name


@dataclass(frozen=True)
class RejectionOptions:
    """How candidates are accepted (the paper's defaults)."""

    sampler: Sampler = option("paper", "sweeps in random order (the paper's Algorithm 1), or exact draws one by one")
    n_samples: int = option(8, "candidates accepted a prompt", low=1)
    beta: float = option(0.5, "nats of reward per nat: 0 takes the best, a large value any", low=0)
    shuffle: bool = option(True, "sweep in random order; the printed algorithm's list order favours what stands first")

    def __post_init__(self) -> None:
        check_ranges(self, what="rejection sampling")
        if self.sampler not in ("paper", "exact"):
            raise OptionError(f"rejection sampling: sampler={self.sampler}: expected paper or exact")
        if not math.isfinite(self.beta):
            raise OptionError(f"rejection sampling: beta={self.beta}: expected a finite number")


@dataclass(frozen=True)
class Acceptance:
    """The accepted candidates, a row a prompt, in the order of their acceptance, and how hard it was to get them."""

    indices: Indices  # [prompts, samples]
    sweeps: Indices  # [prompts]; sweeps over the candidates, 1 for the exact sampler
    rates: Numbers  # [prompts]; expected share of the candidates that the first sweep accepts
    rates_below_best: Numbers  # [prompts]; the same without the best, which is always accepted; NaN where it is alone

    def notes(self, beta: float) -> list[str]:
        """One line where hardly any candidate but the best has a chance."""
        low = int((self.rates_below_best < LOWEST_RATE).sum())
        if not low or beta == 0:
            return []
        return [
            f"rejection sampling: {low} of {len(self.rates)} prompts accept fewer than 1 in {1 / LOWEST_RATE:g} of their "
            f"candidates below the best: beta={beta:g} is small for the scale of the rewards, this is nearly best-of-n"
        ]


def pointwise_reward(probability: ArrayLike) -> Numbers:
    """logit(p) in nats, p = P(response is better than the prompt's baseline response), Eq. 7; p held in [1e-6, 1 - 1e-6]."""
    held = np.clip(np.asarray(probability, dtype=np.float64), CLOSEST, 1 - CLOSEST)
    return np.log(held) - np.log1p(-held)


def symmetrised(forward: ArrayLike, backward: ArrayLike) -> Numbers:
    """(p(a, b) + 1 - p(b, a)) / 2: a ranking model's answer without what it owes to the order of the two responses."""
    return (np.asarray(forward, dtype=np.float64) + 1 - np.asarray(backward, dtype=np.float64)) / 2


def standardised(rewards: ArrayLike) -> Numbers:
    """Rewards [prompts, candidates] less their prompt's mean, over its deviation (1 where that is 0).

    Not the paper's: it changes beta from prompt to prompt. Other libraries do it.
    """
    values = np.asarray(rewards, dtype=np.float64)
    deviation = values.std(axis=1, keepdims=True)
    return (values - values.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1.0)


def first_of_each(candidates: Sequence[Sequence[object]]) -> Marks:
    """[prompts, candidates]: whether a candidate is the first of its text (or token ids) in its row.

    Rows may have fewer candidates than others: what is missing is not available.
    """
    marks = np.zeros((len(candidates), max(map(len, candidates), default=0)), dtype=bool)
    for prompt, row in enumerate(candidates):
        known: set[object] = set()
        for place, candidate in enumerate(row):
            key = tuple(candidate) if isinstance(candidate, list) else candidate
            marks[prompt, place] = key not in known
            known.add(key)
    return marks


def acceptance_probabilities(rewards: ArrayLike, beta: float, available: ArrayLike | None = None) -> Numbers:
    """exp((r - r_max) / beta) of every candidate [prompts, candidates]: its chance in the first sweep; 0 where not available.

    Their mean is the estimate of the expected acceptance rate of Theorem 1. beta=0: 1 for the best, else 0.
    """
    values, marks = _checked(rewards, available)
    return _chances(values, marks, beta)


def rejection_sample(
    rewards: ArrayLike,
    options: RejectionOptions = RejectionOptions(),
    *,
    seed: int = 0,
    available: ArrayLike | None = None,
) -> Acceptance:
    """Accept `n_samples` candidates of every prompt, without replacement.

    rewards: [prompts, candidates] in nats, logits of a ranking model or scores of a Bradley-Terry model. `paper` sweeps over
    the remaining candidates, accepts with probability exp((r - r_max) / beta), r_max the best of those remaining when the
    sweep began, and stops as soon as it has enough. `exact` draws a remaining candidate at random, accepts or rejects it, and
    starts again: successive draws from softmax(r / beta) without replacement, taken here as the largest of
    r / beta + Gumbel noise. That is exact for the list, which with finitely many candidates does not make it the nearer one to
    pi_r: see the paper's experiment.

    Raises DataError naming the prompt with fewer available candidates than samples, RewardError for rewards not finite.
    """
    values, marks = _checked(rewards, available)
    if len(short := np.flatnonzero(marks.sum(1) < options.n_samples)):
        raise DataError(
            f"rejection sampling: prompt {short[0] + 1} has {marks[short[0]].sum()} different candidates, n_samples="
            f"{options.n_samples}; draw more, ask for fewer, or make all draws available ({len(short)} such prompts)"
        )
    chances = _chances(values, marks, options.beta)
    counts = marks.sum(1)
    others = np.where(counts > 1, (chances.sum(1) - 1) / np.maximum(counts - 1, 1), math.nan)
    if options.beta == 0 or options.sampler == "exact":
        rng = np.random.default_rng(derive_seed(seed, "rejection", "exact"))
        noise = rng.gumbel(size=values.shape)
        if options.beta == 0:
            indices = np.lexsort((noise, np.where(marks, -values, math.inf)))[:, : options.n_samples]
        else:
            indices = _smallest(-np.where(marks, values / options.beta + noise, -math.inf), options.n_samples)
        sweeps = np.ones(len(values), dtype=np.int64)
    else:
        indices, sweeps = _sweeps(values, marks, options, seed)
    return Acceptance(indices, sweeps, chances.sum(1) / counts, others)


def _sweeps(values: Numbers, marks: Marks, options: RejectionOptions, seed: int) -> tuple[Indices, Indices]:
    prompts, candidates = values.shape
    place = np.broadcast_to(np.arange(candidates, dtype=np.float64), values.shape)  # in the order of the sweeps
    if options.shuffle:
        place = np.random.default_rng(derive_seed(seed, "rejection", "order")).random(values.shape)
    remaining = marks.copy()
    accepted = np.full((prompts, options.n_samples), -1, dtype=np.int64)
    filled, sweeps = np.zeros(prompts, dtype=np.int64), np.zeros(prompts, dtype=np.int64)
    open_rows = np.arange(prompts)
    # Every sweep accepts at least the best of what remains, so there are at most n_samples of them.
    for sweep in range(options.n_samples):
        draws = np.random.default_rng(derive_seed(seed, "rejection", "sweep", sweep)).random(values.shape)[open_rows]
        chances = _chances(values[open_rows], remaining[open_rows], options.beta)
        first = _smallest(np.where(draws < chances, place[open_rows], math.inf), options.n_samples)
        passed = np.take_along_axis(draws < chances, first, 1)
        passed &= passed.cumsum(1) <= (options.n_samples - filled[open_rows])[:, None]  # it ends when there are enough
        row, column = np.nonzero(passed)
        prompt, taken = open_rows[row], first[row, column]
        accepted[prompt, filled[prompt] + (passed.cumsum(1) - 1)[row, column]] = taken
        remaining[prompt, taken] = False
        sweeps[open_rows] += 1
        filled[open_rows] += passed.sum(1)
        open_rows = np.flatnonzero(filled < options.n_samples)
        if not len(open_rows):
            break
    return accepted, sweeps


def _smallest(keys: Numbers, count: int) -> Indices:
    """Places of the `count` smallest keys of each row, in order."""
    if keys.shape[1] <= 4 * count:
        return np.argsort(keys, axis=1, kind="stable")[:, :count]
    places = np.argpartition(keys, count, axis=1)[:, :count]
    return np.take_along_axis(places, np.argsort(np.take_along_axis(keys, places, 1), axis=1, kind="stable"), 1)


def _chances(values: Numbers, marks: Marks, beta: float) -> Numbers:
    gaps = values - np.where(marks, values, -math.inf).max(axis=1, keepdims=True, initial=-math.inf)
    if beta == 0:
        return np.where(marks & (gaps == 0), 1.0, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):  # of candidates that are not available
        return np.where(marks, np.exp(gaps / beta), 0.0)


def _checked(rewards: ArrayLike, available: ArrayLike | None) -> tuple[Numbers, Marks]:
    values = np.asarray(rewards, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise DataError(f"expected rewards [prompts, candidates], at least one of each; got the shape {values.shape}")
    marks = np.ones(values.shape, dtype=bool) if available is None else np.array(available, dtype=bool)
    if marks.shape != values.shape:
        raise DataError(f"expected a mark for each reward, [{values.shape}]; got the shape {marks.shape}")
    wrong = marks & ~np.isfinite(values)
    if wrong.any():
        prompt, place = np.argwhere(wrong)[0]
        raise RewardError(
            f"prompt {prompt + 1}, candidate {place + 1}: expected a finite reward, got {values[prompt, place]}; "
            f"mend the reward or leave such candidates out ({int(wrong.sum())} of them)"
        )
    return np.where(marks, values, 0.0), marks
