"""PPO trained only on the answers whose reward can be trusted, by their rank within the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np

from paperworks.core.errors import DataError
from paperworks.core.options import option
from paperworks.core.seeding import derive_seed
from paperworks.language.objectives.objective import require
from paperworks.language.objectives.policy_gradient import PPO
from paperworks.language.sources.filters import Budget, Filter, parse_filter, tied_prompts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from paperworks.language.online.rollouts import Rollouts

PowScale = Literal["buffer", "none"]


@dataclass(frozen=True)
class PFPPO(PPO):
    """PF-PPO (Shen and Zhang 2024, arXiv 2409.06957): PPO on a subset of each prompt's answers, chosen by reward.

    Credit is computed and normalised over all answers; `selected` then says which of them are trained on, as if the policy
    had drawn them (nothing corrects for the filter: that bias is the method). Which filter to use is decided before
    training, by `sources.filter_choice`. filter=none with kept_only is PPO.
    """

    name: ClassVar[str] = "pf-ppo"

    filter: str = option(
        "br", "br best+random, bw best+worst, bon, none, top, top_random, top_bottom, pow:K, or custom:W,W,… by rank"
    )
    budget: Budget = option(
        "kept_only",
        "train on each kept answer once a pass, or draw as many as there are, with replacement (same_steps)",
    )
    high: float | None = option(None, "threshold of top, top_random and top_bottom: rewards above it are kept")
    low: float | None = option(None, "threshold of top_bottom: rewards below it are kept")
    keep: int = option(2, "answers a prompt that pow and custom keep under kept_only", low=1)
    pow_scale: PowScale = option("buffer", "pow: scale an iteration's rewards to [-1, 1], or take them as they are")
    tie_seed: int = option(0, "of the order of equal rewards and of the filter's draws, beside the run's seed")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kinds in (("budget", Budget), ("pow_scale", PowScale)):
            require(getattr(self, name) in get_args(kinds), name, getattr(self, name), " or ".join(get_args(kinds)))
        self.rule  # noqa: B018 - raises for what is no filter

    @property
    def rule(self) -> Filter:
        """The filter that the options name. Raises OptionError."""
        return parse_filter(self.filter, high=self.high, low=self.low, keep=self.keep)

    def selected(self, rollouts: Rollouts, seed: Sequence[int | str]) -> list[int]:
        """The responses to train on, one named twice where it was drawn twice; `seed` is the iteration's.

        Raises DataError where prompts have different numbers of answers, OptionError for one answer a prompt and a filter
        by rank, and what `Filter.select` raises.
        """
        members, rewards = _grouped(rollouts)
        if self.rule.kind == "pow" and self.pow_scale == "buffer":
            low, spread = rewards.min(), np.ptp(rewards)
            rewards = 2 * (rewards - low) / spread - 1 if spread > 0 else np.ones_like(rewards)
        chosen = self.rule.select(rewards, budget=self.budget, seed=derive_seed(*seed, "pf-ppo", self.tie_seed))
        return np.asarray(members).ravel()[chosen].tolist()

    def kept_figures(self, rollouts: Rollouts, kept: Sequence[int]) -> dict[str, float]:
        """What the filter did: share kept, mean reward kept and dropped (NaN for none), share of prompts with tied bests."""
        _, rewards = _grouped(rollouts)
        dropped = sorted(set(range(len(rollouts))) - set(kept))
        means = {
            f"reward_{name}": float(rollouts.rewards[list(which)].mean()) if which else float("nan")
            for name, which in (("kept", list(kept)), ("dropped", dropped))
        }
        return {"kept_share": len(set(kept)) / len(rollouts), **means, "tied_prompts": tied_prompts(rewards)}


def _grouped(rollouts: Rollouts) -> tuple[list[list[int]], NDArray[np.float64]]:
    """The responses of every prompt that has some, and their rewards [prompts, samples]."""
    members = [found for found in rollouts.members() if found]
    sizes = {len(found) for found in members}
    if len(sizes) != 1:
        counts = f"{min(sizes)} to {max(sizes)}" if sizes else "no"
        raise DataError(f"pf-ppo: prompts have {counts} answers; expected as many for each, so that ranks compare")
    return members, rollouts.rewards.double().numpy()[np.asarray(members)]
