"""The policy over a few items: its target, and the laws of samplers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paperworks.language.testbeds import rejection_bandit


def test_the_target_maximises_reward_less_kl() -> None:
    world = rejection_bandit.make_item_policy([0], items=6)
    target = world.target(0.5)[0]

    def value(law: torch.Tensor) -> float:
        return (law @ world.reward[0] - 0.5 * (law * (law.log() - world.log_policy[0])).sum()).item()

    for seed in range(20):
        other = target * torch.exp(0.1 * torch.randn(6, generator=torch.Generator().manual_seed(seed)).double())
        assert value(target) > value(other / other.sum())


def test_taking_the_first_candidate_has_the_policys_law_and_the_chance_that_of_the_target() -> None:
    world = rejection_bandit.make_item_policy([0], items=8)
    found = rejection_bandit.accepted_law(
        world,
        0,
        3,
        lambda items, rewards, seed: np.zeros((len(items), 1), dtype=int),
        candidates=4,
        prompts=50_000,
        beta=0.5,
    )
    assert rejection_bandit.total_variation(found.law, world.log_policy[0].exp()) < 0.01
    assert rejection_bandit.total_variation(found.chance, world.target(0.5)[0]) < 0.01


def test_total_variation() -> None:
    assert rejection_bandit.total_variation(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])) == pytest.approx(0.5)
