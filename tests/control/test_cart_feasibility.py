"""The cart with a forbidden zone: what can be avoided by hand, expectiles by their definition, values in agreement."""

from __future__ import annotations

import pytest
import torch

from paperworks.control.offline.iql import expectile_loss
from paperworks.control.safe.feasibility import feasibility_target
from paperworks.control.testbeds.cart_feasibility import FASTEST, GAMMA, REACH, Cart, behaviour, exact_values, expectile

SPEEDS = 2 * FASTEST + 1


def place(x: int, v: int) -> int:
    return (x + REACH) * SPEEDS + v + FASTEST


def test_moves() -> None:
    cart = Cart.make()
    assert cart.following[place(-10, 2)].tolist() == [place(-9, 1), place(-8, 2), place(-7, 3)]
    assert cart.following[place(0, 4), 2] == place(4, 4)  # no faster than 4
    assert cart.over[place(29, 2)].tolist() == [False, True, True]


def test_what_can_still_be_avoided() -> None:
    """Braking from speed v takes v (v - 1) / 2 cells: from -11 at 4 it stops at -5, before the zone; from -10 it does not."""
    cart = Cart.make()
    safe = cart.feasible(torch.ones(1, len(cart.constraint), 3, dtype=torch.bool))[0]
    assert safe[place(-11, 4)] and not safe[place(-10, 4)]
    assert safe[place(-5, 0)] and safe[place(-5, -4)] and not safe[place(-4, -4)] and not safe[place(0, 4)]
    only_faster = torch.zeros(1, len(cart.constraint), 3, dtype=torch.bool)
    only_faster[..., 2] = True
    assert not cart.feasible(only_faster)[0, place(-30, 0)]


@pytest.mark.parametrize("tau", [0.5, 0.9, 0.99])
def test_expectiles_are_where_the_loss_is_least(tau: float) -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(20, 3, generator=draw, dtype=torch.float64).requires_grad_(False)
    shares = torch.rand(20, 3, generator=draw, dtype=torch.float64)
    found = expectile(values, shares / shares.sum(-1, keepdim=True), tau).requires_grad_(True)
    loss = (shares * expectile_loss(values - found[:, None], 1 - tau)).sum()
    assert torch.autograd.grad(loss, found)[0].abs().max() < 1e-9


def test_exact_values_agree_with_each_other() -> None:
    cart, shares = Cart.make(), behaviour([0])
    value = exact_values(cart, shares, cart.constraint, "hj", 0.9)
    h = cart.constraint[:, None].expand(1, -1, 3)
    q = feasibility_target(h, value[:, cart.following], (~cart.over).double().expand_as(h), GAMMA)
    torch.testing.assert_close(expectile(q, shares, 0.9), value, atol=1e-6, rtol=0)


def test_the_safest_expectile_finds_the_true_region_and_calls_no_lost_state_safe() -> None:
    cart, shares = Cart.make(), behaviour([0, 1])
    truth = cart.feasible(shares > 0)
    called = exact_values(cart, shares, cart.constraint, "hj", 0.999) <= 0
    assert not (called & ~truth).any() and (called == truth).float().mean() > 0.995


def test_behaviours_are_of_their_seeds() -> None:
    both = behaviour([0, 1])
    torch.testing.assert_close(both[1], behaviour([1])[0])
    torch.testing.assert_close(both.sum(-1), torch.ones(2, both.shape[1], dtype=torch.float64))
    assert ((both == 0) | (both > 0.1)).all() and (both == 0).any()
