"""FISOR's formulas (arXiv 2401.10700): what is feasible, and how much each logged action is worth imitating.

Pure functions of tensors. A constraint value h is positive for a violation; safe is negative. Feasibility values are not
sums: Q_h is the worst h on the way, discounted towards the present one, so that {V_h <= 0} is where a violation can still
be avoided.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

MOST_UNSAFE_WEIGHT, MOST_SAFE_WEIGHT = 150.0, 100.0


def signed_costs(costs: Float[Tensor, "*rows"], scale: float) -> Float[Tensor, "*rows"]:
    """h of costs that only say whether there was a violation: `scale` where the cost is above 0, -1 elsewhere."""
    return torch.where(costs > 0, scale, -1.0)


def feasibility_target(
    constraint: Float[Tensor, "*rows"], following: Float[Tensor, "*rows"], goes_on: Float[Tensor, "*rows"], gamma: float
) -> Float[Tensor, "*rows"]:
    """What Q_h is fitted to: (1 - gamma) h + gamma max(h, V_h(s')), and h where the episode ends (goes_on 0)."""
    on = (1 - gamma) * constraint + gamma * torch.maximum(constraint, following)
    return torch.where(goes_on > 0, on, constraint)


def sum_target(
    signal: Float[Tensor, "*rows"], following: Float[Tensor, "*rows"], goes_on: Float[Tensor, "*rows"], gamma: float
) -> Float[Tensor, "*rows"]:
    """What a critic of rewards, or of summed costs, is fitted to: signal + gamma V(s') while the episode goes on."""
    return signal + gamma * goes_on * following


def cloning_weights(
    value: Float[Tensor, "*rows"],
    q: Float[Tensor, "*rows"],
    advantage: Float[Tensor, "*rows"],
    *,
    alpha_h: float,
    alpha_r: float,
) -> Float[Tensor, "*rows"]:
    """How much each logged action counts in the policy's loss, from V_h(s), Q_h(s, a) and A_r(s, a) = Q_r - V_r.

    Where V_h > 0 (a violation cannot be avoided): exp(alpha_h (V_h - Q_h)), at most 150. Elsewhere exp(alpha_r A_r), at
    most 100, for actions of Q_h <= 0, and exactly 0 for the others.
    """
    least_violation = (alpha_h * (value - q)).clamp(max=math.log(MOST_UNSAFE_WEIGHT)).exp()
    return torch.where(value > 0, least_violation, torch.where(q <= 0, reward_weights(advantage, alpha_r), 0.0))


def reward_weights(advantage: Float[Tensor, "*rows"], alpha_r: float) -> Float[Tensor, "*rows"]:
    """exp(alpha_r A_r), at most 100: the weights without feasibility."""
    return (alpha_r * advantage).clamp(max=math.log(MOST_SAFE_WEIGHT)).exp()


def discounted_limit(cost_limit: float, length: int, gamma: float) -> float:
    """The discounted sum of a cost that is spread evenly over an episode and adds up to `cost_limit`."""
    kept = length if gamma == 1 else (1 - gamma**length) / (1 - gamma)
    return cost_limit * kept / length


def steps_to_violation(value: Float[Tensor, "*rows"], scale: float, gamma: float) -> Float[Tensor, "*rows"]:
    """k of V_h = gamma^k scale - (1 - gamma^k): how far ahead a violation lies by its value, for `signed_costs`.

    Infinite where V_h <= -1 (none is ahead), 0 where V_h >= scale. Needs gamma < 1.
    """
    share = ((value + 1) / (scale + 1)).clamp(0, 1)
    return share.log() / math.log(gamma)
