"""Choosing a checkpoint by what it earns: at every evaluation the policy answers held-out prompts and a reward scores it.

An evaluator for `training.train`, in place of the held-out loss. Select with one reward and judge with another: a policy
chosen by a reward looks better under it than it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paperworks.core.errors import OptionError
from paperworks.language.data.schemas import Text
from paperworks.language.policy import Policy
from paperworks.language.rewards.reward import Reward
from paperworks.language.sampling import sample


@dataclass(frozen=True)
class ValidationReward:
    """Mean reward of a policy's answers to `prompts`: greedy ones, or `generations` samples each where that is above 1."""

    prompts: Sequence[Text]
    reward: Reward
    max_new_tokens: int = 128
    generations: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.prompts:
            raise OptionError("validation reward: expected at least one prompt")

    def __call__(self, policy: Policy) -> Mapping[str, float]:
        """`validation_reward` and `tokens`, means over answers; `unfinished`, the share that max_new_tokens cut."""
        drawn = sample(
            policy,
            self.prompts,
            n=self.generations,
            max_new_tokens=self.max_new_tokens,
            temperature=0.0 if self.generations == 1 else 1.0,
            seed=self.seed,
        )
        answers = [answer for found in drawn for answer in found.samples]
        asked = [found.prompt for found in drawn for _ in found.samples]
        rewards = self.reward(asked, [answer.text for answer in answers])
        return {
            "validation_reward": math.fsum(rewards) / len(rewards),
            "tokens": sum(len(answer.ids) for answer in answers) / len(answers),
            "unfinished": sum(not answer.finished for answer in answers) / len(answers),
        }

    def quality(self, values: Mapping[str, float], step: int) -> float:
        """The kept weights have the highest mean reward."""
        return values["validation_reward"]

    def stop(self, history: Sequence[Mapping[str, float]]) -> str | None:
        """Never stops early."""
        return None
