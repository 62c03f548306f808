"""Behaviour cloning with discrete actions: say how likely each action of the log was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from paperworks.control.actors import Actor
from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.discrete.learner import Acts, DiscreteLearner, DiscreteOptions, actor_of, cross_entropy, nets
from paperworks.control.learner import LearnerOptions, Shapes
from paperworks.core.options import option


@dataclass(frozen=True)
class DiscreteBCOptions(DiscreteOptions):
    """Behaviour cloning's own."""

    acts: Acts = option("sample", "sample the imitated probabilities, as the study did, or take the likeliest action")
    best: float = option(1.0, "learn from the episodes of highest return alone, this share of the log", above=0, high=1)


class DiscreteBC(DiscreteLearner):
    """min mean -log pi(a|s)."""

    name: ClassVar[str] = "discrete-bc"
    options_class: ClassVar[type[LearnerOptions]] = DiscreteBCOptions
    options: DiscreteBCOptions

    def __init__(self, shapes: Shapes, options: DiscreteBCOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.actor = nets(shapes, options, seeds, "actor")
        self.learns("actor", self.actor)

    @property
    def samples(self) -> bool:
        return self.options.acts == "sample"

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        loss = cross_entropy(self.actor(batch.states), batch.actions).mean(1)
        self.descend("actor", loss)
        return {"log_loss": loss.detach()}

    def scores(self, states: Float[Tensor, "seeds rows state"]) -> Float[Tensor, "seeds rows actions"]:
        found: Tensor = self.actor(states)
        return found

    def actor_of(self, place: int) -> Actor:
        return actor_of(self.actor, place, samples=self.samples)
