"""AWAC (arXiv 2006.09359): SAC-like critics, and an actor that imitates logged actions by advantage."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.distributions import TanhGaussian
from paperworks.control.learner import LearnerOptions, PerceptronLearner, Shapes
from paperworks.control.networks import Critics, Perceptrons, follow
from paperworks.core.options import option


@dataclass(frozen=True)
class AWACOptions(LearnerOptions):
    """AWAC's own."""

    temperature: float = option(1.0, "of the advantage in the actor's weights exp(A / temperature)", above=0)
    most_weight: float = option(100.0, "largest weight of a row", above=0)
    tau: float = option(0.005, "rate at which the target critics follow", above=0, high=1)


class AWAC(PerceptronLearner):
    """Q: r + gamma min_j Q'_j(s', a'), a' of the policy; actor: max mean min(exp(A / lambda), 100) log pi(a|s)."""

    name: ClassVar[str] = "awac"
    options_class: ClassVar[type[LearnerOptions]] = AWACOptions
    goes_online: ClassVar[bool] = True
    options: AWACOptions

    def __init__(self, shapes: Shapes, options: AWACOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.actor = Perceptrons((shapes.state, *options.hidden, 2 * shapes.action), seeds, "actor")
        self.critics = Critics(shapes.state, shapes.action, options.hidden, seeds)
        self.target_critics = copy.deepcopy(self.critics)
        self.learns("critic", self.critics)
        self.learns("actor", self.actor)

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        options, shape = self.options, batch.actions.shape[1:]
        with torch.no_grad():
            following, _ = TanhGaussian(self.actor(batch.next_states)).sample(draws.normal("next", step, *shape))
            value = self.target_critics(batch.next_states, following).amin(1)
            target = batch.rewards + options.gamma * batch.goes_on * value
        critic_loss = (self.critics(batch.states, batch.actions) - target[:, None]).square().mean(-1).sum(1)
        self.descend("critic", critic_loss)
        policy = TanhGaussian(self.actor(batch.states))
        with torch.no_grad():
            own, _ = policy.sample(draws.normal("own", step, *shape))
            q = self.critics(batch.states, batch.actions).amin(1)
            advantage = q - self.critics(batch.states, own).amin(1)
            weight = (advantage / options.temperature).exp().clamp(max=options.most_weight)
        actor_loss = -(weight * policy.log_prob(batch.actions)).mean(1)
        self.descend("actor", actor_loss)
        follow(self.target_critics, self.critics, options.tau)
        return {
            "critic": critic_loss.detach(), "actor": actor_loss.detach(), "q": q.mean(1), "advantage": advantage.mean(1)
        }  # fmt: skip

    @torch.no_grad()
    def explore(
        self, states: Float[Tensor, "seeds rows state"], draws: Draws, step: int
    ) -> Float[Tensor, "seeds rows action"]:
        noise = draws.normal("explore", step, states.shape[1], self.shapes.action)
        return TanhGaussian(self.actor(states)).sample(noise)[0]

    def acting(self) -> Perceptrons:
        return self.actor
