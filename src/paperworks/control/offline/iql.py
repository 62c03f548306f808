"""IQL (arXiv 2110.06169): a value by expectile regression on logged actions, and an actor weighted by advantage.

No action outside the log is ever valued.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.distributions import LOG_STD, gaussian_log_prob
from paperworks.control.learner import LearnerOptions, PerceptronLearner, Shapes
from paperworks.control.networks import Critics, Perceptrons, follow
from paperworks.core.options import option


@dataclass(frozen=True)
class IQLOptions(LearnerOptions):
    """IQL's own. Published: expectile 0.7 and beta 3 (locomotion), 0.9 and 10 (AntMaze)."""

    expectile: float = option(0.7, "of Q over logged actions; 0.5 is the mean", above=0, below=1)
    beta: float = option(3.0, "inverse temperature of the advantage in the actor's weights", low=0)
    most_weight: float = option(100.0, "largest weight exp(beta A) of a row", above=0)
    tau: float = option(0.005, "rate at which the target critics follow", above=0, high=1)


def expectile_loss(error: Tensor, expectile: float | Tensor) -> Tensor:
    """|expectile - 1{error < 0}| error^2."""
    return torch.where(error < 0, 1 - expectile, expectile) * error.square()


class IQL(PerceptronLearner):
    """V: expectile of min_j Q'_j(s, a) - V(s); Q: r + gamma V(s'); actor: min(exp(beta A), 100) log pi(a|s)."""

    name: ClassVar[str] = "iql"
    options_class: ClassVar[type[LearnerOptions]] = IQLOptions
    goes_online: ClassVar[bool] = True
    options: IQLOptions

    def __init__(self, shapes: Shapes, options: IQLOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.actor = Perceptrons((shapes.state, *options.hidden, shapes.action), seeds, "actor")
        self.log_std = nn.Parameter(torch.zeros(len(self.seeds), 1, shapes.action))
        self.value = Perceptrons((shapes.state, *options.hidden, 1), seeds, "value")
        self.critics = Critics(shapes.state, shapes.action, options.hidden, seeds)
        self.target_critics = copy.deepcopy(self.critics)
        self.learns("value", self.value)
        self.learns("critic", self.critics)
        self.learns("actor", self.actor, self.log_std)

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        options = self.options
        with torch.no_grad():
            known = self.target_critics(batch.states, batch.actions).amin(1)
            following = self.value(batch.next_states).squeeze(-1)
        value = self.value(batch.states).squeeze(-1)
        advantage = known - value
        value_loss = expectile_loss(advantage, self.each("expectile", 1)).mean(1)
        self.descend("value", value_loss)
        target = batch.rewards + options.gamma * batch.goes_on * following
        critic_loss = (self.critics(batch.states, batch.actions) - target[:, None]).square().mean(-1).sum(1)
        self.descend("critic", critic_loss)
        follow(self.target_critics, self.critics, options.tau)
        weight = (self.each("beta", 1) * advantage.detach()).exp().clamp(max=options.most_weight)
        mean, log_std = self.actor(batch.states).tanh(), self.log_std.clamp(*LOG_STD)
        actor_loss = -(weight * gaussian_log_prob(mean, log_std, batch.actions)).mean(1)
        self.descend("actor", actor_loss)
        return {
            "value": value_loss.detach(), "critic": critic_loss.detach(), "actor": actor_loss.detach(),
            "q": known.mean(1), "advantage": advantage.detach().mean(1),
        }  # fmt: skip

    @torch.no_grad()
    def explore(
        self, states: Float[Tensor, "seeds rows state"], draws: Draws, step: int
    ) -> Float[Tensor, "seeds rows action"]:
        noise = draws.normal("explore", step, states.shape[1], self.shapes.action)
        return (self.actor(states).tanh() + self.log_std.clamp(*LOG_STD).exp() * noise).clamp(-1, 1)

    def acting(self) -> Perceptrons:
        return self.actor
