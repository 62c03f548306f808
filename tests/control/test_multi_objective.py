"""Fronts: what an archive keeps, how batched PPO learns, that searches side by side are as they are alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from paperworks.control.multi_objective import cpo, pareto
from paperworks.control.multi_objective.barrier import official_loss
from paperworks.control.multi_objective.c_morl import CMORL, CMORLOptions
from paperworks.control.multi_objective.environments import (
    GymnasiumEnvironments,
    WorldEnvironments,
    pays_a_vector,
)
from paperworks.control.multi_objective.fronts import Front, control_policy, save_front
from paperworks.control.multi_objective.policies import Nets, NetShape, Policies
from paperworks.control.multi_objective.ppo import generalised_advantages
from paperworks.control.multi_objective.search import FrontSearch, Trainer
from paperworks.control.multi_objective.weighted_sum import WeightedSum, WeightedSumOptions
from paperworks.control.policy import ActionBounds
from paperworks.control.testbeds.vector_worlds import CircleBandit, DeepSea, FruitTree
from paperworks.core.errors import DataError, OptionError, TrainingDiverged

torch.set_num_threads(1)
QUICK: dict[str, Any] = {
    "hidden": (8,), "rollout_steps": 2, "copies": 16, "epochs": 2, "minibatches": 2, "learning_rate": 1e-2,
    "eval_episodes": 1, "evaluate_every": 1, "updates_a_leg": 4, "normalise_states": False,
}  # fmt: skip


def test_an_archive_keeps_what_nothing_beats() -> None:
    archive = pareto.Archive([0, 0], capacity=10)
    assert archive.offer(np.array([[1.0, 3], [3, 1], [1, 3], [0.5, 0.5], [-1, 9]])).tolist() == [0, 1]
    assert archive.offer(np.array([[2.0, 2], [3, 1], [1, 4]])).tolist() == [1, 2, 4]  # (1, 3) is beaten, (3, 1) known
    assert {pareto.vector(point) for point in archive.points} == {(3, 1), (2, 2), (1, 4)}
    assert archive.offer(np.zeros((0, 2))).tolist() == [0, 1, 2]


def test_a_full_archive_drops_the_most_crowded() -> None:
    archive = pareto.Archive([0, 0], capacity=3)
    archive.offer(np.array([[0.0, 10], [1, 9], [5, 5], [9, 2], [10, 0]]))
    assert {pareto.vector(point) for point in archive.points} == {(0, 10), (5, 5), (10, 0)}


def test_crowding_of_few_points_and_of_an_objective_without_a_range() -> None:
    assert np.isinf(pareto.crowding(np.array([[1.0, 2.0]]))).all()
    flat = np.array([[0.0, 1], [1, 1], [3, 1]])
    np.testing.assert_allclose(pareto.crowding(flat), [np.inf, 1.0, np.inf])


def test_gaps_name_the_widest_first() -> None:
    found = pareto.gaps(np.array([[0.0, 10], [1, 9], [10, 0]]), count=2)
    assert [gap.share for gap in found] == [0.9, 0.9] and {gap.objective for gap in found} == {0, 1}
    assert found[0].low == (1, 9) and found[0].high == (10, 0)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.7, 0.4), "sums to 1.1"),
        ((-0.5, 1.5), "at least 0"),
        ((1.0,), "2 objectives"),
        ((float("nan"), 1.0), "at least 0"),
    ],
)
def test_preferences_that_do_not_fit(weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        pareto.check_preference(weights, 2)
    pareto.check_preference((1 / 3, 2 / 3), 2)


def test_advantages_look_behind_a_truncation_and_never_behind_an_end() -> None:
    """Three steps, gamma 0.5, lambda 1: the first episode ends (or is cut) after two of them."""
    rewards = torch.tensor([1.0, 2, 4]).view(1, 3, 1, 1)
    values, following = torch.tensor([0.0, 0, 0]).view(1, 3, 1, 1), torch.tensor([8.0, 8, 8]).view(1, 3, 1, 1)
    ended = torch.tensor([False, True, False]).view(1, 3, 1)
    terminated = generalised_advantages(rewards, values, following, ended, ended, 0.5, 1.0)
    cut = generalised_advantages(rewards, values, following, torch.zeros_like(ended), ended, 0.5, 1.0)
    assert terminated.flatten().tolist() == [1 + 4 + 0.5 * 2, 2, 8]
    assert cut.flatten().tolist() == [1 + 4 + 0.5 * 6, 6, 8]


def test_a_step_is_adams_with_the_gradient_cut() -> None:
    policies = Policies.fresh(NetShape(2, 2, 2, (4,), True), [0])
    weights = torch.nn.Parameter(policies.rows["parameters"].clone())
    adam, draw = torch.optim.Adam([weights], lr=0.01, eps=1e-5), torch.Generator().manual_seed(0)
    for _ in range(3):
        gradient = torch.randn(weights.shape, generator=draw)
        weights.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([weights], 0.5)
        adam.step()
        policies.descend(gradient, torch.tensor([0.01]), 0.5)
    torch.testing.assert_close(policies.rows["parameters"], weights.detach())


def test_running_statistics_are_those_of_everything_seen() -> None:
    policies, draw = Policies.fresh(NetShape(3, 2, 2, (4,), True), [0, 1]), torch.Generator().manual_seed(0)
    seen = [torch.randn(2, count, 3, generator=draw) * 5 + 2 for count in (4, 7, 1)]
    for part in seen:
        policies.see("state", part)
    whole = torch.cat(seen, 1)
    torch.testing.assert_close(policies.rows["state_mean"], whole.mean(1))
    torch.testing.assert_close(policies.rows["state_variance"], whole.var(1, correction=0))


def trained(make: Callable[[int], FrontSearch], seeds: list[int], world: Any) -> list[FrontSearch]:
    searches = [make(seed) for seed in seeds]
    trainer = Trainer(searches, WorldEnvironments(world), WorldEnvironments(world))
    while trainer.leg():
        pass
    return searches


def test_a_search_is_the_same_alone_and_beside_others() -> None:
    world = DeepSea()
    options = CMORLOptions(steps=3000, init_steps=1000, weight_step=1.0, **{**QUICK, "rollout_steps": 12})

    def make(seed: int) -> FrontSearch:
        return CMORL(options, world.spaces, (0, -120), seed)

    together, alone = trained(make, [3, 4], world)[1], trained(make, [4], world)[0]
    np.testing.assert_allclose(together.archive.points, alone.archive.points, atol=1e-5)
    assert together.steps == alone.steps and together.entries == alone.entries


def test_the_steps_are_those_of_everything_and_nothing_is_trained_beyond_them() -> None:
    world = CircleBandit()
    for cls, options in (
        (CMORL, CMORLOptions(steps=2000, init_steps=500, weight_step=1.0, **QUICK)),
        (WeightedSum, WeightedSumOptions(steps=2000, policies=3, **QUICK)),
    ):
        (search,) = trained(lambda seed, c=cls, o=options: c(o, world.spaces, (-1, -1), seed), [0], world)
        widest = 5 * 2 * (2 * 16 + 1)  # policies, steps of a roll-out and of an evaluation
        assert 2000 <= search.steps < 2000 + widest
        assert [steps for steps, _ in search.curve] == sorted({steps for steps, _ in search.curve})


def test_extensions_leave_the_ends_for_what_lies_between() -> None:
    world = CircleBandit(5)
    options = CMORLOptions(steps=6000, init_steps=2000, weight_step=1.0, **{**QUICK, "rollout_steps": 1, "copies": 64})
    (search,) = trained(lambda seed: CMORL(options, world.spaces, (-0.01, -0.01), seed), [0], world)
    assert len(search.archive) >= 4
    assert any(entry.origin.startswith("objective") for entry in search.entries)


def test_every_policy_is_selected_before_one_is_selected_again() -> None:
    world = CircleBandit(3)
    search = CMORL(CMORLOptions(init_steps=1, select=2, **QUICK), world.spaces, (-1, -1), 0)
    points = np.array([[1.0, 0], [0, 1], [0.7, 0.7]])
    search.offer(points, Policies.fresh(search.shape, [0, 1, 2]), ["a", "b", "c"])
    search.steps = 1  # stage 1 is over
    assert len(search.jobs().policies) == 4 and len(search.jobs().policies) == 2  # two, then the one that is left
    assert len(search.jobs().policies) == 4 and len(search.chosen) == 2  # and from the beginning


def test_a_reference_point_that_nothing_reaches_is_named() -> None:
    world = CircleBandit(3)
    options = CMORLOptions(steps=200, init_steps=100, weight_step=1.0, **QUICK)
    with pytest.raises(DataError, match=r"objective 2: best .*, reference 5"):
        trained(lambda seed: CMORL(options, world.spaces, (-1, 5), seed), [0], world)
    with pytest.raises(OptionError, match="3 numbers; circle bandit has 2"):
        CMORL(options, world.spaces, (0, 0, 0), 0)


def test_returns_that_are_not_finite_end_a_search() -> None:
    search = CMORL(CMORLOptions(**QUICK), CircleBandit().spaces, (0, 0), 0)
    with pytest.raises(TrainingDiverged, match="weights 1 0"):
        search.offer(np.array([[np.nan, 1.0]]), Policies.fresh(search.shape, [0]), ["weights 1 0"])


def test_a_search_goes_on_from_its_state_to_the_same_front() -> None:
    world = CircleBandit()
    options = CMORLOptions(steps=3000, init_steps=800, weight_step=1.0, **QUICK)
    whole, cut, resumed = (CMORL(options, world.spaces, (-0.01, -0.01), 5) for _ in range(3))

    def legs(search: FrontSearch, count: int) -> None:
        trainer = Trainer([search], WorldEnvironments(world), WorldEnvironments(world))
        while count and trainer.leg():
            count -= 1

    legs(whole, -1)
    legs(cut, 3)
    resumed.restore(cut.state(), cut.policies, cut.current)
    legs(resumed, -1)
    assert resumed.state() == whole.state()
    assert all(torch.equal(resumed.policies.rows[n], values) for n, values in whole.policies.rows.items())


def test_the_released_barrier_to_the_letter() -> None:
    """-(1/t) mean log max(rho R - beta R, 0.001) over all rows but row i, and over every objective."""
    ratio, mean = torch.tensor([[1.0, 1.1, 0.9]]), torch.tensor([[2.0, -1.0]])
    found = official_loss(ratio, mean, torch.tensor([1]), 0.9, 20.0)
    slack = torch.tensor([[0.1 * 2, 1e-3], [1e-3, 1e-3]])  # row 1 is left out; rho - beta is 0.1 and 0
    assert found.item() == pytest.approx(-slack.log().mean().item() / 20, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_a_constrained_step_solves_its_problem(seed: int) -> None:
    draw, size, held, max_kl = np.random.default_rng(seed), 6, 3, 0.05
    fisher, gradients, slack = (
        draw.uniform(0.5, 2, size),
        draw.normal(size=(held + 1, size)),
        draw.uniform(-0.1, 0.1, held),
    )
    step = cpo.direction(
        torch.tensor(gradients)[None], torch.tensor(gradients / fisher)[None], torch.tensor(slack)[None],
        torch.ones(1, held, dtype=torch.bool), max_kl,
    )[0].numpy()  # fmt: skip
    best = minimize(
        lambda x: -gradients[0] @ x, np.zeros(size), constraints=[
            {"type": "ineq", "fun": lambda x: slack + gradients[1:] @ x},
            {"type": "ineq", "fun": lambda x: max_kl - 0.5 * x @ (fisher * x)},
        ],
    )  # fmt: skip
    assert gradients[0] @ step == pytest.approx(-best.fun, rel=1e-3)
    assert (slack + gradients[1:] @ step >= -1e-4).all() and 0.5 * step @ (fisher * step) <= max_kl * 1.0001


def test_a_step_that_cannot_meet_its_constraint_goes_towards_it() -> None:
    gradients = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    step = cpo.direction(gradients, gradients, torch.tensor([[-5.0]]), torch.tensor([[True]]), 0.02)
    torch.testing.assert_close(step, torch.tensor([[0.0, 0.2]]))


def test_cpo_extends_a_front_as_well() -> None:
    world = CircleBandit(5)
    options = CMORLOptions(
        steps=6000,
        init_steps=2000,
        weight_step=1.0,
        optimiser="cpo",
        max_kl=0.1,
        **{**QUICK, "rollout_steps": 1, "copies": 64},
    )
    (search,) = trained(lambda seed: CMORL(options, world.spaces, (-0.01, -0.01), seed), [0], world)
    assert len(search.archive) >= 4


class Plane(gymnasium.Env[Any, Any]):
    """One step: rewards are the two numbers of the action, which lie in [0, 3]."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(0, 3, (2,), np.float32)
    reward_space = gymnasium.spaces.Box(0, 3, (2,), np.float32)
    broken = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        paid = np.array([action[0], np.nan if self.broken else action[1]], np.float32)
        return np.zeros(1, np.float32), paid, True, False, {}


