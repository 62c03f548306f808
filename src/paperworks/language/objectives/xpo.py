"""Online DPO that explores: an optimism term lowers the likelihood of responses from a fixed sampling policy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.core.options import option
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.objective import PairLogps, ResponseLogps, StepInputs, require

DEEP_FALL = 100.0  # nats that mean log pi of explored responses may fall before it is said


@dataclass(frozen=True)
class ExploredPairs(PairLogps):
    """Pairs of which one response was drawn from the fixed sampling policy: `explored` 1 the chosen, 0 the rejected."""

    explored: Float[Tensor, " items"] | None = None  # NaN where it is not known


@dataclass(frozen=True)
class XPO(DPO):
    """Exploratory preference optimisation (Xie et al. 2024, arXiv 2405.21046, algorithm 1).

    loss = -log sigmoid(m) + alpha * log pi(tau~), m DPO's margin, tau~ the response of the pair that the fixed sampling
    policy wrote, whether it won or lost. Descent lowers its likelihood: optimism. Both terms are means over pairs of
    sums over tokens, so that alpha is a nat's price and small. alpha=0 is DPO.

    `alpha` has a value a round, the last one staying; `at_round` picks one. Schedule and clip are those of the paper's
    language-model runs as a third party reports them (unverified). The clip bounds the log-ratio inside the optimism
    term alone. The reference stays the initial model in every round. Raises OptionError for a negative alpha.
    """

    name: ClassVar[str] = "xpo"
    numbers: ClassVar[tuple[str, ...]] = ("explored",)

    alpha: tuple[float, ...] | float = option(
        (1e-5, 5e-6, 0.0), "weight of optimism a nat, a value a round (the last one stays)"
    )
    clip: float = option(500.0, "bound on |log pi / pi_ref| in the optimism term: beyond it there is no push", above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        values = self.alpha if isinstance(self.alpha, tuple) else (self.alpha,)
        require(len(values) > 0, "alpha", self.alpha, "at least one value")
        require(all(map(math.isfinite, values)), "alpha", self.alpha, "finite numbers")
        require(
            min(values) >= 0,
            "alpha",
            self.alpha,
            "0 or more",
            "a negative weight would imitate the reference; for that use rpo",
        )

    def at_round(self, number: int) -> XPO:
        """The objective of a round (0 first), with that round's alpha alone."""
        values = self.alpha if isinstance(self.alpha, tuple) else (self.alpha,)
        return dataclasses.replace(self, alpha=values[min(number, len(values) - 1)])

    @property
    def optimism(self) -> float:
        """The weight in force: the first of `alpha`."""
        return self.alpha[0] if isinstance(self.alpha, tuple) else self.alpha

    def batch(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> ExploredPairs:
        explored = inputs.numbers.get("explored")
        return ExploredPairs(scores["chosen"], scores["rejected"], inputs.weight, explored=explored)

    def terms(self, batch: PairLogps) -> dict[str, Float[Tensor, " items"]]:
        preference = super().loss(batch)
        if self.optimism == 0:
            return {"dpo": preference, "optimism": torch.zeros_like(preference)}
        return {"dpo": preference, "optimism": self.optimism * self._clipped(batch)}

    def weights(self, batch: PairLogps) -> dict[str, Float[Tensor, " items"]]:
        return {"dpo": batch.weight, "optimism": batch.weight}

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        terms = self.terms(batch)
        return terms["dpo"] + terms["optimism"]

    def _clipped(self, batch: PairLogps) -> Float[Tensor, " items"]:
        """log pi of the explored response, its log-ratio bounded."""
        explored = getattr(batch, "explored", None)
        if explored is None or bool(explored.isnan().any()):
            raise OptionError(
                f"objective xpo: alpha={self.optimism:g} needs to know of every pair which response the fixed sampler "
                "wrote (explored: 1 the chosen, 0 the rejected); give it, or alpha=0"
            )
        reference = batch.chosen.policy - batch.chosen.log_ratio, batch.rejected.policy - batch.rejected.log_ratio
        chosen = reference[0].detach() + batch.chosen.log_ratio.clamp(-self.clip, self.clip)
        rejected = reference[1].detach() + batch.rejected.log_ratio.clamp(-self.clip, self.clip)
        return torch.where(explored > 0.5, chosen, rejected)

    @torch.no_grad()
    def metrics(self, batch: PairLogps) -> dict[str, Any]:
        """Those of DPO, and `logp_explored`: log pi of the fixed sampler's response, which exploring lowers."""
        values = super().metrics(batch)
        explored = getattr(batch, "explored", None)
        if explored is not None:
            known = (~explored.isnan()).to(batch.weight.dtype)
            logp = torch.where(explored > 0.5, batch.chosen.policy, batch.rejected.policy)
            values["logp_explored"] = (logp.detach(), batch.weight * known)
        return values

    def warnings(self, first: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
        fall = first.get("logp_explored", math.nan) - now.get("logp_explored", math.nan)
        if not fall > DEEP_FALL or self.optimism == 0:
            return []
        return [
            f"runaway optimism: log pi of the fixed sampler's responses fell {fall:.3g} nats below its start; where reward "
            "does not rise with it, lower alpha or ask for more preferences a round"
        ]
