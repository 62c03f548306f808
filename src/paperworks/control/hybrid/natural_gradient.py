"""Natural-gradient steps for many small policies in lock-step: conjugate gradient, and TRPO's line search.

A net's parameters are a row of one matrix [nets, parameters]; every operation below works on all rows at once and mixes
none of them. This room knows nothing of what a policy is: it is given products with its Fisher matrix and its surrogate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Product = Callable[[Tensor], Tensor]  # v to F v, row by row
Surrogate = Callable[[Tensor], Tensor]  # parameters to what a step should raise, [nets]


@dataclass(frozen=True)
class TrustRegion:
    """How far a step goes (Schulman et al. 2015, arXiv 1502.05477; the figures are HNPG's)."""

    max_kl: float = 1e-2  # nats, under the quadratic model
    damping: float = 0.1  # added to the Fisher matrix's diagonal
    steps: int = 10  # of conjugate gradient
    backtracks: int = 10  # halvings tried
    accept_ratio: float = 0.1  # least share of the improvement that the gradient promises


@dataclass(frozen=True)
class NaturalStep:
    """Where a step led."""

    parameters: Float[Tensor, "nets parameters"]
    is_accepted: Bool[Tensor, " nets"]  # a rejected net's parameters are those from before, bit for bit
    modelled_kl: Float[Tensor, " nets"]  # half of step' F step


def conjugate_gradient(
    product: Product, target: Float[Tensor, "nets parameters"], *, steps: int = 10, enough: float = 1e-10
) -> Float[Tensor, "nets parameters"]:
    """x with F x = target for every net, from x = 0; a net whose squared residual is below `enough` rests."""
    found, residual, direction = torch.zeros_like(target), target, target
    size = residual.square().sum(-1, keepdim=True)
    for _ in range(steps):
        moves = size > enough
        if not moves.any():
            break
        along = product(direction)
        curvature = (direction * along).sum(-1, keepdim=True)
        rate = torch.where(moves, size / curvature, 0.0)
        found, residual = found + rate * direction, residual - rate * along
        now = residual.square().sum(-1, keepdim=True)
        direction = residual + torch.where(moves, now / size, 0.0) * direction
        size = now
    return found


@torch.no_grad()
def line_search(
    surrogate: Surrogate,
    start: Float[Tensor, "nets parameters"],
    step: Float[Tensor, "nets parameters"],
    promised: Float[Tensor, " nets"],
    region: TrustRegion,
) -> tuple[Float[Tensor, "nets parameters"], Float[Tensor, " nets"]]:
    """(parameters, scale of the step taken): each net's first of 1, 1/2, 1/4, ... that improves by enough of `promised`.

    The scale is 0 where none does, and the parameters are then the start's.
    """
    before, found = surrogate(start), start.clone()
    taken = torch.zeros_like(promised)
    for number in range(region.backtracks):
        scale = 0.5**number
        tried = start + scale * step
        gain = surrogate(tried) - before
        good = (taken == 0) & (gain > 0) & (gain > region.accept_ratio * scale * promised)
        found = torch.where(good[:, None], tried, found)
        taken = torch.where(good, scale, taken)
        if (taken > 0).all():
            break
    return found, taken


def natural_step(
    parameters: Float[Tensor, "nets parameters"],
    gradient: Float[Tensor, "nets parameters"],
    fisher: Product,
    surrogate: Surrogate,
    region: TrustRegion = TrustRegion(),
) -> NaturalStep:
    """TRPO's step: along (F + damping)^-1 g, as long as the quadratic model allows, halved until the surrogate rises."""

    def damped(direction: Tensor) -> Tensor:
        return fisher(direction) + region.damping * direction

    direction = conjugate_gradient(damped, gradient, steps=region.steps)
    curvature = (direction * damped(direction)).sum(-1)
    length = torch.where(curvature > 0, math.sqrt(2 * region.max_kl) / curvature.clamp(min=1e-30).sqrt(), 0.0)
    step = length[:, None] * direction
    found, scale = line_search(surrogate, parameters, step, (gradient * step).sum(-1), region)
    kl = 0.5 * scale.square() * (step * fisher(step)).sum(-1)
    return NaturalStep(found, scale > 0, kl)
