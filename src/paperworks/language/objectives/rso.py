"""Pairs of answers that rejection sampling made likely under the optimal policy, and the losses that go with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from jaxtyping import Float
from torch import Tensor

from paperworks.core.options import option
from paperworks.language.objectives.dpo import logistic
from paperworks.language.objectives.objective import PairLogps, PairObjective, ResponseLogps, require
from paperworks.language.objectives.slic import hinge

Loss = Literal["sigmoid-norm", "hinge-norm", "hinge"]
Sampler = Literal["paper", "exact"]
Ranking = Literal["first_round", "tournament"]


@dataclass(frozen=True)
class RSO(PairObjective):
    """Statistical rejection sampling optimisation (Liu et al. 2023, arXiv 2309.06657).

    Of each prompt's candidates from the start policy, `accepted` are kept by rejection sampling at `beta`, paired, and
    ranked; `loss` on the margin m = gamma * difference is -log sigmoid(m) or max(0, 1 - m), the difference that of
    log-ratios to the reference (norm) or of log-probabilities (hinge: gamma times SLiC's loss with margin 1 / gamma);
    sft_coef > 0 adds SLiC's imitation term. `beta` is the sampler's alone, `gamma` the loss's.
    """

    name: ClassVar[str] = "rso"

    gamma: float = option(0.05, "the loss's scale: reward per nat", above=0)
    loss_type: Loss = option("sigmoid-norm", "DPO's loss, the hinge on log-ratios, or the hinge without a reference")
    beta: float = option(0.5, "rejection sampling: nats of reward per nat; 0 takes the best, a large value any", low=0)
    sft_coef: float = option(
        0.0, "weight of the imitation of the chosen response, summed over tokens; the paper leaves it out", low=0
    )
    accepted: int = option(8, "candidates kept a prompt", low=2)
    sampler: Sampler = option("paper", "sweeps in random order (Algorithm 1), or exact draws one by one")
    ranking: Ranking = option("first_round", "accepted / 2 disjoint pairs, or a tournament of accepted - 1")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kinds in (("loss_type", Loss), ("sampler", Sampler), ("ranking", Ranking)):
            allowed = get_args(kinds)
            require(getattr(self, name) in allowed, name, getattr(self, name), ", ".join(allowed))
        require(
            self.ranking == "tournament" or self.accepted % 2 == 0,
            "accepted",
            self.accepted,
            "an even number for ranking=first_round",
        )

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        return self.loss_type != "hinge"

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        return self.gamma * (response.policy if self.loss_type == "hinge" else response.log_ratio)

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        margin = self.margin(batch)
        loss = logistic(margin) if self.loss_type == "sigmoid-norm" else hinge(margin, 1.0)
        return loss - self.sft_coef * batch.chosen.policy if self.sft_coef else loss
