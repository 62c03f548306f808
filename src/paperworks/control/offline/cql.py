"""CQL (arXiv 2006.04779), the entropy form CQL(H) on SAC: critics that value actions outside the log low."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.distributions import TanhGaussian
from paperworks.control.learner import Learner, LearnerOptions, Shapes
from paperworks.control.networks import Critics, Perceptrons, follow
from paperworks.core.options import option


@dataclass(frozen=True)
class CQLOptions(LearnerOptions):
    """CQL's own."""

    conservatism: float = option(5.0, "weight of log sum exp Q - Q(logged) in the critics' loss", low=0)
    sampled_actions: int = option(10, "uniform, current and next actions each, in the log sum exp", low=1)
    tau: float = option(0.005, "rate at which the target critics follow", above=0, high=1)


class CQL(Learner):
    """TD + alpha (log sum_a exp Q(s, a) - Q(s, a_logged)); the sum by importance sampling; actor and temperature as SAC's."""

    name: ClassVar[str] = "cql"
    options_class: ClassVar[type[LearnerOptions]] = CQLOptions
    options: CQLOptions

    def __init__(self, shapes: Shapes, options: CQLOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.actor = Perceptrons((shapes.state, *options.hidden, 2 * shapes.action), seeds, "actor")
        self.critics = Critics(shapes.state, shapes.action, options.hidden, seeds)
        self.target_critics = copy.deepcopy(self.critics)
        self.log_temperature = nn.Parameter(torch.zeros(len(self.seeds)))
        self.learns("temperature", self.log_temperature)
        self.learns("actor", self.actor)
        self.learns("critic", self.critics)

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        options, shape = self.options, batch.actions.shape[1:]
        action, log_prob = TanhGaussian(self.actor(batch.states)).sample(draws.normal("own", step, *shape))
        entropy_above = (-log_prob.detach() - target_entropy(self.shapes)).mean(1)
        self.descend("temperature", self.log_temperature * entropy_above)
        temperature = self.log_temperature.detach().exp()
        actor_loss = (temperature[:, None] * log_prob - self.critics(batch.states, action).amin(1)).mean(1)
        self.descend("actor", actor_loss)
        with torch.no_grad():
            following, _ = TanhGaussian(self.actor(batch.next_states)).sample(draws.normal("next", step, *shape))
            value = self.target_critics(batch.next_states, following).amin(1)
            target = batch.rewards + options.gamma * batch.goes_on * value
        q = self.critics(batch.states, batch.actions)
        td = (q - target[:, None]).square().mean(-1).sum(1)
        gap = (self.log_sum_exp(batch, draws, step) - q).mean(-1).sum(1)
        self.descend("critic", td + options.conservatism * gap)
        follow(self.target_critics, self.critics, options.tau)
        return {
            "critic": td.detach(), "gap": gap.detach(), "actor": actor_loss.detach(), "q": q.detach().mean((1, 2)),
            "temperature": temperature,
        }  # fmt: skip

    def log_sum_exp(self, batch: Batch, draws: Draws, step: int) -> Float[Tensor, "seeds copies rows"]:
        """log of the integral of exp Q(s, .), estimated from uniform actions and the policy's at s and at s'.

        Each action counts by its density: 2^-width for a uniform one, pi's for the others.
        """
        count, width = self.options.sampled_actions, self.shapes.action
        rows = batch.rewards.shape[1]
        uniform = 2 * draws.uniform("uniform", step, rows, count, width) - 1
        actions = [uniform]
        densities = [torch.full(uniform.shape[:-1], -width * math.log(2), device=uniform.device)]
        with torch.no_grad():
            for name, states in (("current", batch.states), ("following", batch.next_states)):
                output = self.actor(states)[:, :, None].expand(-1, -1, count, -1)
                drawn, density = TanhGaussian(output).sample(draws.normal(name, step, rows, count, width))
                actions.append(drawn)
                densities.append(density)
        every = torch.cat(actions, 2)
        states = batch.states[:, :, None].expand(-1, -1, every.shape[2], -1)
        q = self.critics(states.flatten(1, 2), every.flatten(1, 2)).unflatten(2, (rows, -1))
        return (q - torch.cat(densities, 2)[:, None]).logsumexp(-1) - math.log(every.shape[2])

    def acting(self) -> Perceptrons:
        return self.actor


def target_entropy(shapes: Shapes) -> float:
    """SAC's target entropy: minus the number of action dimensions."""
    return -float(shapes.action)
