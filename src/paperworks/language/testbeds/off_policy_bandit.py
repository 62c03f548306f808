"""CoPG's bandit: three arms, pairs drawn by two behaviour policies that prefer the worst arm, a KL to the uniform.

Policy gradients that forget who drew the pairs go elsewhere than to the optimum; the bandit says where. Policies are
tables of logits; all seeds train as one batched program. The paper's setting: arXiv 2406.19185, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.core.seeding import torch_generator
from paperworks.language.objectives.copg import CoPG, GroupLogps
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.ipo import IPO
from paperworks.language.objectives.objective import Objective, PairLogps, ResponseLogps

LossName = Literal["copg", "pg", "pg-value", "ipo", "dpo"]
"""CoPG; policy gradient without baseline, with the policy's own mean reward as baseline; IPO and DPO on preferences."""


@dataclass(frozen=True)
class Bandit:
    """Arms, the two policies that drew the pairs, and the strength of the KL to a uniform reference."""

    reward: Float[Tensor, " arms"]
    first: Float[Tensor, " arms"]  # mu1: who drew the first arm of a pair
    second: Float[Tensor, " arms"]  # mu2
    beta: float

    @property
    def log_reference(self) -> Float[Tensor, " arms"]:
        """The uniform reference."""
        return torch.full_like(self.reward, -math.log(len(self.reward)))

    @property
    def optimum(self) -> Float[Tensor, " arms"]:
        """log pi*: pi_ref exp(R / beta), normalised."""
        return torch.log_softmax(self.log_reference + self.reward / self.beta, dim=-1)

    def value(self, log_policy: Float[Tensor, "*batch arms"]) -> Float[Tensor, "*batch"]:
        """J = E[R] - beta KL(pi || pi_ref)."""
        return (log_policy.exp() * (self.reward - self.beta * (log_policy - self.log_reference))).sum(-1)

    def regret(self, log_policy: Float[Tensor, "*batch arms"]) -> Float[Tensor, "*batch"]:
        """J of the optimum minus J of this policy; never negative."""
        return self.value(self.optimum) - self.value(log_policy)


def _values(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


BANDIT = Bandit(_values(2.5, 2.0, 1.0), _values(0.1, 0.2, 0.7), _values(0.05, 0.05, 0.9), beta=0.5)
"""The paper's."""


@dataclass(frozen=True)
class ArmPairs:
    """Pairs of arms, and whether the first was preferred (Bradley-Terry on the rewards)."""

    first: Int[Tensor, "seeds pairs"]
    second: Int[Tensor, "seeds pairs"]
    first_wins: Float[Tensor, "seeds pairs"]  # 1 or 0; a probability where every outcome is weighed


def draw_pairs(bandit: Bandit, seeds: Sequence[int], count: int) -> ArmPairs:
    """`count` pairs a seed, the first arm from mu1, the second from mu2, with a preference each."""
    drawn = []
    for seed in seeds:
        generator = torch_generator("off-policy bandit", seed)
        first = torch.multinomial(bandit.first, count, replacement=True, generator=generator)
        second = torch.multinomial(bandit.second, count, replacement=True, generator=generator)
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        wins = (uniform < torch.sigmoid(bandit.reward[first] - bandit.reward[second])).double()
        drawn.append((first, second, wins))
    return ArmPairs(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))


def pair_losses(
    bandit: Bandit, name: LossName, log_policy: Float[Tensor, "seeds arms"], pairs: ArmPairs
) -> Float[Tensor, "seeds pairs"]:
    """The loss of every pair. Raises OptionError for an unknown name."""
    if name not in get_args(LossName):
        raise OptionError(f"loss {name!r}: expected one of {', '.join(get_args(LossName))}")
    logp = [log_policy.gather(1, arms) for arms in (pairs.first, pairs.second)]
    reward = [bandit.reward[arms] for arms in (pairs.first, pairs.second)]
    if name == "copg":
        return _copg(bandit, logp, reward)
    if name in ("ipo", "dpo"):
        objective: Objective = IPO(tau=bandit.beta) if name == "ipo" else DPO(beta=bandit.beta)
        first_won, second_won = (_preferred(bandit, objective, *order) for order in (logp, logp[::-1]))
        return pairs.first_wins * first_won + (1 - pairs.first_wins) * second_won
    ratio = [each.detach() + math.log(len(bandit.reward)) for each in logp]
    baseline = torch.zeros(())
    if name == "pg-value":
        baseline = (log_policy.detach().exp() * bandit.reward).sum(-1, keepdim=True)
    credit = [each - bandit.beta * of - baseline for each, of in zip(reward, ratio, strict=True)]
    return -(credit[0] * logp[0] + credit[1] * logp[1])


