"""Small tasks with discrete actions as pure functions: gymnasium's CartPole and MountainCar, and a grid with a key and a door.

The first two give the same numbers as gymnasium's own, step by step, up to float32; the time limits are gymnasium's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from paperworks.control.testbeds.worlds import World
from paperworks.core.errors import OptionError, did_you_mean

Stepped = tuple[Tensor, Tensor, Tensor, Tensor]  # next latent, reward, whether the episode is over, cost


@dataclass(frozen=True)
class CartPole:
    """CartPole-v1: push a cart left (0) or right (1) so that its pole stands; reward 1 a step."""

    state: int = 4
    action: int = 2
    limit: int = 500

    def start(self, shape: tuple[int, ...], draw: torch.Generator) -> Float[Tensor, "*shape 4"]:
        return torch.rand(*shape, 4, generator=draw) * 0.1 - 0.05

    def seen(self, latent: Float[Tensor, "*shape 4"]) -> Float[Tensor, "*shape 4"]:
        """Place, speed, angle, angular speed."""
        return latent

    def step(self, latent: Float[Tensor, "*shape 4"], action: Tensor) -> Stepped:
        """Euler's step of 0.02 s; masses of 1 (cart) and 0.1 (pole), half length 0.5, force 10, gravity 9.8."""
        place, speed, angle, turning = latent.unbind(-1)
        force = 20.0 * action - 10.0
        sine, cosine = angle.sin(), angle.cos()
        pushed = (force + 0.05 * turning.square() * sine) / 1.1
        bent = (9.8 * sine - cosine * pushed) / (0.5 * (4.0 / 3.0 - 0.1 * cosine.square() / 1.1))
        faster = pushed - 0.05 * bent * cosine / 1.1
        moved = (place + 0.02 * speed, speed + 0.02 * faster, angle + 0.02 * turning, turning + 0.02 * bent)
        over = (moved[0].abs() > 2.4) | (moved[2].abs() > 12 * 2 * math.pi / 360)
        return torch.stack(moved, -1), torch.ones_like(place), over, torch.zeros_like(place)


@dataclass(frozen=True)
class MountainCar:
    """MountainCar-v0: push left (0), not (1) or right (2) until the car is on the hill; reward -1 a step."""

    state: int = 2
    action: int = 3
    limit: int = 200

    def start(self, shape: tuple[int, ...], draw: torch.Generator) -> Float[Tensor, "*shape 2"]:
        place = torch.rand(*shape, generator=draw) * 0.2 - 0.6
        return torch.stack([place, torch.zeros_like(place)], -1)

    def seen(self, latent: Float[Tensor, "*shape 2"]) -> Float[Tensor, "*shape 2"]:
        """Place and speed."""
        return latent

    def step(self, latent: Float[Tensor, "*shape 2"], action: Tensor) -> Stepped:
        place, speed = latent.unbind(-1)
        speed = (speed + 0.001 * (action - 1) - 0.0025 * (3 * place).cos()).clamp(-0.07, 0.07)
        place = (place + speed).clamp(-1.2, 0.6)
        speed = torch.where((place <= -1.2) & (speed < 0), 0.0, speed)
        over = (place >= 0.5) & (speed >= 0)
        return torch.stack([place, speed], -1), -torch.ones_like(place), over, torch.zeros_like(place)


SIDE = 8
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left


