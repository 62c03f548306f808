"""Choosing a checkpoint by the reward of its answers."""

from __future__ import annotations

import pytest

from paperworks.core.errors import OptionError
from paperworks.language.policy import Policy
from paperworks.language.rewards.reward import CheckedReward
from paperworks.language.sampling import sample
from paperworks.language.validation_reward import ValidationReward

PROMPTS = ["The acting was", "I thought the plot"]
LETTERS = CheckedReward("letters", lambda prompts, responses: [float(len(response)) for response in responses])


@pytest.mark.parametrize("generations", [1, 3])
def test_it_is_the_mean_reward_of_the_policy_s_answers(small_policy: Policy, generations: int) -> None:
    values = ValidationReward(PROMPTS, LETTERS, 7, generations)(small_policy)
    temperature = 0.0 if generations == 1 else 1.0
    drawn = sample(small_policy, PROMPTS, n=generations, max_new_tokens=7, temperature=temperature)
    lengths = [len(text) for found in drawn for text in found.texts]
    assert values["validation_reward"] == pytest.approx(sum(lengths) / len(lengths))
    assert 1 <= values["tokens"] <= 7 and 0 <= values["unfinished"] <= 1


def test_the_better_checkpoint_has_the_higher_reward() -> None:
    evaluator = ValidationReward(PROMPTS, LETTERS)
    assert evaluator.quality({"validation_reward": 0.4}, 10) > evaluator.quality({"validation_reward": 0.3}, 20)
    assert evaluator.stop([{"step": 0, "validation_reward": 1.0}, {"step": 10, "validation_reward": 0.0}]) is None


def test_without_prompts_it_is_an_error() -> None:
    with pytest.raises(OptionError, match="at least one prompt"):
        ValidationReward([], LETTERS)