def train(
    bandit: Bandit,
    name: LossName,
    seeds: Sequence[int],
    *,
    pairs: int = 10_000,
    batch: int = 512,
    epochs: int = 100,
    learning_rate: float = 1e-3,
    records: int = 40,
) -> tuple[list[int], Float[Tensor, "records seeds"]]:
    """Adam from the uniform policy on minibatches; (steps looked at, regret there), the last step included."""
    data = draw_pairs(bandit, seeds, pairs)
    generators = [torch_generator("off-policy bandit order", seed) for seed in seeds]
    logits = torch.zeros(len(seeds), len(bandit.reward), dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=learning_rate)
    per_epoch = math.ceil(pairs / batch)
    steps = epochs * per_epoch
    order = torch.empty(0)
    at, regrets = [], []
    for step in range(steps + 1):
        log_policy = torch.log_softmax(logits, dim=-1)
        if step % max(1, steps // records) == 0 or step == steps:
            at.append(step)
            regrets.append(bandit.regret(log_policy.detach()))
        if step == steps:
            break
        turn = step % per_epoch
        if turn == 0:
            order = torch.stack([torch.randperm(pairs, generator=generator) for generator in generators])
        now = order[:, turn * batch : (turn + 1) * batch]
        of_step = ArmPairs(*(values.gather(1, now) for values in (data.first, data.second, data.first_wins)))
        adam.zero_grad()
        pair_losses(bandit, name, log_policy, of_step).mean(1).sum().backward()
        adam.step()
    return at, torch.stack(regrets)


def expected_loss(bandit: Bandit, name: LossName, logits: Float[Tensor, " arms"]) -> Float[Tensor, ""]:
    """The loss over all pairs of arms, weighted by how often mu1 and mu2 draw them and by the preference's chance."""
    arms = torch.arange(len(bandit.reward))
    first, second = (side.reshape(1, -1) for side in torch.meshgrid(arms, arms, indexing="ij"))
    wins = torch.sigmoid(bandit.reward[first] - bandit.reward[second])
    losses = pair_losses(bandit, name, torch.log_softmax(logits, dim=-1)[None], ArmPairs(first, second, wins))
    return (losses[0] * bandit.first[first[0]] * bandit.second[second[0]]).sum()


def limit_regret(bandit: Bandit, name: LossName) -> float:
    """The regret where the expected gradient vanishes, sought from the uniform policy on; NaN where it does nowhere."""
    from scipy.optimize import root

    def gradient(free: Any) -> Any:  # the last logit stays 0: a shift of all of them changes nothing
        logits = torch.tensor([*free, 0.0], dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(expected_loss(bandit, name, logits), logits)[0][:-1].numpy()

    found = root(gradient, [0.0] * (len(bandit.reward) - 1), tol=1e-12)
    logits = torch.tensor([*found.x, 0.0], dtype=torch.float64)
    is_root = max(map(abs, gradient(found.x))) < 1e-8
    return float(bandit.regret(torch.log_softmax(logits, dim=-1))) if is_root else math.nan


def _copg(bandit: Bandit, logp: Sequence[Tensor], reward: Sequence[Tensor]) -> Tensor:
    """Every pair as a row of two responses, one after the other."""
    policy, scores = (torch.stack(list(sides), dim=-1).flatten() for sides in (logp, reward))
    row = torch.arange(len(policy) // 2).repeat_interleave(2)
    reference = torch.full_like(policy, -math.log(len(bandit.reward))).detach()
    response = ResponseLogps(policy, torch.ones_like(policy), reference, row=row)
    weight = torch.ones(len(policy) // 2, dtype=torch.float64)
    return CoPG(beta=bandit.beta).loss(GroupLogps(response, scores, weight)).reshape(logp[0].shape)


def _preferred(bandit: Bandit, objective: Objective, chosen: Tensor, rejected: Tensor) -> Tensor:
    """The preference loss of every pair if the first was chosen."""
    sides = [
        ResponseLogps(
            logp.flatten(), torch.ones(logp.numel()), torch.full((logp.numel(),), -math.log(len(bandit.reward)))
        )
        for logp in (chosen, rejected)
    ]
    return objective.loss(PairLogps(sides[0], sides[1], torch.ones(chosen.numel()))).reshape(chosen.shape)
