"""The hinge loss on pairs: SLiC's calibration of likelihoods, and its reference-normalised form (RSO)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from paperworks.core.options import option
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.objective import PairLogps, PairObjective, ResponseLogps


def hinge(margin: Float[Tensor, " items"], target: float) -> Float[Tensor, " items"]:
    """max(0, target - margin)."""
    return functional.relu(target - margin)


@dataclass(frozen=True)
class SLiC(PairObjective):
    """Sequence likelihood calibration (Zhao et al. 2023, arXiv 2305.10425): no reference model.

    loss = max(0, delta - log pi(chosen) + log pi(rejected)) - lam * log pi(chosen), log-probabilities summed over
    tokens. The second term imitates the chosen response; the paper may imitate another target instead.
    """

    name: ClassVar[str] = "slic"
    needs_reference: ClassVar[bool] = False

    delta: float = option(1.0, "margin in nats up to which a pair is pushed apart", above=0)
    lam: float = option(0.0, "weight of the imitation of the chosen response, summed over tokens", low=0)

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        return response.policy

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        calibration = hinge(self.margin(batch), self.delta)
        return calibration - self.lam * batch.chosen.policy if self.lam else calibration


@dataclass(frozen=True)
class HingeNorm(DPO):
    """The hinge loss on reference-normalised likelihoods (Liu et al. 2023, RSO, arXiv 2309.06657): TRL's `hinge`.

    loss = max(0, 1 - m), m = beta * [log-ratio of chosen - log-ratio of rejected].
    """

    name: ClassVar[str] = "hinge-norm"

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        return hinge(self.margin(batch), 1.0)
