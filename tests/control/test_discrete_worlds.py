"""The vectorised tasks against gymnasium's own, and the grid against its shortest paths."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from paperworks.control.testbeds.discrete_worlds import MOVES, SIDE, CartPole, KeyDoor, MountainCar, Scaled, world_of
from paperworks.control.testbeds.worlds import World, logged, roll
from paperworks.core.errors import OptionError


@pytest.mark.parametrize(("name", "world"), [("CartPole-v1", CartPole()), ("MountainCar-v0", MountainCar())])
def test_a_world_steps_as_gymnasium_s(name: str, world: World) -> None:
    env, draw = gymnasium.make(name), np.random.default_rng(0)
    assert env.spec is not None and env.spec.max_episode_steps == world.limit
    assert env.action_space.n == world.action and env.observation_space.shape == (world.state,)
    ends = 0
    for episode in range(40):
        seen, _ = env.reset(seed=episode)
        latent = torch.tensor(env.unwrapped.state, dtype=torch.float64)[None]
        for _ in range(world.limit):
            tempted = int(seen[1] > 0) * (world.action - 1)  # with the motion: on the hill in a third of the episodes
            action = int(draw.integers(world.action)) if draw.random() < 0.4 else tempted
            seen, wanted, terminated, truncated, _ = env.step(action)
            latent, reward, over, _ = world.step(latent, torch.tensor([action]))
            np.testing.assert_allclose(world.seen(latent)[0].numpy(), seen, atol=1e-5)
            assert (float(reward), bool(over)) == (wanted, terminated)
            if terminated or truncated:
                ends += terminated
                break
    assert ends >= 5


@pytest.mark.parametrize("name", ["cartpole", "mountain-car"])
def test_starts_are_gymnasium_s(name: str) -> None:
    world, gym = world_of(name), {"cartpole": "CartPole-v1", "mountain-car": "MountainCar-v0"}[name]
    own = world.seen(world.start((4000,), torch.Generator().manual_seed(0))).numpy()
    env = gymnasium.make(gym)
    theirs = np.array([env.reset(seed=seed)[0] for seed in range(1000)])
    np.testing.assert_allclose(own.min(0), theirs.min(0), atol=2e-3)
    np.testing.assert_allclose(own.max(0), theirs.max(0), atol=2e-3)


def path_lengths(world: KeyDoor) -> dict[tuple[int, int, int], int]:
    """Steps to the goal from every (row, column, key), by breadth-first search backwards over `step`."""
    places = [(row, column, key) for row in range(SIDE) for column in range(SIDE) for key in (0, 1)]
    latent = torch.tensor(places).float()
    following = {}
    for action in range(4):
        after, _, over, _ = world.step(latent, torch.full((len(places),), action))
        for place, to, is_over in zip(places, after.long().tolist(), over.tolist(), strict=True):
            following[place, action] = (tuple(to), is_over)
    found: dict[tuple[int, int, int], int] = {}
    for length in range(1, 60):
        for place in places:
            if place not in found and any(
                is_over or found.get(to, 99) < length for to, is_over in (following[place, a] for a in range(4))
            ):
                found[place] = length
    return found


def test_the_grid_by_hand() -> None:
    world = KeyDoor(wall=2, door=1, key=(0, 0), goal=(1, 4))
    steps = path_lengths(world)
    assert steps[1, 3, 1] == 1 and steps[1, 1, 1] == 3
    assert steps[1, 1, 0] == 2 + 2 + 3  # to the key, back to where it stood, through the door
    assert (1, 3, 0) in steps and steps[0, 1, 0] == 1 + 5


def test_the_door_needs_the_key() -> None:
    world = KeyDoor(wall=2, door=1, key=(0, 0), goal=(1, 4))
    right = torch.tensor([1])
    for held, column in ((0.0, 1.0), (1.0, 2.0)):
        after, reward, over, _ = world.step(torch.tensor([[1.0, 1.0, held]]), right)
        assert after[0, 1] == column and float(reward) == -1 and not over
    after, reward, over, _ = world.step(torch.tensor([[1.0, 3.0, 1.0]]), right)
    assert over and float(reward) == -1
    after, _, _, _ = world.step(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([0]))
    assert after[0].tolist() == [0.0, 0.0, 1.0]
    assert MOVES[1] == (0, 1)


@pytest.mark.parametrize("seed", range(6))
def test_every_layout_can_be_solved(seed: int) -> None:
    world = KeyDoor.generated(seed)
    steps = path_lengths(world)
    starts = world.start((200,), torch.Generator().manual_seed(seed))
    assert all(steps[tuple(start)] < 40 for start in starts.long().tolist())
    assert world.seen(starts).sum(-1).min() >= 2
    assert world == KeyDoor.generated(seed)


def test_a_log_of_whole_episodes() -> None:
    draw = torch.Generator().manual_seed(0)
    world = world_of("cartpole")
    act = lambda states: torch.randint(world.action, states.shape[:-1], generator=draw)  # noqa: E731
    log = logged(world, act, 500, draw)
    assert log.is_discrete and len(log) == 500 and log.ends[-1]
    lengths = [episode.stop - episode.start for episode in log.episodes()]
    assert log.returns().tolist() == lengths
    inside = ~log.ends[:-1]
    np.testing.assert_array_equal(log.next_observations[:-1][inside], log.observations[1:][inside])
    rolled = roll(world, act, world.start((3, 20), draw))
    assert rolled.returns.shape == (3, 20) and 10 < rolled.returns.mean() < 40


def test_an_unknown_world_is_named() -> None:
    with pytest.raises(OptionError, match="did you mean 'key-door'"):
        world_of("keydoor")


def test_a_scaled_world_is_the_same_world() -> None:
    world, draw = Scaled.named("mountain-car"), torch.Generator().manual_seed(0)
    latent = world.start((50,), draw)
    torch.testing.assert_close(world.seen(latent)[:, 0], (latent[:, 0] + 0.5) / 0.4)
    after, reward, _, _ = world.step(latent, torch.full((50,), 2))
    torch.testing.assert_close(after, MountainCar().step(latent, torch.full((50,), 2))[0])
    assert (world.state, world.action, world.limit) == (2, 3, 200) and float(reward.sum()) == -50
    assert world.seen(latent).abs().max() < 1