def test_continuous_actions_reach_the_environment_in_its_bounds() -> None:
    environments = GymnasiumEnvironments(Plane, ("first", "second"))
    assert isinstance(environments.spaces.bounds, ActionBounds) and environments.spaces.names == ("first", "second")
    environments.reset([0, 1])
    paid = environments.step(torch.tensor([[-1.0, 0.0], [7.0, -7.0]])).rewards
    torch.testing.assert_close(paid, torch.tensor([[0.0, 1.5], [3.0, 0.0]]))
    options = WeightedSumOptions(steps=1500, policies=1, **{**QUICK, "rollout_steps": 1, "learning_rate": 0.05})
    search = WeightedSum(options, environments.spaces, (0, 0), 0)
    trainer = Trainer([search], environments, GymnasiumEnvironments(Plane))
    while trainer.leg():
        pass
    first, last = search.curve[0][1][-1], search.curve[-1][1][-1]
    assert sum(last) > sum(first) + 0.5


def test_environments_that_do_not_fit() -> None:
    class Broken(Plane):
        broken = True

    environments = GymnasiumEnvironments(Broken)
    environments.reset([0])
    with pytest.raises(DataError, match="objective 2 is not finite"):
        environments.step(torch.zeros(1, 2))
    with pytest.raises(OptionError, match="pays one number"):
        GymnasiumEnvironments("CartPole-v1")
    with pytest.raises(OptionError, match="3 names of objectives"):
        GymnasiumEnvironments(Plane, ("a", "b", "c"))
    assert not pays_a_vector("CartPole-v1") and not pays_a_vector("nothing-v0")


