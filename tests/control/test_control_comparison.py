"""`paperworks compare td3-bc bc --data LOG --env ID`: cells, what is kept, what is said; mistakes are one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paperworks.control import comparison, training
from paperworks.control.comparison_job import job_from_config, options_of, scale_of, task_names
from paperworks.control.minari_sets import write_minari
from paperworks.control.policy import ControlPolicy
from paperworks.control.transitions import Transitions
from paperworks.core.errors import OptionError

Outcome = tuple[int, str, str]
QUICK = ("--steps", "30", "--batch-size", "16", "--eval-every", "15", "--eval-episodes", "2", "--episodes", "3")
SMALL = ("--set", "hidden=8,8")


@pytest.fixture
def command(shell: Callable[..., Outcome], arrays: dict[str, np.ndarray]) -> Callable[..., Outcome]:
    """Runs a command in a folder that holds two logs, one of half the noise."""
    np.savez("wide.npz", **arrays)
    np.savez("still.npz", **{**arrays, "actions": arrays["actions"] * 0.5})
    return shell


def test_a_comparison_of_two_logs(command: Callable[..., Outcome], point: str) -> None:
    logs = (
        "--data",
        "wide.npz",
        "--data",
        "still.npz",
        "--env",
        point,
        "--random-return",
        "-20",
        "--best-return",
        "-2",
    )
    code, out, err = command("compare", "td3-bc", "bc", *logs, "--seeds", 2, *QUICK, *SMALL, "--out", "run")
    assert code == 0, err
    assert "interquartile mean score" in out and "run/report.html" in out
    found = json.loads(Path("run/results.json").read_text())
    returns = {method: np.array(values) for method, values in found["returns"].items()}
    assert {values.shape for values in returns.values()} == {(2, 2)} and found["tasks"] == ["wide", "still"]
    np.testing.assert_allclose(np.array(found["scores"]["bc"]), 100 * (returns["bc"] + 20) / 18)
    assert found["aggregates"]["bc"]["mean"]["mean"] == pytest.approx(np.mean(found["scores"]["bc"]))
    policy = ControlPolicy.load("run/policies/still/td3-bc-1")
    assert policy.method == "td3-bc" and policy.act(np.zeros(2)).shape == (1,)
    report = Path("run/report.html").read_text()
    for words in ("Performance profiles", "Who beats whom", "Learning curves", "given"):
        assert words in report


def test_the_same_command_goes_on(command: Callable[..., Outcome], point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--data", "wide.npz", "--env", point, *QUICK, *SMALL, "--quiet", "--json", "--out", "run")
    trained: list[tuple[str, int, int]] = []
    really = comparison.train_offline

    def counted(learner: Any, options: Any, log: Any, bounds: Any, control: Any, **more: Any) -> Any:
        trained.append((learner.name, control.seed, control.seeds))
        return really(learner, options, log, bounds, control, **more)

    monkeypatch.setattr(comparison, "train_offline", counted)
    assert command("compare", "bc", *words, "--seeds", 2)[0] == 0
    code, out, err = command("compare", "bc", "td3-bc", *words, "--seeds", 3)
    assert code == 0, err
    assert trained == [("bc", 0, 2), ("bc", 2, 1), ("td3-bc", 0, 3)]
    before = json.loads(out)["returns"]["bc"]
    monkeypatch.setattr(comparison, "train_offline", really)
    fresh = command("compare", "bc", *words[:-1], "other", "--seeds", 3)  # a seed is the same in other company
    np.testing.assert_allclose(json.loads(fresh[1])["returns"]["bc"], before, rtol=1e-4)
    code, _, err = command("compare", "bc", *words, "--seeds", 2, "--gamma", "0.5")
    assert code == 2 and "gamma" in err
    code, _, err = command("compare", "bc", *words, "--seeds", 2, "--reward-scale", "2")
    assert code == 2 and "other training" in err


def test_a_training_that_was_killed_goes_on_to_the_same_result(
    command: Callable[..., Outcome], point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("compare", "iql", "--data", "wide.npz", "--env", point, *QUICK, *SMALL, "--seeds", 2, "--save-every", 10)
    assert command(*words, "--out", "whole")[0] == 0
    really, begun = training.checkpoints.save_checkpoint, list[int]()

    class Killed(BaseException):
        pass

    def kill_at_20(*given: Any) -> Any:
        begun.append(given[3]["step"])
        if given[3]["step"] == 20:
            raise Killed
        return really(*given)

    monkeypatch.setattr(training.checkpoints, "save_checkpoint", kill_at_20)
    with pytest.raises(Killed):
        command(*words, "--out", "cut")
    monkeypatch.setattr(training.checkpoints, "save_checkpoint", lambda *given: begun.append(given[3]["step"]))
    assert command(*words, "--out", "cut")[0] == 0
    assert begun == [10, 20, 20, 30]  # from 10 on, not from the beginning
    cut, whole = (json.loads(Path(name, "results.json").read_text())["returns"] for name in ("cut", "whole"))
    assert cut == whole


def test_a_minari_data_set_brings_its_scale(point: str, log: Transitions, tmp_path: Path) -> None:
    write_minari(log, tmp_path / "a", point, about="a log", references=(-20.0, -2.0))
    job = job_from_config({"methods": ["bc"], "data": [str(tmp_path / "a")], "envs": [point]})
    found = scale_of(job, 0)
    assert found is not None and (found.random, found.best) == (-20, -2)


def test_one_log_without_a_scale_is_compared_by_returns(command: Callable[..., Outcome], point: str) -> None:
    code, out, err = command(
        "compare", "bc", "awac", "--data", "wide.npz", "--env", point, *QUICK, *SMALL, "--seeds", 1, "--out", "run"
    )
    assert code == 0, err
    assert "interquartile mean return" in out and "–" in out  # one seed: no interval
    again, _, err = command("compare", "--config", "run/run.yaml", "--out", "again", "--quiet")
    assert again == 0, err
    assert Path("again/results.json").is_file()


def test_a_training_that_fails_leaves_the_others(command: Callable[..., Outcome], point: str) -> None:
    words = ("--data", "wide.npz", "--env", point, *QUICK, *SMALL, "--seeds", 2, "--most-q", "1e-9", "--out", "run")
    code, out, err = command("compare", "bc", "td3-bc", *words)
    assert code == 2 and "td3-bc on wide" in err and "diverged" in err
    assert "bc" in out and "Not finished" in Path("run/report.html").read_text()


def test_settings_are_of_all_or_of_one() -> None:
    given = {
        "methods": ["td3-bc", "prdc", "bc"],
        "data": ["a"],
        "envs": ["E-v0"],
        "settings": {"alpha": "5", "prdc.alpha": "7"},
    }
    job = job_from_config(given)
    assert [getattr(options_of(job, name), "alpha", None) for name in job.methods] == [5.0, 7.0, None]


def test_names_of_tasks(tmp_path: Path) -> None:
    for folder in ("hopper", "cheetah"):
        (tmp_path / folder / "medium").mkdir(parents=True)
        (tmp_path / folder / "log.v1.npz").touch()
    name = lambda *data: task_names(job_from_config({"methods": ["bc"], "data": data, "envs": ["E-v0"]}))  # noqa: E731
    hopper, cheetah = (str(tmp_path / folder / "medium") for folder in ("hopper", "cheetah"))
    assert name(hopper) == ("medium",) and name("mujoco/hopper/medium-v0") == ("mujoco-hopper-medium-v0",)
    assert name(hopper, cheetah) == ("hopper-medium", "cheetah-medium")
    assert name(str(tmp_path / "hopper/log.v1.npz"), cheetah) == ("log.v1", "medium")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("compare", "td3-bc", "bc"), "--data LOG"),
        (("compare", "td3-bc", "bd", "--data", "wide.npz", "--env", "POINT"), "did you mean 'bc'"),
        (("compare", "td3-bc", "td3-bc", "--data", "wide.npz", "--env", "POINT"), "named twice"),
        (("compare", "td3-bc", "--data", "wide.npz"), "--env is given 0 times"),
        (("compare", "td3-bc", "--data", "wide.npz", "--env", "Pendulum-v1"), "Pendulum-v1 shows 3"),
        (
            ("compare", "td3-bc", "--data", "wide.npz", "--env", "POINT", "--set", "alfa=1"),
            "has an option of that name",
        ),
        (("compare", "td3-bc", "--data", "wide.npz", "--env", "POINT", "--set", "iql.beta=1"), "is not compared"),
        (("compare", "td3-bc", "--data", "wide.npz", "--env", "POINT", "--set", "alpha"), "expected NAME=VALUE"),
        (("compare", "td3-bc", "--data", "wide.npz", "--env", "POINT", "--best-return", "1"), "two ends"),
        (("compare", "td3-bc", "--data", "wide.npz", "--data", "still.npz", "--env", "POINT"), "no known scale"),
        (("compare", "dqn", "--data", "wide.npz", "--env", "POINT"), "continuous"),
        (("compare", "td3-bc", "--data", "none.npz", "--env", "POINT"), "no such file"),
        (("compare", "td3-bc", "--data", "wide.npz", "--env", "POINT", "--episodes", "0"), "episodes"),
        (("compare", "td3-bc", "--data", "wide.npz", "--env", "POINT", "--out", "."), "give --out another folder"),
    ],
)
def test_mistakes_cost_one_line(
    command: Callable[..., Outcome], point: str, words: tuple[str, ...], message: str
) -> None:
    code, _, err = command(*(point if word == "POINT" else word for word in words))
    assert code == 2 and message in err and err.count("\n") == 1, err


def test_names_that_no_run_yaml_has() -> None:
    with pytest.raises(OptionError, match="unknown option 'dta'"):
        job_from_config({"methods": ["bc"], "dta": ["x"]})
    with pytest.raises(OptionError, match="name the algorithms"):
        job_from_config({"methods": [], "data": ["x"]})
