"""Behaviour cloning: do what the log did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.learner import LearnerOptions, PerceptronLearner, Shapes
from paperworks.control.networks import Perceptrons
from paperworks.core.options import option


@dataclass(frozen=True)
class BCOptions(LearnerOptions):
    """Behaviour cloning: the squared difference from the logged action."""

    best: float = option(1.0, "learn from the episodes of highest return alone, this share of the log", above=0, high=1)


class BC(PerceptronLearner):
    """min mean (pi(s) - a)^2 over batch and action dimensions."""

    name: ClassVar[str] = "bc"
    options_class: ClassVar[type[LearnerOptions]] = BCOptions

    def __init__(self, shapes: Shapes, options: BCOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.actor = Perceptrons((shapes.state, *options.hidden, shapes.action), seeds, "actor")
        self.learns("actor", self.actor)

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        loss = (self.actor(batch.states).tanh() - batch.actions).square().mean((1, 2))
        self.descend("actor", loss)
        return {"imitation": loss.detach()}

    def acting(self) -> Perceptrons:
        return self.actor
