"""`paperworks train td3-bc --data LOG --env ID` and `evaluate policy`: from words to a policy; mistakes are one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paperworks.control import training
from paperworks.control.policy import ControlPolicy

Outcome = tuple[int, str, str]
QUICK = ("--hidden", "8,8", "--steps", "40", "--batch-size", "32", "--eval-every", "20", "--eval-episodes", "2")


@pytest.fixture
def command(shell: Callable[..., Outcome], arrays: dict[str, np.ndarray]) -> Callable[..., Outcome]:
    """Runs a command in a folder that holds log.npz."""
    np.savez("log.npz", **arrays)
    return shell


def test_a_run_leaves_a_policy_that_can_be_rolled_out(command: Callable[..., Outcome], point: str) -> None:
    code, out, err = command("train", "td3-bc", "--data", "log.npz", "--env", point, *QUICK, "--out", "run")
    assert code == 0, err
    assert "episodes (" in err and "next    paperworks evaluate policy --model run/policy" in out
    results = json.loads(Path("run/results.json").read_text())
    assert [step for step, _ in results["evaluations"]] == [20, 40] and results["data"]["transitions"] > 1500
    assert "return of whole episodes" in Path("run/report.html").read_text()
    code, out, _ = command("evaluate", "policy", "--model", "run", "--env", point, "--episodes", 4, "--json")
    found = json.loads(out)
    assert code == 0 and found["length"]["mean"] <= 20 and "cost" in found
    policy = ControlPolicy.load("run/policy")
    assert policy.act(np.zeros(2)).shape == (1,) and policy.act(np.zeros((5, 3, 2))).shape == (5, 3, 1)
    assert (np.abs(policy.act(np.random.default_rng(0).normal(size=(50, 2)) * 1e6)) <= 2).all()


def test_every_seed_leaves_its_policy(command: Callable[..., Outcome]) -> None:
    code, out, err = command(
        "train", "bc", "--data", "log.npz", *QUICK, "--seeds", 2, "--seed", 5, "--out", "run", "--json"
    )
    assert code == 0, err
    assert len(json.loads(out)["final"]["imitation"]) == 2
    assert {path.name for path in Path("run").glob("policy*")} == {"policy-5", "policy-6"}


def test_a_killed_run_resumes_to_the_same_policy(
    command: Callable[..., Outcome], cut_when: Callable[..., None]
) -> None:
    words = ("train", "iql", "--data", "log.npz", *QUICK, "--save-every", "10", "--quiet")
    assert command(*words, "--out", "whole")[0] == 0
    cut_when(
        training.checkpoints,
        "save_checkpoint",
        lambda *given: given[3]["step"] == 20,
        lambda: command(*words, "--out", "cut"),
    )
    code, _, err = command("train", "iql", "--resume", "--out", "cut", "--quiet")
    assert code == 0, err
    for file in ("policy/policy.safetensors", "policy/policy.json"):
        assert Path("cut", file).read_bytes() == Path("whole", file).read_bytes()
    code, _, err = command("train", "iql", "--resume", "--out", "cut", "--beta", "1", "--quiet")
    assert code == 2 and "was started with" in err


def test_logs_are_collected_and_trained_on(command: Callable[..., Outcome], point: str) -> None:
    """And a collection that is asked for more levels goes on."""
    words: tuple[object, ...] = ("collect", point, "--steps", 300, "--warm-up", 50, "--hidden", "16,16")
    words += (
        "--learning-rate",
        "0.003",
        "--batch-size",
        32,
        "--eval-episodes",
        2,
        "--transitions",
        60,
        "--out",
        "logs",
        "--policy",
    )
    code, out, err = command(*words, "random")
    assert code == 0 and "random " in out and "next  paperworks train td3-bc --data logs/datasets/random" in out, err
    code, out, err = command(*words, "expert,random", "--resume", "--json")
    assert code == 0, err
    assert [each["level"] for each in json.loads(out)["logs"]] == ["random", "expert"]
    collected = ("train", "bc", "--collect", point, "--policy", "random", "--collect-transitions", "80", *QUICK)
    code, out, err = command(*collected, "--out", "run")
    assert code == 0 and "80 transitions" in err, err
    assert f"--env {point}" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("collect",), "name an environment"),
        (("collect", "Pendulm-v1"), "Pendulum"),
        (("collect", "Pendulum-v1", "--policy", "rndom"), "did you mean 'random'"),
        (("collect", "Pendulum-v1", "--resume"), "--out DIR"),
        (("train", "td3-bc", "--collect", "Pendulum-v1", "--data", "log.npz"), "give one of them"),
        (("train", "td3-bc", "--collect", "Pendulum-v1", "--policy", "best"), "unknown level 'best'"),
        (("train", "td3-bc"), "give the log, --data LOG"),
        (("train", "td3-bc", "--data", "none.npz"), "none.npz: no such file"),
        (("train", "td3-bc", "--data", "log.npz", "--env", "Pendulum-v1"), "Pendulum-v1 shows 3"),
        (("train", "td3-bc", "--data", "log.npz", "--alpha", "-1"), "alpha"),
        (("train", "td3-bc", "--data", "log.npz", "--batch-size", "99999"), "fewer than a batch"),
        (("train", "prdc", "--data", "log.npz", "--search", "magic"), "search"),
        (("train", "td3-bd", "--data", "log.npz", "--env", "Pendulum-v1"), "did you mean 'td3-bc'"),
        (("evaluate", "policy", "--env", "Pendulum-v1"), "--model DIR"),
        (("evaluate", "policy", "--model", "nowhere", "--env", "Pendulum-v1"), "no control policy there"),
    ],
)
def test_mistakes_cost_one_line(command: Callable[..., Outcome], words: tuple[str, ...], message: str) -> None:
    code, _, err = command(*words)
    assert code == 2 and message in err.splitlines()[-1], err


def test_a_policy_that_learns_by_acting_alone(command: Callable[..., Outcome], point: str) -> None:
    """And one that was stopped goes on to the same policy."""
    words: tuple[object, ...] = (
        "train",
        "sac",
        "--env",
        point,
        "--hidden",
        "8,8",
        "--steps",
        60,
        "--warm-up",
        20,
        "--batch-size",
        16,
    )
    words += ("--eval-episodes", 2, "--save-every", 20, "--seeds", 2)
    code, out, err = command(*words, "--out", "whole")
    assert code == 0 and "policy-0 …" in out, err
    assert "return of whole episodes" in Path("whole/report.html").read_text()
    code, _, err = command("train", "sac", "--env", point, "--resume", "--out", "whole", "--steps", 70)
    assert code == 2 and "was started with" in err
    code, _, err = command("train", "--config", "whole/run.yaml", "--out", "again", "--quiet")
    assert code == 0, err
    for seed in (0, 1):
        file = f"policy-{seed}/policy.safetensors"
        assert Path("again", file).read_bytes() == Path("whole", file).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "sac"), "give the environment"),
        (("train", "sac", "--env", "CartPole-v1"), "for these there is online-dqn"),
        (("train", "online-dqn", "--env", "Pendulum-v1"), "for these there is sac, td3"),
        (("train", "sacc", "--env", "Pendulum-v1"), "did you mean 'sac'"),
    ],
)
def test_mistakes_of_acting_cost_one_line(
    command: Callable[..., Outcome], words: tuple[str, ...], message: str
) -> None:
    code, _, err = command(*words)
    assert code == 2 and message in err.splitlines()[-1], err
