"""CRR with discrete actions (arXiv 2006.15134), the binary filter: imitate where the critic says it was better than usual."""

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
from paperworks.control.discrete.dqn import DQNOptions
from paperworks.control.discrete.learner import (
    Acts,
    DiscreteLearner,
    actor_of,
    chosen,
    cross_entropy,
    huber,
    nets,
    sampled,
)
from paperworks.control.learner import LearnerOptions, Shapes
from paperworks.control.networks import follow
from paperworks.core.options import option


@dataclass(frozen=True)
class CRROptions(DQNOptions):
    """CRR's own."""

    sampled_actions: int = option(4, "actions of the policy whose mean value is the usual one", low=1)
    acts: Acts = option("sample", "sample the policy, as the study did, or take its likeliest action")


class CRR(DiscreteLearner):
    """min -1{Q(s, a) > mean_i Q(s, a_i)} log pi(a|s), a_i ~ pi; Q to r + gamma Q'(s', a'), a' ~ pi'."""

    name: ClassVar[str] = "crr"
    options_class: ClassVar[type[LearnerOptions]] = CRROptions
    options: CRROptions

    def __init__(self, shapes: Shapes, options: CRROptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.actor, self.critic = nets(shapes, options, seeds, "actor"), nets(shapes, options, seeds, "values")
        self.target_actor, self.target_critic = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self.learns("actor", self.actor)
        self.learns("values", self.critic)

    @property
    def samples(self) -> bool:
        return self.options.acts == "sample"

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        rows = batch.rewards.shape[1]
        target = self.target(batch, draws.uniform("following", step, rows, 1))
        q, logits = self.critic(batch.states), self.actor(batch.states)
        known = chosen(q, batch.actions)
        critic_loss = huber(known - target).mean(1)
        drawn = sampled(logits.detach().softmax(-1), draws.uniform("own", step, rows, self.options.sampled_actions))
        weight = better_than_usual(known.detach(), q.detach().gather(2, drawn))
        actor_loss = (weight * cross_entropy(logits, batch.actions)).mean(1)
        self.descend("values", critic_loss)
        self.descend("actor", actor_loss)
        if (step + 1) % self.options.target_every == 0:
            follow(self.target_actor, self.actor, 1.0)
            follow(self.target_critic, self.critic, 1.0)
        return {
            "critic": critic_loss.detach(), "actor": actor_loss.detach(), "q": known.detach().mean(1),
            "imitated": weight.mean(1),
        }  # fmt: skip

    @torch.no_grad()
    def target(self, batch: Batch, uniform: Float[Tensor, "seeds rows one"]) -> Float[Tensor, "seeds rows"]:
        """What the logged actions' values are fitted to; `uniform` draws the next actions."""
        action = sampled(self.target_actor(batch.next_states).softmax(-1), uniform).squeeze(-1)
        following = chosen(self.target_critic(batch.next_states), action)
        return batch.rewards + self.options.gamma * batch.goes_on * following

    def scores(self, states: Float[Tensor, "seeds rows state"]) -> Float[Tensor, "seeds rows actions"]:
        found: Tensor = self.actor(states)
        return found

    def actor_of(self, place: int) -> Actor:
        return actor_of(self.actor, place, samples=self.samples)


def better_than_usual(
    known: Float[Tensor, "seeds rows"], of_policy: Float[Tensor, "seeds rows draws"]
) -> Float[Tensor, "seeds rows"]:
    """1 where the logged action's value is above the mean of the policy's own actions, 0 elsewhere (also where equal)."""
    return (known > of_policy.mean(-1)).float()
