"""Forget losses whose push fades as an answer is forgotten: negative preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.options import option
from paperworks.language.objectives.dpo import logistic
from paperworks.language.objectives.objective import UnlearningLogps, note_unless
from paperworks.language.objectives.unlearning import (
    UnlearningObjective,
    kl_weight_option,
    retain_weight_option,
    row_weight,
)


@dataclass(frozen=True)
class FadingObjective(UnlearningObjective):
    """A forget loss (2 / beta) * -log sigmoid(margin), the margin growing as an answer is forgotten.

    The factor makes gradient ascent on whole answers the limit beta -> 0. A subclass says its `margin`. The metric
    `adaptive_weight` is W = 2 sigmoid(-margin), the gradient in log pi of the answer to forget: 1 at the start where the
    margin is 0, fading to 0 as the answer is forgotten.
    """

    needs_reference: ClassVar[bool] = True

    beta: float = option(0.1, "how soon the push fades: it halves within some 1 / beta nats", above=0)

    def option_notes(self) -> list[str]:
        return super().option_notes() + note_unless(
            self.beta <= 2,
            "beta",
            self.beta,
            f"{self.name} multiplies log-ratios summed over tokens, where 0.01 to 0.5 is usual",
        )

    def margin(self, batch: UnlearningLogps) -> Float[Tensor, " items"]:
        """How far each answer is forgotten, times beta."""
        raise NotImplementedError

    def loss(self, batch: UnlearningLogps) -> Float[Tensor, " items"]:
        return 2 / self.beta * logistic(self.margin(batch))

    @torch.no_grad()
    def metrics(self, batch: UnlearningLogps) -> dict[str, Any]:
        weight = 2 * torch.sigmoid(-self.margin(batch))
        return {**super().metrics(batch), "adaptive_weight": (weight, row_weight(batch.forget))}


@dataclass(frozen=True)
class NPO(FadingObjective):
    """Negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868, eq. 3).

    loss = (2 / beta) log(1 + (pi_theta(y|x) / pi_ref(y|x))^beta), log-probabilities summed over tokens: the half of DPO
    that is about the rejected answer. Bounded below by 0, where gradient ascent is not.
    """

    name: ClassVar[str] = "npo"

    def margin(self, batch: UnlearningLogps) -> Float[Tensor, " items"]:
        return -self.beta * batch.forget.log_ratio


@dataclass(frozen=True)
class NPORetain(NPO):
    """NPO with the cross-entropy on answers to keep (the paper's NPO+RT, its best)."""

    name: ClassVar[str] = "npo-rt"

    retain_weight: float = retain_weight_option(1.0)


@dataclass(frozen=True)
class NPOKL(NPO):
    """NPO with the divergence from the reference on answers to keep (the paper's NPO+KL)."""

    name: ClassVar[str] = "npo-kl"

    kl_weight: float = kl_weight_option(1.0)
