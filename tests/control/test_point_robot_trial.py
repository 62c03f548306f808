"""FISOR's experiment: logs that mean what they say, starts, roll-outs of what is under way, regions by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from paperworks.control.safe.constraints import check_constraints
from paperworks.control.testbeds import point_robot_trial as trial
from paperworks.control.testbeds.point_robot import avoidable, constraint, latent_of, steering
from paperworks.control.testbeds.point_robot_trial import WORLD, Logs, Size
from paperworks.control.testbeds.worlds import roll

TINY = Size(400, value_updates=2, policy_updates=2, batch=16, starts=4, width=8)


def test_a_log_says_where_it_broke_the_constraint(tmp_path: Path) -> None:
    log = trial.make_log(3, 2000)
    assert len(log) == 2000 and log.constraint is not None and log.costs is not None
    begun = constraint(torch.from_numpy(log.observations)).numpy()
    assert (log.constraint >= begun).all() and (log.constraint > begun).any()  # the worst of a held control
    np.testing.assert_array_equal(log.costs > 0, log.constraint > 0)
    assert 0.03 < log.costs.mean() < 0.3 and check_constraints(log, "auto") == []
    trial.save_log(log, tmp_path / "log.npz")
    again = trial.load_log(tmp_path / "log.npz")
    np.testing.assert_array_equal(again.constraint, log.constraint)
    np.testing.assert_array_equal(again.ends, log.ends)
    np.testing.assert_array_equal(trial.make_log(3, 2000).actions, log.actions)


def test_what_is_seen_says_where_the_robot_is() -> None:
    latent = WORLD.start((20,), torch.Generator().manual_seed(0))
    torch.testing.assert_close(latent_of(WORLD.seen(latent)), latent)


def test_starts_are_half_of_each_kind() -> None:
    latent = trial.starts(5, 8)
    assert avoidable(latent, WORLD).tolist() == [True] * 8 + [False] * 8
    torch.testing.assert_close(latent, trial.starts(5, 8))


def test_episodes_under_way_alone_are_the_same_episodes() -> None:
    latent = torch.stack([trial.starts(seed, 6) for seed in (0, 1)])
    whole = roll(WORLD, steering, latent)
    found = trial.roll_alive(lambda states, of: steering(states), latent)
    for name in ("returns", "lengths", "costs", "terminated"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name))
    assert found.lengths.min() < found.lengths.max()
    figures = trial.outcomes(found, 1)
    assert figures["violations_infeasible"] == pytest.approx(float(whole.costs[1, 6:].mean()))
    assert figures["broken_feasible"] == pytest.approx(float((whole.costs[1, :6] > 0).float().mean()))


def test_regions_by_hand() -> None:
    truth, called = torch.tensor([True, True, True, False, False]), torch.tensor([True, True, False, True, False])
    found = trial.region(called, truth)
    assert found == pytest.approx({"iou": 0.5, "false_safe": 0.5, "false_unsafe": 1 / 3})


def test_arms_of_a_seed_share_values_and_a_seed_is_itself_in_any_company(tmp_path: Path) -> None:
    logs = [trial.make_log(seed, TINY.transitions) for seed in (0, 1)]
    both, alone = Logs.of([0, 1], logs), Logs.of([1], logs[1:])
    values, actions = [], []
    for each, folder in ((both, tmp_path / "both"), (alone, tmp_path / "alone")):
        folder.mkdir()
        learner = trial.fisor(each, TINY)
        trial.with_values(learner, each, TINY, folder)
        trial.with_policy(learner, each, TINY, folder, "fisor")
        again = trial.fisor(each, TINY, weights="bc")
        trial.with_values(again, each, TINY, folder)
        torch.testing.assert_close(again.values.state_dict(), learner.values.state_dict())
        values.append(trial.map_values(learner, each, "hj")[-1])
        states = torch.from_numpy(logs[1].observations[:6]).expand(len(each.seeds), -1, -1)
        act = trial.acting(learner, each, 6)
        actions.append(act(states, torch.arange(6).expand(len(each.seeds), -1))[-1])
    torch.testing.assert_close(values[0], values[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(actions[0], actions[1], atol=1e-4, rtol=1e-4)
