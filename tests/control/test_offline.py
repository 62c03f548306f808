"""Algorithms on logs: their losses by hand, seeds side by side as seeds alone, and that they learn."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.distributions import TanhGaussian, gaussian_log_prob
from paperworks.control.environments import roll_out, spaces_of
from paperworks.control.learner import Learner, Shapes
from paperworks.control.offline import OFFLINE
from paperworks.control.offline.cql import CQL, CQLOptions
from paperworks.control.offline.iql import IQL, IQLOptions, expectile_loss
from paperworks.control.offline.prdc import PRDC, PRDCOptions
from paperworks.control.offline.td3 import TD3, TD3Options
from paperworks.control.offline.td3_bc import TD3BC, TD3BCOptions
from paperworks.control.training import ControlOptions, bounds_of, train_offline
from paperworks.control.transitions import Transitions
from paperworks.core.errors import DataError, OptionError, TrainingDiverged

SMALL: dict[str, Any] = {"hidden": (16, 16)}


def small(learner: type[Learner], **more: Any) -> Any:
    """An algorithm's options with small nets."""
    widths = [field.name for field in dataclasses.fields(learner.options_class) if field.name.endswith("hidden")]
    return learner.options_class(**dict.fromkeys(widths, (16, 16)), **more)


def log_of(states: list[float], actions: list[float]) -> Log:
    """A log of one-number states and actions, not normalised."""
    column = lambda values: np.asarray(values, np.float32)[:, None]  # noqa: E731
    zeros = np.zeros(len(states), bool)
    made = Transitions(column(states), column(actions), np.zeros(len(states), np.float32), column(states), zeros, zeros)
    return Log(made, np.zeros(1, np.float32), np.ones(1, np.float32), torch.device("cpu"))


def batch_of(log: Log, rows: list[int]) -> Batch:
    return log.batch(torch.tensor([rows]))


def prdc(log: Log, **options: Any) -> PRDC:
    return PRDC(Shapes(1, 1), PRDCOptions(**SMALL, **options), [0], log)


def pulled(learner: PRDC, state: float, action: float) -> float:
    """The penalty of an action in a state."""
    batch = batch_of(log_of([state], [0.0]), [0])
    return float(learner.pull(batch, torch.tensor([[[action]]]))[0])


# ----------------------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(("beta", "penalty"), [(2.0, 0.01), (0.1, 0.01), (10.0, 2.56), (0.0, 0.01)])
def test_prdc_pulls_to_the_nearest_pair(beta: float, penalty: float) -> None:
    """The specification's check 1: which of three logged pairs is nearest depends on the state's weight."""
    learner = prdc(log_of([0, 1, 2], [-1, 0.5, 1]), beta=beta)
    assert pulled(learner, 0.4, 0.6) == pytest.approx(penalty, abs=1e-6)


def test_prdc_s_distance_as_the_paper_writes_it() -> None:
    learner = prdc(log_of([0, 1, 2], [-1, 0.5, 1]), beta=2.0, penalty="distance")
    assert pulled(learner, 0.4, 0.6) == pytest.approx(1.204159, abs=1e-5)


def test_prdc_between_two_actions_of_a_state_takes_the_nearer() -> None:
    """Check 4: BC's pull would be to the mean of both."""
    log = log_of([0, 0], [1, -1])
    action = torch.tensor([[[0.1]]], requires_grad=True)
    prdc(log).pull(batch_of(log, [0]), action)[0].sum().backward()
    assert action.grad is not None and float(action.grad) == pytest.approx(-1.8)
    both = torch.tensor([[[0.1], [0.1]]], requires_grad=True)
    TD3BC(Shapes(1, 1), TD3BCOptions(**SMALL), [0], log).pull(batch_of(log, [0, 1]), both)[0].sum().backward()
    assert both.grad is not None and float(both.grad.sum()) == pytest.approx(0.2)


