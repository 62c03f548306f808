"""DPO on offline pairs with a reverse KL that is really measured: on fresh samples of the policy in training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.core.options import option
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.objective import PairLogps, ResponseLogps, StepInputs, require

Baseline = Literal["rloo", "none"]


@dataclass(frozen=True)
class HybridLogps(PairLogps):
    """Pairs, and samples of the current policy to the same (or other) prompts.

    `weight` is that of the rows; a row may have a pair, samples, or both.
    """

    online: ResponseLogps | None = None  # several a row, one after another; `row` says whose each is


def leave_one_out(
    values: Float[Tensor, " items"], row: Int[Tensor, " items"], rows: int
) -> tuple[Float[Tensor, " items"], Float[Tensor, " rows"]]:
    """Each value minus the mean of the others of its row, and how many values each row has; 0 where it is alone."""
    count = values.new_zeros(rows).index_add(0, row, torch.ones_like(values))
    total = values.new_zeros(rows).index_add(0, row, values)
    others = (count - 1).clamp(min=1)[row]
    return torch.where(count[row] > 1, values - (total[row] - values) / others, torch.zeros_like(values)), count


@dataclass(frozen=True)
class HyPO(DPO):
    """Hybrid preference optimisation (Song et al. 2024, arXiv 2406.01462; not the later "Hybrid-DPO" of that name).

    loss = -log sigmoid(m) + lam * S, m DPO's margin on the offline pair; S = mean over a prompt's samples y ~ pi_theta of
    log pi_theta(y|x) * sg[h(y) - b], h = log pi_theta - log pi_ref summed over tokens, sg: no gradient, b: the mean of h
    over the prompt's other samples (RLOO). S has no meaning as a value; its gradient estimates that of the sequence KL
    without bias, where the samples are fresh and drawn at temperature 1. Differentiating the mean of h itself would give
    zero on average. lam=0 is DPO. Samples are scored under the role "online"; the number a prompt is the loop's affair.

    The step order and the stop-gradient form are from memory, beta and lam our defaults; RLOO with k samples is the
    paper's. The sum over tokens of exact KLs along a sample is another estimator, which drops the gradient through the
    prefixes: it is not offered here.
    """

    name: ClassVar[str] = "hypo"

    lam: float = option(1e-3, "weight of the online KL, a nat a sequence", low=0)
    baseline: Baseline = option("rloo", "what a sample's log-ratio is compared with: the prompt's others, or nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.baseline in get_args(Baseline), "baseline", self.baseline, " or ".join(get_args(Baseline)))

    @property
    def roles(self) -> tuple[str, ...]:
        return ("chosen", "rejected", "online")

    def batch(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> HybridLogps:
        return HybridLogps(scores["chosen"], scores["rejected"], inputs.weight, online=scores.get("online"))

    def terms(self, batch: PairLogps) -> dict[str, Float[Tensor, " items"]]:
        return {"dpo": super().loss(batch), "kl": self.lam * self.surrogate(batch)}

    def weights(self, batch: PairLogps) -> dict[str, Float[Tensor, " items"]]:
        """Rows without a pair do not count in DPO's mean, rows without samples not in the KL's."""
        of_pairs = batch.weight if batch.chosen.weight is None else batch.chosen.weight
        return {"dpo": of_pairs, "kl": batch.weight * (self._online(batch)[2] > 0)}

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        """The loss of each row; where rows lack a pair or samples, the terms have items of their own."""
        terms = self.terms(batch)
        if len(terms["dpo"]) != len(terms["kl"]):
            raise OptionError(
                "objective hypo: some rows have no pair, so that its terms are means over different items"
            )
        return terms["dpo"] + terms["kl"]

    def surrogate(self, batch: PairLogps) -> Float[Tensor, " rows"]:
        """S of every row; 0 where it has no samples."""
        online, row, count = self._online(batch)
        surrogate = torch.zeros_like(batch.weight)
        if online is None or self.lam == 0 or not len(online.policy):
            return surrogate
        ratio = online.log_ratio.detach()
        if self.baseline == "none":
            credit = ratio
        elif bool((count == 1).any()):
            raise OptionError(
                "objective hypo: a prompt has 1 online sample, baseline=rloo needs 2 or more: draw more, or give "
                "baseline=none"
            )
        else:
            credit, _ = leave_one_out(ratio, row, len(batch.weight))
        return surrogate.index_add(0, row, credit * online.policy / count[row])

    def _online(self, batch: PairLogps) -> tuple[ResponseLogps | None, Tensor, Tensor]:
        """The samples, the row of each, and how many each row has."""
        online = batch.online if isinstance(batch, HybridLogps) else None
        row = torch.zeros(0, dtype=torch.long, device=batch.weight.device)
        if online is not None:
            if online.row is None:
                raise OptionError("objective hypo: the batch does not say which row each online sample belongs to")
            row = online.row
        return online, row, torch.bincount(row, minlength=len(batch.weight)).to(batch.weight.dtype)

    @torch.no_grad()
    def metrics(self, batch: PairLogps) -> dict[str, Any]:
        """Those of DPO over pairs; `kl_online`: log pi - log pi_ref of the policy's own samples, whose mean is the KL."""
        weight = self.weights(batch)["dpo"]
        values: dict[str, Any] = {name: (value, weight) for name, value in super().metrics(batch).items()}
        online, row, _ = self._online(batch)
        if online is not None:
            values["kl_online"] = (online.log_ratio.detach(), batch.weight[row])
        return values

    def quality(self, values: Mapping[str, float]) -> float:
        """Minus (DPO's loss + lam * KL): the surrogate's own value says nothing."""
        kl = values.get("kl_online", math.nan)
        return -(values["dpo"] + (self.lam * kl if math.isfinite(kl) else 0.0))
