"""Nash mirror descent by policy gradient: an answer's reward is how surely it beats one of the mixture policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from paperworks.core.options import option
from paperworks.language.objectives.policy_gradient import Penalty, Reinforce

if TYPE_CHECKING:
    from paperworks.language.online.rollouts import Rollouts


@dataclass(frozen=True)
class NashMD(Reinforce):
    """Nash-MD-PG (Munos et al. 2023, arXiv 2312.00886) as arXiv 2403.08635 compares with it.

    Ascends [p(y > y') - 1/2 - tau h(y)] grad log pi(y), y drawn from the policy, y' from the mixture
    pi^(1-mix) pi_ref^mix, h the log-ratio to the reference over the whole answer. `rewards` of the rollouts are p(y > y').
    """

    name: ClassVar[str] = "nash-md"

    tau: float = option(1.0, "strength of the pull to the reference", above=0)
    mix: float = option(0.125, "share of the reference in the opponent's mixture", low=0, high=1)

    def credit(self, rollouts: Rollouts, penalty: Penalty) -> dict[str, Tensor]:
        total = rollouts.rewards - 0.5 - self.tau * rollouts.summed(rollouts.log_ratio)
        return self._credited(total, rollouts)
