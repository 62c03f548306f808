"""CQL (arXiv 2006.04779), the entropy form CQL(H) on SAC: critics that value actions outside the log low."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.control.batches import Batch, Draws
from paperworks.control.distributions import TanhGaussian
from paperworks.control.learner import LearnerOptions
from paperworks.control.networks import Critics
from paperworks.control.online.sac import SAC, SACOptions
from paperworks.core.options import option


@dataclass(frozen=True)
class CQLOptions(SACOptions):
    """CQL's own."""

    conservatism: float = option(5.0, "weight of log sum exp Q - Q(logged) in the critics' loss", low=0)
    sampled_actions: int = option(10, "uniform, current and next actions each, in the log sum exp", low=1)


class CQL(SAC):
    """TD + alpha (log sum_a exp Q(s, a) - Q(s, a_logged)); the sum by importance sampling; actor and temperature as SAC's.

    The target has no entropy bonus, as in the authors' code.
    """

    name: ClassVar[str] = "cql"
    options_class: ClassVar[type[LearnerOptions]] = CQLOptions
    goes_online: ClassVar[bool] = True
    options: CQLOptions
    has_entropy_bonus: ClassVar[bool] = False

    def critics_also(
        self, batch: Batch, draws: Draws, step: int, q: Float[Tensor, "seeds copies rows"]
    ) -> tuple[Float[Tensor, " seeds"], dict[str, Float[Tensor, " seeds"]]]:
        gap = (self.log_sum_exp(batch, draws, step) - q).mean(-1).sum(1)
        return self.options.conservatism * gap, {"gap": gap.detach()}

    def log_sum_exp(self, batch: Batch, draws: Draws, step: int) -> Float[Tensor, "seeds copies rows"]:
        """log of the integral of exp Q(s, .), from uniform actions and the policy's at s and at s'."""
        with torch.no_grad():
            outputs = {"current": self.actor(batch.states), "following": self.actor(batch.next_states)}
        return log_sum_exp(self.critics, batch.states, outputs, self.options.sampled_actions, draws, step)


def log_sum_exp(
    critics: Critics,
    states: Float[Tensor, "seeds rows state"],
    outputs: Mapping[str, Float[Tensor, "seeds rows twice_action"]],
    count: int,
    draws: Draws,
    step: int,
) -> Float[Tensor, "seeds copies rows"]:
    """log of the integral of exp Q(s, .), from `count` uniform actions and `count` of each policy's output, by its name.

    Each action counts by its density: 2^-width for a uniform one, the policy's for the others.
    """
    rows, width = states.shape[1], next(iter(outputs.values())).shape[-1] // 2
    uniform = 2 * draws.uniform("uniform", step, rows, count, width) - 1
    actions = [uniform]
    densities = [torch.full(uniform.shape[:-1], -width * math.log(2), device=uniform.device)]
    with torch.no_grad():
        for name, output in outputs.items():
            each = output[:, :, None].expand(-1, -1, count, -1)
            drawn, density = TanhGaussian(each).sample(draws.normal(name, step, rows, count, width))
            actions.append(drawn)
            densities.append(density)
    every = torch.cat(actions, 2)
    repeated = states[:, :, None].expand(-1, -1, every.shape[2], -1)
    q = critics(repeated.flatten(1, 2), every.flatten(1, 2)).unflatten(2, (rows, -1))
    return (q - torch.cat(densities, 2)[:, None]).logsumexp(-1) - math.log(every.shape[2])
