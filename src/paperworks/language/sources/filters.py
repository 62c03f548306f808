"""Which of a prompt's samples a policy is trained on, by the rank or the size of their reward (PF-PPO, arXiv 2409.06957).

A filter is a weight for every sample. The samples of a prompt are ranked among themselves, equal rewards in random (seeded)
order. `kept_only` keeps some of each prompt's samples once, so that the update costs less; `same_steps` draws as many as
there are, with replacement, from the whole buffer. Both give indices into the buffer laid out prompt after prompt,
prompt * n + sample. Advantages are to be computed and normalised over the whole buffer before it is filtered, and the
filtered samples are then used as if the policy had drawn them: that bias is the method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from paperworks.core.errors import DataError, OptionError, RewardError, did_you_mean
from paperworks.core.seeding import derive_seed
from paperworks.language.sources.rejection import Indices, Marks, Numbers

Kind = Literal["none", "bon", "br", "bw", "top", "top_random", "top_bottom", "pow", "custom"]
Budget = Literal["kept_only", "same_steps"]

RANKED = ("bon", "br", "bw", "custom")  # need ranks, and so at least two samples a prompt
THRESHOLDS = {"top": ("high",), "top_random": ("high",), "top_bottom": ("high", "low")}
FORMS = ("none", "bon", "br", "bw", "top", "top_random", "top_bottom", "pow:K", "custom:W,W,…")


@dataclass(frozen=True)
class Filter:
    """`none` all samples alike; `bon` the best; `br` the best and random others; `bw` the best and the worst;
    `top` rewards above `high`; `top_random` these, and others with probability 1/2; `top_bottom` above `high` or below `low`;
    `pow` in proportion to |reward|^power, for rewards in [-1, 1]; `custom` weights by rank, the best first.

    The paper prints no thresholds: they have to be given. `keep`: of `pow` and `custom`, which may weight all samples,
    kept_only keeps so many a prompt, drawn without replacement (our decision; the paper re-weights the buffer there).
    """

    kind: Kind
    power: float = 1.0
    by_rank: tuple[float, ...] = ()
    high: float | None = None
    low: float | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        for name in THRESHOLDS.get(self.kind, ()):
            if getattr(self, name) is None:
                raise OptionError(f"filter {self.kind}: expected a threshold {name}, a reward; give {name}=0.5, say")
        if self.kind == "top_bottom" and self.low is not None and self.high is not None and self.low > self.high:
            raise OptionError(f"filter top_bottom: low={self.low:g} is above high={self.high:g}; exchange them")
        if not (self.power > 0 and math.isfinite(self.power)):
            raise OptionError(f"filter pow:{self.power:g}: expected a power above 0")
        if self.keep < 1:
            raise OptionError(f"filter {self.kind}: keep={self.keep}: expected at least 1")
        if self.kind == "custom":
            total = sum(self.by_rank)
            if not self.by_rank or not all(weight >= 0 and math.isfinite(weight) for weight in self.by_rank):
                raise OptionError(f"filter {self.name}: expected weights of at least 0, one a rank, the best first")
            if not math.isclose(total, 1, abs_tol=1e-6):
                raise OptionError(f"filter {self.name}: the weights sum to {total:g}; expected 1")

    @property
    def name(self) -> str:
        """As users type it."""
        if self.kind == "pow":
            return f"pow:{self.power:g}"
        return f"custom:{','.join(f'{weight:g}' for weight in self.by_rank)}" if self.kind == "custom" else self.kind

    def rank_weights(self, samples: int) -> Numbers:
        """The weights [samples] of ranks, the best first, summing to 1. Raises OptionError for a filter without ranks."""
        if self.kind not in ("none", *RANKED):
            raise OptionError(f"filter {self.name}: weights depend on rewards, not on ranks alone")
        if self.kind in RANKED and samples < 2:
            raise OptionError(
                f"filter {self.name}: ranks {samples} sample a prompt; expected at least 2, or filter none"
            )
        if self.kind == "custom" and len(self.by_rank) != samples:
            raise OptionError(
                f"filter {self.name}: {len(self.by_rank)} weights for {samples} samples a prompt; expected one each"
            )
        if self.kind == "none":
            return np.full(samples, 1 / samples)
        weights = np.zeros(samples)
        if self.kind == "custom":
            weights[:] = self.by_rank
        elif self.kind == "bon":
            weights[0] = 1
        elif self.kind == "br":
            weights[0], weights[1:] = 0.5, 0.5 / (samples - 1)
        else:
            weights[0] = weights[-1] = 0.5
        return weights / weights.sum()

    def weights(self, rewards: ArrayLike, *, seed: int = 0) -> Numbers:
        """The weight of every sample [prompts, samples]; they sum to 1 over the buffer, each prompt's alike for ranks.

        Raises RewardError for rewards that are not finite or, for pow, outside [-1, 1]; DataError where nothing is left.
        """
        values = _checked(rewards)
        if self.kind in ("none", *RANKED):
            weights = np.empty_like(values)
            np.put_along_axis(weights, ranked(values, seed=seed), self.rank_weights(values.shape[1])[None], axis=1)
        elif self.kind == "pow":
            if (outside := np.abs(values) > 1).any():
                raise RewardError(
                    f"filter {self.name}: {int(outside.sum())} of {values.size} rewards are outside [-1, 1] (the largest "
                    f"{np.abs(values).max():g}); scale and centre the reward first"
                )
            weights = np.abs(values) ** self.power
        elif self.kind == "top_random":
            weights = np.where(self._passes(values), 1.0, 0.5)
        else:
            weights = self._passes(values).astype(np.float64)
        total = weights.sum()
        if not total > 0:
            raise DataError(f"filter {self.name}: nothing is left of {values.size} samples{self._bounds()}")
        return weights / total

    def kept_only(self, rewards: ArrayLike, *, seed: int = 0) -> Indices:
        """Indices of the samples to train on, each once, in the buffer's order: `br` the best and one other of each prompt,
        `bw` its best and its worst, `none` all. Raises what `weights` raises."""
        values = _checked(rewards)
        weights = self.weights(values, seed=seed)
        rng = np.random.default_rng(derive_seed(seed, "filter", "kept"))
        if self.kind == "br":
            order = ranked(values, seed=seed)
            other = rng.integers(1, values.shape[1], size=len(values))
            marks = _marks(values.shape, np.stack([order[:, 0], order[np.arange(len(values)), other]], axis=1))
        elif self.kind in ("pow", "custom"):
            with np.errstate(divide="ignore"):
                keys = np.log(weights) + rng.gumbel(size=values.shape)
            marks = _marks(values.shape, np.argsort(-keys, axis=1)[:, : self.keep]) & (weights > 0)
        elif self.kind == "top_random":
            marks = self._passes(values) | (rng.random(values.shape) < 0.5)
        else:
            marks = weights > 0
        return np.flatnonzero(marks)

    def same_steps(self, rewards: ArrayLike, *, seed: int = 0, count: int | None = None) -> Indices:
        """`count` indices (as many as there are samples, by default) drawn with replacement by weight, in random order."""
        weights = self.weights(rewards, seed=seed).ravel()
        rng = np.random.default_rng(derive_seed(seed, "filter", "drawn"))
        return rng.choice(weights.size, size=weights.size if count is None else count, p=weights)

    def select(self, rewards: ArrayLike, *, budget: Budget = "kept_only", seed: int = 0) -> Indices:
        """Indices by the budget's rule."""
        if budget not in ("kept_only", "same_steps"):
            raise OptionError(f"option budget={budget}: expected kept_only or same_steps")
        return self.kept_only(rewards, seed=seed) if budget == "kept_only" else self.same_steps(rewards, seed=seed)

    def _passes(self, values: Numbers) -> Marks:
        above = values > (math.inf if self.high is None else self.high)
        if self.kind == "top_bottom":
            return above | (values < (-math.inf if self.low is None else self.low))
        return above

    def _bounds(self) -> str:
        named = [f"{name}={getattr(self, name):g}" for name in THRESHOLDS.get(self.kind, ())]
        return f" at {', '.join(named)}; set thresholds within the rewards" if named else "; all rewards are 0"


