"""BCQ with discrete actions (arXiv 1910.01708): double DQN among the actions that the log makes likely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from paperworks.control.actors import Actor, PerceptronActor
from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.discrete.dqn import DQN, DQNOptions
from paperworks.control.discrete.learner import actor_of, chosen, cross_entropy, nets
from paperworks.control.learner import LearnerOptions, Shapes
from paperworks.core.options import option


@dataclass(frozen=True)
class DiscreteBCQOptions(DQNOptions):
    """BCQ's own."""

    threshold: float = option(0.3, "actions above this share of the likeliest one's probability are allowed", low=0)
    logit_penalty: float = option(0.01, "weight of the mean square of the imitation's logits", low=0)


class DiscreteBCQ(DQN):
    """r + gamma Q'(s', a*), a* the best action with pi(a|s') / max pi > threshold; pi imitates; acts the same way."""

    name: ClassVar[str] = "discrete-bcq"
    options_class: ClassVar[type[LearnerOptions]] = DiscreteBCQOptions
    options: DiscreteBCQOptions

    def __init__(self, shapes: Shapes, options: DiscreteBCQOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.imitation = nets(shapes, options, seeds, "actor")
        self.learns("imitation", self.imitation)

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        told = super().update(batch, draws, step)
        logits = self.imitation(batch.states)
        log_loss = cross_entropy(logits, batch.actions).mean(1)
        self.descend("imitation", log_loss + self.options.logit_penalty * logits.square().mean((1, 2)))
        return {**told, "log_loss": log_loss.detach()}

    @torch.no_grad()
    def target(self, batch: Batch) -> Float[Tensor, "seeds rows"]:
        best = self.scores(batch.next_states).argmax(-1)
        following = chosen(self.values(self.target_net, batch.next_states), best)
        return batch.rewards + self.options.gamma * batch.goes_on * following

    def scores(self, states: Float[Tensor, "seeds rows state"]) -> Float[Tensor, "seeds rows actions"]:
        """Q(s, .), minus infinity where an action is not allowed."""
        is_allowed = allowed(self.imitation(states).softmax(-1), self.options.threshold)
        return self.values(self.net, states).masked_fill(~is_allowed, -torch.inf)

    def actor_of(self, place: int) -> Actor:
        imitation, values = (actor_of(net, place) for net in (self.imitation, self.net))
        assert isinstance(imitation, PerceptronActor) and isinstance(values, PerceptronActor)
        return AllowedActor(imitation, values, self.options.threshold)


def allowed(probabilities: Float[Tensor, "*shape actions"], threshold: float) -> Bool[Tensor, "*shape actions"]:
    """Whether an action's probability is more than this share of the likeliest one's, which always is."""
    most = probabilities.amax(-1, keepdim=True)
    return (probabilities > threshold * most) | (probabilities == most)


class AllowedActor(Actor):
    """The action of highest value among those that the imitated policy makes likely."""

    kind: ClassVar[str] = "allowed"

    def __init__(self, imitation: PerceptronActor, values: PerceptronActor, threshold: float) -> None:
        super().__init__()
        self.imitation, self.values, self.threshold = imitation, values, threshold

    def settings(self) -> dict[str, Any]:
        parts = {"imitation": self.imitation.settings(), "values": self.values.settings()}
        return {**parts, "threshold": self.threshold}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> AllowedActor:
        imitation, values = (PerceptronActor.from_settings(settings[name]) for name in ("imitation", "values"))
        return cls(imitation, values, float(settings["threshold"]))

    def forward(self, states: Float[Tensor, "rows state"], draw: torch.Generator | None = None) -> Tensor:
        is_allowed = allowed(self.imitation.scores(states).softmax(-1), self.threshold)
        return self.values.scores(states).masked_fill(~is_allowed, -torch.inf).argmax(-1)
