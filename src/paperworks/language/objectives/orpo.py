"""Imitation of chosen responses with a penalty on the odds of rejected ones; no reference model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.options import option
from paperworks.language.objectives.dpo import logistic
from paperworks.language.objectives.objective import PairLogps, PairObjective, ResponseLogps, require


def log_odds(mean_logp: Float[Tensor, " items"]) -> Float[Tensor, " items"]:
    """log(p / (1 - p)) from log p < 0, stable at both ends.

    log(1 - e^a) is log(-expm1(a)) near 0 and log1p(-e^a) far below it. log p is held one rounding step under 0, where a
    probability has rounded up to 1, so that value and gradient stay finite.
    """
    logp = mean_logp.clamp(max=-torch.finfo(mean_logp.dtype).eps)
    near = logp > -math.log(2)
    # each branch sees a harmless number where the other is taken: `where` alone would let NaN through backward
    log_complement = torch.where(
        near,
        torch.log(-torch.expm1(torch.where(near, logp, -1.0))),
        torch.log1p(-torch.exp(torch.where(near, -1.0, logp))),
    )
    return logp - log_complement


@dataclass(frozen=True)
class ORPO(PairObjective):
    """Odds-ratio preference optimisation (Hong et al. 2024, arXiv 2403.07691, eqs. 6-7).

    loss = NLL(chosen) - lam * log sigmoid(log-odds of chosen - log-odds of rejected), the odds from each response's
    mean token log-probability. NLL is the paper's: each chosen response's mean over its own tokens, then the mean over
    pairs (`seq_mean`). `token_mean` averages over all chosen tokens of the step, as TRL does (which, for decoder-only
    models, also counts prompt tokens; here prompts never count).
    """

    name: ClassVar[str] = "orpo"
    needs_reference: ClassVar[bool] = False

    lam: float = option(0.1, "weight of the odds-ratio term (TRL calls it beta)", low=0)
    nll_reduction: Literal["seq_mean", "token_mean"] = option(
        "seq_mean", "average the imitation term over responses (paper) or over all tokens (TRL)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.nll_reduction in ("seq_mean", "token_mean"),
            "nll_reduction",
            self.nll_reduction,
            "seq_mean or token_mean",
        )

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        return log_odds(response.mean)

    def terms(self, batch: PairLogps) -> dict[str, Float[Tensor, " items"]]:
        return {"nll": -batch.chosen.mean, "odds_ratio": self.lam * logistic(self.margin(batch))}

    def weights(self, batch: PairLogps) -> dict[str, Float[Tensor, " items"]]:
        nll = batch.weight * batch.chosen.tokens if self.nll_reduction == "token_mean" else batch.weight
        return {"nll": nll, "odds_ratio": batch.weight}

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        """The loss of each pair on its own; over several pairs the two terms may have different weights (`weights`)."""
        terms = self.terms(batch)
        return terms["nll"] + terms["odds_ratio"]
