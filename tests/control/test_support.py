"""Which logged row supports a decision: by hand, and from the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from paperworks.cli.main import main
from paperworks.control.actors import PerceptronActor
from paperworks.control.policy import ActionBounds, ControlPolicy, DiscreteActions, Normaliser
from paperworks.control.support import Recorded, support
from paperworks.control.transitions import Transitions
from paperworks.core.errors import DataError, OptionError


def policy_of(weight: float, bias: float = 0.0, *, most: float = 1.0, width: int = 1) -> ControlPolicy:
    """a = most * clip(weight s_1 + bias)."""
    layer = torch.zeros(width, 1)
    layer[0, 0] = weight
    actor = PerceptronActor([(layer, torch.tensor([bias]))], "linear")
    return ControlPolicy(
        actor, Normaliser.none(width), ActionBounds(np.array([-most], np.float32), np.array([most], np.float32))
    )


def log_of(states: list[float], actions: list[float]) -> Transitions:
    observations, acts = (np.asarray(each, np.float32)[:, None] for each in (states, actions))
    flags = np.zeros(len(states), bool)
    return Transitions(observations, acts, np.zeros(len(states), np.float32), observations, flags, flags)


@pytest.mark.parametrize(
    ("beta", "row", "distance"), [(2.0, 1, 1.2042), (0.1, 1, 0.1166), (10.0, 0, 4.3081), (0.0, 1, 0.1)]
)
def test_the_nearest_pair_of_state_and_action(beta: float, row: int, distance: float) -> None:
    """The worked numbers of PRDC's search: state 0.4, action 0.6."""
    found = support(policy_of(0.0, 0.6), log_of([0, 1, 2], [-1, 0.5, 1]), np.array([[0.4]], np.float32), beta=beta)
    assert found.rows.tolist() == [row] and found.distances[0] == pytest.approx(distance, abs=1e-4)


def test_actions_are_compared_as_shares_of_their_range() -> None:
    found = support(policy_of(0.0, 0.5, most=4.0), log_of([0.0], [1.0]), np.array([[0.0]], np.float32))
    assert found.actions[0] == pytest.approx(0.25) and found.states[0] == 0  # 2 and 1 of a range of 4


def test_a_logged_decision_supports_itself() -> None:
    log = log_of([0.0, 0.3, 0.9], [0.5, -0.5, 0.1])
    found = support(policy_of(1.0), log, log.observations, actions=log.actions)
    assert found.rows.tolist() == [0, 1, 2] and not found.distances.any()


def test_decisions_end_with_their_episodes() -> None:
    act = Recorded(lambda seen: 2 * seen)
    for step in range(3):
        act(np.array([[step], [10 + step]], np.float32))
    episodes, steps, states, actions = act.decisions(np.array([3.0, 1.0]))
    assert episodes.tolist() == [0, 0, 0, 1] and steps.tolist() == [0, 1, 2, 0]
    assert states[:, 0].tolist() == [0, 1, 2, 10] and actions[:, 0].tolist() == [0, 2, 4, 20]


def test_what_does_not_fit() -> None:
    log, policy = log_of([0.0], [0.0]), policy_of(1.0)
    with pytest.raises(OptionError, match="beta -1"):
        support(policy, log, log.observations, beta=-1)
    with pytest.raises(DataError, match=r"\(1, 1\) numbers; the policy's are of \(2, 1\)"):
        support(policy_of(1.0, width=2), log, log.observations)
    discrete = ControlPolicy(policy.actor, policy.normaliser, DiscreteActions(1))
    with pytest.raises(OptionError, match="discrete"):
        support(discrete, log, log.observations)


def test_from_the_command_line(
    point: str, log: Transitions, arrays: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy_of(-1.0, most=2.0, width=2).save(tmp_path / "policy")
    np.savez(tmp_path / "log.npz", **arrays)  # type: ignore[arg-type]
    command = ["evaluate", "policy", "--model", str(tmp_path / "policy"), "--env", point, "--episodes", "2"]
    out = tmp_path / "support.csv"
    assert main([*command, "--support", str(tmp_path / "log.npz"), "--support-out", str(out)]) == 0
    assert "support" in capsys.readouterr().out
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 40 and {row["episode"] for row in rows} == {"0", "1"}
    assert all(0 <= int(row["row"]) < len(log) and float(row["distance"]) < 1 for row in rows)
    assert main([*command, "--support", str(tmp_path / "missing.npz")]) == 2
