"""A contrast of likelihoods with imitation of the chosen response; no reference model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from paperworks.core.options import option
from paperworks.language.objectives.dpo import logistic
from paperworks.language.objectives.objective import PairLogps, PairObjective, ResponseLogps


@dataclass(frozen=True)
class CPO(PairObjective):
    """Contrastive preference optimisation (Xu et al. 2024, arXiv 2401.08417, eq. 5): no reference model.

    loss = -log sigmoid(beta * [log pi(chosen) - log pi(rejected)]), summed over tokens, averaged over pairs
    + a_cpo * the mean negative log-likelihood of all chosen tokens of the step (TRL's averaging).
    """

    name: ClassVar[str] = "cpo"
    needs_reference: ClassVar[bool] = False

    beta: float = option(0.1, "reward per nat of summed log-probability", above=0)
    a_cpo: float = option(1.0, "weight of the chosen responses' mean token loss", low=0)

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        return self.beta * response.policy

    def terms(self, batch: PairLogps) -> dict[str, Float[Tensor, " items"]]:
        return {"preference": logistic(self.margin(batch)), "nll": -self.a_cpo * batch.chosen.mean}

    def weights(self, batch: PairLogps) -> dict[str, Float[Tensor, " items"]]:
        return {"preference": batch.weight, "nll": batch.weight * batch.chosen.tokens}

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        """The loss of each pair on its own; over several pairs the two terms have different weights (`weights`)."""
        terms = self.terms(batch)
        return terms["preference"] + terms["nll"]
