"""Worlds as pure functions on tensors: any number of episodes of any number of policies is one step.

A world has no memory: its state is a tensor that `step` takes and gives back, so that nets stand side by side as the first
dimension and episodes as the second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from paperworks.control.transitions import Transitions

Act = Callable[[Tensor], Tensor]  # states [*shape, state] to actions [*shape, action] in [-1, 1], or numbers [*shape]


@runtime_checkable
class World(Protocol):
    """A task. `limit` is the number of steps after which an episode is cut."""

    @property
    def state(self) -> int: ...

    @property
    def action(self) -> int: ...

    @property
    def limit(self) -> int: ...

    def start(self, shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
        """Where episodes begin: [*shape, latent]."""
        ...

    def seen(self, latent: Tensor) -> Tensor:
        """What policies see of it: [*shape, state]."""
        ...

    def step(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(next latent, reward, whether the episode is over, cost), the last three [*shape]."""
        ...


@dataclass(frozen=True)
class Rolled:
    """Whole episodes, of the shape of their starts."""

    returns: Float[Tensor, "*shape"]
    lengths: Float[Tensor, "*shape"]
    costs: Float[Tensor, "*shape"]
    terminated: Bool[Tensor, "*shape"]


@torch.no_grad()
def roll(world: World, act: Act, latent: Tensor, *, gamma: float = 1.0) -> Rolled:
    """Episodes from these starts, to their end or the world's limit."""
    shape = latent.shape[:-1]
    returns, lengths, costs = (torch.zeros(shape) for _ in range(3))
    alive, discount = torch.ones(shape, dtype=torch.bool), 1.0
    for _ in range(world.limit):
        latent, reward, over, cost = world.step(latent, act(world.seen(latent)))
        returns += torch.where(alive, discount * reward, 0.0)
        costs += torch.where(alive, cost, 0.0)
        lengths += alive
        alive = alive & ~over
        discount *= gamma
        if not alive.any():
            break
    return Rolled(returns, lengths, costs, ~alive)


@torch.no_grad()
def logged(world: World, act: Act, transitions: int, draw: torch.Generator, *, side_by_side: int = 16) -> Transitions:
    """A log of exactly `transitions` rows: whole episodes one behind the other, the last one cut (truncated) where need be.

    `act` may draw from a generator of its own. Episodes are rolled `side_by_side` at a time.
    """
    episodes: list[dict[str, np.ndarray]] = []
    have = 0
    while have < transitions:
        for episode in _episodes(world, act, world.start((side_by_side,), draw)):
            episodes.append(episode)
            have += len(episode["rewards"])
    arrays = {name: np.concatenate([episode[name] for episode in episodes])[:transitions] for name in episodes[0]}
    arrays["truncations"][-1] |= not arrays["terminations"][-1]
    return Transitions(**arrays)  # type: ignore[arg-type]


def _episodes(world: World, act: Act, latent: Tensor) -> list[dict[str, np.ndarray]]:
    columns: dict[str, list[Tensor]] = {name: [] for name in _COLUMNS}
    alive, was_alive = torch.ones(latent.shape[:-1], dtype=torch.bool), []
    for _ in range(world.limit):
        states = world.seen(latent)
        action = act(states)
        latent, reward, over, cost = world.step(latent, action)
        for name, value in zip(_COLUMNS, (states, action, reward, world.seen(latent), over, cost), strict=True):
            columns[name].append(value)
        was_alive.append(alive)
        alive = alive & ~over
        if not alive.any():
            break
    stacked = {name: torch.stack(values, 1).numpy() for name, values in columns.items()}
    lengths = torch.stack(was_alive, 1).sum(1).tolist()
    found = []
    for number, length in enumerate(lengths):
        episode = {name: values[number, :length] for name, values in stacked.items()}
        truncations = np.zeros(length, dtype=bool)
        truncations[-1] = not episode["terminations"][-1]
        found.append({**episode, "truncations": truncations})
    return found


_COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminations", "costs")