def test_prdc_leaves_a_logged_pair_alone_and_is_bc_for_a_heavy_state() -> None:
    """Checks 3 and 5."""
    log = log_of([0, 1, 2], [-1, 0.5, 1])
    assert pulled(prdc(log), 1.0, 0.5) == 0
    batch, action = batch_of(log, [0, 1, 2]), torch.tensor([[[0.3], [-0.2], [0.9]]])
    heavy = prdc(log, beta=1e4).pull(batch, action)[0]
    bc = TD3BC(Shapes(1, 1), TD3BCOptions(**SMALL), [0], log).pull(batch, action)[0]
    torch.testing.assert_close(heavy, bc)


def test_prdc_does_not_depend_on_order_doubles_or_what_is_far() -> None:
    """Checks 6 and 8."""
    states, actions = [0.0, 1.0, 2.0], [-1.0, 0.5, 1.0]
    one = pulled(prdc(log_of(states, actions)), 0.4, 0.6)
    assert pulled(prdc(log_of(states[::-1], actions[::-1])), 0.4, 0.6) == one
    assert pulled(prdc(log_of(states * 2 + [50.0], actions * 2 + [0.6])), 0.4, 0.6) == one
    assert pulled(prdc(log_of([s + 7 for s in states], actions)), 7.4, 0.6) == pytest.approx(one, abs=1e-5)


def test_the_value_s_weight() -> None:
    """Check 2: Q = (2, -4), alpha 2.5."""
    log = log_of([0, 1], [0.0, 0.0])
    learner = TD3BC(Shapes(1, 1), TD3BCOptions(**SMALL), [0], log)
    action = torch.zeros(1, 2, 1)
    loss, told = learner.actor_loss(batch_of(log, [0, 1]), action, torch.tensor([[2.0, -4.0]]))
    assert float(told["weight"]) == pytest.approx(0.83333, abs=1e-5) and float(loss) == pytest.approx(0.83333, abs=1e-5)
    again, _ = learner.actor_loss(batch_of(log, [0, 1]), action, torch.tensor([[6.0, -12.0]]))
    assert float(again) == pytest.approx(float(loss))


@pytest.mark.parametrize("terminated", [True, False])
def test_a_target_stops_at_a_termination_and_not_at_a_truncation(terminated: bool) -> None:
    column, ends = np.ones((1, 1), np.float32), np.array([terminated])
    made = Transitions(column, column, np.array([3.0], np.float32), column, ends, ~ends)
    log = Log(made, np.zeros(1, np.float32), np.ones(1, np.float32), torch.device("cpu"))
    learner = TD3(Shapes(1, 1), TD3Options(**SMALL, target_noise=0.0), [0], log)
    batch = log.batch(torch.tensor([[0]]))
    action = learner.target_actor(batch.next_states).tanh()
    value = learner.target_critics(batch.next_states, action).amin(1)
    found = learner.target(batch, Draws([0], 1, 1, log.device), 0)
    torch.testing.assert_close(found, 3.0 + (0.0 if terminated else 0.99) * value.detach())


def test_iql_s_parts() -> None:
    assert expectile_loss(torch.tensor([2.0, -2.0]), 0.7).tolist() == pytest.approx([2.8, 1.2])
    assert expectile_loss(torch.tensor([2.0, -2.0]), 0.5).tolist() == [2, 2]
    mean, log_std, action = torch.tensor([[0.5, 0.0]]), torch.tensor([[math.log(0.5), 0.0]]), torch.tensor([[1.0, 1.0]])
    wanted = torch.distributions.Normal(mean, log_std.exp()).log_prob(action).sum(-1)
    torch.testing.assert_close(gaussian_log_prob(mean, log_std, action), wanted)


def test_a_squashed_gaussian_is_a_density() -> None:
    """Its integral over [-1, 1] is 1, its samples' density is that of the action, and torch's own transform agrees."""
    output = torch.tensor([[0.4, -0.3]])
    policy, grid = TanhGaussian(output), torch.linspace(-0.9999, 0.9999, 20001)[:, None]
    assert torch.trapezoid(policy.log_prob(grid).exp(), grid[:, 0]).item() == pytest.approx(1, abs=1e-3)
    action, log_prob = policy.sample(torch.tensor([[0.7]]))
    torch.testing.assert_close(policy.log_prob(action), log_prob, atol=1e-4, rtol=1e-4)
    own = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(policy.mean, policy.log_std.exp()), torch.distributions.TanhTransform()
    )
    torch.testing.assert_close(own.log_prob(action).sum(-1), log_prob, atol=1e-4, rtol=1e-4)


