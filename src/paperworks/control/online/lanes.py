"""An environment a seed, stepped side by side; where an episode starts depends on the seed and its number alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from numpy.typing import NDArray

from paperworks.control.environments import single
from paperworks.core.seeding import derive_seed


@dataclass(frozen=True)
class Stepped:
    """What a step gave each lane; `seen` is the state that the action led to, also where the episode ended in it."""

    seen: Float[ndarray, "lanes state"]
    rewards: Float[ndarray, " lanes"]
    terminated: Bool[ndarray, " lanes"]
    truncated: Bool[ndarray, " lanes"]


class Lanes:
    """`len(seeds)` environments. `seen` is what each shows now; an episode that is over is followed by the next one."""

    def __init__(self, environment: str, seeds: Sequence[int], begun: Sequence[int] | None = None) -> None:
        """`begun` is how many episodes each lane has had, where a run goes on. Raises OptionError."""
        self._made = [single(environment) for _ in seeds]
        self._seeds = list(seeds)
        self._spaces = [copy.deepcopy(made.action_space) for made in self._made]  # an environment may share its own
        self.begun = [0 for _ in seeds] if begun is None else list(begun)
        self._shape = self._made[0].action_space.shape
        self.returns: list[float] = []  # of episodes that ended since they were last taken
        self._earned = np.zeros(len(seeds))
        self.seen = np.stack([self._reset(lane, counts=False) for lane in range(len(seeds))])

    def step(self, actions: NDArray[Any]) -> Stepped:
        """An action in each, [lanes, action] in the environment's own numbers."""
        found: list[tuple[Any, ...]] = []
        for lane, (made, action) in enumerate(zip(self._made, actions, strict=True)):
            seen, reward, terminated, truncated, _ = made.step(
                action.reshape(self._shape) if self._shape else int(action)
            )
            seen = np.asarray(seen, dtype=np.float32).reshape(-1)
            found.append((seen, float(reward), terminated, truncated))
            self._earned[lane] += float(reward)
            ended = terminated or truncated
            self.seen[lane] = self._reset(lane, counts=True) if ended else seen
        seen_now, rewards, over, cut = zip(*found, strict=True)
        return Stepped(np.stack(seen_now), np.array(rewards, np.float32), np.array(over, bool), np.array(cut, bool))

    def restart(self) -> None:
        """Begin a new episode everywhere: what was in progress is cut."""
        self.seen = np.stack([self._reset(lane, counts=False) for lane in range(len(self._made))])

    def close(self) -> None:
        for made in self._made:
            made.close()

    def _reset(self, lane: int, *, counts: bool) -> NDArray[np.float32]:
        """The next episode's first state; `counts` says whether the one before it came to its end."""
        if counts:
            self.returns.append(float(self._earned[lane]))
        self._earned[lane] = 0.0
        seed = derive_seed(self._seeds[lane], "online episode", self.begun[lane]) % 2**31
        self._spaces[lane].seed(seed)
        seen, _ = self._made[lane].reset(seed=seed)
        self.begun[lane] += 1
        return np.asarray(seen, dtype=np.float32).reshape(-1)

    def random_actions(self) -> NDArray[Any]:
        """An action of each environment's own action space."""
        return np.stack([np.asarray(space.sample()) for space in self._spaces])
