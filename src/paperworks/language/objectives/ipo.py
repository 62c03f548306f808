"""Identity preference optimisation: the margin is drawn to a fixed target instead of to infinity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from paperworks.core.options import option
from paperworks.language.objectives.objective import PairLogps, PairObjective, ResponseLogps


def squared(log_ratio_gap: Float[Tensor, " items"], tau: float) -> Float[Tensor, " items"]:
    """(h - 1/(2 tau))^2 with h the log-ratio of chosen minus that of rejected, not scaled by tau."""
    return (log_ratio_gap - 1 / (2 * tau)) ** 2


@dataclass(frozen=True)
class IPO(PairObjective):
    """Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036, eq. 17).

    loss = (h_chosen - h_rejected - 1/(2 tau))^2, h the log-ratio summed over the response (the paper's form) or, with
    average=True, its mean over the response's tokens (the form of TRL and HALOs). The two have optima |y| times apart.
    """

    name: ClassVar[str] = "ipo"

    tau: float = option(0.1, "strength of the pull to the reference: the target is 1/(2 tau)", above=0)
    average: bool = option(False, "mean log-ratio over a response's tokens (TRL) instead of the sum (paper)")

    def option_notes(self) -> list[str]:
        """Always one: which of the two forms is trained, because their tau is not on the same scale."""
        if self.average:
            return ["ipo averages log-ratios over tokens (average=true, as TRL does): tau is per token"]
        return ["ipo sums log-ratios over tokens (average=false, as the paper does): tau is per response, not TRL's"]

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        return self.tau * self._log_ratio(response)

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        return squared(self._log_ratio(batch.chosen) - self._log_ratio(batch.rejected), self.tau)

    def _log_ratio(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        return response.mean_log_ratio if self.average else response.log_ratio
