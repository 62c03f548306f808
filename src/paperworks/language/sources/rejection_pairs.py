"""Preference pairs from scored candidates: rejection sampling, then pairs labelled by Bradley-Terry on the same scores.

For candidates that were drawn and scored elsewhere; where the policy and a ranking model are at hand, training does all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paperworks.core.errors import DataError, OptionError
from paperworks.core.options import option
from paperworks.language.data.schemas import ScoredGroup
from paperworks.language.sources.ranking import Ranking, rank_pairs, reward_labeller
from paperworks.language.sources.rejection import (
    Acceptance,
    RejectionOptions,
    first_of_each,
    rejection_sample,
    standardised,
)


@dataclass(frozen=True)
class PairOptions(RejectionOptions):
    """How scored candidates become pairs."""

    ranking: Ranking = option("first_round", "n_samples / 2 disjoint pairs a prompt, or a tournament of n_samples - 1")
    standardise: bool = option(
        False, "rewards less their prompt's mean, over its deviation; not the paper's: it changes beta a prompt"
    )
    seed: int = option(0, "of the draws and the pairing")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ranking == "first_round" and self.n_samples % 2:
            raise OptionError(
                f"option n_samples={self.n_samples}: expected an even number to pair, or ranking=tournament"
            )


@dataclass(frozen=True)
class CandidatePairs:
    """Pairs as rows for a file, and how the candidates were accepted."""

    rows: tuple[
        dict[str, Any], ...
    ]  # prompt, chosen, rejected, chosen_reward, rejected_reward, probability, acceptance
    acceptance: Acceptance
    mean_reward: float  # of all candidates
    accepted_reward: float  # of those accepted
    left_out: int  # prompts with fewer different candidates than samples

    def lines(self, options: PairOptions) -> list[str]:
        """What was made, for people."""
        low, middle, high = np.quantile(self.acceptance.rates, [0, 0.5, 1])
        lines = [
            f"{len(self.rows)} pairs of {len(self.acceptance.rates)} prompts, {options.n_samples} accepted each",
            f"expected acceptance of the first sweep: median {middle:.1%}, from {low:.1%} to {high:.1%} by prompt; "
            f"{self.acceptance.sweeps.mean():.1f} sweeps",
            f"mean reward {self.mean_reward:.3f} of the candidates, {self.accepted_reward:.3f} of the accepted",
        ]
        if self.left_out:
            lines.append(f"{self.left_out} prompts left out: fewer than {options.n_samples} different candidates")
        return lines + self.acceptance.notes(options.beta)


def candidate_pairs(rows: Sequence[ScoredGroup], options: PairOptions, *, skip_short: bool = False) -> CandidatePairs:
    """Accept candidates of each row and pair them; a text drawn several times is one candidate, with its first reward.

    Raises DataError (file:line) for a row with fewer different candidates than n_samples; `skip_short` leaves such out.
    """
    enough = [row for row in rows if len(set(row.responses)) >= options.n_samples]
    if len(enough) < len(rows) and not (skip_short and enough):
        row = next(row for row in rows if len(set(row.responses)) < options.n_samples)
        more = len(rows) - len(enough) - 1
        raise DataError(
            f"{len(set(row.responses))} different candidates, n_samples={options.n_samples} are to be accepted"
            + (f" ({more} more rows like it)" if more else "")
            + "; draw more, lower --n-samples, or leave such rows out with --bad-rows skip",
            file=row.where.file or None,
            line=row.where.line or None,
            field="responses",
        )
    available = first_of_each([row.responses for row in enough])
    rewards = np.zeros(available.shape)
    for place, row in enumerate(enough):
        scores = np.asarray(row.scores)
        rewards[place, : len(scores)] = standardised(scores[None])[0] if options.standardise else scores
    found = rejection_sample(rewards, options, seed=options.seed, available=available)
    pairs = rank_pairs(found.indices, reward_labeller(rewards), ranking=options.ranking, seed=options.seed)
    made = [
        {
            "prompt": row.prompt,
            "chosen": row.responses[chosen],
            "rejected": row.responses[rejected],
            "chosen_reward": float(row.scores[chosen]),
            "rejected_reward": float(row.scores[rejected]),
            "probability": float(probability),
            "acceptance": float(rate),
        }
        for row, rate, *columns in zip(
            enough, found.rates, pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.probability, strict=True
        )
        for chosen, rejected, probability in zip(*columns, strict=True)
    ]
    accepted = np.take_along_axis(rewards, found.indices, 1).mean()
    return CandidatePairs(
        tuple(made), found, float(rewards[available].mean()), float(accepted), len(rows) - len(enough)
    )
