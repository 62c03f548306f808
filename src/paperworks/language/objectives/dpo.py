"""Direct preference optimisation: the logistic loss on the difference of implicit rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from paperworks.core.options import option
from paperworks.language.objectives.objective import PairLogps, PairObjective, ResponseLogps, note_unless


def logistic(margin: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
    """-log sigmoid(margin): the negative log-likelihood of the observed order under Bradley-Terry."""
    return -functional.logsigmoid(margin)


@dataclass(frozen=True)
class DPO(PairObjective):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, eq. 7).

    loss = -log sigmoid(m), m = beta * [log-ratio of chosen - log-ratio of rejected]. Raises OptionError for beta <= 0.
    """

    name: ClassVar[str] = "dpo"

    beta: float = option(0.1, "strength of the pull to the reference: reward per nat", above=0)

    def option_notes(self) -> list[str]:
        return note_unless(
            self.beta <= 2,
            "beta",
            self.beta,
            f"{self.name} multiplies log-ratios summed over tokens, where 0.01 to 0.5 is usual",
            "ln-dpo and simpo are the ones with beta of 1 to 10",
        )

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        return self.beta * response.log_ratio

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        return logistic(self.margin(batch))
