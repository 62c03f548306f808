"""The combination lock: exact values, logged trajectories, and episodes that start where they should."""

from __future__ import annotations

import pytest
import torch

from paperworks.core.errors import OptionError
from paperworks.language.testbeds import lock

SEEDS = range(6)


def test_the_start_policy_opens_a_lock_with_the_product_of_its_chances() -> None:
    world = lock.make_lock(SEEDS, 4)
    assert world.value(world.log_start).tolist() == pytest.approx([0.35**4] * 6)


def test_half_of_the_logged_trajectories_open_it() -> None:
    world = lock.make_lock(SEEDS, 3)
    logged = lock.log_trajectories(world, SEEDS, 2000)
    assert logged.opened[:, :1000].all()
    assert logged.opened[:, 1000:].double().mean().item() == pytest.approx(0.35**3, abs=0.01)
    alive = logged.alive[:, 1000:]
    assert (alive == 1).double().mean().item() == pytest.approx(0.65, abs=0.02)  # dead after one wrong action


def test_cloning_mixes_experts_with_the_start_policy() -> None:
    world = lock.make_lock(SEEDS, 3)
    right = world.right_probability(lock.clone_behaviour(world, lock.log_trajectories(world, SEEDS, 4000)))
    assert right[:, 0].mean().item() == pytest.approx(0.5 + 0.5 * 0.35, abs=0.01)
    alive = 0.5 + 0.5 * 0.35
    assert right[:, 1].mean().item() == pytest.approx((0.5 + 0.5 * 0.35**2) / alive, abs=0.01)


def test_the_learned_reward_is_that_of_the_labels() -> None:
    world = lock.make_lock(range(40), 4)
    logged = lock.log_trajectories(world, range(40), 100)
    found = lock.learned_reward(world, logged, range(40), 2000)
    assert found.mean().item() == pytest.approx(1.0, abs=0.05)  # the true reward


@pytest.mark.parametrize("starts", ["prompt", "data", "sft"])
def test_learning_from_any_start_opens_a_short_lock(starts: lock.Starts) -> None:
    world = lock.make_lock(SEEDS, 2)
    logged = lock.log_trajectories(world, SEEDS, 100)
    learned = lock.train_lock(world, logged, SEEDS, starts=starts, updates=60)
    assert (learned.values[-1] > 0.9).all()
    assert (learned.episodes_until(0.9) < 60 * 64).all()


def test_a_seed_learns_the_same_alone() -> None:
    def values(seeds: list[int]) -> torch.Tensor:
        world = lock.make_lock(seeds, 4)
        logged = lock.log_trajectories(world, seeds, 50)
        return lock.train_lock(world, logged, seeds, starts="data", updates=5).values

    assert torch.allclose(values([0, 1, 2])[:, 1], values([1])[:, 0], atol=1e-12)


def test_a_lock_that_never_opens_counts_with_all_episodes() -> None:
    learned = lock.Learned(torch.tensor([[0.1, 0.1], [0.2, 0.95], [0.3, 0.2]]), 64)
    assert learned.episodes_until(0.9).tolist() == [128, 64]


def test_refusals() -> None:
    with pytest.raises(OptionError, match=r"right_probability=1\.0"):
        lock.make_lock(SEEDS, 3, right_probability=1.0)
    world = lock.make_lock(SEEDS, 2)
    with pytest.raises(OptionError, match="starts=end: expected prompt, data or sft"):
        lock.train_lock(world, lock.log_trajectories(world, SEEDS, 10), SEEDS, starts="end")  # type: ignore[arg-type]