def test_where_mo_gymnasium_is_missing_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mo_gymnasium", None)
    with pytest.raises(OptionError, match="install mo-gymnasium"):
        GymnasiumEnvironments("no-such-treasure-v0")


@pytest.mark.parametrize(
    ("name", "world"),
    [
        ("deep-sea-treasure-v0", DeepSea()),
        ("deep-sea-treasure-concave-v0", DeepSea("concave")),
        ("fruit-tree-v0", FruitTree()),
    ],
)
def test_worlds_on_tensors_are_mo_gymnasiums(name: str, world: Any) -> None:
    mo_gymnasium = pytest.importorskip("mo_gymnasium")
    theirs, ours, draw = GymnasiumEnvironments(name), WorldEnvironments(world), torch.Generator().manual_seed(0)
    assert theirs.spaces.bounds == ours.spaces.bounds
    assert torch.equal(theirs.reset(range(4)), ours.reset(range(4)))
    for _ in range(150):
        count = theirs.spaces.bounds.width
        actions = torch.randint(count, (4,), generator=draw)
        down = torch.randint(count, (4,), generator=draw) | 1  # down or right: towards the treasures
        first, second = (each.step(torch.where(actions > 1, actions, down)) for each in (theirs, ours))
        for part in ("states", "last", "rewards", "terminated", "truncated"):
            assert torch.equal(getattr(first, part), getattr(second, part))
    known = np.asarray(mo_gymnasium.make(name).unwrapped.pareto_front(0.99))
    np.testing.assert_allclose(world.front(0.99), known, rtol=1e-6)