def parse_filter(text: str, *, high: float | None = None, low: float | None = None, keep: int = 2) -> Filter:
    """The filter that a user names: none, bon, br, bw, top, top_random, top_bottom, pow:K, custom:W,W,…

    Raises OptionError for an unknown name or a number that is none.
    """
    word, _, rest = text.strip().partition(":")
    kind = word.strip().lower().replace("-", "_")
    known = [form.partition(":")[0] for form in FORMS]
    if kind not in known:
        raise OptionError(f"unknown filter {text!r}{did_you_mean(kind, known)}")
    if (kind in ("pow", "custom")) != bool(rest.strip()):
        expected = next(form for form in FORMS if form.partition(":")[0] == kind)
        raise OptionError(f"filter {text!r}: expected {expected}")
    try:
        numbers = tuple(float(part) for part in rest.strip(" []").split(",")) if rest.strip() else ()
    except ValueError:
        raise OptionError(f"filter {text!r}: expected numbers after the colon, parted by commas") from None
    if kind == "pow":
        if len(numbers) != 1:
            raise OptionError(f"filter {text!r}: expected one power, pow:2")
        return Filter("pow", power=numbers[0], keep=keep)
    return Filter(kind, by_rank=numbers, high=high, low=low, keep=keep)  # type: ignore[arg-type]


def ranked(rewards: ArrayLike, *, seed: int = 0) -> Indices:
    """Places of each prompt's samples [prompts, samples] from the best to the worst, equal rewards in random order."""
    values = _checked(rewards)
    tie = np.random.default_rng(derive_seed(seed, "filter", "ties")).random(values.shape)
    return np.lexsort((tie, -values))


def tied_prompts(rewards: ArrayLike) -> float:
    """The share of prompts whose best reward several samples have: there the filter decides by chance."""
    values = _checked(rewards)
    return float(((values == values.max(axis=1, keepdims=True)).sum(1) > 1).mean())


def _marks(shape: tuple[int, ...], places: Indices) -> Marks:
    marks = np.zeros(shape, dtype=bool)
    np.put_along_axis(marks, places, True, axis=1)
    return marks


def _checked(rewards: ArrayLike) -> Numbers:
    values = np.asarray(rewards, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise DataError(f"expected rewards [prompts, samples], at least one of each; got the shape {values.shape}")
    if len(wrong := np.argwhere(~np.isfinite(values))):
        prompt, sample = wrong[0]
        raise RewardError(
            f"prompt {prompt + 1}, sample {sample + 1}: expected a finite reward, got {values[prompt, sample]}; mend the reward"
        )
    return values
