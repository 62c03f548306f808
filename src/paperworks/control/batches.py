"""Rows and noise for every seed: functions of the seed and the step alone, so that a run resumes, and a seed has its own.

The log lies on the device as a few tensors; a step is one gather for all seeds.
"""

from __future__ import annotations

import copy
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
    costs: Float[Tensor, "seeds rows"] | None = None  # of logs that have them


class Log:
    """The transitions as tensors on a device, states normalised: [n, ...], or a log a seed, [seeds, n, ...]."""

    def __init__(self, log: Transitions, mean: np.ndarray, deviation: np.ndarray, device: torch.device) -> None:
        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        self.states = tensor((log.observations - mean) / deviation)
        self.next_states = tensor((log.next_observations - mean) / deviation)
        self.actions, self.rewards = tensor(log.actions), tensor(log.rewards.astype(np.float32))
        self.goes_on = tensor((~log.terminations).astype(np.float32))
        self.ends = tensor(log.ends)
        self.costs = None if log.costs is None else tensor(log.costs.astype(np.float32))
        self.constraint = None if log.constraint is None else tensor(log.constraint.astype(np.float32))
        self.device = device

    @classmethod
    def stacked(cls, logs: Sequence[Log]) -> Log:
        """A log a seed. Raises ValueError unless all are of one length."""
        if len({len(log) for log in logs}) != 1:
            raise ValueError(f"logs of {sorted({len(log) for log in logs})} transitions; expected as many in each")
        found = copy.copy(logs[0])
        for name in FIELDS:
            parts = [getattr(log, name) for log in logs]
            setattr(found, name, None if parts[0] is None else torch.stack(parts))
        return found

    @property
    def is_stacked(self) -> bool:
        return self.rewards.dim() == 2

    def __len__(self) -> int:
        return int(self.rewards.shape[-1])

    def pick(self, values: Tensor, rows: Int[Tensor, "seeds rows"]) -> Tensor:
        """[seeds, rows, ...] of values that stand beside the log's rows."""
        if not self.is_stacked:
            return values[rows]
        return values[torch.arange(len(rows), device=values.device)[:, None], rows]

    def batch(self, rows: Int[Tensor, "seeds rows"]) -> Batch:
        """These rows."""
        costs = None if self.costs is None else self.pick(self.costs, rows)
        states, actions, rewards, next_states, goes_on = (
            self.pick(values, rows)
            for values in (self.states, self.actions, self.rewards, self.next_states, self.goes_on)
        )
        return Batch(rows, states, actions, rewards, next_states, goes_on, costs)


FIELDS = ("states", "actions", "rewards", "next_states", "goes_on", "ends", "costs", "constraint")


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
