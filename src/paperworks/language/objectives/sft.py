"""Supervised fine-tuning: imitate the responses given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from paperworks.core.options import option
from paperworks.language.objectives.objective import DemonstrationLogps, DemonstrationObjective, require


@dataclass(frozen=True)
class SFT(DemonstrationObjective):
    """Maximum likelihood of responses, prompts excluded and the end token included.

    `reduction` says what the step's loss is: `token_mean`, the mean over all response tokens of the step (every token
    counts the same; the usual choice); `seq_mean`, the mean over responses of their own token mean (every response
    counts the same); `sum`, the mean over responses of their summed loss (the likelihood of whole responses).
    """

    name: ClassVar[str] = "sft"
    learning_rates: ClassVar[tuple[float, float]] = (2e-5, 2e-4)

    reduction: Literal["token_mean", "seq_mean", "sum"] = option(
        "token_mean", "average over all tokens, over each response's token mean, or over each response's sum"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.reduction in ("token_mean", "seq_mean", "sum"),
            "reduction",
            self.reduction,
            "token_mean, seq_mean or sum",
        )

    def loss(self, batch: DemonstrationLogps) -> Float[Tensor, " items"]:
        return -batch.response.policy if self.reduction == "sum" else -batch.response.mean

    def weights(self, batch: DemonstrationLogps) -> dict[str, Float[Tensor, " items"]]:
        return {"loss": batch.weight * batch.response.tokens if self.reduction == "token_mean" else batch.weight}


@dataclass(frozen=True)
class BestOfNDistill(SFT):
    """Imitation of the best of n answers of the policy's own (RAFT, arXiv 2304.06767): SFT, on what a reward likes most."""

    name: ClassVar[str] = "best-of-n-distill"
