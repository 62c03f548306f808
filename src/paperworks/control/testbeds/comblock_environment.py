"""The continuous combination lock as a gymnasium environment, one episode at a time, and logs of its behaviour policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from paperworks.control.testbeds.comblock import LATENT_ACTIONS, Comblock
from paperworks.control.transitions import ARRAYS, Transitions
from paperworks.core.seeding import torch_generator

HORIZON = 5


class ComblockEnvironment(gymnasium.Env[Any, Any]):
    """One lock; `lock` is its number. Actions are logits in [-1, 1]; an episode is over after the last step."""

    def __init__(self, horizon: int = HORIZON, lock: int = 0) -> None:
        self._lock = Comblock.drawn(horizon, [lock])
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (self._lock.state,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (LATENT_ACTIONS,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._draws = [torch.Generator().manual_seed(int(self.np_random.integers(2**31)))]
        self._step, self._latent = 0, self._lock.start(1, self._draws)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        logits = torch.as_tensor(np.asarray(action), dtype=torch.float32).view(1, 1, -1)
        self._latent, reward = self._lock.step(self._latent, self._step, logits, self._draws)
        self._step += 1
        return self._seen(), float(reward), self._step == self._lock.horizon, False, {}

    def _seen(self) -> NDArray[np.float32]:
        return self._lock.observe(self._latent, self._step, self._draws)[0, 0].numpy()


def behaviour_log(episodes: int, *, horizon: int = HORIZON, lock: int = 0, seed: int = 0) -> Transitions:
    """Episodes of the policy that HNPG's paper logs: right with probability 1 - 1/H a step, else ten uniform numbers."""
    world, draws = Comblock.drawn(horizon, [lock]), [torch_generator(seed, "log")]
    latent, columns = world.start(episodes, draws), []
    seen = world.observe(latent, 0, draws)
    for step in range(horizon):
        action = world.behave(latent, step, draws)
        latent, reward = world.step(latent, step, action, draws)
        following = world.observe(latent, step + 1, draws)
        columns.append((seen[0], action[0], reward[0], following[0]))
        seen = following
    states, actions, rewards, next_states = (
        torch.stack(column, 1).flatten(0, 1).numpy() for column in zip(*columns, strict=True)
    )
    ends = np.arange(len(rewards)) % horizon == horizon - 1
    return Transitions(states, actions, rewards, next_states, ends, np.zeros_like(ends), source="Comblock behaviour")


def save_behaviour_log(
    file: str | Path, episodes: int, *, horizon: int = HORIZON, lock: int = 0, seed: int = 0
) -> None:
    """The same as an .npz file, as `paperworks train hnpg --data` reads it."""
    log = behaviour_log(episodes, horizon=horizon, lock=lock, seed=seed)
    np.savez(file, **{name: getattr(log, name) for name in ARRAYS if getattr(log, name) is not None})
