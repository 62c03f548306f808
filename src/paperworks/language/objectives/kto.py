"""Learning from single responses marked desirable or not, against a running point of comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.errors import DataError
from paperworks.core.options import option
from paperworks.language.objectives.objective import (
    FeedbackLogps,
    FeedbackObjective,
    Prepared,
    ResponseLogps,
    note_unless,
)

if TYPE_CHECKING:
    from paperworks.language.data.dataset import Dataset
    from paperworks.language.policy import Policy


@dataclass(frozen=True)
class KTO(FeedbackObjective):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8).

    loss = w_D * (1 - sigmoid(beta * (h - z0))) for a desirable response, w_U * (1 - sigmoid(beta * (z0 - h))) for an
    undesirable one; h the summed log-ratio; z0 = max(0, mean log-ratio of mismatched prompt-response pairs), without
    gradient. The two weights scale the loss and leave the mean's weights alone.
    """

    name: ClassVar[str] = "kto"
    step_kl_role: ClassVar[str | None] = "mismatched"

    beta: float = option(0.1, "strength of the pull to the reference: reward per nat", above=0)
    desirable_weight: float = option(1.0, "factor on the loss of desirable responses", above=0)
    undesirable_weight: float = option(
        1.0, "factor on the loss of undesirable responses; raise it when they are the rarer kind", above=0
    )

    def option_notes(self) -> list[str]:
        return note_unless(
            self.beta <= 2,
            "beta",
            self.beta,
            "kto multiplies log-ratios summed over tokens, where 0.01 to 0.5 is usual",
        )

    def prepare(self, dataset: Dataset, policy: Policy, *, seed: int, held_out: bool = False) -> Prepared:
        """Raises DataError unless the rows hold both desirable and undesirable responses."""
        kinds = {bool(row.desirable) for row in dataset.rows}
        if len(kinds) == 1:
            only, missing = ("desirable", "undesirable") if kinds == {True} else ("undesirable", "desirable")
            raise DataError(
                f"all {len(dataset.rows)} responses are {only}: kto needs {missing} ones too "
                "(sft imitates desirable ones)"
            )
        return Prepared(self, dataset)

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        return self.beta * response.log_ratio

    def loss(self, batch: FeedbackLogps) -> Float[Tensor, " items"]:
        reference_point = self.beta * batch.kl.detach().clamp(min=0)
        advantage = self.implicit_reward(batch.response) - reference_point
        desirable = batch.desirable > 0.5
        # 1 - sigmoid(v) is sigmoid(-v), which keeps its digits where sigmoid(v) is near 1
        value = torch.sigmoid(torch.where(desirable, -advantage, advantage))
        return torch.where(desirable, self.desirable_weight * value, self.undesirable_weight * value)
