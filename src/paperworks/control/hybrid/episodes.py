"""What hybrid algorithms learn from: fresh whole episodes side by side, and logged transitions sorted by their step.

Both are [seeds, steps, rows, ...]: the step of an episode is an axis of its own, so that an algorithm may have a network a
step. Random numbers are functions of seed, name and iteration alone: a run resumes, and a seed has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.control.policy import Normaliser
from paperworks.control.transitions import Transitions
from paperworks.core.errors import DataError, OptionError
from paperworks.core.seeding import torch_generator


@dataclass(frozen=True)
class Episodes:
    """Fresh episodes of the current policies, from their start; `alive` is 1 where a step was taken."""

    states: Float[Tensor, "seeds steps episodes state"]
    actions: Float[Tensor, "seeds steps episodes action"] | Int[Tensor, "seeds steps episodes"]
    rewards: Float[Tensor, "seeds steps episodes"]  # 0 where no step was taken
    alive: Float[Tensor, "seeds steps episodes"]

    def returns_to_go(self, gamma: float) -> Float[Tensor, "seeds steps episodes"]:
        """The discounted sum of rewards from each step on, its own included, within its episode."""
        found, later = torch.empty_like(self.rewards), torch.zeros_like(self.rewards[:, 0])
        for step in reversed(range(self.rewards.shape[1])):
            later = (self.rewards[:, step] + gamma * later) * self.alive[:, step]
            found[:, step] = later
        return found

    def advantages(
        self, values: Float[Tensor, "seeds steps episodes"], gamma: float, gae_lambda: float
    ) -> Float[Tensor, "seeds steps episodes"]:
        """Generalised advantages (arXiv 1506.02438); behind the last step there is no value."""
        found = torch.empty_like(values)
        later = next_value = torch.zeros_like(values[:, 0])
        for step in reversed(range(values.shape[1])):
            error = self.rewards[:, step] + gamma * next_value - values[:, step]
            later = (error + gamma * gae_lambda * later) * self.alive[:, step]
            next_value = values[:, step] * self.alive[:, step]
            found[:, step] = later
        return found


@dataclass(frozen=True)
class Logged:
    """Logged transitions, `rows` of every step."""

    states: Float[Tensor, "seeds steps rows state"]
    actions: Float[Tensor, "seeds steps rows action"] | Int[Tensor, "seeds steps rows"]
    rewards: Float[Tensor, "seeds steps rows"]
    next_states: Float[Tensor, "seeds steps rows state"]
    goes_on: Float[Tensor, "seeds steps rows"]  # 0 behind a termination


class Streams:
    """Random numbers of one iteration: a stream a seed and name."""

    def __init__(self, seeds: Sequence[int], iteration: int, like: Tensor) -> None:
        """Numbers have the type and device of `like`."""
        self._seeds, self._iteration, self._like = tuple(seeds), iteration, like

    @property
    def dtype(self) -> torch.dtype:
        """Of the numbers."""
        return self._like.dtype

    def normal(self, name: str, *shape: int) -> Float[Tensor, "seeds ..."]:
        """Standard normal numbers of this shape a seed."""
        drawn = [torch.randn(shape, generator=self._draw(seed, name), dtype=self._like.dtype) for seed in self._seeds]
        return torch.stack(drawn).to(self._like.device)

    def below(self, name: str, most: Int[Tensor, " steps"], rows: int) -> Int[Tensor, "seeds steps rows"]:
        """Whole numbers from 0 below each step's `most`, with replacement."""
        shape = (len(most), rows)
        drawn = [torch.rand(shape, generator=self._draw(seed, name), dtype=torch.float64) for seed in self._seeds]
        found = (torch.stack(drawn) * most[None, :, None]).long()
        return torch.minimum(found, most[None, :, None] - 1).to(self._like.device)

    def _draw(self, seed: int, name: str) -> torch.Generator:
        return torch_generator(seed, name, self._iteration)


class StepLog:
    """A log whose transitions are found by their step in the episode."""

    def __init__(
        self, log: Transitions, horizon: int, normaliser: Normaliser, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Raises DataError for steps without a transition (listed), OptionError for an episode above the horizon."""
        lengths = [episode.stop - episode.start for episode in log.episodes()]
        if max(lengths) > horizon:
            raise OptionError(
                f"--horizon {horizon}: the longest logged episode has {max(lengths)} steps; give at least as many"
            )
        steps = np.concatenate([np.arange(length) for length in lengths])
        missing = np.flatnonzero(np.bincount(steps, minlength=horizon)[:horizon] == 0)
        if len(missing):
            shown = ", ".join(map(str, missing[:12])) + (" …" if len(missing) > 12 else "")
            raise DataError(
                f"no transitions of {len(missing)} of {horizon} steps: {shown}; log longer episodes, or lower --horizon",
                file=log.source or None,
            )

        def tensor(values: np.ndarray) -> Tensor:
            found = torch.from_numpy(np.ascontiguousarray(values))
            return (found.to(dtype) if values.dtype.kind == "f" else found.long()).to(device)

        self._states, self._next_states = (
            tensor(((each - normaliser.mean) / normaliser.deviation).astype(np.float32))
            for each in (log.observations, log.next_observations)
        )
        self._actions, self._rewards = tensor(log.actions), tensor(log.rewards.astype(np.float32))
        self._goes_on = tensor((~log.terminations).astype(np.float32))
        self._counts = torch.from_numpy(np.bincount(steps, minlength=horizon))
        self._places = torch.from_numpy(np.argsort(steps, kind="stable")).to(device)
        self._first = (self._counts.cumsum(0) - self._counts).to(device)

    def draw(self, rows: int, streams: Streams) -> Logged:
        """`rows` transitions of every step, uniform with replacement."""
        picked = self._first[None, :, None] + streams.below("logged rows", self._counts, rows)
        places = self._places[picked]
        return Logged(
            self._states[places], self._actions[places], self._rewards[places], self._next_states[places],
            self._goes_on[places],
        )  # fmt: skip
