"""FISOR (arXiv 2401.10700): the specification's worked numbers and identities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from paperworks.control.offline.iql import expectile_loss
from paperworks.control.safe.diffusion import NoiseModels, Schedule, draw_actions, noise_loss
from paperworks.control.safe.feasibility import (
    cloning_weights,
    discounted_limit,
    feasibility_target,
    reward_weights,
    signed_costs,
    steps_to_violation,
    sum_target,
)

GAMMA = 0.99


def number(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def chain_values(constraints: Sequence[float]) -> list[float]:
    """V_h of a chain with one action, which ends behind its last state: exact, from the end."""
    values, following = list[float](), math.inf
    for place, h in reversed(list(enumerate(constraints))):
        goes_on = number(float(place + 1 < len(constraints)))
        following = float(feasibility_target(number(h), number(following), goes_on, GAMMA))
        values.insert(0, following)
    return values


def fixed_point(constraint: Tensor, following: Tensor, gamma: float = GAMMA) -> Tensor:
    """V_h where state s has the actions of row s, each leading to a state, and the safest is taken."""
    value = torch.zeros(len(constraint), dtype=torch.float64)
    for _ in range(4000):
        h = constraint[:, None].expand(following.shape)
        value = feasibility_target(h, value[following], torch.ones_like(h), gamma).amin(1)
    return value


@pytest.mark.parametrize(
    ("h", "following", "goes_on", "wanted"),
    [(-1.0, 2.0, 1.0, 1.97), (25.0, -1.0, 1.0, 25.0), (-1.0, 9.0, 0.0, -1.0)],
)
def test_targets(h: float, following: float, goes_on: float, wanted: float) -> None:
    """Check 1."""
    found = feasibility_target(number(h), number(following), number(goes_on), GAMMA)
    assert float(found) == pytest.approx(wanted, abs=1e-9)


def test_chains() -> None:
    """Check 2."""
    assert chain_values([-1, -1, 25, -1]) == pytest.approx([24.4826, 24.74, 25, -1], abs=1e-9)
    assert chain_values([-1, -1, -1, 25]) == pytest.approx([24.227774, 24.4826, 24.74, 25], abs=1e-9)


@pytest.mark.parametrize("h", [-1.0, 25.0])
def test_loops_of_one_kind(h: float) -> None:
    """Check 3: where all is alike, the value is the constraint: safe data do not add up to 0, nor to anything else."""
    assert fixed_point(number(h, h), torch.tensor([[1], [0]])).tolist() == pytest.approx([h, h])


@pytest.mark.parametrize(("tau", "ordinary"), [(0.9, 0.8), (0.5, 0.0)])
def test_expectiles_of_two_points(tau: float, ordinary: float) -> None:
    """Check 4: Q is -1 or 1 alike often; the reversed expectile (weight tau on Q < V) is the ordinary one of 1 - tau."""
    candidates = torch.linspace(-1, 1, 2001, dtype=torch.float64)[:, None]
    error = number(-1, 1) - candidates
    reversed_weight = torch.where(error < 0, tau, 1 - tau)
    torch.testing.assert_close(reversed_weight * error.square(), expectile_loss(error, 1 - tau))
    assert candidates[expectile_loss(error, tau).mean(1).argmin()].item() == pytest.approx(ordinary, abs=1e-9)
    assert candidates[expectile_loss(error, 1 - tau).mean(1).argmin()].item() == pytest.approx(-ordinary, abs=1e-9)


@pytest.mark.parametrize(
    ("value", "q", "advantage", "wanted"),
    [
        (0.3, 0.2, 0.0, 1.648721),
        (-0.5, -0.2, 0.4, 3.320117),
        (-0.5, 0.1, 0.4, 0.0),
        (-0.5, -0.2, 2.0, 100.0),
        (2.0, 0.0, 0.0, 150.0),
        (2.0, -98.0, 0.0, 150.0),
        (0.0, 0.0, 0.4, 3.320117),  # the border is feasible, and allowed
        (0.3, 1.3, 9.0, math.exp(-5)),
    ],
)
def test_weights(value: float, q: float, advantage: float, wanted: float) -> None:
    """Check 5; clipped before the exponential, so that nothing overflows."""
    given = (torch.tensor([each]) for each in (value, q, advantage))
    assert float(cloning_weights(*given, alpha_h=5.0, alpha_r=3.0)) == pytest.approx(wanted, rel=1e-5)


def test_schedule() -> None:
    """Check 6."""
    schedule = Schedule(5)
    assert schedule.beta.tolist() == pytest.approx([0.195875, 0.458818, 0.635781, 0.754878, 0.835031], abs=1e-6)
    assert schedule.alpha_bar.tolist() == pytest.approx([0.804125, 0.435178, 0.158500, 0.038852, 0.006409], abs=1e-6)


def test_weights_scale_the_gradient_and_ones_are_plain_cloning() -> None:
    """Check 7; actions add up over their dimensions, rows are averaged."""
    model = NoiseModels(3, 2, 8, 1, [0])
    draw = torch.Generator().manual_seed(0)
    states, noisy, noise = (torch.randn(1, 6, width, generator=draw) for width in (3, 2, 2))
    times = torch.randint(5, (1, 6), generator=draw)

    def gradient(weight: Tensor) -> tuple[Tensor, Tensor]:
        loss = noise_loss(model(states, noisy, times, 5), noise, weight)
        return loss, torch.autograd.grad(loss.sum(), model.widen[0].weights[0])[0]

    plain, slope = gradient(torch.ones(1, 6))
    by_hand = ((model(states, noisy, times, 5) - noise) ** 2)[0].sum() / 6
    torch.testing.assert_close(plain[0], by_hand)
    torch.testing.assert_close(gradient(torch.full((1, 6), 3.0))[1], 3 * slope)


def test_a_constant_in_all_rewards_changes_no_weight() -> None:
    """Check 8: without ends Q and V both move by c / (1 - gamma) once they are exact."""
    following = torch.tensor([[1, 2], [2, 0], [0, 1]])
    rewards = torch.tensor([[0.3, -1.0], [0.5, 0.2], [0.0, 1.0]], dtype=torch.float64)

    def advantage(shift: float) -> Tensor:
        value = torch.zeros(3, dtype=torch.float64)
        for _ in range(4000):
            q = sum_target(rewards + shift, value[following], torch.ones_like(rewards), GAMMA)
            value = q.amax(1)
        return q - value[:, None]

    torch.testing.assert_close(reward_weights(advantage(5.0), 3.0), reward_weights(advantage(0.0), 3.0))


def test_feasibility_is_monotone_in_the_constraint() -> None:
    """Check 8: a larger h nowhere lowers V_h."""
    draw = torch.Generator().manual_seed(1)
    following = torch.randint(12, (12, 3), generator=draw)
    h = torch.randn(12, generator=draw, dtype=torch.float64)
    more = h + torch.rand(12, generator=draw, dtype=torch.float64) * (torch.arange(12) % 3 == 0)
    low, high = fixed_point(h, following), fixed_point(more, following)
    assert (high >= low - 1e-9).all() and (high > low + 1e-3).any()


def test_perfect_noise_gives_the_point_back() -> None:
    """Check 9: the last step back, which adds no noise, is exact for a model that knows the one action there is."""
    schedule, point = Schedule(5), torch.tensor([0.3, -0.7])
    x = torch.tensor([[0.9, 0.1], [-1.0, 1.0]])
    alpha_bar = schedule.alpha_bar[0]
    predicted = (x - alpha_bar.sqrt() * point) / (1 - alpha_bar).sqrt()
    torch.testing.assert_close(schedule.step_back(x, predicted, 0), point.expand(2, 2))

    class Knows(NoiseModels):
        def seen(self, actions: Tensor, context: Tensor, kept: Sequence[Tensor] = ()) -> Tensor:
            kept_share = schedule.alpha_bar[next(times)]
            return (actions - kept_share.sqrt() * point) / (1 - kept_share).sqrt()

    times, draw = iter((4, 3, 2, 1, 0)), torch.Generator().manual_seed(0)
    drawn = draw_actions(
        Knows(1, 2, 4, 0, [0]), schedule, torch.zeros(1, 3, 1), 4, lambda *size: torch.randn(*size, generator=draw)
    )
    torch.testing.assert_close(drawn, point.expand(1, 3, 4, 2))


def test_how_far_ahead_a_violation_is_seen() -> None:
    """V_h = gamma^k c - (1 - gamma^k) is above 0 up to k = 68 with c = 1, and up to 324 with c = 25."""
    for scale, last in ((1.0, 68), (25.0, 324)):
        values = number(*chain_values([-1.0] * last + [scale])[:1], *chain_values([-1.0] * (last + 1) + [scale])[:1])
        assert values[0] > 0 >= values[1]
        assert steps_to_violation(values, scale, GAMMA).tolist() == pytest.approx([last, last + 1])
    assert steps_to_violation(number(-1.0, 25.0), 25.0, GAMMA).tolist() == [math.inf, 0.0]


def test_costs_as_a_signed_constraint_and_limits_discounted() -> None:
    assert signed_costs(torch.tensor([0.0, 1.0, 0.5]), 25.0).tolist() == [-1, 25, 25]
    assert discounted_limit(10.0, 1000, 1.0) == 10
    assert discounted_limit(10.0, 1000, 0.99) == pytest.approx(10 * sum(0.99**t for t in range(1000)) / 1000)
