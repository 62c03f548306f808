"""What a reference earns on a prompt: its own answers, scored, and a value head fitted to that.

The answers are to prompts that are not trained on; rewards of training responses never enter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from paperworks.core.errors import DataError
from paperworks.language.data.schemas import Text
from paperworks.language.policy import Policy
from paperworks.language.rewards.reward import Reward
from paperworks.language.values.fit import ValueFit, ValueFitOptions, fit_value, predict
from paperworks.language.values.head import ValueHead, ValueHeadOptions
from paperworks.language.values.prompt_states import prompt_states, state_batches


@dataclass(frozen=True)
class ReferenceValue:
    """V(x): the head, how well it fits, and the mean reward of the answers it was fitted to."""

    head: ValueHead
    fit: ValueFit
    mean_reward: float

    def of(self, policy: Policy, prompts: Sequence[Text]) -> list[float]:
        """V of each prompt from the states of `policy`, which must be the reference that the head was fitted on."""
        keys = [_key(prompt) for prompt in prompts]
        distinct = dict(zip(keys, prompts, strict=True))
        found: dict[Any, float] = {}
        names = list(distinct)
        for indices, states in state_batches(policy, list(distinct.values())):
            found.update(zip((names[i] for i in indices), predict(self.head, states).tolist(), strict=True))
        return [found[key] for key in keys]

    def notes(self) -> list[str]:
        """How the fit went, a line each; a warning where the head is no better than a constant."""
        line = (
            f"value: the reference's answers to {self.fit.prompts + self.fit.held_out_prompts} prompts have a mean reward "
            f"of {self.mean_reward:.4g}; mean squared error {self.fit.mse:.4g}, of a constant {self.fit.constant_mse:.4g}"
        )
        return [line, *([f"warning: {self.fit.warning}"] if self.fit.warning else [])]

    def facts(self) -> dict[str, Any]:
        """JSON values for results."""
        return {"mean_reward": self.mean_reward, "kind": self.head.options.kind, **self.fit.as_dict()}

    def save(self, folder: Path) -> None:
        """Write the head into a folder of its own; `ValueHead.load` reads it."""
        self.head.save(folder)


def rewards_of_answers(
    policy: Policy,
    prompts: Sequence[Text],
    reward: Reward,
    *,
    bounds: tuple[float, float],
    generations: int = 1,
    max_new_tokens: int = 128,
    seed: int = 0,
) -> tuple[list[Text], list[float], int]:
    """Let the policy answer, greedily where `generations` is 1 and else sampling, and score the answers.

    Returns the prompts it could answer, the mean reward of the answers to each, and how many prompts leave no room in
    the context. Raises DataError where it could answer none, or where an answer's reward lies outside `bounds`.
    """
    from paperworks.language.sampling import sample

    limit = policy.context_length + int(policy.is_encoder_decoder)
    answered = [prompt for prompt in prompts if len(policy.encode_prompt(prompt)) < limit]
    if not answered:
        raise DataError(f"value: none of {len(prompts)} prompts leaves room for an answer in the model's context")
    temperature = 0.0 if generations == 1 else 1.0
    drawn = sample(policy, answered, n=generations, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    asked = [prompt for prompt in answered for _ in range(generations)]
    rewards = reward(asked, [text for found in drawn for text in found.texts])
    low, high = bounds
    slack = 1e-6 * (high - low)
    for found in rewards:
        if not low - slack <= found <= high + slack:
            raise DataError(
                f"value: {reward.name} gives an answer of the reference {found:g}, outside the rewards' range "
                f"{low:g} to {high:g}; give it as --reward-range LOW,HIGH, or use --reward-transform sigmoid"
            )
    means = [
        math.fsum(rewards[start : start + generations]) / generations for start in range(0, len(rewards), generations)
    ]
    return answered, means, len(prompts) - len(answered)


def fit_reference_value(
    policy: Policy,
    prompts: Sequence[Text],
    rewards: Sequence[float],
    head_options: ValueHeadOptions,
    fit_options: ValueFitOptions,
) -> ReferenceValue:
    """Fit a head on the policy's states of the prompts to the rewards of its answers; a prompt may come more than once."""
    states = prompt_states(policy, prompts)
    head = ValueHead(states.width, head_options, seed=fit_options.seed).to(policy.device)
    fit = fit_value(head, states, torch.tensor(rewards), fit_options)
    return ReferenceValue(head, fit, math.fsum(rewards) / len(rewards))


def each_once(prompts: Sequence[Text]) -> list[Text]:
    """The prompts without repetitions, in order of their first appearance."""
    first: dict[Any, Text] = {}
    for prompt in prompts:
        first.setdefault(_key(prompt), prompt)
    return list(first.values())


def _key(prompt: Text) -> Any:
    return prompt if isinstance(prompt, str) else tuple((turn["role"], turn["content"]) for turn in prompt)
