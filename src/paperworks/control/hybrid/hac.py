"""HAC (arXiv 2311.08384, algorithms 1 and 2) in tables: hybrid policy evaluation, and softmax policies that follow it.

Everything is [*batch, states, actions]; the batch stands for seeds. A log and fresh episodes come as `Cells`: how often a
state and action was seen and what followed on average. Functions may be forced to be the same in groups of states, so that
what a class cannot express is known exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Cells:
    """A mean of a squared error over state-action pairs: each pair's share (adding up to 1), and its mean target."""

    share: Float[Tensor, "*batch states actions"]
    target: Float[Tensor, "*batch states actions"]  # of any value where the share is 0


@dataclass(frozen=True)
class TabularLog:
    """A log as counts know it."""

    share: Float[Tensor, "*batch states actions"]
    reward: Float[Tensor, "*batch states actions"]  # mean
    onward: Float[Tensor, "*batch states actions states"]  # share of each next state; below 1 where episodes end

    def backed_up(
        self, policy: Float[Tensor, "*batch states actions"], f: Float[Tensor, "*batch states actions"], gamma: float
    ) -> Cells:
        """Targets r + gamma E f(s', a'), a' of the policy."""
        value = (policy * f).sum(-1)
        return Cells(self.share, self.reward + gamma * torch.einsum("...sat,...t->...sa", self.onward, value))


def fit(log: Cells, fresh: Cells, lam: float, groups: Int[Tensor, " states"]) -> Tensor:
    """argmin_f E_log (f - target)^2 + lam E_fresh (f - target)^2 over functions that are the same within a group.

    Pairs that neither has seen get 0.
    """
    weight = _by_group(log.share + lam * fresh.share, groups)
    total = _by_group(log.share * log.target + lam * fresh.share * fresh.target, groups)
    found = torch.where(weight > 0, total / weight.clamp(min=1e-30), 0.0)
    return found[..., groups, :]


def evaluate(
    policy: Float[Tensor, "*batch states actions"],
    log: TabularLog,
    fresh: Cells,
    lam: float,
    groups: Int[Tensor, " states"],
    *,
    gamma: float,
    rounds: int,
    discarded: int,
) -> Float[Tensor, "*batch states actions"]:
    """HPE: `rounds` fits from f = 0, each to the log's targets of the one before; the mean of all but the `discarded`."""
    f, total = torch.zeros_like(policy), torch.zeros_like(policy)
    for number in range(rounds):
        f = fit(log.backed_up(policy, f, gamma), fresh, lam, groups)
        if number >= discarded:
            total = total + f
    return total / (rounds - discarded)


def discarded_rounds(gamma: float) -> int:
    """The rounds that the paper leaves out of HPE's mean, K1 = 4 ceil(log 1 / gamma), as printed."""
    return 4 * math.ceil(math.log(1 / gamma))


def softmax_step(
    policy: Float[Tensor, "*batch states actions"], f: Float[Tensor, "*batch states actions"], eta: float
) -> Float[Tensor, "*batch states actions"]:
    """HAC's step, the natural gradient of a softmax policy in a table: pi(a|s) exp(eta f(s, a)), normalised."""
    return (policy.log() + eta * f).softmax(-1)


def _by_group(values: Float[Tensor, "*batch states actions"], groups: Int[Tensor, " states"]) -> Tensor:
    shape = (*values.shape[:-2], int(groups.max()) + 1, values.shape[-1])
    return values.new_zeros(shape).index_add(-2, groups, values)