@dataclass(frozen=True)
class KeyDoor:
    """A grid of 8 x 8 cut in two by a wall with a door that opens to who has the key; the goal is behind it.

    Deterministic: a move into a wall, out of the grid or into the closed door does nothing; who stands on the key has it.
    Reward -1 a step, until the goal is reached. Episodes begin anywhere left of the wall, without the key.
    """

    wall: int  # its column
    door: int  # its row
    key: tuple[int, int]
    goal: tuple[int, int]
    state: int = 2 * SIDE + 1
    action: int = 4
    limit: int = 200

    @classmethod
    def generated(cls, seed: int) -> KeyDoor:
        """A layout of that seed: the wall is in column 3 or 4, key and goal lie on either side of it."""
        draw = np.random.default_rng(seed)
        wall = int(draw.integers(3, 5))
        key = (int(draw.integers(SIDE)), int(draw.integers(wall)))
        goal = (int(draw.integers(SIDE)), int(draw.integers(wall + 1, SIDE)))
        return cls(wall, int(draw.integers(SIDE)), key, goal)

    def start(self, shape: tuple[int, ...], draw: torch.Generator) -> Float[Tensor, "*shape 3"]:
        """Row, column, and whether the key is held."""
        row = torch.randint(SIDE, shape, generator=draw)
        column = torch.randint(self.wall, shape, generator=draw)
        return torch.stack([row, column, self._is_at(row, column, self.key)], -1).float()

    def seen(self, latent: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape state"]:
        """One-hot row, one-hot column, key."""
        places = functional.one_hot(latent[..., :2].long(), SIDE).flatten(-2)
        return torch.cat([places.float(), latent[..., 2:]], -1)

    def step(self, latent: Float[Tensor, "*shape 3"], action: Tensor) -> Stepped:
        row, column, held = latent.long().unbind(-1)
        move = torch.tensor(MOVES)[action]
        new_row, new_column = ((old + by).clamp(0, SIDE - 1) for old, by in zip((row, column), move.unbind(-1)))
        is_open = (new_column != self.wall) | ((new_row == self.door) & (held == 1))
        row, column = torch.where(is_open, new_row, row), torch.where(is_open, new_column, column)
        held = held | self._is_at(row, column, self.key)
        over = self._is_at(row, column, self.goal) == 1
        reward = -torch.ones(row.shape)
        return torch.stack([row, column, held], -1).float(), reward, over, torch.zeros_like(reward)

    @staticmethod
    def _is_at(row: Tensor, column: Tensor, cell: tuple[int, int]) -> Tensor:
        return ((row == cell[0]) & (column == cell[1])).long()


WORLDS = ("cartpole", "mountain-car", "key-door")


def world_of(name: str) -> World:
    """The world of that name. Raises OptionError for an unknown one."""
    if name == "cartpole":
        return CartPole()
    if name == "mountain-car":
        return MountainCar()
    if name == "key-door":
        return KeyDoor.generated(0)
    raise OptionError(f"unknown world {name!r}{did_you_mean(name, WORLDS)}")


@dataclass(frozen=True)
class Scaled:
    """A world that shows (numbers - middle) / spread, near [-1, 1], as networks like it."""

    world: World
    middle: tuple[float, ...]
    spread: tuple[float, ...]

    @classmethod
    def named(cls, name: str) -> Scaled:
        """The world of that name in its own scale. Raises OptionError for an unknown one."""
        world = world_of(name)
        scales: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
            "cartpole": ((0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 0.1, 1.0)),
            "mountain-car": ((-0.5, 0.0), (0.4, 0.03)),
        }
        middle, spread = scales.get(name, ((0.0,) * world.state, (1.0,) * world.state))
        return cls(world, middle, spread)

    @property
    def state(self) -> int:
        return self.world.state

    @property
    def action(self) -> int:
        return self.world.action

    @property
    def limit(self) -> int:
        return self.world.limit

    def start(self, shape: tuple[int, ...], draw: torch.Generator) -> Float[Tensor, "*shape latent"]:
        return self.world.start(shape, draw)

    def seen(self, latent: Float[Tensor, "*shape latent"]) -> Float[Tensor, "*shape state"]:
        return (self.world.seen(latent) - torch.tensor(self.middle)) / torch.tensor(self.spread)

    def step(self, latent: Float[Tensor, "*shape latent"], action: Tensor) -> Stepped:
        return self.world.step(latent, action)
