"""MCE: regression on what the log earned from each transition on, and the greedy policy on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from paperworks.control.actors import Actor
from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.discrete.learner import DiscreteLearner, DiscreteOptions, actor_of, chosen, huber, nets
from paperworks.control.learner import LearnerOptions, Shapes


class MCE(DiscreteLearner):
    """Huber loss of Q(s, a) to the discounted return to go, which a truncation cuts short."""

    name: ClassVar[str] = "mce"
    options_class: ClassVar[type[LearnerOptions]] = DiscreteOptions
    options: DiscreteOptions

    def __init__(self, shapes: Shapes, options: DiscreteOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.log, self.earned = log, returns_to_go(log.rewards, log.ends, options.gamma)
        self.net = nets(shapes, options, seeds, "values")
        self.learns("values", self.net)

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        known = chosen(self.net(batch.states), batch.actions)
        loss = huber(known - self.log.pick(self.earned, batch.rows)).mean(1)
        self.descend("values", loss)
        return {"critic": loss.detach(), "q": known.detach().mean(1)}

    def scores(self, states: Float[Tensor, "seeds rows state"]) -> Float[Tensor, "seeds rows actions"]:
        found: Tensor = self.net(states)
        return found

    def actor_of(self, place: int) -> Actor:
        return actor_of(self.net, place)


def returns_to_go(rewards: Float[Tensor, "*logs n"], ends: Bool[Tensor, "*logs n"], gamma: float) -> Tensor:
    """The discounted sum of rewards from each transition to its episode's end, [*logs, n].

    By doubling: what is known of the next k steps and of the k behind them gives 2k.
    """
    earned, reach, count = rewards.clone(), 1, rewards.shape[-1]
    last = torch.where(ends, torch.arange(count, device=ends.device), count)
    last = last.flip(-1).cummin(-1).values.flip(-1)  # the end of each transition's episode
    while reach < count and gamma**reach > 0:
        goes_on = (torch.arange(count - reach, device=ends.device) + reach) <= last[..., :-reach]
        behind = torch.where(goes_on, earned[..., reach:], 0.0)
        if not goes_on.any():
            break
        earned = torch.cat([earned[..., :-reach] + gamma**reach * behind, earned[..., -reach:]], -1)
        reach *= 2
    return earned
