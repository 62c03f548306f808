"""A critic with a transformer of its own: what it begins as, what it sees, and that PPO trains it beside the policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.core.errors import ModelError
from paperworks.language.logprobs import Tree
from paperworks.language.objectives.policy_gradient import PPO
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.rewards.model import RewardModel
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy
from paperworks.language.values.critic import Critic

TREES = [Tree([5, 6, 7], [[8, 9], [10, 11, 12]]), Tree([7], [[9]])]


@pytest.fixture
def folder(small_policy: Policy, tmp_path: Path) -> str:
    """The language model of the policy, saved."""
    return str(small_policy.save(tmp_path / "model"))


@pytest.fixture
def judged(folder: str, tmp_path: Path) -> tuple[str, RewardModel]:
    """A reward model whose head is not fresh, and its folder."""
    model = RewardModel.load(folder, device="cpu", seed=3)
    place = str(model.save(tmp_path / "judge"))
    return place, RewardModel.load(place, device="cpu")


def test_a_language_model_begins_at_zero(folder: str, small_policy: Policy) -> None:
    critic = Critic.load(folder, small_policy)
    states = critic.states(TREES)
    assert states.shape[0] == 6 and torch.equal(critic.at_positions(states), torch.zeros(6))


def test_a_reward_model_begins_as_its_score_of_what_is_there(
    judged: tuple[str, RewardModel], small_policy: Policy
) -> None:
    """The value before a token is the score of prompt and answer up to there."""
    place, model = judged
    with torch.no_grad():
        critic = Critic.load(place, small_policy)
        found = critic.at_positions(critic.states(TREES))
        beginnings = [Tree([5, 6], [[7]]), Tree([5, 6, 7], [[8]]), Tree([5, 6, 7], [[10, 11]])]
        wanted = model.scores(beginnings).values
    torch.testing.assert_close(found[[0, 1, 4]], wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[2], found[0])


def test_it_trains_beside_the_policy(folder: str, small_policy: Policy, learn: Callable[..., Any]) -> None:
    result = learn(small_policy, "ppo", objective=PPO(critic=folder), iterations=4, samples=4, updates=2)
    head_alone = learn(Policy.load(folder, device="cpu"), "ppo", iterations=4, samples=4, updates=2)
    assert result.final["value_error"] < result.first["value_error"]
    assert result.final["value_error"] != head_alone.final["value_error"]


def test_only_adapters_and_the_head_train_where_the_policy_has_adapters(folder: str) -> None:
    policy = Policy.load(folder, lora=LoraOptions(rank=2), device="cpu")
    critic = Critic.load(folder, policy)
    names = {name for name, parameter in critic.named_parameters() if parameter.requires_grad}
    assert names and all("lora" in name or name.startswith("head.") for name in names)


def test_it_resumes_with_the_run(folder: str, learn: Callable[..., Any], tmp_path: Path) -> None:
    whole = learn(Policy.load(folder, device="cpu"), "ppo", objective=PPO(critic=folder), iterations=3)

    def stop(iteration: int, total: int, values: Any) -> None:
        if iteration == 2:
            raise KeyError("stopped")

    with pytest.raises(KeyError):
        more = {"folder": tmp_path / "run", "on_iteration": stop, "save_every": 1, "iterations": 3}
        learn(Policy.load(folder, device="cpu"), "ppo", objective=PPO(critic=folder), **more)
    more = {"folder": tmp_path / "run", "resume": True, "save_every": 1, "iterations": 3}
    again = learn(Policy.load(folder, device="cpu"), "ppo", objective=PPO(critic=folder), **more)
    assert again.final["value_error"] == whole.final["value_error"]


def test_another_vocabulary_is_refused(folder: str, tmp_path: Path) -> None:
    other = fresh_policy(TinySpec(layers=1, width=16, heads=2, context=32), byte_level_tokenizer(["other words"], 300))
    with pytest.raises(ModelError, match="another vocabulary"):
        Critic.load(folder, other)
