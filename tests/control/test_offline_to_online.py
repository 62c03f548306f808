"""FamO2O as users have it: from a log into the environment, a family on disk, and the map of its balances."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.environments import roll_out, spaces_of
from paperworks.control.learner import Shapes
from paperworks.control.offline import OFFLINE
from paperworks.control.offline.balance_map import chosen_balances, member
from paperworks.control.offline.famo2o import BASES, FamilyIQL, FamO2O, FamO2OOptions
from paperworks.control.online import loop
from paperworks.control.policy import ControlPolicy
from paperworks.control.training import ControlOptions, bounds_of, train_offline
from paperworks.control.transitions import Transitions
from paperworks.core.errors import ModelError, OptionError

SMALL: dict[str, Any] = {"hidden": (16, 16)}
QUICK = (
    "--hidden",
    "8,8",
    "--steps",
    "20",
    "--batch-size",
    "16",
    "--eval-every",
    "20",
    "--eval-episodes",
    "2",
    "--quiet",
)
Outcome = tuple[int, str, str]


@pytest.fixture
def command(shell: Callable[..., Outcome], arrays: dict[str, np.ndarray]) -> Callable[..., Outcome]:
    """Runs a command in a folder that holds log.npz."""
    np.savez("log.npz", **arrays)
    return shell


@pytest.mark.parametrize("base", BASES)
def test_every_base_does_better_than_the_log(base: Any, log: Transitions, point: str) -> None:
    options = FamO2OOptions(base=base, **SMALL, gamma=0.9, learning_rate=3e-3, sampled_actions=4)
    control = ControlOptions(steps=300, batch_size=32, eval_every=300)
    result = train_offline(FamO2O, options, log, spaces_of(point).bounds, control, environment=point)
    ((_, returns),) = result.evaluations
    assert min(returns) > log.returns().mean() + 1.5


def test_balances_rise_where_critics_gain_by_them(log: Transitions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Actions grow with the balance here; critics like large ones where the state is positive, small ones elsewhere."""
    states = torch.linspace(-1, 1, 64)[None, :, None]
    zeros = torch.zeros(1, 64)
    batch = Batch(zeros.long(), states, zeros[..., None], zeros, states, zeros + 1)
    kept = Log(log, np.zeros(2, np.float32), np.ones(2, np.float32), torch.device("cpu"))
    made = FamilyIQL(Shapes(1, 1), FamO2OOptions(**SMALL, learning_rate=1e-2), [0], kept)
    judge = lambda states, actions: 5 * (states.sign() * actions).squeeze(-1)[:, None]  # noqa: E731
    monkeypatch.setattr(FamilyIQL, "judge", property(lambda self: judge))
    monkeypatch.setattr(made.family, "output", lambda states, beta: beta[..., None] - 3)
    draws = Draws([0], 64, 64, torch.device("cpu"))
    for step in range(200):
        made.fit_balance(batch, draws, step)
    chosen = made.family.chosen(states)[0]
    assert chosen[:24].max() < 2.5 < 3.5 < chosen[40:].min()


def test_a_saved_family_and_its_members(command: Callable[..., Outcome], point: str, log: Transitions) -> None:
    words = ("train", "famo2o", "--data", "log.npz", "--env", point, *QUICK, "--then-online", 40, "--seeds", 2)
    code, _, err = command(*words, "--out", "run")
    assert code == 0, err
    results = json.loads(Path("run/results.json").read_text())
    assert [step for step, _ in results["evaluations"]] == [20, 40, 60]
    policy = ControlPolicy.load("run/policy-0")
    balances = chosen_balances(policy, log.observations)
    with Path("run/beta-map.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["beta_0"]) for row in rows] == pytest.approx(balances.tolist(), abs=1e-4)
    assert rows[-1]["row"] == str(len(log) - 1) and balances.min() > 1 and balances.max() < 5
    low, high = (member(policy, beta).act(log.observations[:5]) for beta in (1.0, 5.0))
    assert not np.allclose(low, high)
    at = member(policy, 2.0).save("two")
    kept = ControlPolicy.load(at)
    assert np.array_equal(kept.act(log.observations[:5]), member(policy, 2.0).act(log.observations[:5]))
    assert (chosen_balances(kept, log.observations) == 2.0).all()
    assert roll_out(point, policy.act, 2).lengths.tolist() == [20, 20]
    report = Path("run/report.html").read_text()
    assert "Balances" in report and "beta-map.csv" in report
    with pytest.raises(OptionError, match="1 to 5"):
        member(policy, 6.0)
    command("train", "bc", "--data", "log.npz", *QUICK, "--out", "bc")
    with pytest.raises(OptionError, match="bc is no family"):
        member(ControlPolicy.load("bc"), 2.0)
    described = json.loads((at / "policy.json").read_text())
    described["settings"].pop("beta_range")
    (at / "policy.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match="damaged"):
        ControlPolicy.load(at)


def test_a_run_killed_online_resumes_to_the_same_policy(
    command: Callable[..., Outcome], point: str, cut_when: Callable[..., None]
) -> None:
    words = ("train", "famo2o", "--data", "log.npz", "--env", point, *QUICK, "--then-online", 30, "--save-every", 10)
    assert command(*words, "--out", "whole")[0] == 0
    cut_when(loop._Online, "_save", lambda run, done, *rest: done == 20, lambda: command(*words, "--out", "cut"))
    code, _, err = command("train", "famo2o", "--resume", "--out", "cut", "--quiet")
    assert code == 0, err
    for file in ("policy/policy.safetensors", "policy/policy.json", "beta-map.csv"):
        assert Path("cut", file).read_bytes() == Path("whole", file).read_bytes()
    same = [json.loads(Path(run, "results.json").read_text())["evaluations"] for run in ("cut", "whole")]
    assert same[0] == same[1]


@pytest.mark.parametrize("name", [name for name, each in OFFLINE.items() if each.goes_online])
def test_others_go_online_too(name: str, log: Transitions, point: str) -> None:
    """A phase in the environment moves the policy, and seeds side by side are seeds alone."""
    learner = OFFLINE[name]

    def run(**more: Any) -> Any:
        control = ControlOptions(steps=10, batch_size=16, eval_episodes=1, eval_every=10, **more)
        return train_offline(
            learner, learner.options_class(**SMALL), log, bounds_of(log), control, environment=point
        ).policies

    together, alone, before = run(then_online=12, seeds=2), run(then_online=12, seed=1), run(seed=1)
    seen = log.observations[:20]
    assert together[1].act(seen) == pytest.approx(alone[0].act(seen), abs=1e-3)
    assert not np.allclose(alone[0].act(seen), before[0].act(seen), atol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("famo2o", "--then-online", "10"), "--env ID"),
        (("bc", "--then-online", "10", "--env", "Pendulum-v1"), "learns from a log alone"),
        (("famo2o", "--beta-range", "5,1"), "must be below"),
        (("famo2o", "--beta-range", "5"), "values separated by commas"),
        (("famo2o", "--encoding-dim", "5"), "odd"),
        (("famo2o", "--base", "sac"), "not one of the choices"),
        (("famo2o", "--env", "Pendulum-v1"), "Pendulum-v1 shows 3"),
    ],
)
def test_mistakes_cost_one_line(command: Callable[..., Outcome], words: tuple[str, ...], message: str) -> None:
    code, _, err = command("train", words[0], "--data", "log.npz", *words[1:])
    assert code == 2 and message in err.splitlines()[-1], err
