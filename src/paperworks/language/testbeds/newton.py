"""Many small smooth minimisation problems solved at once by damped Newton steps.

Meant for a few dozen unknowns a problem, in float64, where a fit must be exact enough to test theory: the gradient's
largest entry falls below the tolerance, or the caller sees in the result that it did not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SHRINK, GROW = 0.2, 10.0  # damping after a step that lowers the value, and after one that does not
SMALLEST_DAMPING = 1e-12


@dataclass(frozen=True)
class Minimum:
    """Where the search ended, one row a problem."""

    point: Float[Tensor, "problems unknowns"]
    value: Float[Tensor, " problems"]
    gradient_norm: Float[Tensor, " problems"]  # largest absolute entry
    steps: int

    def converged(self, tolerance: float) -> bool:
        """Whether every problem's gradient norm is at most the tolerance."""
        return bool((self.gradient_norm <= tolerance).all())


def _derivatives(
    loss: Callable[[Tensor], Tensor], point: Tensor
) -> tuple[Tensor, Float[Tensor, "problems unknowns"], Float[Tensor, "problems unknowns unknowns"]]:
    point = point.detach().requires_grad_(True)
    value = loss(point)
    # the problems share no unknowns, so derivatives of the sum are every problem's own
    (gradient,) = torch.autograd.grad(value.sum(), point, create_graph=True)
    rows = []
    for unknown in range(point.shape[-1]):
        if gradient.requires_grad:
            (row,) = torch.autograd.grad(
                gradient[:, unknown].sum(), point, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        else:  # a loss linear in the unknowns
            row = torch.zeros_like(point)
        rows.append(row)
    return value.detach(), gradient.detach(), torch.stack(rows, dim=1).detach()


def minimise(
    loss: Callable[[Float[Tensor, "problems unknowns"]], Float[Tensor, " problems"]],
    start: Float[Tensor, "problems unknowns"],
    *,
    tolerance: float = 1e-9,
    max_steps: int = 200,
) -> Minimum:
    """Minimise every problem's twice differentiable loss from its row of `start`.

    Each step solves (H + d I) s = -g with a damping d of the problem's own, which falls after a step that lowers the
    loss and rises after one that does not (Levenberg and Marquardt), so that flat directions and saddle points do no
    harm. A problem whose gradient's largest entry is at most `tolerance` stays where it is, so that its result does
    not depend on the others; the search ends when all have, or after `max_steps`.
    """
    point = start.detach().clone()
    problems = len(point)
    damping = torch.full((problems,), 1e-3, dtype=point.dtype)
    value, gradient, hessian = _derivatives(loss, point)
    steps = 0
    while steps < max_steps and bool((gradient.abs().amax(-1) > tolerance).any()):
        steps += 1
        curvature, axes = torch.linalg.eigh(hessian)
        # negative curvature is walked down along its axis as if it were positive
        along = (axes.mT @ gradient[..., None])[..., 0] / (curvature.abs() + damping[:, None])
        step = -(axes @ along[..., None])[..., 0]
        candidate = point + step
        new_value, new_gradient, new_hessian = _derivatives(loss, candidate)
        # near the minimum values no longer differ in float64; there the gradient decides
        flat = (new_value - value).abs() <= 1e-13 * (1 + value.abs())
        smaller_gradient = new_gradient.abs().amax(-1) < gradient.abs().amax(-1)
        searching = gradient.abs().amax(-1) > tolerance
        better = searching & new_value.isfinite() & torch.where(flat, smaller_gradient, new_value < value)
        point = torch.where(better[:, None], candidate, point)
        value = torch.where(better, new_value, value)
        gradient = torch.where(better[:, None], new_gradient, gradient)
        hessian = torch.where(better[:, None, None], new_hessian, hessian)
        damping = torch.where(better, damping * SHRINK, damping * GROW).clamp(min=SMALLEST_DAMPING)
    return Minimum(point, value, gradient.abs().amax(-1), steps)
