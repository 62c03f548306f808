"""C-MORL against worked numbers: fronts, crowding, the barrier, and what stage 2 is without constraints."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from paperworks.control.multi_objective import pareto
from paperworks.control.multi_objective.barrier import LEAST_SLACK, Limits, barrier, expected_returns, threshold
from paperworks.control.multi_objective.environments import WorldEnvironments
from paperworks.control.multi_objective.policies import NetShape, Policies
from paperworks.control.multi_objective.ppo import (
    Chance,
    Goals,
    Hold,
    PPOOptions,
    Prepared,
    Workers,
    learn,
    prepare,
)
from paperworks.control.testbeds.vector_worlds import CircleBandit
from paperworks.core.errors import OptionError

torch.set_num_threads(1)
THREE = np.array([[1.0, 3], [2, 2], [3, 1]])
FIVE = np.array([[0.0, 10], [1, 9], [5, 5], [9, 2], [10, 0]])


def random_points(objectives: int, count: int = 12) -> np.ndarray:
    return np.random.default_rng(objectives).uniform(0, 1, (count, objectives))


def test_measures_of_three_points() -> None:
    zero, weights = np.zeros(2), np.array([[0, 1], [0.5, 0.5], [1, 0]])
    assert pareto.hypervolume(THREE, zero) == 6
    assert pareto.sparsity(THREE) == 2
    assert pareto.expected_utility(THREE, weights) == pytest.approx(2.666667, abs=1e-6)
    assert pareto.hypervolume(THREE[[0, 2]], zero) == 5
    assert pareto.hypervolume(THREE, zero - 1) == 13


def test_crowding_and_what_is_selected_next() -> None:
    np.testing.assert_allclose(pareto.crowding(FIVE), [math.inf, 1.0, 1.5, 1.0, math.inf])
    first = pareto.select(FIVE, 3)
    assert {pareto.vector(FIVE[place]) for place in first} == {(0, 10), (5, 5), (10, 0)}
    second = pareto.select(FIVE, 2, {pareto.vector(FIVE[place]) for place in first})
    assert {pareto.vector(FIVE[place]) for place in second} == {(1, 9), (9, 2)}


def test_the_barrier_at_worked_slacks() -> None:
    value = torch.tensor(10.0, requires_grad=True)
    term = barrier(value - threshold(torch.tensor(10.0), 0.9), 20.0)
    term.backward()
    assert term.item() == pytest.approx(0, abs=1e-6) and value.grad.item() == pytest.approx(-0.05)
    assert barrier(torch.tensor(0.5), 20.0).item() == pytest.approx(0.034657, abs=1e-6)


def test_outside_the_feasible_set_the_barrier_goes_on_straight_and_points_back() -> None:
    slack = torch.tensor([LEAST_SLACK, 0.0, -1.0, -50.0], dtype=torch.float64, requires_grad=True)
    barrier(slack, 20.0).sum().backward()
    torch.testing.assert_close(slack.grad, torch.full((4,), -1 / (20 * LEAST_SLACK), dtype=torch.float64))


def test_a_negative_return_may_fall_a_little_too() -> None:
    limit = threshold(torch.tensor([-10.0, 10.0, 0.0]), 0.9)
    torch.testing.assert_close(limit, torch.tensor([-11.0, 9.0, 0.0]))
    limits = Limits.at(torch.tensor([[-10.0, 10.0]]), torch.tensor([[True, True]]), 0.9, torch.zeros(1, 2))
    slack = (torch.tensor([[-10.0, 10.0]]) - limits.thresholds) / limits.scales
    torch.testing.assert_close(slack, torch.tensor([[0.1, 0.1]]))


def test_expected_returns_are_the_present_ones_where_nothing_changes() -> None:
    advantages = torch.tensor([[[1.0], [-1.0]]])
    same = expected_returns(torch.tensor([[7.0]]), torch.ones(1, 2), advantages, torch.tensor([20.0]))
    other = expected_returns(torch.tensor([[7.0]]), torch.tensor([[1.2, 0.8]]), advantages, torch.tensor([20.0]))
    assert same.item() == 7 and other.item() == pytest.approx(7 + 20 * 0.2)


def prepared(objectives: int) -> tuple[Policies, Prepared]:
    """Random rows of a policy in training."""
    shape = NetShape(3, 4, objectives, (8,), True)
    policies, draw = Policies.fresh(shape, [0]), torch.Generator().manual_seed(1)
    states, actions = torch.randn(1, 32, 3, generator=draw), torch.randint(4, (1, 32), generator=draw)
    nets = policies.nets()
    log_probs = nets.log_prob(nets.actor(states), actions)
    targets, advantages = (torch.randn(1, 32, objectives, generator=draw) for _ in range(2))
    return policies, Prepared(states, actions, log_probs, targets, advantages, targets.mean(1), torch.tensor([5.0]))


def learned(goals: Goals, limits: Limits | None, hold: Hold, objectives: int) -> torch.Tensor:
    policies, batch = prepared(objectives)
    options = PPOOptions(hidden=(8,), epochs=2, minibatches=2)
    chance = Chance([(torch.Generator().manual_seed(2), 1)])
    learn(policies, batch, goals, options, torch.tensor([1e-2]), chance, limits, hold)
    return policies.rows["parameters"]


def test_with_one_objective_stage_2_is_ppo() -> None:
    extended = Goals.one_each(1)
    limits = Limits.at(torch.ones(1, 1), extended.held, 0.9, torch.ones(1, 1))
    plain = learned(Goals.weighted(torch.ones(1, 1)), None, Hold(), 1)
    assert torch.equal(learned(extended, limits, Hold(), 1), plain)


@pytest.mark.parametrize(("beta", "t"), [(0.9, 1e12), (-1e9, 20.0)])
def test_a_barrier_that_is_far_away_or_weightless_changes_nothing(beta: float, t: float) -> None:
    goals = Goals(torch.tensor([[1.0, 0.0]]), torch.tensor([[False, True]]))
    limits = Limits.at(torch.tensor([[1.0, 1.0]]), goals.held, beta, torch.full((1, 2), 1e-3))
    free = learned(Goals.weighted(goals.weights), None, Hold(), 2)
    torch.testing.assert_close(learned(goals, limits, Hold(beta, t), 2), free, atol=1e-4, rtol=0)
    held = learned(goals, Limits.at(torch.tensor([[1.0, 1.0]]), goals.held, 0.9, torch.ones(1, 2)), Hold(), 2)
    assert (held - free).abs().max() > 1e-3


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_hypervolume_grows_with_points_and_with_nothing_else(objectives: int) -> None:
    points, zero = random_points(objectives), np.zeros(objectives)
    whole = pareto.hypervolume(points, zero)
    assert all(pareto.hypervolume(points[:n], zero) <= pareto.hypervolume(points[: n + 1], zero) for n in range(11))
    assert pareto.hypervolume(np.concatenate([points, points * 0.9, -points]), zero) == pytest.approx(whole)
    assert pareto.hypervolume(points[::-1], zero) == pytest.approx(whole)
    scaled = points * np.array([3.0, *[1.0] * (objectives - 1)])
    assert pareto.hypervolume(scaled, zero) == pytest.approx(3 * whole)


@pytest.mark.parametrize("objectives", [3, 4])
def test_hypervolume_agrees_with_counting_cells(objectives: int) -> None:
    """On a grid of whole numbers the volume is the number of unit cells that some point is above."""
    points = np.random.default_rng(objectives).integers(0, 5, (9, objectives)).astype(float)
    cells = np.stack(np.meshgrid(*[np.arange(5)] * objectives), -1).reshape(-1, objectives)
    counted = (cells[:, None] < points[None]).all(-1).any(1).sum()
    assert pareto.hypervolume(points, np.zeros(objectives)) == pytest.approx(counted)
    box = pareto.SampledVolume([0.0] * objectives, [5.0] * objectives, samples=40_000)
    assert box(points) == pytest.approx(counted, abs=4 * 5**objectives / (2 * 200))


def test_expected_utility_of_sets() -> None:
    points, weights = random_points(3), pareto.simplex_grid(3, 10)
    whole = pareto.expected_utility(points, weights)
    assert pareto.expected_utility(points[:5], weights) <= whole
    assert whole >= (weights @ points.T).mean(0).max()


@pytest.mark.parametrize(("objectives", "step", "count"), [(2, 0.2, 6), (3, 0.5, 6), (6, 1.0, 6), (3, 0.1, 66)])
def test_grids_of_weights_lack_nothing(objectives: int, step: float, count: int) -> None:
    weights = pareto.training_weights(objectives, step)
    assert len(weights) == count
    np.testing.assert_allclose(weights.sum(1), 1)
    assert {tuple(row) for row in np.eye(objectives)} <= {tuple(row) for row in weights.round(9)}


def test_a_step_that_does_not_divide_one_keeps_the_corners() -> None:
    weights = pareto.training_weights(3, 0.3)
    assert len(weights) == 12  # the grid's 10, and the corners of the first two objectives
    assert {(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)} <= {tuple(row) for row in weights.round(9)}


def test_a_factor_of_the_preference_changes_nothing() -> None:
    points = random_points(3)
    for weights in pareto.simplex_grid(3, 6):
        assert pareto.best_for(points, weights) == pareto.best_for(points, 7.5 * weights)
    with pytest.raises(OptionError, match="at least 0"):
        pareto.best_for(points, [-1, 1, 1])
    with pytest.raises(OptionError, match="3 objectives"):
        pareto.best_for(points, [0.5, 0.5])


def test_returns_and_horizon_of_one_step_episodes() -> None:
    """In a bandit the return is the mean reward and an episode is one step, so the surrogate is exact in the ratio."""
    environments = WorldEnvironments(CircleBandit(3))
    options = PPOOptions(hidden=(4,), normalise_states=False, normalise_rewards=False)
    policies = Policies.fresh(NetShape(1, 3, 2, (4,), True), [0, 1])
    workers = Workers(environments, 16)
    workers.restart(range(32))
    chance = Chance([(torch.Generator().manual_seed(0), 2)])
    rollout = workers.collect(policies, 4, 0.99, chance)
    batch = prepare(policies, rollout, workers.starts, options)
    torch.testing.assert_close(batch.returns, rollout.rewards.mean((1, 2)))
    torch.testing.assert_close(batch.horizon, torch.ones(2))
