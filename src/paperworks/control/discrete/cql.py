"""CQL with discrete actions (arXiv 2006.04779): double DQN that values what the log does not show low."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from paperworks.control.batches import Batch, Draws
from paperworks.control.discrete.dqn import DQN, DQNOptions
from paperworks.control.discrete.learner import chosen
from paperworks.control.learner import LearnerOptions
from paperworks.core.options import option


@dataclass(frozen=True)
class DiscreteCQLOptions(DQNOptions):
    """CQL's own."""

    conservatism: float = option(0.1, "weight of log sum exp Q - Q(logged) in the loss", low=0)


class DiscreteCQL(DQN):
    """DQN's loss + alpha mean (log sum_a exp Q(s, a) - Q(s, a_logged))."""

    name: ClassVar[str] = "discrete-cql"
    options_class: ClassVar[type[LearnerOptions]] = DiscreteCQLOptions
    options: DiscreteCQLOptions

    def loss(
        self, batch: Batch, draws: Draws, step: int
    ) -> tuple[Float[Tensor, " seeds"], dict[str, Float[Tensor, " seeds"]]]:
        q = self.values(self.net, batch.states)
        td, told = self.td_loss(q, self.target(batch), batch)
        gap = conservative_gap(q, batch.actions).mean(1)
        return td + self.options.conservatism * gap, {"gap": gap.detach(), **told}


def conservative_gap(
    q: Float[Tensor, "seeds rows actions"], actions: Int[Tensor, "seeds rows"]
) -> Float[Tensor, "seeds rows"]:
    """log sum_a exp Q(s, a) - Q(s, a_logged), at least 0."""
    return q.logsumexp(-1) - chosen(q, actions)
