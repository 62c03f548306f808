"""Robust DPO against closed forms (arXiv 2403.00409), in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from paperworks.language.objectives import DPO, IPO, ConservativeDPO, PairLogps, ResponseLogps, RobustDPO, debiased
from paperworks.language.objectives.rdpo import debiased_accuracy
from paperworks.language.objectives.slic import HingeNorm, hinge

RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.49)
MARGINS = torch.tensor([-30.0, -2.0, -1.0, -0.1, 0.0, 0.3, 1.0, 1.7, 2.0, 10.0, 30.0], dtype=torch.float64)


def pairs(margin: Tensor, weight: Tensor | None = None) -> PairLogps:
    """Pairs with these log-ratio gaps, so that beta=1 makes them the margins."""
    zero, tokens = torch.zeros_like(margin), torch.full_like(margin, 3.0)
    chosen = ResponseLogps(margin - 20, tokens, zero - 20)
    return PairLogps(chosen, ResponseLogps(zero, tokens, zero), torch.ones_like(margin) if weight is None else weight)


def at(objective: DPO, margin: float) -> float:
    return objective.loss(pairs(torch.tensor([margin], dtype=torch.float64))).item()


def slope(objective: DPO, margin: float) -> float:
    """d loss / d margin by automatic differentiation."""
    point = torch.tensor([margin], dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(objective.loss(pairs(point)).sum(), point)[0].item()


@pytest.mark.parametrize("rate", RATES)
def test_loss_is_log_2_at_margin_0(rate: float) -> None:
    assert at(RobustDPO(beta=1.0, flip_rate=rate), 0.0) == pytest.approx(math.log(2), abs=1e-12)


@pytest.mark.parametrize(
    ("rate", "margin", "expected"),
    [
        (0.2, 1.0, -0.0200717),
        (0.2, -1.0, 1.6465950),
        (0.2, 2.0, -0.5397387),
        (0.1, 1.0, 0.1882617),
        (0.1, 10.0, -1.2499546),
        (0.4, 1.0, -1.6867384),
    ],
)
def test_worked_values(rate: float, margin: float, expected: float) -> None:
    assert at(RobustDPO(beta=1.0, flip_rate=rate), margin) == pytest.approx(expected, abs=1.2e-7)


@pytest.mark.parametrize(("margin", "expected"), [(1.0, 0.5132617), (-1.0, 1.1132617)])
def test_worked_values_of_label_smoothing(margin: float, expected: float) -> None:
    assert at(ConservativeDPO(beta=1.0, flip_rate=0.2), margin) == pytest.approx(expected, abs=1.2e-7)


def test_mean_over_one_flip_is_the_clean_loss() -> None:
    objective = RobustDPO(beta=1.0, flip_rate=0.3)
    mean = 0.7 * at(objective, 1.7) + 0.3 * at(objective, -1.7)
    assert mean == pytest.approx(0.1677860, abs=5e-8)
    assert mean == pytest.approx(at(DPO(beta=1.0), 1.7), abs=1e-12)


@pytest.mark.parametrize("pair_loss", ["sigmoid", "hinge", "ipo"])
@pytest.mark.parametrize("rate", RATES)
def test_mean_over_all_flips_of_a_data_set_is_the_clean_loss(pair_loss: str, rate: float) -> None:
    margin = torch.tensor([1.7, -0.4, 0.2, 3.0, -2.5], dtype=torch.float64)
    robust = RobustDPO(beta=1.0, flip_rate=rate, pair_loss=pair_loss)  # type: ignore[arg-type]
    clean = RobustDPO(beta=1.0, flip_rate=0.0, pair_loss=pair_loss)  # type: ignore[arg-type]
    mean = torch.zeros((), dtype=torch.float64)
    for signs in itertools.product((1.0, -1.0), repeat=len(margin)):
        probability = math.prod(1 - rate if sign > 0 else rate for sign in signs)
        observed = margin * torch.tensor(signs, dtype=torch.float64)
        mean += probability * robust.loss(pairs(observed)).mean()
    assert mean.item() == pytest.approx(clean.loss(pairs(margin)).mean().item(), abs=1e-11)


@pytest.mark.parametrize("rate", RATES[1:])
def test_label_smoothing_is_biased(rate: float) -> None:
    objective = ConservativeDPO(beta=1.0, flip_rate=rate)
    mean = (1 - rate) * at(objective, 1.7) + rate * at(objective, -1.7)
    assert mean - at(DPO(beta=1.0), 1.7) == pytest.approx(2 * rate * (1 - rate) * 1.7, abs=1e-12)


@pytest.mark.parametrize(("margin", "expected"), [(0.0, -0.8333333), (1.0, -0.6022748), (-1.0, -1.0643920)])
def test_worked_gradients(margin: float, expected: float) -> None:
    found = slope(RobustDPO(beta=1.0, flip_rate=0.2), margin)
    assert found == pytest.approx(expected, abs=1.2e-7)
    assert found == pytest.approx(-(1 / (1 + math.exp(margin)) + 1 / 3), abs=1e-12)


@pytest.mark.parametrize("rate", RATES)
def test_difference_to_dpo_is_linear_in_the_margin(rate: float) -> None:
    robust = RobustDPO(beta=1.0, flip_rate=rate).loss(pairs(MARGINS))
    smooth = ConservativeDPO(beta=1.0, flip_rate=rate).loss(pairs(MARGINS))
    plain = DPO(beta=1.0).loss(pairs(MARGINS))
    assert torch.allclose(robust - plain, -rate / (1 - 2 * rate) * MARGINS, rtol=1e-12, atol=1e-12)
    assert torch.allclose(smooth - plain, rate * MARGINS, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rate", RATES)
def test_second_derivative_is_that_of_dpo(rate: float) -> None:
    def curvature(objective: DPO) -> Tensor:
        point = MARGINS.clone().requires_grad_()
        (first,) = torch.autograd.grad(objective.loss(pairs(point)).sum(), point, create_graph=True)
        return torch.autograd.grad(first.sum(), point)[0]

    robust = curvature(RobustDPO(beta=1.0, flip_rate=rate))
    assert torch.allclose(robust, curvature(DPO(beta=1.0)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("objective_class", [RobustDPO, ConservativeDPO])
def test_flip_rate_0_is_dpo_bit_for_bit(objective_class: type[DPO], dtype: torch.dtype) -> None:
    scores = torch.randn(64, generator=torch.Generator().manual_seed(0)).mul(40).to(dtype)
    values, gradients = [], []
    for objective in (DPO(beta=0.1), objective_class(beta=0.1, flip_rate=0.0)):  # type: ignore[call-arg]
        point = scores.clone().requires_grad_()
        loss = objective.loss(pairs(point))
        values.append(loss.detach())
        gradients.append(torch.autograd.grad(loss.mean(), point)[0])
    assert torch.equal(*values)
    assert torch.equal(*gradients)


def test_flip_rate_0_with_other_losses_is_that_loss() -> None:
    batch = pairs(MARGINS)
    assert torch.equal(RobustDPO(0.3, 0.0, "hinge").loss(batch), HingeNorm(0.3).loss(batch))
    assert torch.allclose(RobustDPO(0.3, 0.0, "ipo").loss(batch), IPO(tau=0.3).loss(batch), rtol=1e-12)


def test_swapping_the_responses_negates_the_margin() -> None:
    batch = pairs(MARGINS)
    swapped = PairLogps(batch.rejected, batch.chosen, batch.weight)
    for pair_loss in ("sigmoid", "hinge", "ipo"):
        objective = RobustDPO(1.0, 0.2, pair_loss)  # type: ignore[arg-type]
        assert torch.allclose(objective.loss(swapped), objective.loss(pairs(-MARGINS)), rtol=1e-12, atol=1e-12)


def test_label_smoothing_is_smallest_at_the_log_odds_of_the_flip_rate() -> None:
    objective = ConservativeDPO(beta=1.0, flip_rate=0.2)
    assert math.log(0.8 / 0.2) == pytest.approx(1.3862944, abs=5e-8)
    assert slope(objective, math.log(0.8 / 0.2)) == pytest.approx(0.0, abs=1e-12)
    assert slope(objective, 1.0) < 0 < slope(objective, 2.0)


@pytest.mark.parametrize("pair_loss", ["sigmoid", "hinge"])
def test_robust_loss_of_one_pair_falls_without_bound(pair_loss: str) -> None:
    objective = RobustDPO(1.0, 0.2, pair_loss)  # type: ignore[arg-type]
    assert all(slope(objective, margin) <= -1 / 3 + 1e-12 for margin in (0.0, 10.0, 1e3))
    assert at(objective, 1e4) == pytest.approx(-1e4 / 3, rel=1e-3)


def test_robust_hinge_in_closed_form() -> None:
    rate = 0.2
    found = debiased(lambda margin: hinge(margin, 1.0), MARGINS, rate)
    expected = [((1 - rate) * max(0, 1 - m) - rate * max(0, 1 + m)) / (1 - 2 * rate) for m in MARGINS.tolist()]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rate", RATES)
def test_robust_squared_loss_has_its_minimum_at_the_enlarged_target(rate: float) -> None:
    # [(1 - eps)(h - t)^2 - eps(h + t)^2]/(1 - 2 eps) = h^2 - 2 h t/(1 - 2 eps) + t^2, t = 1/(2 tau)
    tau, target = 0.3, 1 / (2 * 0.3)
    gap = MARGINS
    found = RobustDPO(tau, rate, "ipo").loss(pairs(gap))
    assert torch.allclose(found, gap**2 - 2 * gap * target / (1 - 2 * rate) + target**2, rtol=1e-11, atol=1e-10)
    assert slope(RobustDPO(tau, rate, "ipo"), target / (1 - 2 * rate)) == pytest.approx(0.0, abs=1e-9)


def test_accuracy_is_debiased() -> None:
    # of 90% right answers, flips at rate 0.2 leave 0.9 * 0.8 + 0.1 * 0.2 = 0.74 that agree with the label
    assert debiased_accuracy(torch.tensor(0.74, dtype=torch.float64), 0.2).item() == pytest.approx(0.9, abs=1e-12)
