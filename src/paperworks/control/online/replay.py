"""What was lived through while learning: a log a seed that grows. It may begin as a copy of a log."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.control.batches import Log
from paperworks.control.learner import Shapes
from paperworks.core.errors import RunError


class Replay(Log):
    """Rows [seeds, capacity, ...], of which the first `len(replay)` are filled."""

    def __init__(
        self,
        shapes: Shapes,
        seeds: int,
        capacity: int,
        device: torch.device,
        *,
        start: Log | None = None,
        discrete: bool = False,
    ) -> None:
        """`capacity` counts the rows of `start` too."""
        self.device, self._filled = device, 0
        self.costs = self.constraint = None
        numbers = torch.zeros(seeds, capacity, device=device)
        self.states, self.next_states = (torch.zeros(seeds, capacity, shapes.state, device=device) for _ in range(2))
        self.actions = numbers.long() if discrete else torch.zeros(seeds, capacity, shapes.action, device=device)
        self.rewards, self.goes_on, self.ends = numbers, numbers.clone(), numbers.bool()
        if start is not None:
            for name in _LIVED:
                values = getattr(start, name)
                getattr(self, name)[:, : len(start)] = values if start.is_stacked else values[None]
            self._filled = len(start)

    def __len__(self) -> int:
        return self._filled

    def append(
        self,
        states: Float[Tensor, "seeds state"],
        actions: Float[Tensor, "seeds action"] | Int[Tensor, " seeds"],
        rewards: Float[Tensor, " seeds"],
        next_states: Float[Tensor, "seeds state"],
        goes_on: Float[Tensor, " seeds"],
        ends: Tensor,
    ) -> None:
        """One more transition a seed."""
        at = self._filled
        if at == self.rewards.shape[1]:
            raise RunError(f"the replay is full ({at} rows)")
        for name, values in zip(_LIVED, (states, actions, rewards, next_states, goes_on, ends), strict=True):
            getattr(self, name)[:, at] = values
        self._filled += 1

    def tensors(self, since: int = 0) -> dict[str, Tensor]:
        """The rows from `since` on, to be saved."""
        return {name: getattr(self, name)[:, since : self._filled] for name in _LIVED}

    def restore(self, values: dict[str, Tensor], since: int = 0) -> None:
        """Put saved rows back behind the first `since`."""
        count = values["rewards"].shape[1]
        for name in _LIVED:
            getattr(self, name)[:, since : since + count] = values[name].to(self.device)
        self._filled = since + count


_LIVED = ("states", "actions", "rewards", "next_states", "goes_on", "ends")