def test_cql_s_integral_is_that_of_the_critic() -> None:
    """The importance sampled log sum exp against the integral of exp Q over a grid of actions."""
    log = log_of([0.3], [0.0])
    learner = CQL(Shapes(1, 1), CQLOptions(**SMALL, sampled_actions=20_000), [0], log)
    with torch.no_grad():
        for parameter in learner.critics.parameters():
            parameter.mul_(3)
        learner.actor.weights[-1].zero_()
        learner.actor.biases[-1].copy_(torch.tensor([0.2, 0.458]))  # a deviation of 1, wide enough for every action
        found = learner.log_sum_exp(batch_of(log, [0]), Draws([0], 1, 1, log.device), 0)[0, :, 0]
        grid = torch.linspace(-1, 1, 4001)[None, :, None]
        q = learner.critics(torch.full_like(grid, 0.3), grid)[0]
        wanted = torch.trapezoid(q.exp(), grid[0, :, 0]).log()
    torch.testing.assert_close(found, wanted, atol=0.03, rtol=0)


def test_cql_s_temperature_falls_where_entropy_is_above_its_target() -> None:
    log = log_of([0.3] * 8, [0.0] * 8)
    learner = CQL(Shapes(1, 1), CQLOptions(**SMALL), [0], log)
    learner.update(batch_of(log, list(range(8))), Draws([0], 8, 8, log.device), 0)
    assert learner.log_temperature.item() < 0  # the fresh policy is nearly uniform: entropy log 2 > -1


def test_iql_s_first_step_by_autograd_of_the_formulas() -> None:
    """The gradient of each part, on one batch, against the losses written down in one place."""
    draw = np.random.default_rng(0)
    log = log_of(draw.normal(size=8).tolist(), draw.uniform(-1, 1, 8).tolist())
    options = IQLOptions(**SMALL, expectile=0.8, beta=2.0, learning_rate=1e-3)
    learner, batch = IQL(Shapes(1, 1), options, [0], log), batch_of(log, list(range(8)))
    known = learner.target_critics(batch.states, batch.actions).amin(1).detach()
    value = learner.value(batch.states).squeeze(-1)
    weight = (2.0 * (known - value.detach())).exp().clamp(max=100.0)
    mean = learner.actor(batch.states).tanh()
    wanted = -(weight * gaussian_log_prob(mean, learner.log_std, batch.actions)).mean()
    told = learner.update(batch, Draws([0], 8, 8, log.device), 0)
    assert float(told["actor"]) == pytest.approx(wanted.item(), rel=1e-5)
    assert float(told["value"]) == pytest.approx(expectile_loss(known - value, 0.8).mean().item(), rel=1e-5)


# --------------------------------------------------------------------------------------------------------------- training


