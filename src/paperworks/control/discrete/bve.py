"""BVE: the value of what the log's own policy does, and the greedy policy on it (one step of policy improvement)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.control.actors import Actor
from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.discrete.learner import DiscreteLearner, DiscreteOptions, actor_of, chosen, huber, nets
from paperworks.control.learner import LearnerOptions, Shapes


class BVE(DiscreteLearner):
    """Huber loss to SARSA's target r + gamma Q(s', a'), a' the logged next action; no target network.

    A transition behind which the log was cut (truncated) has no next action: it does not count.
    """

    name: ClassVar[str] = "bve"
    options_class: ClassVar[type[LearnerOptions]] = DiscreteOptions
    options: DiscreteOptions

    def __init__(self, shapes: Shapes, options: DiscreteOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.log = log
        self.net = nets(shapes, options, seeds, "values")
        self.learns("values", self.net)

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        target, counts = self.target(batch)
        known = chosen(self.net(batch.states), batch.actions)
        loss = (counts * huber(known - target)).sum(1) / counts.sum(1).clamp(min=1)
        self.descend("values", loss)
        return {"critic": loss.detach(), "q": known.detach().mean(1)}

    @torch.no_grad()
    def target(self, batch: Batch) -> tuple[Float[Tensor, "seeds rows"], Float[Tensor, "seeds rows"]]:
        """What the logged actions' values are fitted to, and 1 where it is known."""
        behind = (batch.rows + 1).clamp(max=len(self.log) - 1)
        following = chosen(self.net(batch.next_states), self.log.pick(self.log.actions, behind))
        is_cut = self.log.pick(self.log.ends, batch.rows) & (batch.goes_on == 1)
        return batch.rewards + self.options.gamma * batch.goes_on * following, (~is_cut).float()

    def scores(self, states: Float[Tensor, "seeds rows state"]) -> Float[Tensor, "seeds rows actions"]:
        found: Tensor = self.net(states)
        return found

    def actor_of(self, place: int) -> Actor:
        return actor_of(self.net, place)
