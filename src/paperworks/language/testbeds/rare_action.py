"""A bandit whose best action the reference almost never plays: does an online learner find it, and after how many queries?

Contexts and actions are few, policies are tables of logits, rewards lie in [0, 0.5] but for the best action's 1. Each
round asks for preferences on fresh pairs and fits the policy to all pairs so far. What is explored, and how, is an
option of the learner; many learners (grid points) and seeds train as one batched program, on the same random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.core.seeding import torch_generator
from paperworks.language.objectives.objective import ResponseLogps
from paperworks.language.objectives.xpo import XPO, ExploredPairs

CONTEXTS, ACTIONS = 2, 10
SLOPE = 8.0  # of the Bradley-Terry labels in the reward
MOST_ORDINARY = 0.5  # the highest reward of an action that is not the best; the best has 1


@dataclass(frozen=True)
class Learner:
    """How a learner explores. All weights 0: online DPO."""

    alpha: float = 0.0  # optimism: XPO's weight on log pi of the fixed sampler's response
    entropy: float = 0.0  # weight of the policy's entropy, subtracted from the loss
    epsilon: float = 0.0  # share of the policy's own draws that are uniform over actions
    sampler: Literal["ref", "current"] = "ref"  # who draws the second response of a pair


@dataclass(frozen=True)
class RareActionBandit:
    """One world a seed; action 0 is the best."""

    reward: Float[Tensor, "seeds contexts actions"]
    log_reference: Float[Tensor, "seeds contexts actions"]
    beta: float

    def value(self, log_policy: Float[Tensor, "*points seeds contexts actions"]) -> Float[Tensor, "*points seeds"]:
        """J = E[r] - beta KL(pi || pi_ref), the mean over contexts."""
        inside = self.reward - self.beta * (log_policy - self.log_reference)
        return (log_policy.exp() * inside).sum(-1).mean(-1)

    @property
    def best_value(self) -> Float[Tensor, " seeds"]:
        """The largest J any policy has: beta log Z, the mean over contexts."""
        return self.beta * torch.logsumexp(self.log_reference + self.reward / self.beta, dim=-1).mean(-1)


def make_bandit(seeds: Sequence[int], mass: float, *, beta: float = 0.03) -> RareActionBandit:
    """Worlds in which the reference plays the best action with probability `mass`, the others with random ones.

    The same seeds have the same rewards and the same ordinary actions at any mass. Raises OptionError outside (0, 1).
    """
    if not 0 < mass < 1:
        raise OptionError(f"option mass={mass}: expected a number in (0, 1)")
    worlds = []
    for seed in seeds:
        generator = torch_generator("rare action", seed)
        shape = (CONTEXTS, ACTIONS)
        reward = MOST_ORDINARY * torch.rand(shape, generator=generator, dtype=torch.float64)
        others = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1
        reward[:, 0] = 1.0
        others[:, 0] = 0.0
        reference = (1 - mass) * others / others.sum(-1, keepdim=True)
        reference[:, 0] = mass
        worlds.append((reward, reference.log()))
    rewards, references = zip(*worlds, strict=True)
    return RareActionBandit(torch.stack(rewards), torch.stack(references), beta)


@dataclass(frozen=True)
class Course:
    """What happened, from the start (round 0) to the last round."""

    gap: Float[Tensor, "rounds points seeds"]  # J of the optimum minus J of the policy
    found: Float[Tensor, "rounds points seeds"]  # share of contexts whose best action was ever in a pair
    fresh: Float[Tensor, "rounds points seeds"]  # share of the round's own draws that were never in a pair before
    kl: Float[Tensor, "rounds points seeds"]  # KL(pi || pi_ref), mean over contexts
    logp_explored: Float[Tensor, "rounds points seeds"]  # mean log pi of all of the fixed sampler's responses so far

    def area(self) -> Float[Tensor, "points seeds"]:
        """The mean gap over the rounds."""
        return self.gap[1:].mean(0)


def run(
    bandit: RareActionBandit,
    learners: Sequence[Learner],
    seeds: Sequence[int],
    *,
    rounds: int = 32,
    pairs: int = 16,
    steps: int = 60,
    learning_rate: float = 0.1,
) -> Course:
    """Every learner in every seed's world: `rounds` rounds of `pairs` queries, `steps` Adam steps each on all pairs.

    The margin of the loss is (beta * slope) times the difference of log-ratios, as the labels' slope asks.
    """
    world = _Queries(bandit, learners, seeds, rounds, pairs)
    shape = (len(learners), len(seeds), CONTEXTS, ACTIONS)
    logits = bandit.log_reference.expand(shape).clone().requires_grad_()
    adam = torch.optim.Adam([logits], lr=learning_rate)
    objective = XPO(beta=bandit.beta * SLOPE, alpha=1.0)  # the weight of the bonus is each learner's own, below
    alpha, entropy = (
        torch.tensor([getattr(learner, name) for learner in learners], dtype=torch.float64)[:, None]
        for name in ("alpha", "entropy")
    )
    records = [world.record(torch.log_softmax(logits.detach(), dim=-1))]
    for number in range(rounds):
        world.ask(number, torch.log_softmax(logits.detach(), dim=-1))
        for _ in range(steps):
            logp = torch.log_softmax(logits, dim=-1)
            terms = objective.terms(world.batch(logp))
            dpo, bonus = (terms[name].reshape(*shape[:2], -1).mean(-1) for name in ("dpo", "optimism"))
            spread = -(logp.exp() * logp).sum(-1).mean(-1)
            adam.zero_grad()
            (dpo + alpha * bonus - entropy * spread).sum().backward()
            adam.step()
        records.append(world.record(torch.log_softmax(logits.detach(), dim=-1)))
    return Course(*(torch.stack(parts) for parts in zip(*records, strict=True)))


class _Queries:
    """The pairs asked for so far, of all learners and seeds; every learner of a seed sees the same random numbers."""

    def __init__(
        self, bandit: RareActionBandit, learners: Sequence[Learner], seeds: Sequence[int], rounds: int, pairs: int
    ) -> None:
        self.bandit, self.pairs = bandit, pairs
        self._uniform = torch.stack(
            [
                torch.rand(rounds, 5, pairs, generator=torch_generator("rare action queries", s), dtype=torch.float64)
                for s in seeds
            ]
        )  # [seeds, rounds, what is drawn, pairs]
        column = torch.tensor([learner.epsilon for learner in learners], dtype=torch.float64)
        self._epsilon = column[:, None, None, None]
        self._is_current = torch.tensor([learner.sampler == "current" for learner in learners])[:, None, None, None]
        self._shape = (len(learners), len(seeds))
        self.chosen = self.rejected = torch.zeros(*self._shape, 0, dtype=torch.long)  # context * actions + action
        self.explored = torch.zeros(*self._shape, 0, dtype=torch.float64)
        self._seen = torch.zeros(*self._shape, CONTEXTS * ACTIONS, dtype=torch.bool)
        self._fresh = torch.zeros(self._shape, dtype=torch.float64)

    def ask(self, number: int, logp: Float[Tensor, "points seeds contexts actions"]) -> None:
        """Draw a round's pairs and their labels."""
        context_draw, own_draw, other_draw, label_draw, _ = self._uniform[:, number].unbind(1)
        context = (context_draw * CONTEXTS).long().expand(*self._shape, -1)
        policy = (1 - self._epsilon) * logp.exp() + self._epsilon / ACTIONS
        fixed = torch.where(self._is_current, logp.exp(), self.bandit.log_reference.exp())
        own, other = (_drawn(table, context, draw) for table, draw in ((policy, own_draw), (fixed, other_draw)))
        reward = self.bandit.reward.flatten(1).expand(*self._shape, -1)
        margin = SLOPE * (reward.gather(-1, own) - reward.gather(-1, other))
        own_wins = label_draw < torch.sigmoid(margin)
        self._fresh = (~self._seen.gather(-1, own)).double().mean(-1)
        self._seen = self._seen.scatter(-1, own, True).scatter(-1, other, True)
        self.chosen = torch.cat([self.chosen, torch.where(own_wins, own, other)], dim=-1)
        self.rejected = torch.cat([self.rejected, torch.where(own_wins, other, own)], dim=-1)
        self.explored = torch.cat([self.explored, (~own_wins).double()], dim=-1)

    def batch(self, logp: Float[Tensor, "points seeds contexts actions"]) -> ExploredPairs:
        """All pairs so far, learners and seeds one after another."""
        reference = self.bandit.log_reference.flatten(1).expand(*self._shape, -1)
        sides = []
        for index in (self.chosen, self.rejected):
            policy = logp.flatten(2).gather(-1, index).flatten()
            known = reference.gather(-1, index).flatten()
            sides.append(ResponseLogps(policy, torch.ones_like(known), known))
        weight = torch.ones_like(sides[0].tokens)
        return ExploredPairs(sides[0], sides[1], weight, explored=self.explored.flatten())

    def record(self, logp: Float[Tensor, "points seeds contexts actions"]) -> tuple[Tensor, ...]:
        """gap, found, fresh, kl and logp_explored now."""
        best: Bool[Tensor, "points seeds contexts"] = self._seen.unflatten(-1, (CONTEXTS, ACTIONS))[..., 0]
        index: Int[Tensor, "points seeds pairs"] = torch.where(self.explored > 0.5, self.chosen, self.rejected)
        explored = logp.flatten(2).gather(-1, index)
        return (
            self.bandit.best_value - self.bandit.value(logp),
            best.double().mean(-1),
            self._fresh,
            (logp.exp() * (logp - self.bandit.log_reference)).sum(-1).mean(-1),
            explored.mean(-1) if explored.shape[-1] else torch.full(self._shape, torch.nan, dtype=torch.float64),
        )


def _drawn(
    table: Float[Tensor, "points seeds contexts actions"],
    context: Int[Tensor, "points seeds pairs"],
    uniform: Float[Tensor, "seeds pairs"],
) -> Int[Tensor, "points seeds pairs"]:
    """context * actions + action, the action drawn from the context's row by inverting its distribution function."""
    shape = (*context.shape, ACTIONS)
    rows = table.gather(2, context[..., None].expand(shape))
    action = (rows.cumsum(-1) < uniform[..., None]).sum(-1).clamp(max=ACTIONS - 1)
    return context * ACTIONS + action
