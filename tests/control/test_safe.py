"""Safe policies from logs: values and policies on a small world, what the log must say, saved policies and their report."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paperworks.cli.main import main
from paperworks.cli.train_control import SAFE_ALGORITHMS
from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.datasets import from_arrays
from paperworks.control.learner import Learner, Shapes
from paperworks.control.offline import offline_learner
from paperworks.control.policy import ActionBounds, ControlPolicy, Normaliser
from paperworks.control.safe import SAFE
from paperworks.control.safe.constraints import check_constraints
from paperworks.control.safe.diffusion import NoiseModels
from paperworks.control.safe.diffusion_actor import DiffusionActor, best_candidate
from paperworks.control.safe.feasibility_report import Feasibility, feasibility_map, feasibility_of, lost_states
from paperworks.control.safe.fisor import FISOR, FISOROptions
from paperworks.control.safe.lagrangian import IQLLagrangian, IQLLagrangianOptions
from paperworks.control.safe.values import SafeValues
from paperworks.control.training import ControlOptions, bounds_of, train_offline
from paperworks.control.transitions import Transitions
from paperworks.core.errors import DataError, OptionError

FOLLOWING = {"next_observations": [[1.0], [2.0], [3.0], [4.0]]}
SMALL: dict[str, Any] = {
    "hidden": (16, 16),
    "vae_hidden": (16, 16),
    "policy_width": 8,
    "policy_blocks": 1,
    "candidates": 4,
}
CPU = torch.device("cpu")


def corridor(count: int = 600, *, signed: bool = True) -> Transitions:
    """x moves by a/4 plus a drift of 0.15; h = x - 1: beyond 1 is a violation, and from 0.9 on no action avoids it."""
    draw = np.random.default_rng(0)
    x, a = draw.uniform(-2, 2, (count, 1)), draw.uniform(-1, 1, (count, 1))
    x, a = x.astype(np.float32), a.astype(np.float32)
    ends = np.arange(count) % 20 == 19
    h = (x - 1)[:, 0]
    return Transitions(
        x, a, -np.abs(x[:, 0] - 0.8), x + np.float32(0.25) * a + np.float32(0.35), np.zeros(count, bool), ends,
        (h > 0).astype(np.float32), constraint=h if signed else None,
    )  # fmt: skip


def logged(log: Transitions) -> Log:
    return Log(
        log, np.zeros(log.observations.shape[1], np.float32), np.ones(log.observations.shape[1], np.float32), CPU
    )


def fisor(log: Transitions, seeds: tuple[int, ...] = (0,), **options: Any) -> FISOR:
    width = log.observations.shape[1]
    given = {**SMALL, **options}
    del given["vae_hidden"]
    return FISOR(Shapes(width, log.actions.shape[1]), FISOROptions(**given), seeds, logged(log))


def policy_of(learner: FISOR, log: Transitions) -> ControlPolicy:
    return ControlPolicy(learner.actor_of(0), Normaliser.none(log.observations.shape[1]), bounds_of(log), "fisor")


# ------------------------------------------------------------------------------------------------------------------ values


def test_values_find_where_a_violation_cannot_be_avoided() -> None:
    """The drift wins: from x on the least next x is x + 0.1, so that no state is safe for ever; gamma says how near counts.

    V_h rises with x, is h where h is the worst ahead, and more than h just below the border.
    """
    log = corridor()
    learner = fisor(log, learning_rate=1e-2, gamma=0.8, timeouts_bootstrap=True, tau=0.05)
    draws = Draws([0], 64, len(log), CPU)
    for step in range(200):
        learner.learn_values(learner._log.batch(draws.rows(step)))
    with torch.no_grad():
        at = torch.tensor([[[-1.5], [0.0], [0.95], [1.5]]])
        value = learner.values.value(at)[0, learner.values.place("hj")]
        q = learner.values.known(at.expand(1, 4, 1), torch.tensor([[[1.0], [1.0], [1.0], [1.0]]]))[0, 1]
    assert (value.diff() > 0).all()
    assert value[0] < -0.3 and value[2] > 0 > at[0, 2, 0] - 1 and value[3] > 0.4
    assert q[1] > value[1] - 0.05  # the rash action is no safer than the best one


def test_the_ensemble_is_pessimistic_of_both() -> None:
    values = SafeValues(1, 1, (8,), [0], ("reward", "hj"))
    states, actions = torch.randn(1, 5, 1), torch.randn(1, 5, 1)
    each = values.targets(states, actions)[0]
    known = values.known(states, actions)[0]
    torch.testing.assert_close(known, torch.stack([each[:2].amin(0), each[2:].amax(0)]))


@pytest.mark.parametrize(("timeouts_bootstrap", "goes_on"), [(False, 0.0), (True, 1.0)])
def test_time_limits_end_values_unless_told(timeouts_bootstrap: bool, goes_on: float) -> None:
    log = dataclasses.replace(corridor(40), truncations=np.ones(40, bool))
    learner, found = fisor(log, timeouts_bootstrap=timeouts_bootstrap), []
    learner.values.critic_loss = lambda *given: found.append(given[4]) or torch.zeros(1, 2, requires_grad=True)  # type: ignore
    learner.descend = lambda *given: None  # type: ignore[method-assign]
    learner.learn_values(learner._log.batch(torch.tensor([[0, 7]])))
    assert found[0].tolist() == [[goes_on, goes_on]]


def test_weights_of_each_kind_of_cloning() -> None:
    log = corridor(64)
    batch = logged(log).batch(torch.arange(64)[None])
    assert fisor(log, weights="bc").weigh(batch.states, batch.actions).eq(1).all()
    reward = fisor(log, weights="reward").weigh(batch.states, batch.actions)
    assert (reward > 0).all() and len(reward.unique()) > 5
    both = fisor(log)
    weight = both.weigh(batch.states, batch.actions)
    value, known = both.values.value(batch.states)[:, 1], both.values.known(batch.states, batch.actions)[:, 1]
    assert (weight[(value <= 0) & (known > 0)] == 0).all() and (weight[value > 0] > 0).all()
    summed = fisor(log, critic_type="qc", cost_limit=1e6)
    assert (summed.weigh(batch.states, batch.actions) > 0).all()  # all is feasible below such a limit


def test_a_staged_run_learns_values_then_the_policy() -> None:
    log = corridor(100)
    learner = fisor(log, staged=2)
    draws = Draws([0], 16, len(log), CPU)
    told = [set(learner.update(learner._log.batch(draws.rows(step)), draws, step)) for step in range(4)]
    assert "policy" not in told[0] | told[1] and "critic" in told[1]
    assert "policy" in told[2] and "critic" not in told[2] | told[3]


def test_the_policy_s_learning_rate_falls_along_a_cosine() -> None:
    learner = fisor(corridor(40), policy_decay=4, learning_rate=1e-3)
    rates = []
    for updates in (0, 2, 4, 9):
        learner._slow_down(updates)
        rates.append(learner.optimiser.param_groups[2]["lr"])
    assert rates == pytest.approx([1e-3, 5e-4, 0, 0]) and learner.optimiser.param_groups[0]["lr"] == 1e-3


# ------------------------------------------------------------------------------------------------------------------ policy


def test_the_first_layer_in_parts_is_the_first_layer() -> None:
    """States and times are put in once for all rows; the sum is that of the whole input."""
    model = NoiseModels(2, 1, 8, 0, [0, 1])
    states, actions, times = torch.randn(2, 5, 2), torch.randn(2, 5, 1), torch.randint(3, (2, 5))
    t = times[..., None].float()
    angle = 2 * torch.pi * t @ model.frequencies
    of_time = model.time_second(torch.nn.functional.mish(model.time_first(torch.cat([angle.cos(), angle.sin()], -1))))
    whole = model.first(torch.cat([actions, states, of_time], -1))
    torch.testing.assert_close(model(states, actions, times, 3), model.last(torch.nn.functional.mish(whole)))


def test_cloning_finds_the_logged_actions() -> None:
    """Two actions in one state, one of weight 0: the policy takes the other, though their mean would be between."""
    count = 64
    a = np.where(np.arange(count) % 2 == 0, 0.7, -0.5).astype(np.float32)[:, None]
    log = dataclasses.replace(corridor(count), observations=np.zeros((count, 1), np.float32), actions=a)
    learner = fisor(log, learning_rate=5e-3, policy_tau=0.05, policy_width=16, dropout=0.0, candidates=1)
    draws = Draws([0], 64, count, CPU)
    for step in range(200):
        batch = learner._log.batch(draws.rows(step))
        learner.clone(batch, (batch.actions[..., 0] > 0).float(), draws, step)
    acted = learner.act(torch.zeros(1, 200, 1), torch.Generator().manual_seed(0))
    assert acted.median().item() == pytest.approx(0.7, abs=0.12) and (acted > 0).float().mean() > 0.9


def test_candidates_are_chosen_by_violations_or_by_reward() -> None:
    values = SafeValues(1, 1, (8,), [0], ("reward", "hj"))
    states, candidates = torch.randn(1, 3, 1), torch.rand(1, 3, 6, 1)
    known = values.known(states.repeat_interleave(6, 1), candidates.flatten(1, 2)).view(2, 3, 6)
    for extract, best in (("maxq", known[0].argmax(1)), ("minqc", known[1].argmin(1))):
        found = best_candidate(values, states, candidates, "hj", extract)  # type: ignore[arg-type]
        torch.testing.assert_close(found[0], candidates[0, torch.arange(3), best])


def test_a_saved_policy_acts_as_its_learner(tmp_path: Path) -> None:
    log = corridor(60)
    learner = fisor(log, seeds=(3, 4))
    actor = learner.actor_of(1)
    states = torch.linspace(-1, 1, 7)[:, None]
    together = learner.act(torch.stack([states, states]), torch.Generator().manual_seed(5))
    policy = ControlPolicy(actor, Normaliser.none(1), bounds_of(log), "fisor")
    policy.save(tmp_path / "policy")
    loaded = ControlPolicy.load(tmp_path / "policy")
    assert isinstance(loaded.actor, DiffusionActor)
    np.testing.assert_array_equal(policy.acting(1)(states.numpy()), loaded.acting(1)(states.numpy()))
    assert not np.array_equal(loaded.acting(1)(states.numpy()), loaded.acting(2)(states.numpy()))
    torch.testing.assert_close(loaded.actor.value(states, "hj"), learner.values.value(torch.stack([states] * 2))[1, 1])
    assert together.shape == (2, 7, 1) and together.abs().max() <= 1


@pytest.mark.parametrize("name", SAFE)
def test_seeds_side_by_side_are_seeds_alone(name: str) -> None:
    learner, log = offline_learner(name), corridor(200)
    fields = {field.name for field in dataclasses.fields(learner.options_class)}
    options = learner.options_class(**{n: v for n, v in SMALL.items() if n in fields})
    run = lambda **more: train_offline(  # noqa: E731
        learner, options, log, bounds_of(log), ControlOptions(steps=12, batch_size=16, **more)
    )
    together, alone = run(seeds=2), run(seed=1)
    own, others = together.policies[1].actor.state_dict(), alone.policies[0].actor.state_dict()
    for part, weight in own.items():
        torch.testing.assert_close(weight, others[part], atol=1e-5, rtol=1e-5)
    assert set(together.final) >= {"critic", "q"}


def test_a_run_that_was_cut_goes_on_to_the_same_policy(tmp_path: Path) -> None:
    log = corridor(80)

    def run(steps: int, folder: str, resume: bool = False) -> dict[str, torch.Tensor]:
        control = ControlOptions(steps=steps, batch_size=16, save_every=3)
        given = {name: value for name, value in SMALL.items() if name != "vae_hidden"}
        options = FISOROptions(**given, policy_decay=20)
        found = train_offline(FISOR, options, log, bounds_of(log), control, folder=tmp_path / folder, resume=resume)
        return found.policies[0].actor.state_dict()

    whole = run(7, "whole")
    run(3, "cut")
    for name, weight in run(7, "cut", resume=True).items():
        assert torch.equal(weight, whole[name]), name


# -------------------------------------------------------------------------------------------------------------- Lagrangian


def lagrangian(**options: Any) -> tuple[IQLLagrangian, Batch, Draws]:
    log = corridor(64)
    learner = IQLLagrangian(Shapes(1, 1), IQLLagrangianOptions(hidden=(8,), **options), [0], logged(log))
    return learner, logged(log).batch(torch.arange(64)[None]), Draws([0], 64, 64, CPU)


@pytest.mark.parametrize(("limit", "moves"), [(0.0, 1), (1e4, -1)])
def test_the_multiplier_climbs_above_the_limit_and_sinks_below(limit: float, moves: int) -> None:
    learner, batch, draws = lagrangian(cost_limit=limit, multiplier_rate=0.01)
    with torch.no_grad():
        learner.multiplier.fill_(0.5)
        learner.target_cost_critics.nets.biases[-1].fill_(2.0)
    learner.update(batch, draws, 0)
    assert torch.sign(learner.multiplier - 0.5).item() == moves
    with torch.no_grad():
        learner.multiplier.fill_(0.0)
    learner.update(batch, draws, 1)
    assert learner.multiplier.item() >= 0


def test_the_base_algorithm_learns_from_penalised_rewards() -> None:
    learner, batch, draws = lagrangian()
    learner.multiplier.fill_(3.0)
    seen: list[Batch] = []
    base = IQLLagrangian.__mro__[2]
    original = base.update
    base.update = lambda self, given, *rest: seen.append(given) or original(self, given, *rest)  # type: ignore
    try:
        learner.update(batch, draws, 0)
    finally:
        base.update = original  # type: ignore[method-assign]
    assert batch.costs is not None
    torch.testing.assert_close(seen[0].rewards, batch.rewards - 3 * batch.costs)


# ------------------------------------------------------------------------------------------------------------- constraints


def test_columns_and_what_they_mean(made: Any) -> None:
    log = made(**FOLLOWING, cost=[0.0, 1.0, 0.0, 0.0], constraint=[-1.0, 0.5, -2.0, -0.1])
    assert log.constraint.tolist() == pytest.approx([-1, 0.5, -2, -0.1]) and log.costs.tolist() == [0, 1, 0, 0]
    assert check_constraints(log, "auto") == []
    assert fisor(log)._signals["hj"].tolist() == log.constraint.tolist()
    assert fisor(log, constraint="costs")._signals["hj"].tolist() == [-1, 25, -1, -1]
    assert fisor(log, critic_type="qc")._signals["qc"].tolist() == [0, 1, 0, 0]
    leading = [1.0, 0.0, 0.0, 0.0]  # the cost of where a row leads
    shifted = made(**FOLLOWING, costs=leading, constraint=[-1.0, 0.5, -2.0, -0.1])
    assert check_constraints(shifted, "auto") == []


@pytest.mark.parametrize(
    ("arrays", "column", "message"),
    [
        ({}, "auto", "no array costs"),
        ({"costs": [0, 1, 0, 0]}, "signed", "no array costs"),
        ({"costs": [1, 1, 2, 1]}, "auto", "every row is a violation"),
        ({"constraint": [1.0, 1, 2, 1]}, "auto", "constraint: every row is a violation"),
        ({"costs": [0, -1, 0, 1]}, "auto", "row 1 is -1"),
        ({"costs": [0, 1, 0, 0], "constraint": [1.0, -1, 2, 3]}, "auto", "disagree in .* rows, the first is row 0"),
    ],
)
def test_logs_without_a_usable_constraint(made: Any, arrays: dict[str, Any], column: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_constraints(made(**FOLLOWING, **arrays), column)


def test_a_log_without_violations_is_warned_of(made: Any) -> None:
    assert "nothing to learn to avoid" in check_constraints(made(costs=[0, 0, 0, 0]), "auto")[0]


@pytest.mark.parametrize("name", SAFE)
def test_every_safe_algorithm_asks_for_costs(name: str, made: Any) -> None:
    learner = offline_learner(name)
    assert learner is SAFE[name] and issubclass(learner, Learner)
    with pytest.raises(DataError, match="no array costs"):
        learner.check(made(), learner.options_class())


def test_constraints_that_are_not_numbers_are_named() -> None:
    arrays = {"observations": [[0.0]] * 3, "actions": [[0.0]] * 3, "rewards": [0.0] * 3, "terminations": [0, 0, 1]}
    given = {name: np.asarray(values) for name, values in arrays.items()}
    with pytest.raises(DataError, match=r"constraint: 1 rows .* row 1"):
        from_arrays({**given, "constraint": np.asarray([0.0, np.nan, 1.0])})


# ------------------------------------------------------------------------------------------------------------------ report


def test_lost_states_are_listed_the_worst_first(made: Any) -> None:
    log = made(**FOLLOWING, costs=[0, 1, 0, 1])
    found = Feasibility(np.array([1.0, 24.74, -0.5, 24.4826]), np.array([2.0, 25.0, 0.1, 25.0]))
    rows = list(csv.DictReader(io.StringIO(lost_states(found, log, cost_scale=25.0, gamma=0.99))))
    assert [row["row"] for row in rows] == ["1", "3", "0"] and rows[1]["observation_0"] == "3"
    assert [float(row["steps_ahead"]) for row in rows[:2]] == [1.0, 2.0]
    assert [(row["episode"], row["step"], row["logged_steps"]) for row in rows] == [
        ("0", "1", "0"), ("1", "1", "0"), ("0", "0", "1")
    ]  # fmt: skip
    assert found.feasible == 0.25 and found.allowed == 0.0
    assert "steps_ahead" in lost_states(found, log, cost_scale=None, gamma=0.99).splitlines()[0]


def test_values_of_a_log_are_those_of_its_rows() -> None:
    log = corridor(50)
    learner = fisor(log)
    found = feasibility_of(policy_of(learner, log), log, threshold=0.25)
    states, actions = (torch.from_numpy(each)[None] for each in (log.observations, log.actions))
    np.testing.assert_allclose(found.value, learner.values.value(states)[0, 1].detach().numpy() - 0.25, atol=1e-5)
    np.testing.assert_allclose(found.q, learner.values.known(states, actions)[0, 1].numpy() - 0.25, atol=1e-5)


@pytest.mark.parametrize("dims", [(0, 0), (0, 9), (1,)])
def test_maps_of_numbers_that_a_state_has_not(dims: tuple[int, ...]) -> None:
    log = corridor(40)
    with pytest.raises(OptionError, match="--map-dims"):
        feasibility_map(policy_of(fisor(log), log), log, Feasibility(np.zeros(40), np.zeros(40)), dims)


@pytest.mark.parametrize("width", [2, 3])
def test_maps(width: int) -> None:
    log = corridor(80)
    log = dataclasses.replace(log, observations=np.repeat(log.observations, width, 1), next_observations=None)  # type: ignore
    log = dataclasses.replace(log, next_observations=log.observations)
    policy = policy_of(fisor(log), log)
    svg, caption = feasibility_map(policy, log, feasibility_of(policy, log), (1, 0))
    assert svg.startswith("<svg") and ("V_h" in caption) == (width == 2)


def test_a_run_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn_figures: None) -> None:
    """Policy, report with its section, the list of lost states; the saved policy plays in the project's own environment."""
    from paperworks.control.testbeds.point_robot_trial import make_log, save_log

    monkeypatch.chdir(tmp_path)
    save_log(make_log(0, 400), Path("robot.npz"))
    words = "train fisor --data robot.npz --env paperworks/PointRobot-v0 --steps 6 --batch-size 32 --eval-every 6"
    small = "--eval-episodes 1 --hidden 8 --policy-width 8 --policy-blocks 1 --candidates 2 --map-dims 0,1 --quiet --out run"
    assert main([*words.split(), *small.split()]) == 0
    results = json.loads(Path("run/results.json").read_text())
    (section,) = results["sections"]
    assert "states that can be kept safe" in " ".join(section["facts"]) and len(section["figures"]) == 1
    assert "Where the constraint can be kept" in Path("run/report.html").read_text()
    assert Path("run/lost-states.csv").read_text().startswith("row,episode,step,v_h")
    assert isinstance(ControlPolicy.load("run").actor, DiffusionActor)
    np.savez("plain.npz", **{n: v for n, v in np.load("robot.npz").items() if n not in ("costs", "constraint")})
    assert main(["train", "fisor", "--data", "plain.npz", "--quiet", "--out", "none"]) == 2


def test_the_command_line_knows_them() -> None:
    assert tuple(SAFE) == SAFE_ALGORITHMS


def test_bounds_are_those_of_actions_logged() -> None:
    assert isinstance(bounds_of(corridor(10)), ActionBounds)
