"""The point robot: its formulas by hand, manoeuvres that save it or cannot, and the same world in gymnasium."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from paperworks.control.environments import make, roll_out, spaces_of
from paperworks.control.testbeds.point_robot import PointRobot, avoidable, constraint, moved, steering
from paperworks.control.testbeds.worlds import roll

WORLD = PointRobot()
ENVIRONMENT = "paperworks/PointRobot-v0"


def test_a_step_by_hand() -> None:
    latent = torch.tensor([1.0, -1.0, 2.0, math.pi / 2])
    following, reward, over, cost = WORLD.step(latent, torch.tensor([0.5, -3.0]))
    assert following.tolist() == pytest.approx([1.0, -0.9, 2.025, math.pi / 2 - 0.05], abs=1e-6)
    before, after = math.dist((1, -1), (2.2, 2.2)), math.dist((1, -0.9), (2.2, 2.2))
    assert float(reward) == pytest.approx(before - after, abs=1e-6) and not over
    assert float(cost) == float(math.dist((1, -0.9), (0.4, -1.2)) < 0.8) == 1


@pytest.mark.parametrize(
    ("latent", "over", "earned"),
    [
        ((2.2, 1.85, 2.0, math.pi / 2), True, 1.1),
        ((2.95, 0.0, 2.0, 0.0), True, None),
        ((0.0, 0.0, 2.0, 0.0), False, None),
    ],
)
def test_episodes_end_at_the_goal_and_outside(latent: tuple[float, ...], over: bool, earned: float | None) -> None:
    _, reward, found, _ = WORLD.step(torch.tensor(latent), torch.zeros(2))
    assert bool(found) == over
    if earned is not None:
        assert float(reward) == pytest.approx(earned, abs=1e-5)


def test_what_is_seen_of_a_hazard() -> None:
    """Straight below the upper hazard and heading to it: its bearing is 0, the other's is a half turn."""
    seen = WORLD.seen(torch.tensor([-0.4, 0.0, 1.0, math.pi / 2])).tolist()
    assert seen[:5] == pytest.approx([-0.4, 0, 1, 0, 1], abs=1e-6)
    assert seen[8:] == pytest.approx([1.2, 1, 0], abs=1e-6)
    assert seen[5] == pytest.approx(math.hypot(0.8, 1.2)) and seen[6] < -0.8


def test_the_constraint_is_positive_inside_a_hazard() -> None:
    found = constraint(torch.tensor([[0.4, -1.2], [0.4, -0.4], [-0.4, 2.2]])).tolist()
    assert found == pytest.approx([0.8, 0.0, -0.2], abs=1e-6)


def test_what_manoeuvres_can_save() -> None:
    """Head on: a stop takes v^2 / 2, a slow robot has room for it, a fast one has not; away from it any speed is safe."""
    up, down = math.pi / 2, -math.pi / 2
    states = torch.tensor(
        [[-0.4, -0.2, 0.8, up], [-0.4, 0.2, 2.0, up], [-0.4, 0.2, 2.0, down], [0.4, -1.2, 1.0, up], [2.0, 0.0, 2.0, up]]
    )
    assert avoidable(states).tolist() == [True, False, True, False, True]


def test_a_manoeuvre_exists_where_one_is_said_to_and_no_driver_saves_the_others() -> None:
    """Lost states are lost to a good driver too; the constraint holds along what `avoidable` tried (braking straight)."""
    latent = WORLD.start((400,), torch.Generator().manual_seed(0))
    outside = latent[(constraint(latent) <= 0)]
    lost = outside[~avoidable(outside)]
    assert len(lost) > 5
    assert (roll(WORLD, steering, lost).costs > 0).all()
    assert (roll(WORLD, lambda seen: torch.zeros(len(seen), 2), lost).costs > 0).all()


def test_gymnasium_plays_the_same_world() -> None:
    spaces = spaces_of(ENVIRONMENT)
    assert (spaces.state, spaces.bounds.width) == (11, 2)
    made = make(ENVIRONMENT, 3)
    seen, _ = made.reset(seed=7)
    again, _ = make(ENVIRONMENT, 3).reset(seed=7)
    np.testing.assert_array_equal(seen, again)
    latent = torch.from_numpy(np.column_stack([seen[:, :3], np.arctan2(seen[:, 4], seen[:, 3])]))
    for _ in range(5):
        action = np.full((3, 2), 0.7, np.float32)
        seen, reward, _, _, told = made.step(action)
        latent, wanted, _, cost = WORLD.step(latent, torch.from_numpy(action))
        np.testing.assert_allclose(seen, WORLD.seen(latent).numpy(), atol=1e-4)
        np.testing.assert_allclose(reward, wanted.numpy(), atol=1e-5)
        assert told["cost"].tolist() == cost.tolist()
    made.close()


def test_a_robot_that_stands_is_cut_at_the_limit() -> None:
    episodes = roll_out(
        ENVIRONMENT, lambda seen: np.stack([-20 * seen[:, 2], 0 * seen[:, 2]], 1).clip(-1, 1), 4, seed=1
    )
    assert episodes.lengths.max() == WORLD.limit and episodes.costs is not None


def test_a_held_control_is_several_steps_of_it() -> None:
    once, held = PointRobot(), PointRobot(hold=4)
    latent = once.start((50,), torch.Generator().manual_seed(3))
    action = 2 * torch.rand(50, 2, generator=torch.Generator().manual_seed(4)) - 1
    found, reward, over, cost = held.step(latent, action)
    alive, earned, paid, worst = torch.ones(50, dtype=torch.bool), torch.zeros(50), torch.zeros(50), constraint(latent)
    for step in range(4):
        if step:
            worst = torch.maximum(worst, constraint(latent))
        following, each, ends, costs = once.step(latent, action)
        earned, paid = earned + alive * each, paid + alive * costs
        latent, alive = torch.where(alive[:, None], following, latent), alive & ~ends
    torch.testing.assert_close((found, over, cost), (latent, ~alive, paid))
    torch.testing.assert_close(reward, earned, atol=1e-5, rtol=0)
    inside = ~over
    begun = once.start((50,), torch.Generator().manual_seed(3))
    torch.testing.assert_close(held.worst(begun, action)[inside], worst[inside])
    assert held.limit == 75 and over.any() and cost.max() > 1


def test_moving_needs_no_world() -> None:
    assert moved(torch.zeros(4), torch.tensor([1.0, 0.0])).tolist() == pytest.approx([0, 0, 0.05, 0])
