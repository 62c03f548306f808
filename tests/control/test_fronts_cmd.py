"""`paperworks train c-morl --env ID`, `act --preference`: from words to a front and a policy; mistakes are one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from paperworks.control.multi_objective import front_job
from paperworks.control.multi_objective.fronts import Front

Outcome = tuple[int, str, str]
QUICK = (
    "--hidden", "8", "--rollout-steps", "4", "--copies", "8", "--epochs", "2", "--minibatches", "2", "--learning-rate",
    "0.02", "--weight-step", "1", "--evaluate-every", "1", "--eval-episodes", "1", "--final-episodes", "2",
    "--updates-a-leg", "4", "--init-steps", "500", "--steps", "2000",
)  # fmt: skip


class Shop(gymnasium.Env[Any, Any]):
    """One step, three goods: cheap, middling, dear. Rewards are (quality, minus the price)."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)
    reward_space = gymnasium.spaces.Box(-10, 10, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        paid = np.array([(0.0, 0.0), (3.0, -2.0), (5.0, -5.0)][int(action)], np.float32)
        return np.zeros(2, np.float32), paid, True, False, {}


@pytest.fixture(scope="module")
def shop() -> str:
    name = "paperworks-tests/Shop-v0"
    if name not in gymnasium.registry:
        gymnasium.register(name, entry_point=Shop)
    return name


@pytest.fixture
def command(shell: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Runs a command in an empty folder."""
    return shell


def train(command: Callable[..., Outcome], shop: str, out: str, *more: str) -> Outcome:
    words = ("--reference-point", "-1,-6", "--objectives", "quality,price", "--out", out)
    return command("train", "c-morl", "--env", shop, *words, *QUICK, *more)


def test_a_front_is_found_and_a_policy_chosen_from_it(command: Callable[..., Outcome], shop: str) -> None:
    code, out, err = train(command, shop, "run")
    assert code == 0, err
    assert "next    paperworks act --model run --preference 0.5,0.5" in out
    front = Front.load("run")
    assert [member.returns for member in front.members] == [(5, -5), (3, -2), (0, 0)]
    assert front.names == ("quality", "price") and front.reference == (-1, -6)
    page = Path("run/report.html").read_text()
    assert "Where it is sparse" in page and "hypervolume" in page and "policy-002" in page
    for preference, action in (("1,0", 2), ("0,1", 0), ("0.5,0.5", 1)):
        code, out, err = command(
            "act", "--model", "run", "--preference", preference, "--observation", "-0.0,0", "--env", shop, "--json"
        )
        found = json.loads(out)
        assert code == 0 and found["action"] == action, err
        assert found["rolled out"]["quality"]["mean"] == (0, 3, 5)[action] and found["episodes"] == 10
    code, out, err = command("evaluate", "policy", "--model", "run/archive/policy-001", "--env", shop, "--episodes", 2)
    assert code == 0 and out.splitlines()[1].startswith("objective 2  -2 ["), err
    code, out, _ = command("act", "--model", "run/archive/policy-000", "--observation", "0,0")
    assert code == 0 and out.splitlines()[-1].split() == ["action", "2"]


def test_a_killed_search_resumes_to_the_same_front(
    command: Callable[..., Outcome], shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(command, shop, "whole", "--quiet")[0] == 0
    really, saved = front_job.save_checkpoint, []

    class Killed(BaseException):
        pass

    def kill_at_3(*given: Any) -> None:
        if len(saved) == 2:
            raise Killed
        saved.append(really(*given))

    monkeypatch.setattr(front_job, "save_checkpoint", kill_at_3)
    with pytest.raises(Killed):
        train(command, shop, "cut", "--quiet")
    monkeypatch.setattr(front_job, "save_checkpoint", really)
    code, _, err = command("train", "c-morl", "--resume", "--out", "cut", "--quiet")
    assert code == 0, err
    names = sorted(path.relative_to("whole") for path in Path("whole/archive").rglob("*") if path.is_file())
    assert len(names) == 2 + 2 * 3
    for name in (*names, Path("checkpoint/policies.safetensors"), Path("checkpoint/state.json")):
        assert Path("cut", name).read_bytes() == Path("whole", name).read_bytes(), name
    steps = [json.loads(line)["step"] for line in Path("cut/metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    code, _, err = command("train", "c-morl", "--resume", "--out", "cut", "--beta", "0.5")
    assert code == 2 and "was started with other options" in err


def test_weighted_sums_are_trained_by_the_same_words(command: Callable[..., Outcome], shop: str) -> None:
    words = [word for word in QUICK if word not in ("--init-steps", "500")]
    code, out, err = command(
        "train",
        "weighted-sum",
        "--env",
        shop,
        "--reference-point=-1,-6",
        "--policies",
        3,
        *words,
        "--out",
        "run",
        "--json",
    )
    assert code == 0, err
    found = json.loads(out)
    assert found["objectives"] == ["objective 1", "objective 2"] and len(found["front"]) >= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "c-morl", "--reference-point", "0,0"), "give the environment, --env ID"),
        (("train", "c-morl", "--env", "SHOP"), "give the reference point"),
        (("train", "c-morl", "--env", "SHOP", "--reference-point", "0,0,0"), "reference point of 3 numbers"),
        (("train", "c-morl", "--env", "SHOP", "--reference-point", "0,x"), "x"),
        (("train", "c-morl", "--env", "SHOP", "--reference-point", "9,9", *QUICK), "objective 1: best 5, reference 9"),
        (
            ("train", "c-morl", "--env", "SHOP", "--reference-point", "0,0", "--objectives", "a"),
            "1 names of objectives",
        ),
        (("train", "c-morl", "--env", "CartPole-v1", "--reference-point", "0,0"), "pays one number"),
        (("train", "c-morl", "--env", "nothing-v7", "--reference-point", "0,0"), "nothing"),
        (("train", "c-morl", "--env", "SHOP", "--reference-point", "0,0", "--beta", "2"), "beta"),
        (("train", "c-mrol", "--env", "SHOP"), "did you mean 'c-morl'"),
        (("act", "--preference", "1,0"), "--model DIR"),
        (("act", "--model", "nowhere", "--preference", "1,0"), "no archive of policies there"),
        (("act", "--model", "nowhere"), "no control policy there"),
    ],
)
def test_mistakes_cost_one_line(
    command: Callable[..., Outcome], shop: str, words: tuple[str, ...], message: str
) -> None:
    code, _, err = command(*(shop if word == "SHOP" else word for word in words))
    assert code == 2 and message in err.splitlines()[-1], err


def test_a_preference_must_fit(command: Callable[..., Outcome], shop: str) -> None:
    assert train(command, shop, "run", "--quiet")[0] == 0
    for preference, message in (
        ("0.7,0.4", "sums to 1.1, not 1"),
        ("-0.3,1.3", "at least 0"),
        ("0.2,0.3,0.5", "3 numbers; the front has 2"),
        ("much", "expected numbers"),
    ):
        code, _, err = command("act", "--model", "run", "--preference", preference)
        assert code == 2 and message in err, err
    code, _, err = command("act", "--model", "run")
    assert code == 2 and "a weight for each of quality, price" in err
    Path("run/archive/archive.csv").write_text("policy\nx\n")
    code, _, err = command("act", "--model", "run", "--preference", "1,0")
    assert code == 2 and "damaged" in err
