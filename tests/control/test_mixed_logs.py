"""The worlds of PRDC's and A2PR's experiments: a line, a bandit, a pendulum's logs, and many logs learned side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from paperworks.control.offline.td3_bc import TD3BC, TD3BCOptions
from paperworks.control.testbeds import pendulum_logs
from paperworks.control.testbeds.bandit_trial import KnownCritics, bandit_log, reward, settled
from paperworks.control.testbeds.line_world import LineWorld, line_log, starts
from paperworks.control.testbeds.many_logs import Nets, Trained, best_point
from paperworks.control.testbeds.pendulum_logs import Collectors, kept_log, mixed_log
from paperworks.control.testbeds.worlds import roll

# ------------------------------------------------------------------------------------------------------------------ line


def test_a_walk_along_the_line() -> None:
    ahead = roll(LineWorld(), lambda states: torch.tensor([1.0, 0.0]).expand(len(states), 2), starts(2))
    assert ahead.lengths.tolist() == [40, 36] and ahead.returns.tolist() == [1, 1] and ahead.terminated.all()
    aside = roll(LineWorld(), lambda states: torch.tensor([1.0, 0.31]).expand(len(states), 2), starts(2))
    assert aside.lengths.tolist() == [200, 200] and not aside.returns.any()


@pytest.mark.parametrize("good", [0.8, 0.1])
def test_a_log_of_the_line(good: float) -> None:
    log = line_log(good, 0)
    ahead = log.actions[:, 0] > 0
    assert ahead.mean() == pytest.approx(good, abs=0.03) and np.abs(log.actions[:, 0]).min() > 0.7
    assert np.abs(log.actions[:, 1]).max() < 0.3 and ahead[log.observations[:, 0] >= 9.7].all()
    assert log.terminations.any() and (log.rewards == log.terminations).all()
    assert (line_log(good, 1).observations != log.observations).any()


# ---------------------------------------------------------------------------------------------------------------- bandit


def test_where_the_bandit_s_actors_settle() -> None:
    assert settled(-0.38) == pytest.approx(0.195, abs=1e-3) and settled(0.7) == pytest.approx(0.745, abs=1e-3)
    log = bandit_log(0)
    assert (log.actions > 0).mean() == pytest.approx(0.1, abs=0.03) and log.terminations.all()
    known = KnownCritics(2)(torch.zeros(1, 5, 1), torch.linspace(-1, 1, 5).view(1, 5, 1))
    torch.testing.assert_close(known[0, 1], reward(torch.linspace(-1, 1, 5)[:, None]))


# -------------------------------------------------------------------------------------------------------------- pendulum


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Collectors:
    """Policies that have hardly learned."""
    return pendulum_logs.collectors(tmp_path_factory.mktemp("policies"), 4, 2)


def test_scores_are_between_random_and_expert(known: Collectors) -> None:
    ends = torch.tensor([known.random_return, known.expert_return])
    assert known.score(ends).tolist() == pytest.approx([0, 100], abs=1e-3)


def test_episodes_are_mixed_whole(known: Collectors, tmp_path: Path) -> None:
    log = mixed_log(known, "random+expert 20%", 3, episodes=5)
    assert len(log) == 1000 and np.flatnonzero(log.truncations).tolist() == [199, 399, 599, 799, 999]
    assert not log.terminations.any() and log.rewards.max() <= pendulum_logs.REWARD_SHIFT
    spread = [float(np.abs(np.diff(log.actions[episode, 0])).mean()) for episode in log.episodes()]
    assert sum(each < 0.4 for each in spread) == 1  # four act at random, one by a smooth net with a little noise
    again = kept_log(tmp_path, known, "random+expert 20%", 3, 5)
    for _ in range(2):  # made, then read
        np.testing.assert_array_equal(again.actions, log.actions)
        again = kept_log(tmp_path, known, "random+expert 20%", 3, 5)


def test_collectors_are_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pendulum_logs.collectors(tmp_path, 4, 2)
    monkeypatch.setattr(pendulum_logs, "_trained_collectors", lambda *steps: pytest.fail("trained again"))
    assert pendulum_logs.collectors(tmp_path, 4, 2).expert_return == first.expert_return


# ------------------------------------------------------------------------------------------------------------- many logs


def test_a_net_does_not_depend_on_its_company() -> None:
    logs = [line_log(0.5, seed, 200) for seed in (0, 1)]
    options = TD3BCOptions(hidden=(8,))
    points = [{"alpha": 1.0}, {"alpha": 5.0}]
    together = Trained(TD3BC, options, Nets.grid(logs, [0, 1], points), 16)
    alone = Trained(TD3BC, TD3BCOptions(hidden=(8,), alpha=5.0), Nets([logs[0]], [0], {}), 16)
    states = torch.linspace(0, 10, 5)[:, None]
    for trained in (together, alone):
        trained.learn(6)
        trained.learn(6)
    torch.testing.assert_close(together.acting()(states.expand(4, -1, -1))[2], alone.acting()(states[None])[0])


def test_the_best_point_of_a_grid() -> None:
    points = [{"alpha": 1.0}, {"alpha": 2.0}]
    assert best_point(points, torch.tensor([1.0, 0.0, 0.3, 0.8])) == {"alpha": 2.0}