def test_a_step_of_a_part_is_the_optimiser_s() -> None:
    """Bit for bit, over several steps, and also of a part that has stood still meanwhile."""
    log = log_of([0.0, 1.0, 2.0], [0.5, -0.5, 0.0])
    ours, plain = (IQL(Shapes(1, 1), IQLOptions(**SMALL), [0, 1], log) for _ in range(2))
    batch = log.batch(torch.tensor([[0, 1], [2, 1]]))

    def descend(name: str, loss: torch.Tensor) -> None:
        parameters = plain._parts[name]
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss.sum(), parameters), strict=True):
            parameter.grad = gradient
        plain.optimiser.step()
        plain.optimiser.zero_grad()

    plain.descend = descend  # type: ignore[method-assign]
    for step in range(4):
        for learner in (ours, plain):
            learner.update(batch, Draws([0, 1], 2, 3, log.device), step)
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", OFFLINE)
def test_seeds_side_by_side_are_seeds_alone(name: str, log: Transitions) -> None:
    learner = OFFLINE[name]
    run = lambda **more: train_offline(  # noqa: E731
        learner, small(learner), log, bounds_of(log), ControlOptions(steps=30, batch_size=32, **more)
    )
    together = run(seeds=3)
    for place in range(3):
        alone = run(seed=place)
        theirs, own = (result.actor.state_dict() for result in (together.policies[place], alone.policies[0]))
        for weight in own:
            torch.testing.assert_close(theirs[weight], own[weight], atol=1e-5, rtol=1e-5)
    first, second = (next(iter(each.actor.state_dict().values())) for each in together.policies[:2])
    assert not torch.allclose(first, second)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("bc", 0.0),
        ("td3-bc", 1.5),
        ("cql", 1.5),
        ("iql", 1.5),
        ("awac", 1.5),
        ("prdc", 1.5),
        ("a2pr", 1.5),
        ("bcq", 1.0),
    ],
)
def test_they_do_better_than_the_log(name: str, least: float, log: Transitions, point: str) -> None:
    """The log's policy errs widely about the right action: cloning its mean helps, learning from rewards does more."""
    learner = OFFLINE[name]
    options = small(learner, gamma=0.9, learning_rate=3e-3)
    control = ControlOptions(steps=600, batch_size=64, eval_every=600, seeds=2)
    result = train_offline(learner, options, log, spaces_of(point).bounds, control, environment=point)
    ((_, returns),) = result.evaluations
    assert min(returns) > log.returns().mean() + least, (returns, log.returns().mean())
    assert roll_out(point, result.policies[0].acting(0), 10, seed=0).returns.mean() == pytest.approx(returns[0])


def test_episodes_are_whole_and_of_the_seed_alone(point: str) -> None:
    still = roll_out(point, lambda seen: np.zeros((len(seen), 1)), 3, seed=5)
    assert still.lengths.tolist() == [20, 20, 20] and still.costs is not None and still.costs.tolist() == [0, 0, 0]
    assert (
        still.returns.tolist() == roll_out(point, lambda seen: np.zeros((len(seen), 1)), 5, seed=5).returns[:3].tolist()
    )
    away = roll_out(point, lambda seen: np.full((len(seen), 1), 2.0), 2, seed=5)
    assert (away.lengths < 7).all() and (away.returns < -20).all() and away.costs is not None and (away.costs > 0).all()


def test_divergence_names_the_seed(log: Transitions) -> None:
    control = ControlOptions(steps=500, batch_size=32, seed=7, most_q=1e-9)
    with pytest.raises(TrainingDiverged, match=r"q is .* at step 500, seed 7"):
        train_offline(TD3BC, TD3BCOptions(**SMALL), log, bounds_of(log), control)


def test_logs_that_do_not_fit(log: Transitions, point: str) -> None:
    bounds = spaces_of(point).bounds
    with pytest.raises(DataError, match="fewer than a batch of 4096"):
        train_offline(TD3BC, TD3BCOptions(), log, bounds, ControlOptions(batch_size=4096))
    outside = dataclasses.replace(log, actions=np.where(np.arange(len(log))[:, None] == 3, 5.0, log.actions))
    with pytest.raises(DataError, match="1 rows outside the bounds, the first is row 3"):
        train_offline(TD3BC, TD3BCOptions(), outside, bounds)
    discrete = dataclasses.replace(log, actions=np.zeros(len(log), np.int64))
    with pytest.raises(DataError, match="discrete"):
        train_offline(TD3BC, TD3BCOptions(), discrete, bounds)
    for name, message in (("no/such-v0", "no"), ("Blackjack-v1", "Tuple")):
        with pytest.raises(OptionError, match=message):
            spaces_of(name)


def test_learners_are_what_the_command_line_lists() -> None:
    from paperworks.cli.train_control import ALGORITHMS

    assert tuple(OFFLINE) == ALGORITHMS and all(issubclass(each, Learner) for each in OFFLINE.values())
