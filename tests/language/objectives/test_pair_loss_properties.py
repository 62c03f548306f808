"""Losses of the margin hold their digits and their analytic slope at any margin."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paperworks.language.objectives import CPO, DPO, IPO, LNDPO, ConservativeDPO, HingeNorm, RobustDPO, SimPO, SLiC
from paperworks.language.objectives.objective import PairLogps, PairObjective, ResponseLogps
from paperworks.language.objectives.orpo import log_odds

margins = st.floats(-1e4, 1e4)
flip_rates = st.floats(0, 0.49)


def loss_and_slope(objective: PairObjective, gap: float, tokens: float = 1.0) -> tuple[float, float]:
    """Loss and d loss / d log pi(chosen) of a pair whose log-ratios (or log-probabilities) are `gap` apart."""
    policy = torch.tensor([gap], dtype=torch.float64, requires_grad=True)
    zero, count = torch.zeros(1, dtype=torch.float64), torch.full((1,), tokens, dtype=torch.float64)
    batch = PairLogps(ResponseLogps(policy, count, zero), ResponseLogps(zero, count, zero), zero + 1)
    loss = objective.loss(batch)
    return loss.item(), torch.autograd.grad(loss.sum(), policy)[0].item()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def close(found: tuple[float, float], value: float, slope: float) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) for a, b in zip(found, (value, slope), strict=True))


@given(margins, st.floats(0.01, 10))
def test_dpo(gap: float, beta: float) -> None:
    assert close(loss_and_slope(DPO(beta), gap), softplus(-beta * gap), -beta * sigmoid(-beta * gap))


@given(margins, flip_rates)
def test_robust_dpo(gap: float, rate: float) -> None:
    push = rate / (1 - 2 * rate)
    value, slope = loss_and_slope(RobustDPO(1.0, rate), gap)
    scale = (1 + abs(gap)) / (1 - 2 * rate)
    assert value == pytest.approx(softplus(-gap) - push * gap, abs=1e-12 * scale)
    assert slope == pytest.approx(-sigmoid(-gap) - push, rel=1e-9)


@given(margins, flip_rates)
def test_conservative_dpo(gap: float, rate: float) -> None:
    value, slope = loss_and_slope(ConservativeDPO(1.0, rate), gap)
    assert value == pytest.approx(softplus(-gap) + rate * gap, rel=1e-9, abs=1e-11 * (1 + abs(gap)))
    assert slope == pytest.approx(-(sigmoid(-gap) - rate), rel=1e-9, abs=1e-12)


@given(margins, st.floats(0.01, 2))
def test_ipo(gap: float, tau: float) -> None:
    error = gap - 1 / (2 * tau)
    assert close(loss_and_slope(IPO(tau), gap), error**2, 2 * error)


@given(margins, st.floats(1, 500), st.floats(0.5, 20))
def test_ln_dpo(gap: float, tokens: float, beta: float) -> None:
    margin = beta * gap / tokens
    assert close(loss_and_slope(LNDPO(beta), gap, tokens), softplus(-margin), -beta / tokens * sigmoid(-margin))


@given(margins, st.floats(1, 500), st.floats(0, 2))
def test_simpo(gap: float, tokens: float, ratio: float) -> None:
    margin = 2 * gap / tokens - 2 * ratio
    found = loss_and_slope(SimPO(2.0, ratio), gap, tokens)
    assert close(found, softplus(-margin), -2 / tokens * sigmoid(-margin))


@given(margins, st.floats(0.1, 5), st.floats(0, 1))
def test_slic(gap: float, delta: float, lam: float) -> None:
    value, slope = loss_and_slope(SLiC(delta, lam), gap)
    assert value == pytest.approx(max(0.0, delta - gap) - lam * gap, rel=1e-9, abs=1e-9)
    assert slope in (pytest.approx(-lam), pytest.approx(-1 - lam))
    assert gap == delta or slope == pytest.approx(-lam - (gap < delta))


@given(margins, st.floats(0.01, 10))
def test_hinge_norm(gap: float, beta: float) -> None:
    value, slope = loss_and_slope(HingeNorm(beta), gap)
    assert value == pytest.approx(max(0.0, 1 - beta * gap), rel=1e-9, abs=1e-9)
    assert slope in (0.0, -beta)


@given(st.floats(-1e4, -1e-3), st.floats(0, 2))
def test_cpo(gap: float, weight: float) -> None:
    value, slope = loss_and_slope(CPO(1.0, weight), gap, tokens=4.0)
    assert value == pytest.approx(softplus(-gap) - weight * gap / 4, rel=1e-9)
    assert slope == pytest.approx(-sigmoid(-gap) - weight / 4, rel=1e-9)


@given(st.floats(-1e4, 0))
def test_log_odds_inverts_log_sigmoid(logit: float) -> None:
    logp = torch.nn.functional.logsigmoid(torch.tensor([logit], dtype=torch.float64)).requires_grad_()
    odds = log_odds(logp)
    (slope,) = torch.autograd.grad(odds, logp)
    assert odds.item() == pytest.approx(logit, rel=1e-9, abs=1e-9)
    assert slope.item() == pytest.approx(1 / (1 - math.exp(logp.item())), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logp", [0.0, -1e-30, -1e-12, -1e-3, -0.6931471805599453, -5.0, -1e4])
def test_log_odds_is_finite_where_a_probability_rounds_to_0_or_1(logp: float, dtype: torch.dtype) -> None:
    point = torch.tensor([logp], dtype=dtype, requires_grad=True)
    odds = log_odds(point)
    (slope,) = torch.autograd.grad(odds, point)
    assert odds.isfinite() and slope.isfinite()
    assert odds.item() > 0 if logp > -0.69 else odds.item() < 1e-6
