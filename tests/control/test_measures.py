"""Measures of logs against their definitions, and the command that shows them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paperworks.cli.main import main
from paperworks.control import measures
from paperworks.control.audit import AuditOptions, audit_dataset
from paperworks.control.measures import Grid
from paperworks.control.transitions import Transitions
from paperworks.core.errors import DataError, OptionError

Made = Callable[..., Transitions]


def keys(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.uint64)


def test_quality() -> None:
    """Check 1: returns (1, 3) between 0 and 4; the references themselves; a factor on all rewards changes nothing."""
    assert measures.trajectory_quality(2, 0, 4) == 0.5
    assert (measures.trajectory_quality(0, 0, 4), measures.trajectory_quality(4, 0, 4)) == (0, 1)
    assert measures.trajectory_quality(2 * 7, 0, 4 * 7) == 0.5 and measures.trajectory_quality(-2, 0, 4) == -0.5
    with pytest.raises(DataError, match="no scale"):
        measures.trajectory_quality(1, 2, 2)


def test_coverage() -> None:
    """Check 2: 3 of 6; a log against itself; doubles and unions."""
    log, reference = keys(1, 1, 2, 2, 3, 3), keys(1, 2, 3, 4, 5, 6)
    assert measures.coverage(log, reference) == 0.5
    assert measures.log_coverage(log, reference) == pytest.approx(0.613147, abs=1e-6)
    assert measures.coverage(reference, reference) == 1
    assert measures.unique(np.concatenate([log, log])) == measures.unique(log)
    assert measures.log_coverage(log, keys(1, 1, 1, 1, 1, 1)) is None


def test_coverage_is_of_equal_sizes() -> None:
    """A log ten times as long as its reference, all of it distinct, covers no more than the reference does."""
    assert measures.coverage(np.arange(1000, dtype=np.uint64), keys(*range(100))) == 1


def test_entropy() -> None:
    """Check 3: counts (2, 1, 1)."""
    found = measures.entropy(keys(1, 1, 2, 3))
    assert found == pytest.approx(1.039721, abs=1e-6) and math.exp(found) == pytest.approx(2.828427, abs=1e-6)
    assert math.exp(measures.entropy(keys(1, 2, 3))) == pytest.approx(3)


def test_bins_are_those_of_digitize(made: Made) -> None:
    draw = np.random.default_rng(0)
    states, actions = draw.normal(size=(400, 3)), draw.uniform(-1, 1, size=(400, 2))
    log = made(
        observations=states, actions=actions, rewards=np.zeros(400), terminations=np.zeros(400), truncations=None,
        next_observations=states,
    )  # fmt: skip
    low, high = np.full(5, -1.0), np.full(5, 1.0)  # some states lie outside
    table = np.concatenate([states.astype(np.float32), actions.astype(np.float32)], 1).astype(np.float64)
    places = np.stack([np.digitize(table[:, i], np.linspace(-1, 1, 7)) for i in range(5)], 1)
    found = Grid(low, high, 7).keys(log)
    _, wanted = np.unique(places, axis=0, return_inverse=True)
    _, own = np.unique(found, return_inverse=True)
    pairs = set(zip(wanted.ravel().tolist(), own.tolist(), strict=True))
    assert len(pairs) == len(set(wanted.ravel().tolist())) == measures.unique(found)
    with pytest.raises(OptionError, match="at least 2"):
        Grid.of(log, 1)


def test_discrete_actions_are_never_binned_together(made: Made) -> None:
    log = made(actions=[0, 1, 250, 251], observations=[[1.0]] * 4, next_observations=[[1.0]] * 4)
    assert measures.unique(Grid.of(log, 4).keys(log)) == 4


def test_advantage_share(made: Made) -> None:
    """Two states, in each of which a quarter of the transitions earns 1 and the others nothing."""
    count = 400
    states = np.repeat([0.0, 100.0], count // 2)[:, None]
    rewards = np.tile([1.0, 0.0, 0.0, 0.0], count // 4)
    log = made(
        observations=states, actions=states * 0, rewards=rewards, terminations=np.ones(count), truncations=None,
        next_observations=states,
    )  # fmt: skip
    assert measures.advantage_share(log, neighbours=100) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("quality", "covered", "method"),
    [(0.9, 0.1, "BC"), (0.1, 0.9, "DQN"), (0.5, 0.5, "CRR"), (0.1, 0.1, ""), (None, None, ""), (0.95, None, "BC")],
)
def test_advice(quality: float | None, covered: float | None, method: str) -> None:
    found = measures.advise(quality, covered)
    assert method in found.methods if method else not found.methods
    assert found.reason


def test_an_audit_from_the_command_line(
    arrays: dict[str, np.ndarray], point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], undrawn_figures: None,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    np.savez("log.npz", **arrays)
    np.savez("still.npz", **{**arrays, "actions": arrays["actions"] * 0})
    words = ["--reference", "log.npz", "--env", point, "--random-episodes", "5", "--best-return", "-5"]
    assert main(["audit", "dataset", "still.npz", *words, "--out", "audit.html"]) == 0
    out = capsys.readouterr().out
    assert "TQ, trajectory quality" in out and "SACo, coverage" in out
    assert "Audit of a log" in Path("audit.html").read_text()
    assert main(["audit", "dataset", "still.npz", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["covered"] < 1 and found["random_return"] < -8 and found["curve"][-1][0] == found["transitions"]
    assert all(len(found[f"{name}_quantiles"]) == 5 for name in ("return", "length", "sparsity"))
    assert "no guarantee" in found["advice"]["limits"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["audit"], "name what to audit"),
        (["audit", "dataste", "log.npz"], "did you mean 'dataset'"),
        (["audit", "dataset", "none.npz"], "no such file"),
        (["audit", "dataset", "log.npz", "--best-return", "1"], "goes with --random-return"),
        (["audit", "dataset", "log.npz", "--bins", "1"], "bins"),
        (["audit", "dataset", "log.npz", "--out", "x.txt"], "ends in .html"),
    ],
)
def test_mistakes_cost_one_line(
    words: list[str], message: str, arrays: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    np.savez("log.npz", **arrays)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_a_reference_of_another_task_is_refused(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", **arrays)
    other = {**arrays, "observations": np.zeros((len(arrays["rewards"]), 5))}
    np.savez(tmp_path / "other.npz", **other)
    with pytest.raises(DataError, match="numbers"):
        audit_dataset(str(tmp_path / "log.npz"), AuditOptions(reference=str(tmp_path / "other.npz")))


@pytest.mark.parametrize(
    ("changed", "words", "message"),
    [
        ({"terminals": False, "timeouts": False}, {}, "no episode ends"),
        ({}, {"reference": "short.npz"}, "fewer than the"),
        ({"actions": 9.0}, {"env": "point"}, "outside the bounds"),
        ({}, {"env": "CartPole-v1"}, "takes discrete ones"),
    ],
)
def test_what_cannot_be_measured_is_said(
    changed: dict[str, float], words: dict[str, str], message: str, arrays: dict[str, np.ndarray], point: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    arrays = {**arrays, "next_observations": arrays["observations"]}
    np.savez("short.npz", **{name: values[:500] for name, values in arrays.items()})
    np.savez("log.npz", **{**arrays, **{name: arrays[name] * 0 + value for name, value in changed.items()}})
    given = {name: point if value == "point" else value for name, value in words.items()}
    with pytest.raises(DataError, match=message):
        audit_dataset("log.npz", AuditOptions(**given))  # type: ignore[arg-type]
    if "reference" in given:
        found = audit_dataset("log.npz", AuditOptions(reference="short.npz", limit=400))
        assert 300 < found.transitions <= 400 and found.covered is not None


def test_quantiles_over_episodes(made: Made, tmp_path: Path) -> None:
    log = made(rewards=[0.0, 2.0, 0.0, 0.0])
    np.savez(
        tmp_path / "log.npz", observations=log.observations, actions=log.actions, rewards=log.rewards,
        next_observations=log.next_observations, terminations=log.terminations, truncations=log.truncations,
    )  # fmt: skip
    found = audit_dataset(str(tmp_path / "log.npz"))
    assert found.sparsities == (0.5, 1.0) and found.as_dict()["sparsity_quantiles"] == [0.5, 0.625, 0.75, 0.875, 1.0]


@pytest.mark.parametrize(
    ("discrete", "commands"), [(True, ["discrete-bc", "discrete-bcq", "crr"]), (False, ["bc", "bcq"])]
)
def test_the_advice_names_commands(discrete: bool, commands: list[str], made: Made, tmp_path: Path) -> None:
    log = made(actions=[0, 1, 1, 0]) if discrete else made()
    np.savez(
        tmp_path / "log.npz", observations=log.observations, actions=log.actions, rewards=log.rewards,
        next_observations=log.next_observations, terminations=log.terminations, truncations=log.truncations,
    )  # fmt: skip
    found = audit_dataset(str(tmp_path / "log.npz"), AuditOptions(random_return=0, best_return=3))
    given = found.as_dict()["advice"]["commands"]
    assert given == [f"paperworks train {name} --data {found.source}" for name in commands]


def test_shifting_rewards_of_equal_episodes_leaves_quality(log: Transitions) -> None:
    whole = log.take(np.concatenate([np.arange(e.start, e.stop) for e in log.episodes() if e.stop - e.start == 19]))
    raised = dataclasses.replace(whole, rewards=whole.rewards + 3)
    shift = 3 * 19
    one = measures.trajectory_quality(float(whole.returns().mean()), -40, 0)
    two = measures.trajectory_quality(float(raised.returns().mean()), -40 + shift, shift)
    assert one == pytest.approx(two, abs=1e-4)
