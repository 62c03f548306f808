"""Preference optimisation on mean token log-probabilities, without a reference model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from paperworks.core.options import option
from paperworks.language.objectives.dpo import logistic
from paperworks.language.objectives.objective import PairLogps, PairObjective, ResponseLogps, note_unless


@dataclass(frozen=True)
class SimPO(PairObjective):
    """SimPO (Meng et al. 2024, arXiv 2405.14734, eq. 6).

    loss = -log sigmoid(beta * [mean log pi(chosen) - mean log pi(rejected)] - gamma), means over a response's own
    tokens, gamma = beta * gamma_ratio. (TRL's `simpo_gamma` is gamma itself.)
    """

    name: ClassVar[str] = "simpo"
    needs_reference: ClassVar[bool] = False

    beta: float = option(2.5, "reward per nat of mean token log-probability", above=0)
    gamma_ratio: float = option(0.5, "target margin gamma as a multiple of beta", low=0)

    @property
    def gamma(self) -> float:
        """The target margin, in units of reward."""
        return self.beta * self.gamma_ratio

    def option_notes(self) -> list[str]:
        return note_unless(
            self.beta >= 0.5, "beta", self.beta, "simpo multiplies a mean over tokens, where 1 to 10 is usual"
        )

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        return self.beta * response.mean

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        return logistic(self.margin(batch) - self.gamma)