def test_a_saved_policy_acts_as_the_trained_one(tmp_path: Any) -> None:
    world = DeepSea()
    shape, draw = NetShape(2, 4, 2, (8,), True), torch.Generator().manual_seed(0)
    policies = Policies.fresh(shape, [0, 1, 2])
    policies.rows["parameters"] += 0.3 * torch.randn(policies.rows["parameters"].shape, generator=draw)
    policies.see("state", torch.randint(11, (3, 50, 2), generator=draw).float())
    states = torch.randint(11, (40, 2), generator=draw).float()
    wanted = Nets(shape, policies.rows["parameters"]).actor(policies.normalised(states.expand(3, -1, -1))).argmax(-1)
    for place in range(3):
        saved = control_policy(policies, place, world.spaces, "c-morl")
        assert saved.act(states.numpy()).tolist() == wanted[place].tolist()
    returns = np.array([[1.0, -1], [5, -9], [0.5, -2]])  # the last is beaten
    front = save_front(tmp_path / "archive", world.spaces, (0, -20), 0.99, policies, returns, [("a", 1)] * 3, "c-morl")
    assert front == Front.load(tmp_path) and [member.returns for member in front.members] == [(5, -9), (1, -1)]
    assert front.policy_for([0.0, 3.0]).act(states.numpy()).tolist() == wanted[0].tolist()
