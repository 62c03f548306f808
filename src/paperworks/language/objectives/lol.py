"""A-LoL, advantage-leftover-lunch reinforcement learning: imitate responses better than the reference's own.

A whole response is one action. Responses with a positive advantage (see `advantage`) are imitated in proportion to it,
times a detached importance ratio that makes up for the data being another's; the variants differ in that ratio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.options import option
from paperworks.language.objectives.advantage import AdvantageObjective
from paperworks.language.objectives.objective import ScoredLogps, require
from paperworks.language.objectives.scored import PrioritySampled, tokens_of


@dataclass(frozen=True)
class ClippedRatio(PrioritySampled):
    """Multiplies the loss by pi_theta(y|x) / pi_ref(y|x), detached and clipped: the data count as the reference's."""

    needs_reference: ClassVar[bool] = True

    clip_eps: float | None = option(0.9, "ratios are held within 1 - eps and 1 + eps; none: not at all", above=0)

    def clipped(self, log_ratio: Tensor) -> Tensor:
        """The importance ratio, without gradient."""
        ratio = log_ratio.detach().exp()
        return ratio if self.clip_eps is None else ratio.clamp(1 - self.clip_eps, 1 + self.clip_eps)

    def loss(self, batch: ScoredLogps) -> Float[Tensor, " items"]:
        return self.clipped(batch.response.log_ratio) * super().loss(batch)

    def ratios(self, batch: ScoredLogps) -> tuple[Tensor, Tensor]:
        """Log-ratios that are clipped, and the weight of each in a mean over them."""
        return batch.response.log_ratio, batch.weight

    @torch.no_grad()
    def metrics(self, batch: ScoredLogps) -> dict[str, Any]:
        """`ratio` is the factor applied; `clipped` the share of ratios at or beyond the clip's ends."""
        log_ratio, weight = self.ratios(batch)
        ratio = self.clipped(log_ratio)
        outside = (log_ratio.exp() != ratio).to(ratio.dtype)
        return super().metrics(batch) | {"ratio": (ratio, weight), "clipped": (outside, weight)}

    def warnings(self, first: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
        """Ratios of whole responses are beyond the clip as a matter of course; only the lower end stalls learning."""
        if self.clip_eps is None or not now.get("ratio", 1.0) < 1 - 0.9 * self.clip_eps:
            return []
        return [
            f"vanishing ratios: responses have become unlikely, the mean importance ratio is {now['ratio']:.2f} (clip_eps="
            f"{self.clip_eps:g}), so that little is learnt from them; lower the learning rate or stop earlier"
        ]


@dataclass(frozen=True)
class RewardLoL(ClippedRatio):
    """R-LoL (arXiv 2305.14718): clip(ratio) * R * NLL, rows drawn by reward; A-LoL without a value to beat."""

    name: ClassVar[str] = "r-lol"


@dataclass(frozen=True)
class AdvantageLoLRefFree(AdvantageObjective):
    """A-LoL without the importance ratio: loss = A+ * NLL. The reference is needed for the value alone."""

    name: ClassVar[str] = "a-lol-ref-free"


@dataclass(frozen=True)
class AdvantageLoL(ClippedRatio, AdvantageObjective):
    """A-LoL (Baheti et al. 2024, arXiv 2305.14718): loss = A+ * clip(pi_theta(y|x) / pi_ref(y|x)) * NLL.

    A+ = max(R - V, 0); the ratio is of whole responses and carries no gradient; NLL is summed over tokens.
    """

    name: ClassVar[str] = "a-lol"


@dataclass(frozen=True)
class AdvantageLoLSequence(AdvantageLoL):
    """A-LoL with a ratio for each token: loss = A+ * sum_t clip(pi_theta(y_t) / pi_ref(y_t)) * -log pi_theta(y_t).

    A variant of its own: the product rule applied to the ratio of whole responses does not give it.
    """

    name: ClassVar[str] = "a-lol-seq"
    needs_tokens: ClassVar[bool] = True

    def loss(self, batch: ScoredLogps) -> Float[Tensor, " items"]:
        tokens = tokens_of(batch, self.name)
        log_ratio, _ = self.ratios(batch)
        return self.credit(batch) * tokens.summed(self.clipped(log_ratio) * -tokens.policy)

    def ratios(self, batch: ScoredLogps) -> tuple[Tensor, Tensor]:
        tokens = tokens_of(batch, self.name)
        assert tokens.reference is not None
        return tokens.policy - tokens.reference, batch.weight[tokens.response]


@dataclass(frozen=True)
class AdvantageLoLKL(AdvantageObjective):
    """A-LoL with a penalty in place of the ratio: loss = A+ * NLL + kl_beta * (log pi_theta(y|x) - log pi_ref(y|x)).

    The penalty is a KL estimate by name only, since the responses are not the policy's. The factor on log pi_theta is
    kl_beta - A+: where the advantage is below kl_beta the loss lowers the likelihood, which a note counts.
    """

    name: ClassVar[str] = "a-lol-kl"
    needs_reference: ClassVar[bool] = True

    kl_beta: float = option(0.1, "weight of the penalty, in reward a nat", low=0)
    clip_eps: float | None = option(None, "must be none: this variant has no ratio to clip")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.clip_eps is None,
            "clip_eps",
            self.clip_eps,
            "none with a-lol-kl, which has no ratio to clip",
            "leave it out, or use a-lol",
        )

    def loss(self, batch: ScoredLogps) -> Float[Tensor, " items"]:
        return super().loss(batch) + self.kl_beta * batch.response.log_ratio

    @torch.no_grad()
    def metrics(self, batch: ScoredLogps) -> dict[str, Any]:
        return super().metrics(batch) | {"log_ratio": batch.response.log_ratio}

    def quality(self, held_out: Mapping[str, float]) -> float:
        return -held_out["loss"]  # every factor in it is fixed

    def _notes_on(self, kept: Sequence[float]) -> list[str]:
        below = sum(advantage < self.kl_beta for advantage in kept)
        return [
            f"{below} of them have an advantage below kl_beta={self.kl_beta:g}: their likelihood is lowered"
        ] * bool(below)
