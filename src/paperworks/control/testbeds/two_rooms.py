"""Two rooms joined by a door, and logs whose quality differs by room: where a policy should trust the log, and where not.

A point moves in [0, 2] x [0, 1]; a wall at x = 1 has a door in its middle; the goal is in the far room's corner. Every step
costs 1 until the goal is reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from paperworks.control.testbeds.worlds import logged
from paperworks.control.transitions import Transitions
from paperworks.core.seeding import torch_generator

STEP = 0.1  # the farthest that an action moves the point along an axis
WALL = 1.0
DOOR = (0.4, 0.6)
GOAL = (2.0, 1.0)
REACHED = 0.2  # distance from the goal along each axis

Quality = tuple[float, float]  # share of expert actions in the near and in the far room

LOGS: Mapping[str, Quality] = {"poor far room": (1.0, 0.05), "poor near room": (0.05, 1.0), "alike": (0.15, 0.15)}


@dataclass(frozen=True)
class TwoRooms:
    """The maze. Episodes begin in the near room's corner, or `anywhere` (for logs, so that both rooms are seen)."""

    anywhere: bool = False
    limit: int = 100

    state: ClassVar[int] = 2
    action: ClassVar[int] = 2

    def start(self, shape: tuple[int, ...], draw: torch.Generator) -> Float[Tensor, "*shape place"]:
        size = (2.0, 1.0) if self.anywhere else (0.2, 0.2)
        return torch.rand(*shape, 2, generator=draw) * torch.tensor(size)

    def seen(self, latent: Float[Tensor, "*shape place"]) -> Float[Tensor, "*shape place"]:
        """The place itself."""
        return latent

    def step(
        self, latent: Float[Tensor, "*shape place"], action: Float[Tensor, "*shape place"]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        aim = latent + STEP * action.clamp(-1, 1)
        (x, y), (new_x, new_y) = latent.unbind(-1), aim.unbind(-1)
        new_x, new_y = new_x.clamp(0, 2), new_y.clamp(0, 1)
        across = is_near(latent) != is_near(aim)
        share = (WALL - x) / torch.where(across, new_x - x, 1.0)
        height = y + share * (new_y - y)
        blocked = across & ((height < DOOR[0]) | (height > DOOR[1]))
        new_x = torch.where(blocked, torch.where(is_near(latent), WALL - 1e-3, WALL), new_x)
        after = torch.stack([new_x, new_y], -1)
        over = ((after - torch.tensor(GOAL)).abs() <= REACHED).all(-1)
        return after, over.float() - 1, over, torch.zeros_like(x)


def is_near(places: Float[Tensor, "*shape place"]) -> Bool[Tensor, "*shape"]:
    """Whether a place is in the near room, where episodes begin."""
    return places[..., 0] < WALL


def expert(places: Float[Tensor, "*shape place"]) -> Float[Tensor, "*shape place"]:
    """Straight on at full speed: in the near room to the door, behind it to the goal."""
    door, goal = torch.tensor([WALL + STEP / 2, sum(DOOR) / 2]), torch.tensor(GOAL)
    away = torch.where(is_near(places)[..., None], door, goal) - places
    return away / away.abs().amax(-1, keepdim=True).clamp(min=STEP)


def make_log(quality: Quality, transitions: int, seed: int) -> Transitions:
    """Episodes from anywhere; in each room the expert acts (with noise of deviation 0.1) as often as its quality says.

    Else the action is uniformly random.
    """
    draw = torch_generator(seed, "two rooms", "log")

    def act(places: Tensor) -> Tensor:
        good = expert(places) + 0.1 * torch.randn(places.shape, generator=draw)
        random = 2 * torch.rand(places.shape, generator=draw) - 1
        share = torch.where(is_near(places), quality[0], quality[1])
        is_expert = torch.rand(share.shape, generator=draw) < share
        return torch.where(is_expert[..., None], good.clamp(-1, 1), random)

    return logged(TwoRooms(anywhere=True), act, transitions, draw)
