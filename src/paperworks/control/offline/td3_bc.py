"""TD3+BC (arXiv 2106.06860): TD3 whose actor is pulled to the logged action of its state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from paperworks.control.batches import Batch
from paperworks.control.learner import LearnerOptions
from paperworks.control.offline.td3 import TD3, TD3Options
from paperworks.core.options import option


@dataclass(frozen=True)
class TD3BCOptions(TD3Options):
    """TD3+BC's own."""

    alpha: float = option(2.5, "weight of the value: lambda = alpha / mean |Q|", above=0)


class TD3BC(TD3):
    """-lambda mean Q_1(s, pi(s)) + mean (pi(s) - a)^2, lambda = alpha / mean |Q_1| of the batch, a constant."""

    name: ClassVar[str] = "td3-bc"
    options_class: ClassVar[type[LearnerOptions]] = TD3BCOptions
    goes_online: ClassVar[bool] = True
    options: TD3BCOptions

    def actor_loss(
        self, batch: Batch, action: Float[Tensor, "seeds rows action"], q: Float[Tensor, "seeds rows"]
    ) -> tuple[Float[Tensor, " seeds"], dict[str, Float[Tensor, " seeds"]]]:
        weight = self.weight(q)
        pull, more = self.pull(batch, action)
        return -weight * q.mean(1) + pull, {"weight": weight, "pull": pull.detach(), **more}

    def weight(self, q: Float[Tensor, "seeds rows"]) -> Float[Tensor, " seeds"]:
        """lambda = alpha / mean |Q|, a constant."""
        found: Tensor = self.each("alpha") / q.detach().abs().mean(1)
        return found

    def pull(
        self, batch: Batch, action: Float[Tensor, "seeds rows action"]
    ) -> tuple[Float[Tensor, " seeds"], dict[str, Float[Tensor, " seeds"]]]:
        """What holds the actor to the log, and numbers to log of it."""
        return (action - batch.actions).square().mean((1, 2)), {}
