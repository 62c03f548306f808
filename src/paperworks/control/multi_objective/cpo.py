"""Constrained policy optimisation (arXiv 1705.10528) with several constraints: C-MORL-CPO's step in place of the barrier.

    max g.x   such that   slack_j + b_j.x >= 0 for the held j,   x'Fx / 2 <= max_kl

F is the Fisher matrix of the policy, g and b_j the gradients of the weighted and the held returns. Where the held returns
cannot all be met within the trust region, the step goes to the most violated one alone. Nets are rows, in lock-step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from paperworks.control.hybrid.natural_gradient import TrustRegion, conjugate_gradient
from paperworks.control.multi_objective.barrier import Limits
from paperworks.control.multi_objective.policies import Nets, NetShape

SWEEPS = 50  # of coordinate descent over the multipliers
TINY = 1e-12


def multipliers(
    quadratic: Float[Tensor, "nets terms terms"],
    slack: Float[Tensor, "nets held"],
    held: Bool[Tensor, "nets held"],
    max_kl: float,
) -> Float[Tensor, "nets held"]:
    """The dual's minimiser over nu >= 0 of sqrt(2 max_kl Q(nu)) + slack.nu, by coordinates, each in closed form.

    `quadratic` holds the products of (g, b_1, ..., b_m) under the inverse Fisher matrix; Q(nu) is that of g + sum nu_j b_j.
    Of a constraint that no step of the trust region can meet the multiplier grows without bound: it is left at 0 here.
    """
    nu = torch.zeros_like(slack)
    for _ in range(SWEEPS):
        before = nu.clone()
        for j in range(slack.shape[1]):
            full = torch.cat([torch.ones_like(nu[:, :1]), nu], 1)
            full[:, j + 1] = 0
            along = (quadratic[:, j + 1] * full).sum(1)  # b_j' F^-1 (g + the others)
            rest = torch.einsum("na,nab,nb->n", full, quadratic, full)
            own = quadratic[:, j + 1, j + 1].clamp(min=TINY)
            spread = (own * rest - along.square()).clamp(min=0)
            room = 2 * max_kl * own - slack[:, j].square()
            wanted = -slack[:, j] * (spread / room.clamp(min=TINY)).sqrt()
            found = ((wanted - along) / own).clamp(min=0)
            nu[:, j] = torch.where(held[:, j] & (room > 0), found, 0.0)
        if torch.allclose(nu, before, rtol=1e-4, atol=1e-6):
            break
    return nu


def direction(
    gradients: Float[Tensor, "nets terms size"],
    inverse: Float[Tensor, "nets terms size"],
    slack: Float[Tensor, "nets held"],
    held: Bool[Tensor, "nets held"],
    max_kl: float,
) -> Float[Tensor, "nets size"]:
    """The step, from the gradients (weighted return first, then each held one) and F^-1 times them."""
    quadratic = gradients @ inverse.transpose(1, 2)
    nu = multipliers(quadratic, slack, held, max_kl)
    full = torch.cat([torch.ones_like(nu[:, :1]), nu], 1)
    size = torch.einsum("na,nab,nb->n", full, quadratic, full).clamp(min=TINY)
    step = torch.einsum("na,nas->ns", full, inverse) * (2 * max_kl / size).sqrt()[:, None]
    own = quadratic.diagonal(dim1=1, dim2=2)[:, 1:].clamp(min=TINY)
    beyond = held & (slack < 0) & (slack.square() >= 2 * max_kl * own)
    worst = torch.where(beyond, slack, torch.inf).argmin(1)
    place = torch.arange(len(slack))
    recovery = inverse[place, worst + 1] * (2 * max_kl / own[place, worst]).sqrt()[:, None]
    return torch.where(beyond.any(1)[:, None], recovery, step)


def constrained_step(
    shape: NetShape,
    parameters: Float[Tensor, "nets size"],
    states: Float[Tensor, "nets rows state"],
    actions: Tensor,
    log_probs: Float[Tensor, "nets rows"],
    weighted: Float[Tensor, "nets rows"],
    expected: Callable[[Tensor], Tensor],
    limits: Limits,
    region: TrustRegion,
) -> Float[Tensor, "nets size"]:
    """The parameters after a step; `expected` gives the returns [nets, objectives] for probability ratios [nets, rows].

    The step is halved until the measured KL is at most max_kl (times 1.5, for the quadratic model is one), what is held is
    no worse than allowed or than before, and the weighted return rises where nothing was violated; else nothing moves.
    """

    def ratio(rows: Tensor) -> Tensor:
        nets = Nets(shape, rows)
        return (nets.log_prob(nets.actor(states), actions) - log_probs).exp()

    def slacks(rows: Tensor) -> Tensor:
        return (expected(ratio(rows)) - limits.thresholds) / limits.scales

    leaf = parameters.detach().requires_grad_()
    wanted = (ratio(leaf) * weighted).mean(1)
    held = slacks(leaf)
    terms = [wanted, *held.unbind(1)]
    gradients = torch.stack([torch.autograd.grad(each.sum(), leaf, retain_graph=True)[0] for each in terms], 1)
    fisher = _fisher(shape, parameters.detach(), states, region.damping)
    inverse = torch.stack([conjugate_gradient(fisher, each, steps=region.steps) for each in gradients.unbind(1)], 1)
    now = held.detach()
    step = direction(gradients, inverse, now, limits.held, region.max_kl)
    with torch.no_grad():
        least = torch.where(limits.held, now.clamp(max=0), -torch.inf) - 1e-4
        violated = (limits.held & (now < 0)).any(1)
        before, found = Nets(shape, parameters), parameters.detach().clone()
        taken, first = torch.zeros(len(parameters), dtype=torch.bool), before.actor(states)
        for number in range(region.backtracks):
            tried = parameters + 0.5**number * step
            after = Nets(shape, tried)
            ratios = ratio(tried)
            kept = (slacks(tried) >= least).all(1)
            rises = ((ratios * weighted).mean(1) > wanted) | violated
            good = (
                ~taken & kept & rises & (divergence(before, after, first, after.actor(states)) <= 1.5 * region.max_kl)
            )
            found = torch.where(good[:, None], tried, found)
            taken = taken | good
    return found


def divergence(before: Nets, after: Nets, first: Tensor, second: Tensor) -> Float[Tensor, " nets"]:
    """The mean KL from the policy before to the one after, in nats, from the actors' outputs."""
    if before.shape.is_discrete:
        p, q = first.log_softmax(-1), second.log_softmax(-1)
        return (p.exp() * (p - q)).sum(-1).mean(-1)
    scaled = ((2 * before.log_std).exp() + (first - second).square()) * (-2 * after.log_std).exp()
    return (after.log_std - before.log_std + 0.5 * scaled - 0.5).sum(-1).mean(-1)


def _fisher(shape: NetShape, parameters: Tensor, states: Tensor, damping: float) -> Callable[[Tensor], Tensor]:
    """v to (F + damping) v: the Hessian of the KL to the policy itself."""
    leaf = parameters.detach().requires_grad_()
    nets, fixed = Nets(shape, leaf), Nets(shape, parameters.detach())
    output = nets.actor(states)
    (slope,) = torch.autograd.grad(divergence(fixed, nets, output.detach(), output).sum(), leaf, create_graph=True)

    def product(v: Tensor) -> Tensor:
        (found,) = torch.autograd.grad((slope * v).sum(), leaf, retain_graph=True)
        return found + damping * v

    return product
