"""Rollouts made by hand, and short online runs of the small policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from paperworks.language.data import Dataset, Preference
from paperworks.language.data.schemas import PromptRow
from paperworks.language.online.loop import OnlineResult, train_online
from paperworks.language.online.methods import online_method
from paperworks.language.online.options import OnlineOptions
from paperworks.language.online.rollouts import Rollouts
from paperworks.language.policy import Policy
from paperworks.language.rewards.reward import CheckedReward, Reward
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.train_options import TrainOptions


def rollouts_of(
    ids: Sequence[Sequence[int]], group: Sequence[int], rewards: Sequence[float] = (), **more: Any
) -> Rollouts:
    """Rollouts of these token ids; log-probabilities -0.1, -0.2, ... token by token."""
    tokens = sum(map(len, ids))
    prompts = max(group) + 1
    given: dict[str, Any] = {
        "prompts": [f"prompt {i}" for i in range(prompts)],
        "rows": [None] * prompts,
        "prompt_ids": [(100 + i,) for i in range(prompts)],
        "prefixes": [()] * prompts,
        "texts": ["-".join(map(str, each)) for each in ids],
        "ids": [tuple(each) for each in ids],
        "group": torch.tensor(group),
        "finished": torch.ones(len(ids), dtype=torch.bool),
        "response": torch.arange(len(ids)).repeat_interleave(torch.tensor([len(each) for each in ids])),
        "logps": -0.1 * torch.arange(1, tokens + 1),
        "rewards": torch.tensor(rewards) if len(rewards) else torch.zeros(0),
    }
    return Rollouts(**{**given, **more})


@pytest.fixture
def make_rollouts() -> Callable[..., Rollouts]:
    return rollouts_of


@pytest.fixture
def four() -> Rollouts:
    """Two prompts with two answers each, of 1, 2, 3 and 1 tokens."""
    return rollouts_of([[1], [2, 3], [4, 5, 6], [7]], [0, 0, 1, 1], [1.0, 3.0, 2.0, -1.0])


@pytest.fixture(scope="session")
def prompt_rows() -> Dataset[Any]:
    return Dataset(tuple(PromptRow(prompt=prompt) for prompt, _ in generate_reviews(6, 1)))


@pytest.fixture(scope="session")
def pair_rows() -> Dataset[Any]:
    both = zip(generate_reviews(6, 1), generate_reviews(6, 2), strict=True)
    return Dataset(tuple(Preference(prompt=g.prompt, chosen=g.response, rejected=b.response + " No") for g, b in both))


@pytest.fixture(scope="session")
def vowels() -> Reward:
    """The share of vowels in an answer."""

    def share(prompts: list[str], responses: list[str]) -> list[float]:
        return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in responses]

    return CheckedReward("vowels", share)


OF_LOOP = ("folder", "resume", "judge", "gold", "on_iteration", "on_note", "evaluator", "others")
Learn = Callable[..., OnlineResult]


@pytest.fixture
def learn(prompt_rows: Dataset[Any], pair_rows: Dataset[Any], vowels: Reward) -> Learn:
    """A short run: 2 iterations of 3 prompts, at most 5 tokens; options by name, whichever dataclass they are of."""

    def run(policy: Policy, name: str, **more: Any) -> OnlineResult:
        method = online_method(name)
        quick = {"iterations": 2, "prompts_per_iteration": 3, "max_new_tokens": 5}
        of_loop = {key: more.pop(key) for key in OF_LOOP if key in more}
        reward, objective = more.pop("reward", vowels), more.pop("objective", method.objective())
        prompts = more.pop("prompts", pair_rows if method.takes_pairs or name == "dr-po" else prompt_rows)
        online = {key: more.pop(key) for key in list(more) if key in OnlineOptions.__dataclass_fields__}
        options = TrainOptions(**{"learning_rate": 1e-2, "schedule": "constant", "micro_batch": 8, **more})
        return train_online(
            policy, method, objective, prompts, OnlineOptions(**{**method.defaults, **quick, **online}), options,
            reward=reward, **of_loop,
        )  # fmt: skip

    return run
