"""SAC (arXiv 1801.01290, 1812.05905): twin critics, a tanh-Gaussian actor, an entropy that is held at a target."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.control.actors import Actor, PerceptronActor
from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.distributions import TanhGaussian
from paperworks.control.learner import LearnerOptions, PerceptronLearner, Shapes
from paperworks.control.networks import Critics, Perceptrons, follow
from paperworks.core.options import option


@dataclass(frozen=True)
class SACOptions(LearnerOptions):
    """SAC's own."""

    tau: float = option(0.005, "rate at which the target critics follow", above=0, high=1)


class SAC(PerceptronLearner):
    """Q: r + gamma (min_j Q'_j(s', a') - eta log pi(a'|s')); actor: max min_j Q_j(s, a) - eta log pi(a|s)."""

    name: ClassVar[str] = "sac"
    options_class: ClassVar[type[LearnerOptions]] = SACOptions
    options: SACOptions
    has_entropy_bonus: ClassVar[bool] = True  # in the critics' target

    def __init__(self, shapes: Shapes, options: SACOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.actor = Perceptrons((shapes.state, *options.hidden, 2 * shapes.action), seeds, "actor")
        self.critics = Critics(shapes.state, shapes.action, options.hidden, seeds)
        self.target_critics = copy.deepcopy(self.critics)
        self.log_temperature = nn.Parameter(torch.zeros(len(self.seeds)))
        self.learns("temperature", self.log_temperature)
        self.learns("actor", self.actor)
        self.learns("critic", self.critics)

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        shape = batch.actions.shape[1:]
        action, log_prob = TanhGaussian(self.actor(batch.states)).sample(draws.normal("own", step, *shape))
        entropy_above = (-log_prob.detach() - target_entropy(self.shapes)).mean(1)
        self.descend("temperature", self.log_temperature * entropy_above)
        temperature = self.log_temperature.detach().exp()
        value = self.critics(batch.states, action, frozen=True).amin(1)
        actor_loss = (temperature[:, None] * log_prob - value).mean(1)
        self.descend("actor", actor_loss)
        with torch.no_grad():
            following, density = TanhGaussian(self.actor(batch.next_states)).sample(draws.normal("next", step, *shape))
            value = self.target_critics(batch.next_states, following).amin(1)
            if self.has_entropy_bonus:
                value = value - temperature[:, None] * density
            target = batch.rewards + self.options.gamma * batch.goes_on * value
        q = self.critics(batch.states, batch.actions)
        td = (q - target[:, None]).square().mean(-1).sum(1)
        more, told = self.critics_also(batch, draws, step, q)
        self.descend("critic", td + more)
        follow(self.target_critics, self.critics, self.options.tau)
        return {
            "critic": td.detach(), "actor": actor_loss.detach(), "q": q.detach().mean((1, 2)),
            "temperature": temperature, **told,
        }  # fmt: skip

    def critics_also(
        self, batch: Batch, draws: Draws, step: int, q: Float[Tensor, "seeds copies rows"]
    ) -> tuple[Float[Tensor, " seeds"], dict[str, Float[Tensor, " seeds"]]]:
        """What else the critics' loss has, and numbers to log of it; `q` is of the logged actions."""
        return torch.zeros(len(self.seeds), device=q.device), {}

    @torch.no_grad()
    def explore(
        self, states: Float[Tensor, "seeds rows state"], draws: Draws, step: int
    ) -> Float[Tensor, "seeds rows action"]:
        noise = draws.normal("explore", step, states.shape[1], self.shapes.action)
        return TanhGaussian(self.actor(states)).sample(noise)[0]

    def behaviour_of(self, place: int) -> Actor:
        return PerceptronActor([(w.cpu(), b.cpu()) for w, b in self.actor.net(place)], "tanh-gaussian")

    def acting(self) -> Perceptrons:
        return self.actor


def target_entropy(shapes: Shapes) -> float:
    """The usual target: minus the number of action dimensions."""
    return -float(shapes.action)
