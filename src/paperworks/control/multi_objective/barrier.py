"""Hold other objectives while one improves: the interior-point barrier, its thresholds, and the released code's other form.

Improve G_i subject to G_j(pi) >= threshold_j for j != i: each constraint adds -(1/t) log(slack_j) to the loss (IPO).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LEAST_SLACK = 0.01  # below it the barrier goes on along its tangent, so that the gradient leads back
OFFICIAL_LEAST = 1e-3


def barrier(slack: Tensor, t: float) -> Tensor:
    """-(1/t) log(slack), elementwise; below LEAST_SLACK, and outside the feasible set, its tangent there."""
    tangent = (LEAST_SLACK - slack) / LEAST_SLACK - math.log(LEAST_SLACK)
    return torch.where(slack > LEAST_SLACK, -slack.clamp(min=LEAST_SLACK).log(), tangent) / t


def threshold(value: Tensor, beta: float) -> Tensor:
    """What a return of `value` must not fall below: value - (1 - beta)|value|, beta * value where that is positive.

    beta times a negative return would be above it: infeasible from the start.
    """
    return value - (1 - beta) * value.abs()


@dataclass(frozen=True)
class Limits:
    """What each net must hold: slack is (return - threshold) / scale, so that `t` means the same in every unit."""

    thresholds: Float[Tensor, "nets objectives"]
    scales: Float[Tensor, "nets objectives"]
    held: Bool[Tensor, "nets objectives"]  # whether the objective is constrained

    @classmethod
    def at(cls, values: Tensor, held: Tensor, beta: float, least_scale: Tensor) -> Limits:
        """Those of policies with these returns; scales are the returns' sizes, but at least `least_scale`."""
        return cls(threshold(values, beta), torch.maximum(values.abs(), least_scale), held)

    def loss(self, expected: Float[Tensor, "nets objectives"], t: float) -> Float[Tensor, " nets"]:
        """The sum of barriers, for what the returns are expected to be."""
        slack = (expected - self.thresholds) / self.scales
        return torch.where(self.held, barrier(slack, t), 0.0).sum(1)


def expected_returns(
    now: Float[Tensor, "nets objectives"],
    ratio: Float[Tensor, "nets rows"],
    advantages: Float[Tensor, "nets rows objectives"],
    horizon: Float[Tensor, " nets"],
) -> Float[Tensor, "nets objectives"]:
    """G_j(pi_old) + horizon * mean(ratio A_j): the first order of G_j(pi); `horizon` is 1 / (1 - gamma) in endless tasks."""
    return now + horizon[:, None] * (ratio[..., None] * advantages).mean(1)


def official_loss(
    ratio: Float[Tensor, "nets rows"],
    mean_return: Float[Tensor, "nets objectives"],
    objective: Int[Tensor, " nets"],
    beta: float,
    t: float,
) -> Float[Tensor, " nets"]:
    """The released code's barrier, to the letter: rows' ratios times the batch's mean return, against beta times it.

    It knows no advantages and no earlier policy, and leaves out the row of the objective's number in place of the objective.
    """
    slack = ratio[..., None] * mean_return[:, None] - beta * mean_return[:, None]
    kept = torch.arange(ratio.shape[1]) != objective[:, None]
    logs = slack.clamp(min=OFFICIAL_LEAST).log().mean(-1)
    return -torch.where(kept, logs, 0.0).sum(1) / (ratio.shape[1] - 1) / t
