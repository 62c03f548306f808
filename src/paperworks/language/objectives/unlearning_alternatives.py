"""Unlearning with an answer to give instead ("I don't know"): imitating it, preferring it, measuring against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.options import option
from paperworks.language.objectives.npo import FadingObjective
from paperworks.language.objectives.objective import UnlearningLogps
from paperworks.language.objectives.unlearning import (
    UnlearningObjective,
    kl_weight_option,
    retain_weight_option,
    token_weight,
)


@dataclass(frozen=True)
class IDK(UnlearningObjective):
    """Imitate an alternative answer to the questions to forget, beside the answers to keep (Maini et al. 2024, TOFU).

    One mean of -log pi over the tokens of both; forget_weight and retain_weight are what a token of either counts in it.
    The answers to forget are not scored at all (unless by kl_on).
    """

    name: ClassVar[str] = "idk"
    forgets_by: ClassVar[tuple[str, ...]] = ("alternative",)

    retain_weight: float = retain_weight_option(1.0)

    def loss(self, batch: UnlearningLogps) -> Float[Tensor, " items"]:
        return -batch.alternative.mean

    def terms(self, batch: UnlearningLogps) -> dict[str, Tensor]:
        imitated = torch.cat([-batch.alternative.mean, -batch.retain.mean])
        return {"imitation": imitated} | {name: self.kl_weight * kl for name, kl in self.kl_terms(batch).items()}

    def weights(self, batch: UnlearningLogps) -> dict[str, Tensor]:
        forget = self.forget_weight * token_weight(batch.alternative)
        retain = self.retain_weight * token_weight(batch.retain)
        return {"imitation": torch.cat([forget, retain])} | self.kl_weights(batch)


@dataclass(frozen=True)
class DPOIDK(FadingObjective):
    """DPO with the alternative answer as the chosen one and the answer to forget as the rejected one.

    loss = (2 / beta) * -log sigmoid(beta * [h(alternative) - h(forget)]), h the summed log-ratio to the reference
    (arXiv 2404.05868, section 2; IDK-DPO elsewhere).
    """

    name: ClassVar[str] = "dpo-idk"
    forgets_by: ClassVar[tuple[str, ...]] = ("forget", "alternative")

    def margin(self, batch: UnlearningLogps) -> Float[Tensor, " items"]:
        return self.beta * (batch.alternative.log_ratio - batch.forget.log_ratio)


@dataclass(frozen=True)
class DPOIDKRetain(DPOIDK):
    """DPO against an alternative answer, with the cross-entropy on answers to keep."""

    name: ClassVar[str] = "dpo-idk-rt"

    retain_weight: float = retain_weight_option(1.0)


@dataclass(frozen=True)
class DPOIDKKL(DPOIDK):
    """DPO against an alternative answer, with the divergence from the reference on answers to keep."""

    name: ClassVar[str] = "dpo-idk-kl"

    kl_weight: float = kl_weight_option(1.0)


@dataclass(frozen=True)
class KTOIDK(FadingObjective):
    """KTO's loss for an undesirable answer, in log form, its point of comparison taken from the alternative answers.

    loss = 1 + (2 / beta) * -log sigmoid(z - beta * h(forget)), z the mean log-ratio of the step's alternative answers,
    without gradient and not clamped at 0. As in the code released with NPO, z is not multiplied by beta unless
    `beta_on_kl` says so, and the constant 1 is there to make values comparable with it.
    """

    name: ClassVar[str] = "kto-idk"
    step_kl_role: ClassVar[str | None] = "alternative"

    beta_on_kl: bool = option(False, "multiply the point of comparison by beta too; the released code does not")

    def margin(self, batch: UnlearningLogps) -> Float[Tensor, " items"]:
        point = torch.zeros_like(batch.forget.policy) if batch.step_kl is None else batch.step_kl.detach()
        return (self.beta if self.beta_on_kl else 1.0) * point - self.beta * batch.forget.log_ratio

    def loss(self, batch: UnlearningLogps) -> Float[Tensor, " items"]:
        return 1 + super().loss(batch)


@dataclass(frozen=True)
class KTOIDKRetain(KTOIDK):
    """KTO against alternative answers, with the cross-entropy on answers to keep."""

    name: ClassVar[str] = "kto-idk-rt"

    retain_weight: float = retain_weight_option(1.0)


@dataclass(frozen=True)
class KTOIDKKL(KTOIDK):
    """KTO against alternative answers, with the divergence from the reference on answers to keep."""

    name: ClassVar[str] = "kto-idk-kl"

    kl_weight: float = kl_weight_option(1.0)
