"""Pairs out of scored or judged responses, and the single best of them, by index.

A `Labeller` gives P(first is better than second) for pairs of a prompt's responses: [prompts, pairs] indices twice in,
[prompts, pairs] probabilities out. RSO (arXiv 2309.06657) labels with the pairwise model itself, never by comparing two
point-wise rewards; `reward_labeller` is for Bradley-Terry models, where both are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from paperworks.core.errors import DataError, OptionError, RewardError
from paperworks.core.seeding import derive_seed
from paperworks.language.sources.rejection import Indices, Numbers, symmetrised

Ranking = Literal["first_round", "tournament"]
Labeller = Callable[[Indices, Indices], ArrayLike]


@dataclass(frozen=True)
class RankedPairs:
    """Pairs as indices of a prompt's responses, [prompts, pairs] each."""

    chosen: Indices
    rejected: Indices
    probability: Numbers  # P(chosen is better) by the labeller, at least 1/2


def reward_labeller(rewards: ArrayLike) -> Labeller:
    """Bradley-Terry on rewards [prompts, responses] in nats: sigmoid(r_first - r_second)."""
    values = np.asarray(rewards, dtype=np.float64)

    def label(first: Indices, second: Indices) -> Numbers:
        gap = np.take_along_axis(values, first, 1) - np.take_along_axis(values, second, 1)
        return 1 / (1 + np.exp(-np.clip(gap, -700, 700)))

    return label


def symmetric(labeller: Labeller) -> Labeller:
    """A labeller asked in both orders, so that its liking for the first place cancels."""
    return lambda first, second: symmetrised(labeller(first, second), labeller(second, first))


def rank_pairs(
    accepted: ArrayLike, labeller: Labeller, *, ranking: Ranking = "first_round", seed: int = 0
) -> RankedPairs:
    """Pairs of the `accepted` responses [prompts, samples], each response in random order first.

    `first_round`: disjoint pairs, samples / 2 of them. `tournament`: winners go on to the next round (an odd one out goes on
    unopposed), samples - 1 pairs. A labeller's 1/2 is decided by a coin. Raises OptionError for an odd number of samples in
    the first round alone or fewer than two, RewardError for a label outside [0, 1].
    """
    players = np.asarray(accepted, dtype=np.int64)
    if players.ndim != 2 or players.shape[1] < 2:
        raise DataError(
            f"expected at least 2 responses a prompt to pair, [prompts, samples]; got the shape {players.shape}"
        )
    if ranking not in ("first_round", "tournament"):
        raise OptionError(f"option ranking={ranking}: expected first_round or tournament")
    if ranking == "first_round" and players.shape[1] % 2:
        raise OptionError(
            f"option ranking=first_round: {players.shape[1]} samples a prompt cannot all be paired; expected an even number, "
            "or ranking=tournament"
        )
    rng = np.random.default_rng(derive_seed(seed, "pairs"))
    players = np.take_along_axis(players, np.argsort(rng.random(players.shape), axis=1, kind="stable"), 1)
    rounds = []
    while players.shape[1] > 1:
        meeting = players.shape[1] // 2 * 2
        pairs = _labelled(players[:, 0:meeting:2], players[:, 1:meeting:2], labeller, rng)
        rounds.append(pairs)
        players = np.concatenate([pairs.chosen, players[:, meeting:]], axis=1)
        if ranking == "first_round":
            break
    columns: list[Any] = [
        np.concatenate([getattr(pairs, name) for pairs in rounds], axis=1)
        for name in ("chosen", "rejected", "probability")
    ]
    return RankedPairs(*columns)


def best_of(rewards: ArrayLike, *, seed: int = 0) -> Indices:
    """The index of the best of each prompt's responses [prompts, responses], equal ones by chance: what RAFT imitates."""
    values = _finite(rewards)
    tie = np.random.default_rng(derive_seed(seed, "best")).random(values.shape)
    return np.lexsort((tie, -values))[:, 0]


def above_scaled(rewards: ArrayLike, threshold: float = 0.7) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """ReST's filter (arXiv 2308.08998): rewards scaled to [0, 1] over the whole data set, kept where above `threshold`.

    Raises DataError where all rewards are equal, OptionError for a threshold outside [0, 1).
    """
    if not 0 <= threshold < 1:
        raise OptionError(f"option threshold={threshold}: expected a number in [0, 1)")
    values = _finite(rewards)
    low, high = values.min(), values.max()
    if low == high:
        raise DataError(f"all rewards are {low:g}: nothing to scale to [0, 1]; check the reward")
    return (values - low) / (high - low) > threshold


def _labelled(first: Indices, second: Indices, labeller: Labeller, rng: np.random.Generator) -> RankedPairs:
    probability = np.asarray(labeller(first, second), dtype=np.float64)
    if probability.shape != first.shape:
        raise RewardError(f"the labeller gave the shape {probability.shape} for {first.shape} pairs; expected one each")
    wrong = ~((probability >= 0) & (probability <= 1))
    if wrong.any():
        prompt, pair = np.argwhere(wrong)[0]
        raise RewardError(
            f"the labeller gave {probability[prompt, pair]} for pair {pair + 1} of prompt {prompt + 1}; "
            "expected a probability in [0, 1]"
        )
    coin = rng.random(first.shape) < 0.5
    wins = (probability > 0.5) | ((probability == 0.5) & coin)
    return RankedPairs(
        np.where(wins, first, second), np.where(wins, second, first), np.where(wins, probability, 1 - probability)
    )


def _finite(rewards: ArrayLike) -> Numbers:
    values = np.asarray(rewards, dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise RewardError(
            f"expected finite rewards, at least one; got {bad} of {values.size} that are not: mend the reward"
        )
    return values
