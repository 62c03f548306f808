"""The two rooms: walls, door and goal, logs that are good in one room, and an arm's seeds that do not know of each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paperworks.control.testbeds.two_rooms import LOGS, TwoRooms, expert, is_near, make_log
from paperworks.control.testbeds.two_rooms_trial import GRID, SIZES, best_balance, cell, train
from paperworks.control.testbeds.worlds import roll
from paperworks.experiment.definition import Arm, Workspace

SMALL = replace(SIZES["smoke"], offline=6, online=12)


@pytest.mark.parametrize(
    ("place", "action", "after"),
    [
        ((0.95, 0.5), (1.0, 0.0), (1.05, 0.5)),  # through the door
        ((0.95, 0.8), (1.0, 0.5), (0.999, 0.85)),  # along the wall
        ((1.05, 0.8), (-1.0, 0.0), (1.0, 0.8)),  # and from the other side
        ((0.95, 0.58), (1.0, 1.0), (0.999, 0.68)),  # it would cross the wall above the door
        ((0.02, 0.98), (-1.0, 1.0), (0.0, 1.0)),
        ((0.5, 0.5), (3.0, -0.5), (0.6, 0.45)),  # no farther than a step
    ],
)
def test_a_step(place: tuple[float, float], action: tuple[float, float], after: tuple[float, float]) -> None:
    found, reward, over, _ = TwoRooms().step(torch.tensor([place]), torch.tensor([action]))
    assert found[0].tolist() == pytest.approx(after, abs=1e-6)
    assert reward.tolist() == [-1.0] and not over.any()
    assert bool(is_near(found)[0]) == (after[0] < 1)


def test_the_goal_ends_an_episode() -> None:
    found, reward, over, _ = TwoRooms().step(torch.tensor([[1.75, 0.75]]), torch.tensor([[1.0, 1.0]]))
    assert over.tolist() == [True] and reward.tolist() == [0.0] and found[0].tolist() == pytest.approx([1.85, 0.85])


def test_the_expert_is_quick_and_chance_is_not() -> None:
    world, draw = TwoRooms(), torch.Generator().manual_seed(0)
    starts = world.start((50,), draw)
    found = roll(world, expert, starts)
    assert found.terminated.all() and found.returns.min() > -20
    drifting = roll(world, lambda places: 2 * torch.rand(places.shape, generator=draw) - 1, starts)
    assert drifting.terminated.float().mean() < 0.1


@pytest.mark.parametrize("setting", LOGS)
def test_logs_are_as_good_as_each_room_says(setting: str) -> None:
    log = make_log(LOGS[setting], 1500, 0)
    places, actions = torch.from_numpy(log.observations), torch.from_numpy(log.actions)
    near = is_near(places)
    close = ((actions - expert(places)).abs() < 0.35).all(-1).float()
    for room, quality in ((near, LOGS[setting][0]), (~near, LOGS[setting][1])):
        by_chance = 0.35**2 / 2  # of random actions, roughly
        assert float(close[room].mean()) == pytest.approx(quality + (1 - quality) * by_chance, abs=0.08)
    again, other = make_log(LOGS[setting], 1500, 0), make_log(LOGS[setting], 1500, 1)
    assert np.array_equal(log.actions, again.actions) and not np.array_equal(log.actions, other.actions)


@pytest.mark.parametrize("kind", ["iql", "family", "state-blind", "no balance model"])
def test_a_seed_s_course_does_not_know_of_the_others(kind: Any) -> None:
    """And what a balance model cannot see or does not exist for, it does not tell apart."""
    betas = [3.0] * 3
    together = train(kind, "poor far room", [4, 5, 6], SMALL, betas)
    alone = train(kind, "poor far room", [5], SMALL, betas[:1])
    torch.testing.assert_close(torch.stack(together.returns)[:, 1:2], torch.stack(alone.returns), atol=1e-3, rtol=1e-3)
    read = together.read(1, "poor far room", 3.0)
    assert read["step_curve"] == [0, 6, 12] and read["area"] == pytest.approx(np.mean(read["return_curve"][1:]))
    assert (abs(read["balance_gap"]) > 1e-6) == (kind == "family")
    if kind == "no balance model":
        assert read["balance_poor"] == 3.0  # the middle


def test_the_best_balance_is_one_of_the_grid_and_the_one_reported(tmp_path: Path) -> None:
    best = best_balance("alike", SIZES["smoke"])
    arm = Arm("iql-best", options={"kind": "iql", "tuned": True})
    (found,) = cell(arm, "alike", [0], "smoke", Workspace(tmp_path))
    assert best in GRID and found["balance_poor"] == best
