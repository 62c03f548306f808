"""PRDC (arXiv 2306.06569): TD3 whose actor is pulled to the action of the nearest logged (state, action) pair.

The search is over the whole log, at (s, pi(s)): what was done in a neighbouring state counts too, and nothing outside the
log pulls. The sum of squares stands on the action's part alone, as in the authors' code; `penalty=distance` is the paper's
text, the distance itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.control.batches import Batch, Log
from paperworks.control.learner import LearnerOptions, Shapes
from paperworks.control.nearest import NearestRows, Search
from paperworks.control.offline.td3_bc import TD3BC, TD3BCOptions
from paperworks.control.transitions import Transitions
from paperworks.core.options import option


@dataclass(frozen=True)
class PRDCOptions(TD3BCOptions):
    """PRDC's own. Published settings: alpha 2.5 (HalfCheetah 40, AntMaze 7.5), beta 2 (AntMaze 7.5)."""

    beta: float = option(2.0, "weight of the state against the action in the distance", low=0)
    neighbours: int = option(1, "nearest rows whose mean action pulls; 1 is the paper", low=1)
    penalty: Literal["squares", "distance"] = option("squares", "of the action, squared, as the code; or the distance")
    search: Search = option("auto", "tree (exact), matrix (exact, one product a chunk), or auto by size")


class PRDC(TD3BC):
    """TD3+BC with a* = the action of argmin_i |[beta s; pi(s)] - [beta s_i; a_i]| in place of a; a* is a constant."""

    name: ClassVar[str] = "prdc"
    options_class: ClassVar[type[LearnerOptions]] = PRDCOptions
    options: PRDCOptions

    def __init__(self, shapes: Shapes, options: PRDCOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self._log = log
        pairs = torch.cat([options.beta * log.states, log.actions], -1)
        logs = pairs if log.is_stacked else pairs[None]
        self._indices = [NearestRows(each, options.search) for each in logs]

    @classmethod
    def check(cls, log: Transitions, options: LearnerOptions) -> Sequence[str]:
        constant = np.flatnonzero(np.ptp(log.observations, axis=0) == 0).tolist()
        if not constant:
            return ()
        return (f"observations: columns {constant} (from 0) are constant; they count for nothing in the distance",)

    def pull(
        self, batch: Batch, action: Float[Tensor, "seeds rows action"]
    ) -> tuple[Float[Tensor, " seeds"], dict[str, Float[Tensor, " seeds"]]]:
        beta = self.options.beta
        found = self.nearest(torch.cat([beta * batch.states, action.detach()], -1))
        nearest = self._log.pick(self._log.actions, found.flatten(1)).unflatten(1, found.shape[1:]).mean(2)
        apart = beta * (batch.states - self._log.pick(self._log.states, found[:, :, 0]))
        squares = (action - nearest).square()
        distance = (squares.sum(-1) + apart.square().sum(-1)).clamp(min=1e-12).sqrt()
        pull = squares.mean((1, 2)) if self.options.penalty == "squares" else distance.mean(1)
        elsewhere = (apart.square().sum(-1) > 0).float().mean(1)
        return pull, {"distance": distance.detach().mean(1), "elsewhere": elsewhere}

    def nearest(self, keys: Float[Tensor, "seeds rows pair"]) -> Int[Tensor, "seeds rows neighbours"]:
        """The nearest logged pairs of [beta s; a], each seed's in its own log."""
        count = self.options.neighbours
        if not self._log.is_stacked:  # one search for all seeds
            return self._indices[0].query(keys.flatten(0, 1), count).unflatten(0, keys.shape[:2])
        return torch.stack([index.query(key, count) for index, key in zip(self._indices, keys, strict=True)])
