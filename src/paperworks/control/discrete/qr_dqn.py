"""QR-DQN (arXiv 1710.10044): an action's value as quantiles of its return, fitted by the quantile Huber loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.control.batches import Batch, Draws
from paperworks.control.discrete.dqn import DQN, DQNOptions
from paperworks.control.discrete.learner import chosen, huber
from paperworks.control.learner import LearnerOptions
from paperworks.core.options import option

Variant = Literal["standard", "official"]


@dataclass(frozen=True)
class QRDQNOptions(DQNOptions):
    """QR-DQN's own."""

    quantiles: int = option(50, "quantiles of an action's return", low=1)
    qr_variant: Variant = option(
        "standard",
        "standard: midpoint levels, on the predicted quantiles; official: the study's code, levels i/N on the targets",
    )


class QRDQN(DQN):
    """Quantiles of Q(s, a) to r + gamma quantiles of Q'(s', argmax of the mean); greedy on the mean."""

    name: ClassVar[str] = "qr-dqn"
    options_class: ClassVar[type[LearnerOptions]] = QRDQNOptions
    options: QRDQNOptions

    @property
    def heads(self) -> int:
        return self.options.quantiles

    def loss(
        self, batch: Batch, draws: Draws, step: int
    ) -> tuple[Float[Tensor, " seeds"], dict[str, Float[Tensor, " seeds"]]]:
        known = chosen(self.all_heads(self.net, batch.states), batch.actions)
        with torch.no_grad():
            best = self.values(self.net, batch.next_states).argmax(-1)
            following = chosen(self.all_heads(self.target_net, batch.next_states), best)
            target = batch.rewards[..., None] + self.options.gamma * batch.goes_on[..., None] * following
        loss = quantile_huber(known, target, self.options.qr_variant).mean(1)
        return loss, {"q": known.detach().mean((1, 2))}


def quantile_huber(
    predicted: Float[Tensor, "*shape quantiles"], target: Float[Tensor, "*shape quantiles"], variant: Variant
) -> Float[Tensor, "*shape"]:
    """|level - 1{target < predicted}| Huber(target - predicted), summed over predicted quantiles, mean over targets.

    The standard levels are (2i - 1) / 2N, and level i belongs to predicted quantile i. In the official code they are i / N
    and lie along the targets, so that all predicted quantiles see one and the same loss.
    """
    count = predicted.shape[-1]
    numbers = torch.arange(1, count + 1, dtype=predicted.dtype, device=predicted.device)
    levels = ((2 * numbers - 1) / (2 * count))[:, None] if variant == "standard" else numbers / count
    errors = target[..., None, :] - predicted[..., :, None]
    weights = (levels - (errors.detach() < 0).to(errors.dtype)).abs()
    return (weights * huber(errors)).mean(-1).sum(-1)
