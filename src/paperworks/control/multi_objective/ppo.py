"""PPO with a vector of rewards, for many policies at once: roll-outs, advantages of every objective, the clipped step.

With one objective, weights of 1 and no limits it is PPO (arXiv 1707.06347). Rewards are normalised objective by objective for
the critic; advantages are put back into the rewards' own units before they are weighted, so that weights mean what they say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.control.hybrid.natural_gradient import TrustRegion
from paperworks.control.multi_objective.barrier import Limits, expected_returns, official_loss
from paperworks.control.multi_objective.cpo import constrained_step
from paperworks.control.multi_objective.environments import Environments
from paperworks.control.multi_objective.policies import Nets, Policies
from paperworks.core.options import check_ranges, option

BarrierForm = Literal["formula", "official"]


@dataclass(frozen=True)
class PPOOptions:
    """How policies learn from their own episodes."""

    hidden: tuple[int, ...] = option((64, 64), "widths of the tanh layers of the actor, and of the critic")
    learning_rate: float = option(3e-4, "of Adam", above=0)
    rollout_steps: int = option(512, "steps of every copy of the environment between two updates", low=1)
    copies: int = option(8, "copies of the environment that each policy acts in", low=1)
    epochs: int = option(10, "passes over a roll-out", low=1)
    minibatches: int = option(32, "parts that a pass is cut into", low=1)
    gamma: float = option(0.995, "discount of what is learned", low=0, high=1)
    gae_lambda: float = option(0.95, "of the advantages' sum over steps", low=0, high=1)
    clip: float = option(0.2, "how far a probability's ratio may go from 1", above=0)
    entropy: float = option(0.0, "weight of the entropy", low=0)
    value_weight: float = option(0.5, "weight of the critic's loss", low=0)
    most_gradient: float = option(0.5, "norm that a policy's gradient is cut to", above=0)
    normalise_states: bool = option(True, "by their running mean and deviation")
    normalise_rewards: bool = option(True, "each objective by the running deviation of its discounted sum")

    def __post_init__(self) -> None:
        check_ranges(self)
        object.__setattr__(self, "hidden", tuple(self.hidden))


@dataclass(frozen=True)
class Goals:
    """What each policy is to improve, and which objectives it is to hold meanwhile."""

    weights: Float[Tensor, "nets objectives"]
    held: Bool[Tensor, "nets objectives"]

    @classmethod
    def weighted(cls, weights: Float[Tensor, "nets objectives"]) -> Goals:
        """Sums with these weights; nothing is held."""
        return cls(weights, torch.zeros_like(weights, dtype=torch.bool))

    @classmethod
    def one_each(cls, objectives: int) -> Goals:
        """Objective i of net i, the others held."""
        own = torch.eye(objectives)
        return cls(own, own == 0)

    @classmethod
    def join(cls, some: Sequence[Goals]) -> Goals:
        return cls(torch.cat([each.weights for each in some]), torch.cat([each.held for each in some]))


@dataclass(frozen=True)
class Hold:
    """How the held objectives are held."""

    beta: float = 0.9  # share of the present return that is kept
    t: float = 20.0  # how sharply: the barrier is -(1/t) log(slack)
    form: BarrierForm = "formula"
    optimiser: Literal["ipo", "cpo"] = "ipo"  # by the barrier, or by a constrained step within a trust region
    max_kl: float = 0.01  # of that step, nats


class Chance:
    """Random numbers for nets in groups (runs), each group from a generator of its own, whatever stands beside it."""

    def __init__(self, groups: Sequence[tuple[torch.Generator, int]]) -> None:
        self._groups = [(draw, count) for draw, count in groups if count]

    def uniform(self, *shape: int) -> Float[Tensor, "nets ..."]:
        return torch.cat([torch.rand(count, *shape, generator=draw) for draw, count in self._groups])

    def normal(self, *shape: int) -> Float[Tensor, "nets ..."]:
        return torch.cat([torch.randn(count, *shape, generator=draw) for draw, count in self._groups])


@dataclass(frozen=True)
class Rollout:
    """Steps of every policy's copies, in the environment's own units: [nets, steps, copies, ...]."""

    states: Tensor
    last: Tensor  # what each action led to
    actions: Tensor
    rewards: Tensor
    sums: Tensor  # of discounted rewards since each episode's beginning
    begins: Bool[Tensor, "nets steps copies"]
    terminated: Bool[Tensor, "nets steps copies"]
    truncated: Bool[Tensor, "nets steps copies"]

    @property
    def size(self) -> int:
        """Steps of each policy."""
        return self.begins[0].numel()


class Workers:
    """`copies` copies of the environment for each policy, in the middle of their episodes."""

    def __init__(self, environments: Environments, copies: int) -> None:
        self.environments, self.copies = environments, copies

    def restart(self, seeds: Sequence[int]) -> None:
        """New episodes: nets * copies of them, one a seed."""
        self._states = self.environments.reset(seeds).view(len(seeds) // self.copies, self.copies, -1)
        self.starts = self._states
        self._begins = torch.ones(self._states.shape[:2], dtype=torch.bool)
        self._sums = torch.zeros(*self._states.shape[:2], self.environments.spaces.objectives)

    @torch.no_grad()
    def collect(self, policies: Policies, steps: int, gamma: float, chance: Chance) -> Rollout:
        """Act with exploring actions."""
        shape, nets = policies.shape, policies.nets()
        noise = (chance.uniform if shape.is_discrete else chance.normal)(steps, self.copies, shape.action)
        columns: dict[str, list[Tensor]] = {name: [] for name in Rollout.__annotations__}
        for step in range(steps):
            actions = nets.sample(nets.actor(policies.normalised(self._states)), noise[:, step])
            taken = self.environments.step(actions.flatten(0, 1))
            rewards, last, following, terminated, truncated = (
                each.unflatten(0, self._begins.shape)
                for each in (taken.rewards, taken.last, taken.states, taken.terminated, taken.truncated)
            )
            self._sums = gamma * self._sums + rewards
            columns["states"].append(self._states)
            columns["begins"].append(self._begins)
            for name, value in (
                ("last", last), ("actions", actions), ("rewards", rewards), ("sums", self._sums),
                ("terminated", terminated), ("truncated", truncated),
            ):  # fmt: skip
                columns[name].append(value)
            self._states, self._begins = following, terminated | truncated
            self._sums = torch.where(self._begins[..., None], 0.0, self._sums)
        return Rollout(**{name: torch.stack(values, 1) for name, values in columns.items()})


@dataclass(frozen=True)
class Prepared:
    """A roll-out as it is learned from: rows of all steps and copies."""

    states: Float[Tensor, "nets rows state"]  # normalised
    actions: Tensor
    log_probs: Float[Tensor, "nets rows"]
    targets: Float[Tensor, "nets rows objectives"]  # of the critic
    advantages: Float[Tensor, "nets rows objectives"]  # in the rewards' own units
    returns: Float[
        Tensor, "nets objectives"
    ]  # from episodes' beginnings, with exploring actions and the options' gamma
    horizon: Float[Tensor, " nets"]  # discounted steps of an episode


@torch.no_grad()
def prepare(policies: Policies, rollout: Rollout, starts: Tensor, options: PPOOptions) -> Prepared:
    """Take the roll-out into the running statistics, value its states, and sum up advantages.

    Returns from the beginning are the mean lambda-return of the episodes that began in the roll-out; where none did, the
    critic's value of `starts` [nets, copies, state].
    """
    if options.normalise_states:
        policies.see("state", rollout.states.flatten(1, 2))
    if options.normalise_rewards:
        policies.see("reward", rollout.sums.flatten(1, 2))
    nets, scale, shape = policies.nets(), policies.reward_deviation, rollout.begins.shape

    def values(states: Tensor) -> Tensor:
        return nets.critic(policies.normalised(states.flatten(1, -2))).unflatten(1, states.shape[1:-1])

    states = policies.normalised(rollout.states.flatten(1, 2))
    value = nets.critic(states).unflatten(1, shape[1:])
    advantages = generalised_advantages(
        rollout.rewards / scale[:, None, None], value, values(rollout.last), rollout.terminated,
        rollout.terminated | rollout.truncated, options.gamma, options.gae_lambda,
    )  # fmt: skip
    targets = advantages + value
    begins = rollout.begins[..., None].float()
    began = begins.sum((1, 2))
    at_start = torch.where(began > 0, (targets * begins).sum((1, 2)) / began.clamp(min=1), values(starts).mean(1))
    actions = rollout.actions.flatten(1, 2)
    return Prepared(
        states, actions, nets.log_prob(nets.actor(states), actions), targets.flatten(1, 2),
        advantages.flatten(1, 2) * scale[:, None], at_start * scale, horizon(rollout, options.gamma),
    )  # fmt: skip


def generalised_advantages(
    rewards: Float[Tensor, "nets steps copies objectives"],
    values: Float[Tensor, "nets steps copies objectives"],
    following: Float[Tensor, "nets steps copies objectives"],
    terminated: Bool[Tensor, "nets steps copies"],
    ended: Bool[Tensor, "nets steps copies"],
    gamma: float,
    gae_lambda: float,
) -> Float[Tensor, "nets steps copies objectives"]:
    """GAE (arXiv 1506.02438) of every objective; values are looked up behind a truncation and never behind an end."""
    errors = rewards + gamma * following * (~terminated)[..., None] - values
    kept = gamma * gae_lambda * (~ended)[..., None].float()
    out, running = torch.empty_like(errors), torch.zeros_like(errors[:, 0])
    for step in range(errors.shape[1] - 1, -1, -1):
        running = errors[:, step] + kept[:, step] * running
        out[:, step] = running
    return out


def horizon(rollout: Rollout, gamma: float) -> Float[Tensor, " nets"]:
    """(1 - gamma^L) / (1 - gamma) for episodes of L steps: what a mean over steps is multiplied by to be a return.

    L is the roll-out's steps over the episodes that ended in it; without an end it is taken to be endless.
    """
    ended = (rollout.terminated | rollout.truncated).float().sum((1, 2))
    length = rollout.size / ended
    if gamma == 1:
        return length.clamp(max=float(rollout.size))
    return (1 - gamma**length) / (1 - gamma)


def learn(
    policies: Policies,
    batch: Prepared,
    goals: Goals,
    options: PPOOptions,
    rates: Float[Tensor, " nets"],
    chance: Chance,
    limits: Limits | None = None,
    hold: Hold = Hold(),
) -> None:
    """`epochs` passes over a roll-out, each policy in its own minibatches; without `limits` nothing is held.

    With CPO the actors of policies that hold something take one constrained step, and the passes are their critics'.
    """
    weighted = (batch.advantages * goals.weights[:, None]).sum(-1)
    weighted = (weighted - weighted.mean(1, keepdim=True)) / (weighted.std(1, keepdim=True, correction=0) + 1e-5)
    centred = batch.advantages - batch.advantages.mean(1, keepdim=True)
    rows, still = batch.log_probs.shape[1], None
    if limits is not None and hold.optimiser == "cpo":
        holds = goals.held.any(1)
        still = holds[:, None] & ~policies.shape.is_critic
        moved = constrained_step(
            policies.shape, policies.rows["parameters"], batch.states, batch.actions, batch.log_probs, weighted,
            lambda ratio: expected_returns(batch.returns, ratio, centred, batch.horizon), limits,
            TrustRegion(max_kl=hold.max_kl),
        )  # fmt: skip
        limits = None
    size = max(1, math.ceil(rows / options.minibatches))
    for _ in range(options.epochs):
        order = chance.uniform(rows).argsort(1)
        for part in order.split(size, 1):
            loss = _loss_of(policies, batch, goals, options, part, weighted, centred, limits, hold)
            parameters = policies.rows["parameters"].requires_grad_()
            (gradient,) = torch.autograd.grad(loss(Nets(policies.shape, parameters)).sum(), [parameters])
            policies.rows["parameters"] = parameters.detach()
            policies.descend(gradient, rates, options.most_gradient, still)
    if still is not None:
        policies.rows["parameters"] = torch.where(still, moved, policies.rows["parameters"])


def _loss_of(
    policies: Policies,
    batch: Prepared,
    goals: Goals,
    options: PPOOptions,
    part: Int[Tensor, "nets some"],
    weighted: Tensor,
    centred: Tensor,
    limits: Limits | None,
    hold: Hold,
) -> Callable[[Nets], Tensor]:
    def rows(values: Tensor) -> Tensor:
        index = part if values.dim() == 2 else part[..., None].expand(-1, -1, values.shape[-1])
        return values.gather(1, index)

    def loss(nets: Nets) -> Float[Tensor, " nets"]:
        states, advantage = rows(batch.states), rows(weighted)
        output = nets.actor(states)
        ratio = (nets.log_prob(output, rows(batch.actions)) - rows(batch.log_probs)).exp()
        clipped = ratio.clamp(1 - options.clip, 1 + options.clip)
        policy = -torch.minimum(ratio * advantage, clipped * advantage).mean(1)
        value = 0.5 * (nets.critic(states) - rows(batch.targets)).square().mean((1, 2))
        total = policy + options.value_weight * value - options.entropy * nets.entropy(output)
        if limits is None:
            return total
        if hold.form == "official":
            mean = rows(batch.targets).mean(1)
            official = official_loss(clipped, mean, goals.weights.argmax(1), hold.beta, hold.t)
            return total + torch.where(goals.held.any(1), official, 0.0)
        expected = expected_returns(batch.returns, clipped, rows(centred), batch.horizon)
        return total + limits.loss(expected, hold.t)

    return loss


@torch.no_grad()
def evaluate(
    policies: Policies, environments: Environments, seeds: Sequence[Sequence[int]], gamma: float
) -> tuple[Float[Tensor, "nets objectives"], Float[Tensor, " nets"]]:
    """Mean discounted returns of each policy's likeliest actions over an episode a seed (each has its own), and their steps."""
    count, episodes = len(policies), len(seeds[0])
    states = environments.reset([seed for own in seeds for seed in own]).view(count, episodes, -1)
    nets, discount = policies.nets(), 1.0
    returns = torch.zeros(count, episodes, environments.spaces.objectives, dtype=torch.float64)
    steps, alive = torch.zeros(count), torch.ones(count, episodes, dtype=torch.bool)
    while alive.any():
        output = nets.actor(policies.normalised(states))
        taken = environments.step((output.argmax(-1) if policies.shape.is_discrete else output).flatten(0, 1))
        returns += torch.where(alive[..., None], discount * taken.rewards.view_as(returns), 0.0)
        steps += alive.sum(1)
        alive = alive & ~(taken.terminated | taken.truncated).view_as(alive)
        states, discount = taken.states.view_as(states), discount * gamma
    return returns.mean(1), steps
