"""The discrete family from words to policies: training, what is saved, seeds side by side, that it learns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paperworks.cli.train_control import DISCRETE_ALGORITHMS
from paperworks.control.batches import Draws
from paperworks.control.discrete import DISCRETE
from paperworks.control.learner import Shapes
from paperworks.control.offline import OFFLINE, offline_learner
from paperworks.control.online.dqn import OnlineDQN, OnlineDQNOptions
from paperworks.control.online.replay import Replay
from paperworks.control.policy import ControlPolicy, DiscreteActions
from paperworks.control.testbeds.discrete_worlds import CartPole
from paperworks.control.testbeds.worlds import logged
from paperworks.control.training import ControlOptions, bounds_of, train_offline
from paperworks.control.transitions import ARRAYS, Transitions

SMALL: dict[str, Any] = {"hidden": (16, 16)}
QUICK = ("--hidden", "8,8", "--steps", "20", "--batch-size", "32", "--eval-every", "20", "--eval-episodes", "2")
Outcome = tuple[int, str, str]


def leaning(states: torch.Tensor) -> torch.Tensor:
    """Push to where the pole falls: good for about 200 steps."""
    return (states[..., 2] + 0.5 * states[..., 3] > 0).long()


def arrays_of(log: Transitions) -> dict[str, Any]:
    return {name: getattr(log, name) for name in ARRAYS if getattr(log, name) is not None}


@pytest.fixture(scope="module")
def poles() -> Transitions:
    """3000 transitions of CartPole, half of the actions at random."""
    draw = torch.Generator().manual_seed(0)

    def act(states: torch.Tensor) -> torch.Tensor:
        coin = torch.randint(4, states.shape[:-1], generator=draw)
        return torch.where(coin < 2, coin, leaning(states))

    return logged(CartPole(), act, 3000, draw)


@pytest.fixture
def command(shell: Callable[..., Outcome], poles: Transitions) -> Callable[..., Outcome]:
    """Runs a command in a folder that holds poles.npz."""
    np.savez("poles.npz", **arrays_of(poles))
    return shell


@pytest.mark.parametrize("name", DISCRETE)
def test_a_run_leaves_a_policy_that_acts_as_the_learner(name: str, command: Callable[..., Outcome]) -> None:
    code, out, err = command("train", name, "--data", "poles.npz", "--env", "CartPole-v1", *QUICK, "--out", "run")
    assert code == 0, err
    assert "next    paperworks evaluate policy --model run/policy" in out
    code, out, err = command("evaluate", "policy", "--model", "run", "--env", "CartPole-v1", "--episodes", 3, "--json")
    assert code == 0, err
    assert 5 < json.loads(out)["return"]["mean"] <= 500
    policy = ControlPolicy.load("run/policy")
    assert policy.bounds == DiscreteActions(2) and policy.method == name
    actions = policy.act(np.random.default_rng(0).normal(size=(3, 200, 4)))
    assert actions.shape == (3, 200) and actions.dtype == np.int64 and set(actions.ravel().tolist()) <= {0, 1}


@pytest.mark.parametrize("name", DISCRETE)
def test_the_saved_policy_is_the_learner_s(name: str, poles: Transitions, tmp_path: Path) -> None:
    learner_class = DISCRETE[name]
    found = train_offline(
        learner_class, learner_class.options_class(**SMALL), poles, bounds_of(poles), ControlOptions(steps=5)
    )
    policy = ControlPolicy.load(found.policies[0].save(tmp_path / "policy"))
    states = torch.from_numpy((poles.observations[:300] - policy.normaliser.mean) / policy.normaliser.deviation)
    one, two = (each.actor(states, torch.Generator().manual_seed(0)) for each in (policy, found.policies[0]))
    assert torch.equal(one, two)
    samples = name in ("discrete-bc", "crr")
    again = policy.actor(states, torch.Generator().manual_seed(1))
    assert torch.equal(one, again) != samples, "those that sample do"
    if not samples:
        log = log_of(poles)
        learner = learner_class(Shapes(4, 2), learner_class.options_class(**SMALL), [0], log)
        actor = learner.actor_of(0)
        assert torch.equal(actor(log.states[:300]), learner.act(log.states[None, :300])[0])


def log_of(log: Transitions) -> Any:
    from paperworks.control.batches import Log

    return Log(log, np.zeros(4, np.float32), np.ones(4, np.float32), torch.device("cpu"))


@pytest.mark.parametrize("name", DISCRETE)
def test_seeds_side_by_side_are_seeds_alone(name: str, poles: Transitions) -> None:
    learner = DISCRETE[name]
    run = lambda **more: train_offline(  # noqa: E731
        learner,
        learner.options_class(**SMALL),
        poles,
        bounds_of(poles),
        ControlOptions(steps=20, batch_size=32, **more),
    )
    together = run(seeds=2)
    for place in range(2):
        alone = run(seed=place)
        for one, two in zip(
            together.policies[place].actor.parameters(), alone.policies[0].actor.parameters(), strict=True
        ):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", DISCRETE)
def test_they_find_what_pays(name: str) -> None:
    """Episodes of two steps: 1 is earned at the end where both actions were that of the larger of two numbers, as 7 of 10
    logged actions are; behind a wrong first action nothing is seen."""
    draw = np.random.default_rng(0)
    states = draw.normal(size=(2000, 4)).astype(np.float32)
    best = states[:, :2].argmax(1)
    actions = np.where(draw.random(2000) < 0.3, 1 - best, best)
    first = np.arange(2000) % 2 == 0
    right = actions == best
    rewards = np.where(first, 0.0, right & np.roll(right, 1)).astype(np.float32)
    following = np.roll(states, -1, 0)
    following[first & ~right] = 0  # a place where nothing is seen and nothing earned
    states[1:][first[:-1] & ~right[:-1]] = 0
    log = log_of(Transitions(states, actions, rewards, following, ~first, np.zeros(2000, bool)))
    learner_class = DISCRETE[name]
    own = {"acts": "greedy"} if name in ("discrete-bc", "crr") else {}
    own |= {"target_every": 20} if hasattr(learner_class.options_class, "target_every") else {}
    options = learner_class.options_class(hidden=(32, 32), learning_rate=3e-3, **own)
    learner, draws = learner_class(Shapes(4, 2), options, [0], log), Draws([0], 128, len(log), log.device)
    for step in range(200):
        learner.update(log.batch(draws.rows(step)), draws, step)
    test = torch.randn(1, 500, 4, generator=torch.Generator().manual_seed(0))
    assert (learner.act(test) == test[..., :2].argmax(-1)).float().mean() > 0.85


def test_a_discrete_method_on_continuous_data_and_the_reverse(
    command: Callable[..., Outcome], arrays: dict[str, np.ndarray]
) -> None:
    np.savez("points.npz", **arrays)  # type: ignore[arg-type]
    code, _, err = command("train", "dqn", "--data", "points.npz", *QUICK)
    assert code == 2 and err.count("\n") <= 2
    assert "actions are continuous; dqn takes discrete ones; for these there are bc, td3-bc" in err
    code, _, err = command("train", "td3-bc", "--data", "poles.npz", *QUICK)
    assert code == 2 and "for these there are discrete-bc, dqn, qr-dqn" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "dqn", "--data", "poles.npz", "--env", "Pendulum-v1", *QUICK), "observations of 4 numbers"),
        (("train", "qr-dqn", "--data", "poles.npz", "--quantiles", "0", *QUICK), "quantiles"),
        (("train", "rem", "--data", "poles.npz", "--mixture", "both", *QUICK), "mixture"),
        (("train", "discrete-bqc", "--data", "poles.npz", "--env", "CartPole-v1"), "did you mean 'discrete-bc'"),
        (("train", "crr", "--data", "poles.npz", *QUICK, "--batch-size", "9999"), "lower --batch-size"),
    ],
)
def test_mistakes_cost_one_line(words: tuple[str, ...], message: str, command: Callable[..., Outcome]) -> None:
    code, _, err = command(*words)
    assert code == 2 and message in err.splitlines()[-1]


def test_an_action_that_the_environment_has_not_is_named(command: Callable[..., Outcome], poles: Transitions) -> None:
    arrays = arrays_of(poles)
    np.savez("wrong.npz", **{**arrays, "actions": np.where(np.arange(3000) == 17, 5, arrays["actions"])})
    code, _, err = command("train", "dqn", "--data", "wrong.npz", "--env", "CartPole-v1", *QUICK)
    assert code == 2 and "row 17: 5" in err


def test_the_command_line_knows_them_all() -> None:
    assert tuple(DISCRETE) == DISCRETE_ALGORITHMS and not set(DISCRETE) & set(OFFLINE)
    assert offline_learner("rem") is DISCRETE["rem"]


def test_online_dqn_explores_less_and_less() -> None:
    options = OnlineDQNOptions(**SMALL, epsilon_steps=10, last_epsilon=0.0)
    assert [options.epsilon(step) for step in (0, 5, 10, 99)] == [1.0, 0.5, 0.0, 0.0]
    replay = Replay(Shapes(4, 2), 1, 8, torch.device("cpu"), discrete=True)
    learner = OnlineDQN(Shapes(4, 2), options, [0], replay)
    draws, states = Draws([0], 8, 8, replay.device), torch.randn(1, 400, 4, generator=torch.Generator().manual_seed(0))
    best = learner.act(states)
    same = [(learner.explore(states, draws, step) == best).float().mean().item() for step in (0, 5, 10)]
    assert same == [pytest.approx(0.5, abs=0.08), pytest.approx(0.75, abs=0.08), 1.0]
