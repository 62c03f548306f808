"""REM (arXiv 1907.04543): many heads, and in training a random mixture of them takes the place of Q."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.control.batches import Batch, Draws
from paperworks.control.discrete.dqn import DQN, DQNOptions
from paperworks.control.discrete.learner import chosen
from paperworks.control.learner import LearnerOptions
from paperworks.core.options import option


@dataclass(frozen=True)
class REMOptions(DQNOptions):
    """REM's own."""

    heads: int = option(200, "heads that are mixed", low=1)
    mixture: Literal["shared", "separate"] = option(
        "shared", "one mixture a step; or one each for the value, the choice and the target, as in the study's code"
    )


class REM(DQN):
    """DQN's loss of sum_k w_k Q_k, w uniform numbers scaled to a sum of 1, drawn anew each step; acts by the mean."""

    name: ClassVar[str] = "rem"
    options_class: ClassVar[type[LearnerOptions]] = REMOptions
    options: REMOptions

    @property
    def heads(self) -> int:
        return self.options.heads

    def loss(
        self, batch: Batch, draws: Draws, step: int
    ) -> tuple[Float[Tensor, " seeds"], dict[str, Float[Tensor, " seeds"]]]:
        own, choosing, judging = self.mixtures(draws.uniform("mixture", step, 3, self.heads))
        with torch.no_grad():
            best = mixed(self.all_heads(self.net, batch.next_states), choosing).argmax(-1)
            following = chosen(mixed(self.all_heads(self.target_net, batch.next_states), judging), best)
            target = batch.rewards + self.options.gamma * batch.goes_on * following
        return self.td_loss(mixed(self.all_heads(self.net, batch.states), own), target, batch)

    def mixtures(
        self, uniform: Float[Tensor, "seeds three heads"]
    ) -> tuple[Float[Tensor, "seeds heads"], Float[Tensor, "seeds heads"], Float[Tensor, "seeds heads"]]:
        """Weights of the heads for the value, for the choice of the next action, and for the target."""
        weights = mixture_weights(uniform)
        places = (0, 0, 0) if self.options.mixture == "shared" else (0, 1, 2)
        own, choosing, judging = (weights[:, place] for place in places)
        return own, choosing, judging


def mixture_weights(uniform: Float[Tensor, "*shape heads"]) -> Float[Tensor, "*shape heads"]:
    """Numbers in [0, 1) scaled to a sum of 1."""
    positive = uniform + 1e-8
    return positive / positive.sum(-1, keepdim=True)


def mixed(
    values: Float[Tensor, "seeds rows actions heads"], weights: Float[Tensor, "seeds heads"]
) -> Float[Tensor, "seeds rows actions"]:
    """The mixture's Q(s, .)."""
    return torch.einsum("srah,sh->sra", values, weights)
