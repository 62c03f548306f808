"""One episode of a world of tensors as a gymnasium environment. Imported by gymnasium alone, which is optional."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch

from paperworks.control.testbeds.own_environments import world_at


class WorldEnvironment(gymnasium.Env[Any, Any]):
    """A world with continuous actions. `info["cost"]` is the step's cost; gymnasium itself cuts episodes at the limit."""

    def __init__(self, place: str) -> None:
        """`place` is the world's module and class."""
        self._world = world_at(place)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (self._world.state,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (self._world.action,), np.float32)
        self._draw = torch.Generator()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._draw.manual_seed(int(self.np_random.integers(2**62)))
        self._latent = self._world.start((), self._draw)
        return self._world.seen(self._latent).numpy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        given = torch.from_numpy(np.asarray(action, dtype=np.float32))
        self._latent, reward, over, cost = self._world.step(self._latent, given)
        return self._world.seen(self._latent).numpy(), float(reward), bool(over), False, {"cost": float(cost)}
