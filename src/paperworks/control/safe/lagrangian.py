"""Bounded expected costs by a multiplier: the usual way of safe offline learning, and what FISOR is compared with.

The base algorithm learns from r - multiplier * cost. A critic of its policy's costs says how far it is from the limit, and
the multiplier climbs while the limit is broken and sinks while there is room. Any algorithm of the offline room can be one.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.learner import Learner, LearnerOptions, Shapes
from paperworks.control.networks import Critics, follow
from paperworks.control.offline.bcq import BCQ, BCQOptions
from paperworks.control.offline.cql import CQL, CQLOptions
from paperworks.control.offline.iql import IQL, IQLOptions
from paperworks.control.safe.constraints import check_constraints
from paperworks.control.safe.feasibility import discounted_limit, sum_target
from paperworks.control.transitions import Transitions
from paperworks.core.options import option


@dataclass(frozen=True)
class LagrangianOptions(LearnerOptions):
    """The limit and how its multiplier moves."""

    cost_limit: float = option(10.0, "costs of an episode that are allowed, on average", low=0)
    episode_length: int = option(1000, "steps that the limit is spread over", low=1)
    multiplier_rate: float = option(1e-3, "step of the multiplier for each unit of cost above the limit", above=0)
    most_multiplier: float = option(100.0, "largest multiplier", above=0)
    cost_tau: float = option(0.005, "rate at which the target critics of costs follow", above=0, high=1)


class Lagrangian(Learner):
    """What stands before a base algorithm: rewards less multiplier * cost, critics of the policy's costs, dual ascent."""

    options: LagrangianOptions
    multiplier: Tensor

    def __init__(self, shapes: Shapes, options: LagrangianOptions, seeds: Sequence[int], log: Log) -> None:
        super().__init__(shapes, options, seeds, log)
        self.cost_critics = Critics(shapes.state, shapes.action, options.hidden, seeds, name="cost critic")
        self.target_cost_critics = copy.deepcopy(self.cost_critics)
        self.register_buffer("multiplier", torch.zeros(len(self.seeds)))
        self.learns("cost critic", self.cost_critics)

    @classmethod
    def check(cls, log: Transitions, options: LearnerOptions) -> Sequence[str]:
        return check_constraints(log, "costs")

    def update(self, batch: Batch, draws: Draws, step: int) -> Mapping[str, Float[Tensor, " seeds"]]:
        assert batch.costs is not None
        penalised = dataclasses.replace(batch, rewards=batch.rewards - self.multiplier[:, None] * batch.costs)
        told = super().update(penalised, draws, step)  # type: ignore[safe-super]  # the base algorithm's, behind this
        return {**told, **self.bound_costs(batch, batch.costs)}

    def bound_costs(self, batch: Batch, costs: Float[Tensor, "seeds rows"]) -> dict[str, Float[Tensor, " seeds"]]:
        """Fit the critics of costs to the policy as it is, and move the multiplier by its expected cost."""
        options = self.options
        with torch.no_grad():
            following = self.target_cost_critics(batch.next_states, self.act(batch.next_states)).amax(1)
            wanted = sum_target(costs, following, batch.goes_on, options.gamma)
        loss = (self.cost_critics(batch.states, batch.actions) - wanted[:, None]).square().mean(-1).sum(1)
        self.descend("cost critic", loss)
        follow(self.target_cost_critics, self.cost_critics, options.cost_tau)
        with torch.no_grad():
            expected = self.target_cost_critics(batch.states, self.act(batch.states)).amax(1).mean(1)
            limit = discounted_limit(options.cost_limit, options.episode_length, options.gamma)
            self.multiplier += options.multiplier_rate * (expected - limit)
            self.multiplier.clamp_(0, options.most_multiplier)
        return {"expected cost": expected, "multiplier": self.multiplier.clone()}


@dataclass(frozen=True)
class IQLLagrangianOptions(IQLOptions, LagrangianOptions):
    """IQL's and the limit's."""


class IQLLagrangian(Lagrangian, IQL):
    """IQL on r - multiplier * cost; the multiplier holds the policy's expected cost at the limit."""

    name: ClassVar[str] = "iql-lagrangian"
    options_class: ClassVar[type[LearnerOptions]] = IQLLagrangianOptions
    options: IQLLagrangianOptions


@dataclass(frozen=True)
class BCQLagrangianOptions(BCQOptions, LagrangianOptions):
    """BCQ's and the limit's."""


class BCQLagrangian(Lagrangian, BCQ):
    """BCQ on r - multiplier * cost; the multiplier holds the policy's expected cost at the limit."""

    name: ClassVar[str] = "bcq-lagrangian"
    options_class: ClassVar[type[LearnerOptions]] = BCQLagrangianOptions
    options: BCQLagrangianOptions


@dataclass(frozen=True)
class CQLLagrangianOptions(CQLOptions, LagrangianOptions):
    """CQL's and the limit's."""


class CQLLagrangian(Lagrangian, CQL):
    """CQL on r - multiplier * cost; the multiplier holds the policy's expected cost at the limit."""

    name: ClassVar[str] = "cql-lagrangian"
    options_class: ClassVar[type[LearnerOptions]] = CQLLagrangianOptions
    options: CQLLagrangianOptions
