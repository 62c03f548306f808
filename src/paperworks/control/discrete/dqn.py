"""Double DQN on a log (arXiv 1509.06461), and what algorithms that value actions in other ways take over from it.

Alone it may value actions highly that the log never shows; what holds it there, if anything, is what the others add.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.control.actors import Actor
from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.discrete.learner import DiscreteLearner, DiscreteOptions, actor_of, chosen, huber, nets
from paperworks.control.learner import LearnerOptions, Shapes
from paperworks.control.networks import Perceptrons, follow
from paperworks.core.options import option


@dataclass(frozen=True)
class DQNOptions(DiscreteOptions):
    """Double DQN's own."""

    target_every: int = option(100, "steps between copies of the network to the target network", low=1)


class DQN(DiscreteLearner):
    """Huber loss to r + gamma Q'(s', argmax_a Q(s', a)), nothing behind a termination."""

    name: ClassVar[str] = "dqn"
    options_class: ClassVar[type[LearnerOptions]] = DQNOptions
    options: DQNOptions

    def __init__(self, shapes: Shapes, options: DQNOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.net = nets(shapes, options, seeds, "values", heads=self.heads)
        self.target_net = copy.deepcopy(self.net)
        self.learns("values", self.net)

    @property
    def heads(self) -> int:
        """Numbers that the network gives for an action; its value is their mean."""
        return 1

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        loss, told = self.loss(batch, draws, step)
        self.descend("values", loss)
        if (step + 1) % self.options.target_every == 0:
            follow(self.target_net, self.net, 1.0)
        return {"critic": loss.detach(), **told}

    def loss(
        self, batch: Batch, draws: Draws, step: int
    ) -> tuple[Float[Tensor, " seeds"], dict[str, Float[Tensor, " seeds"]]]:
        """What is descended, and numbers to log."""
        return self.td_loss(self.values(self.net, batch.states), self.target(batch), batch)

    def td_loss(
        self, q: Float[Tensor, "seeds rows actions"], target: Float[Tensor, "seeds rows"], batch: Batch
    ) -> tuple[Float[Tensor, " seeds"], dict[str, Float[Tensor, " seeds"]]]:
        """Huber loss of the logged actions' values."""
        known = chosen(q, batch.actions)
        return huber(known - target).mean(1), {"q": known.detach().mean(1)}

    @torch.no_grad()
    def target(self, batch: Batch) -> Float[Tensor, "seeds rows"]:
        """What the logged actions' values are fitted to."""
        best = self.values(self.net, batch.next_states).argmax(-1)
        following = chosen(self.values(self.target_net, batch.next_states), best)
        return batch.rewards + self.options.gamma * batch.goes_on * following

    def all_heads(
        self, net: Perceptrons, states: Float[Tensor, "seeds rows state"]
    ) -> Float[Tensor, "seeds rows actions heads"]:
        """Every number that a network gives."""
        found: Tensor = net(states).unflatten(-1, (self.shapes.action, self.heads))
        return found

    def values(
        self, net: Perceptrons, states: Float[Tensor, "seeds rows state"]
    ) -> Float[Tensor, "seeds rows actions"]:
        """A network's Q(s, .)."""
        return self.all_heads(net, states).mean(-1)

    def scores(self, states: Float[Tensor, "seeds rows state"]) -> Float[Tensor, "seeds rows actions"]:
        return self.values(self.net, states)

    def actor_of(self, place: int) -> Actor:
        return actor_of(self.net, place, heads=self.heads)
