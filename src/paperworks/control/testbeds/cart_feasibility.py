"""A cart with inertia on a line with a forbidden zone: few enough states that feasibility and the values of a log are exact.

No network and no sampling: what a region misses here is the fault of the values' definition (expectile, discount, border).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.control.safe.feasibility import feasibility_target, signed_costs, sum_target
from paperworks.control.testbeds.point_robot_trial import region
from paperworks.core.seeding import torch_generator
from paperworks.experiment.definition import Arm, Budget, Workspace

REACH, FASTEST, ZONE = 30, 4, 4  # positions -30 to 30, speeds -4 to 4, |position| <= 4 is forbidden
ACTIONS = 3  # slower, as it is, faster
GAMMA = 0.99
SWEEPS = {"smoke": 20, "small": 1500, "full": 1500}


@dataclass(frozen=True)
class Cart:
    """Tables of the world: where each action leads from each state, whether that ends the episode, and h of the state."""

    following: Int[Tensor, "states actions"]
    over: Bool[Tensor, "states actions"]
    constraint: Float[Tensor, " states"]

    @classmethod
    def make(cls) -> Cart:
        """Actions change the speed by one, then the position by the speed; beyond the line the episode is over."""
        positions, speeds = torch.arange(-REACH, REACH + 1), torch.arange(-FASTEST, FASTEST + 1)
        x, v = (each.flatten()[:, None] for each in torch.meshgrid(positions, speeds, indexing="ij"))
        faster = (v + torch.arange(-1, 2)).clamp(-FASTEST, FASTEST)
        reached = x + faster
        over = reached.abs() > REACH
        index = (reached.clamp(-REACH, REACH) + REACH) * len(speeds) + faster + FASTEST
        return cls(index, over, (ZONE + 0.5 - x[:, 0].abs()).double() / REACH)

    def feasible(self, logged: Bool[Tensor, "seeds states actions"]) -> Bool[Tensor, "seeds states"]:
        """From where the logged actions can avoid the zone for ever: the largest set that some action keeps to."""
        safe = (self.constraint <= 0).expand(len(logged), -1)
        while True:
            kept = safe & (logged & (self.over | safe[:, self.following])).any(-1)
            if torch.equal(kept, safe):
                return safe
            safe = kept


def behaviour(seeds: Sequence[int]) -> Float[Tensor, "seeds states actions"]:
    """How often each seed's log has each action in each state: uniform over the simplex, rarer ones than 0.1 never."""
    drawn = []
    for seed in seeds:
        draw = torch_generator(seed, "behaviour")
        shares = -torch.rand(len(Cart.make().constraint), ACTIONS, generator=draw, dtype=torch.float64).log()
        shares /= shares.sum(-1, keepdim=True)
        kept = shares * (shares > 0.1)
        drawn.append(kept / kept.sum(-1, keepdim=True))
    return torch.stack(drawn)


def expectile(
    values: Float[Tensor, "*rows actions"], shares: Float[Tensor, "*rows actions"], tau: float
) -> Float[Tensor, "*rows"]:
    """The reversed expectile of values that come with these shares: tau is the weight of values below it."""
    found = (shares * values).sum(-1)
    for _ in range(values.shape[-1] + 1):  # each round settles on which side one more value lies
        weight = shares * torch.where(values < found[..., None], tau, 1 - tau)
        found = (weight * values).sum(-1) / weight.sum(-1)
    return found


def exact_values(
    cart: Cart, shares: Float[Tensor, "seeds states actions"], signal: Float[Tensor, " states"],
    kind: Literal["hj", "qc"], tau: float, sweeps: int = 1500,
) -> Float[Tensor, "seeds states"]:  # fmt: skip
    """V of every state once Q and V agree with each other on the whole log."""
    each = signal[:, None].expand(len(shares), -1, ACTIONS)
    goes_on = (~cart.over).double().expand_as(each)
    value = torch.zeros(each.shape[:2], dtype=torch.float64)
    target = feasibility_target if kind == "hj" else sum_target
    for _ in range(sweeps):
        before = value
        q = target(each, value[:, cart.following], goes_on, GAMMA)
        value = expectile(q, shares, tau)
        if torch.allclose(value, before, rtol=0, atol=1e-7):
            break
    return value


def cart_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """The arm's exact region of each seed's log against the true one."""
    torch.set_num_threads(1)
    cart, shares = Cart.make(), behaviour(seeds)
    signal = cart.constraint
    if scale := arm.options.get("cost_scale"):
        signal = signed_costs((cart.constraint > 0).double(), scale).double()
    if arm.options["kind"] == "qc":
        signal = (cart.constraint > 0).double()
    kind, tau = arm.options["kind"], arm.options["tau"]
    called = exact_values(cart, shares, signal, kind, tau, SWEEPS[budget]) <= arm.options["border"]
    truth = cart.feasible(shares > 0)
    return [region(mine, true) for mine, true in zip(called, truth, strict=True)]
