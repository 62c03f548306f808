"""TD3 on a log (arXiv 1802.09477): twin critics, a smoothed target action, an actor that moves every other step.

Alone it follows its critics out of the log; what keeps it there is what algorithms that build on it add to `actor_loss`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.learner import LearnerOptions, PerceptronLearner, Shapes
from paperworks.control.networks import Critics, Perceptrons, follow
from paperworks.core.options import option


@dataclass(frozen=True)
class TD3Options(LearnerOptions):
    """TD3's own."""

    tau: float = option(0.005, "rate at which targets follow", above=0, high=1)
    target_noise: float = option(0.2, "deviation of the noise on the target action", low=0)
    target_noise_clip: float = option(0.5, "largest noise on the target action", low=0)
    policy_every: int = option(2, "critic steps to an actor step", low=1)


class TD3(PerceptronLearner):
    """y = r + gamma min_j Q'_j(s', clip(pi'(s') + noise)), nothing behind a termination; actor: max Q_1(s, pi(s))."""

    name: ClassVar[str] = "td3"
    options_class: ClassVar[type[LearnerOptions]] = TD3Options
    options: TD3Options

    def __init__(self, shapes: Shapes, options: TD3Options, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.actor = Perceptrons((shapes.state, *options.hidden, shapes.action), seeds, "actor")
        self.critics = Critics(shapes.state, shapes.action, self.critic_hidden(), seeds)
        self.target_actor, self.target_critics = copy.deepcopy(self.actor), copy.deepcopy(self.critics)
        self.learns("actor", self.actor)
        self.learns("critic", self.critics)

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        told = self.fit_critics(batch, self.target(batch, draws, step))
        if (step + 1) % self.options.policy_every == 0:
            action = self.actor(batch.states).tanh()
            loss, more = self.actor_loss(batch, action, self.critics.first(batch.states, action, frozen=True))
            self.move_actor(loss)
            told |= more
        return told

    def fit_critics(self, batch: Batch, target: Float[Tensor, "seeds rows"]) -> dict[str, Float[Tensor, " seeds"]]:
        """A step of both critics."""
        q = self.critics(batch.states, batch.actions)
        critic_loss = (q - target[:, None]).square().mean(-1).sum(1)
        self.descend("critic", critic_loss)
        return {"critic": critic_loss.detach(), "q": q.detach().mean((1, 2))}

    def move_actor(self, loss: Float[Tensor, " seeds"]) -> None:
        """A step of the actor, and of all targets behind it."""
        self.descend("actor", loss)
        follow(self.target_actor, self.actor, self.options.tau)
        follow(self.target_critics, self.critics, self.options.tau)

    def target(self, batch: Batch, draws: Draws, step: int) -> Float[Tensor, "seeds rows"]:
        """What the critics are fitted to."""
        return self.bootstrapped(batch, self.target_critics, self.next_action(batch, draws, step))

    @torch.no_grad()
    def next_action(self, batch: Batch, draws: Draws, step: int) -> Float[Tensor, "seeds rows action"]:
        """The target actor's action in the next states, with noise."""
        options, rows = self.options, batch.rewards.shape[1]
        noise = draws.normal("target noise", step, rows, self.shapes.action) * options.target_noise
        noise = noise.clamp(-options.target_noise_clip, options.target_noise_clip)
        return (self.target_actor(batch.next_states).tanh() + noise).clamp(-1, 1)

    @torch.no_grad()
    def bootstrapped(
        self, batch: Batch, critics: Critics, action: Float[Tensor, "seeds rows action"]
    ) -> Float[Tensor, "seeds rows"]:
        """r + gamma min_j Q_j(s', action), or r behind a termination."""
        return batch.rewards + self.options.gamma * batch.goes_on * critics(batch.next_states, action).amin(1)

    def actor_loss(
        self, batch: Batch, action: Float[Tensor, "seeds rows action"], q: Float[Tensor, "seeds rows"]
    ) -> tuple[Float[Tensor, " seeds"], dict[str, Float[Tensor, " seeds"]]]:
        """The actor's loss and numbers to log; `q` is the first critic's of the actor's `action`."""
        return -q.mean(1), {}

    def critic_hidden(self) -> Sequence[int]:
        """Widths of the critics' hidden layers."""
        return self.options.hidden

    def acting(self) -> Perceptrons:
        return self.actor
