"""Rows and noise for every seed: functions of the seed and the step alone, so that a run resumes, and a seed has its own.

The log lies on the device as a few tensors; a step is one gather for all seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.control.transitions import Transitions
from paperworks.core.seeding import torch_generator

CHUNK = 64  # steps that are drawn at a time


@dataclass(frozen=True)
class Batch:
    """What every seed learns from in a step: [seeds, rows, ...]."""

    rows: Int[Tensor, "seeds rows"]  # places in the log
    states: Float[Tensor, "seeds rows state"]
    actions: Float[Tensor, "seeds rows action"] | Int[Tensor, "seeds rows"]
    rewards: Float[Tensor, "seeds rows"]
    next_states: Float[Tensor, "seeds rows state"]
    goes_on: Float[Tensor, "seeds rows"]  # 0 behind a termination, 1 elsewhere (behind a truncation too)


class Log:
    """The transitions as tensors on a device, states normalised."""

    def __init__(self, log: Transitions, mean: np.ndarray, deviation: np.ndarray, device: torch.device) -> None:
        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        self.states = tensor((log.observations - mean) / deviation)
        self.next_states = tensor((log.next_observations - mean) / deviation)
        self.actions, self.rewards = tensor(log.actions), tensor(log.rewards.astype(np.float32))
        self.goes_on = tensor((~log.terminations).astype(np.float32))
        self.device = device

    def __len__(self) -> int:
        return len(self.rewards)

    def batch(self, rows: Int[Tensor, "seeds rows"]) -> Batch:
        """These rows."""
        return Batch(
            rows, self.states[rows], self.actions[rows], self.rewards[rows], self.next_states[rows], self.goes_on[rows]
        )


class Draws:
    """Random rows and random numbers of each step, for every seed from a stream of its own."""

    def __init__(self, seeds: Sequence[int], rows: int, size: int, device: torch.device) -> None:
        self._seeds, self._rows, self._size, self._device = list(seeds), rows, size, device
        self._kept: dict[str, tuple[int, Tensor]] = {}

    def rows(self, step: int) -> Int[Tensor, "seeds rows"]:
        """Places in the log, uniform with replacement."""
        return self._chunk("rows", step, lambda draw: torch.randint(self._size, (CHUNK, self._rows), generator=draw))

    def normal(self, name: str, step: int, *shape: int) -> Float[Tensor, "seeds ..."]:
        """Standard normal numbers of this shape a seed."""
        return self._chunk(name, step, lambda draw: torch.randn(CHUNK, *shape, generator=draw))

    def uniform(self, name: str, step: int, *shape: int) -> Float[Tensor, "seeds ..."]:
        """Uniform numbers in [0, 1) of this shape a seed."""
        return self._chunk(name, step, lambda draw: torch.rand(CHUNK, *shape, generator=draw))

    def _chunk(self, name: str, step: int, drawn: Callable[[torch.Generator], Tensor]) -> Tensor:
        number, at = divmod(step, CHUNK)
        known = self._kept.get(name)
        if known is None or known[0] != number:
            parts = [drawn(torch_generator(seed, name, number)) for seed in self._seeds]
            known = self._kept[name] = (number, torch.stack(parts, 1).to(self._device))
        return known[1][at]
