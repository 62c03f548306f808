"""The losses of statistical rejection sampling on labelled pairs: logistic or hinge, with the reference or without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from paperworks.core.options import option
from paperworks.language.objectives.dpo import logistic
from paperworks.language.objectives.objective import PairLogps, PairObjective, ResponseLogps, require
from paperworks.language.objectives.slic import hinge

LOSSES = ("sigmoid_norm", "hinge", "hinge_norm")


@dataclass(frozen=True)
class RSO(PairObjective):
    """RSO's losses (Liu et al. 2023, arXiv 2309.06657, Eqs. 8-10); "norm" is for the reference, not for the length.

    sigmoid_norm: -log sigmoid(gamma * [log-ratio of chosen - that of rejected]), which is DPO;
    hinge: max(0, 1 - gamma * [log pi(chosen) - log pi(rejected)]), gamma times SLiC's with margin 1 / gamma, no reference;
    hinge_norm: max(0, 1 - gamma * [log-ratio of chosen - that of rejected]).
    Each - sft_coef * log pi(chosen), SLiC's imitation term, which the paper leaves out. Log-probabilities are sums.
    gamma is the loss's own: the sampler's beta is another number.
    """

    name: ClassVar[str] = "rso"

    loss_type: Literal["sigmoid_norm", "hinge", "hinge_norm"] = option(
        "sigmoid_norm", "logistic with the reference (DPO), hinge without it (SLiC), or hinge with it"
    )
    gamma: float = option(0.05, "reward per nat in the loss; not the sampler's beta", above=0)
    sft_coef: float = option(0.0, "weight of the imitation of the chosen response, summed over tokens", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.loss_type in LOSSES, "loss_type", self.loss_type, ", ".join(LOSSES))

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        return self.loss_type != "hinge"

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        return self.gamma * (response.log_ratio if self.needs_reference else response.policy)

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        margin = self.margin(batch)
        loss = logistic(margin) if self.loss_type == "sigmoid_norm" else hinge(margin, 1.0)
        return loss - self.sft_coef * batch.chosen.policy if self.sft_coef else loss
