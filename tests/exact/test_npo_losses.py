"""Negative preference optimisation and its relatives against closed forms (arXiv 2404.05868), in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paperworks.language.objectives.npo import NPO
from paperworks.language.objectives.objective import ResponseLogps, StepInputs
from paperworks.language.objectives.unlearning import GradientAscent
from paperworks.language.objectives.unlearning_alternatives import DPOIDK, KTOIDK

nats = st.floats(0, 1e4)


def answers(nll: list[float], reference: list[float], *, dtype: torch.dtype = torch.float64) -> ResponseLogps:
    """Answers of ten tokens with these negative log-likelihoods."""
    policy = (-torch.tensor(nll, dtype=dtype)).requires_grad_()
    return ResponseLogps(policy, torch.full_like(policy, 10), -torch.tensor(reference, dtype=dtype))


def batch(objective: Any, **scores: ResponseLogps) -> Any:
    return objective.batch(scores, StepInputs(torch.ones(len(scores["forget"].policy), dtype=torch.float64)))


def mean_and_gradient(objective: Any, **scores: ResponseLogps) -> tuple[float, list[float]]:
    """The step's forget loss, and its gradient in the negative log-likelihoods of the answers to forget."""
    step = batch(objective, **scores)
    weights = objective.weights(step)["forget"]
    loss = (weights * objective.terms(step)["forget"]).sum() / weights.sum()
    (gradient,) = torch.autograd.grad(loss, scores["forget"].policy)
    return loss.item(), (-gradient).tolist()


def adaptive_weight(objective: Any, **scores: ResponseLogps) -> list[float]:
    return objective.metrics(batch(objective, **scores))["adaptive_weight"][0].tolist()


@pytest.mark.parametrize(
    ("nll", "reference", "loss", "weight"),
    [(12.0, 10.0, 11.962777, 0.900332), (10.0, 10.0, 13.862944, 1.0), (30.0, 10.0, 2.538560, 0.238406)],
)
def test_worked_values(nll: float, reference: float, loss: float, weight: float) -> None:
    found, (gradient,) = mean_and_gradient(NPO(beta=0.1), forget=answers([nll], [reference]))
    assert found == pytest.approx(loss, abs=5e-7)
    assert adaptive_weight(NPO(beta=0.1), forget=answers([nll], [reference])) == pytest.approx([weight], abs=5e-7)
    assert gradient == pytest.approx(-weight, abs=5e-7)


def test_worked_batch() -> None:
    loss, gradient = mean_and_gradient(NPO(beta=0.1), forget=answers([12, 9.5, 20], [10, 10, 11]))
    assert loss == pytest.approx(11.051683, abs=5e-7)
    assert gradient == pytest.approx([-0.300111, -0.341665, -0.192700], abs=5e-7)


def test_worked_preference_for_an_alternative() -> None:
    loss, _ = mean_and_gradient(DPOIDK(beta=0.1), forget=answers([12], [10]), alternative=answers([8], [9]))
    assert loss == pytest.approx(11.087105, abs=5e-7)


def test_at_the_reference_the_gradient_is_that_of_ascent_on_whole_answers() -> None:
    # gradient ascent is a mean over tokens: with answers of ten tokens, a tenth of the push a summed nat
    _, fading = mean_and_gradient(NPO(beta=0.1), forget=answers([7, 12], [7, 12]))
    _, ascent = mean_and_gradient(GradientAscent(), forget=answers([7, 12], [7, 12]))
    assert fading == [10 * push for push in ascent]


@given(nats, nats)
def test_beta_to_0_is_gradient_ascent_on_whole_answers(nll: float, reference: float) -> None:
    beta = 1e-7
    loss, (gradient,) = mean_and_gradient(NPO(beta=beta), forget=answers([nll], [reference]))
    second_order = beta * (nll - reference) ** 2 / 4
    assert loss - 2 / beta * math.log(2) == pytest.approx(-(nll - reference), abs=second_order + 1e-6)
    assert gradient == pytest.approx(-1.0, abs=beta * abs(nll - reference))


def test_worked_limit() -> None:
    loss, _ = mean_and_gradient(NPO(beta=1e-4), forget=answers([12], [10]))
    assert loss - 2e4 * math.log(2) == pytest.approx(-1.999900, abs=5e-7)


@given(nats, nats, st.floats(0.01, 10))
def test_the_loss_and_its_slope_stay_exact_at_any_distance(nll: float, reference: float, beta: float) -> None:
    loss, (gradient,) = mean_and_gradient(NPO(beta=beta), forget=answers([nll], [reference]))
    margin = beta * (nll - reference)
    softplus = max(-margin, 0.0) + math.log1p(math.exp(-abs(margin)))
    weight = 2 * math.exp(-max(margin, 0.0)) / (1 + math.exp(-abs(margin)))
    assert loss == pytest.approx(2 / beta * softplus, rel=1e-9, abs=1e-300)
    assert gradient == pytest.approx(-weight, rel=1e-9, abs=1e-300)
    assert loss >= 0


@pytest.mark.parametrize("objective", [NPO(beta=5.0), DPOIDK(beta=5.0), KTOIDK(beta=5.0)], ids=repr)
@pytest.mark.parametrize(("nll", "reference"), [(9000.0, 3.0), (3.0, 9000.0)])
def test_nothing_overflows_in_float32(objective: Any, nll: float, reference: float) -> None:
    sides = {
        "forget": answers([nll], [reference], dtype=torch.float32),
        "alternative": answers([reference], [nll], dtype=torch.float32),
    }
    loss, gradient = mean_and_gradient(objective, **sides)
    assert math.isfinite(loss)
    assert gradient == pytest.approx([0.0 if nll > reference else -2.0], abs=1e-6)


def test_the_loss_goes_to_0_where_that_of_ascent_has_no_end() -> None:
    losses = [mean_and_gradient(NPO(), forget=answers([nll], [10]))[0] for nll in (10, 100, 1000)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 1e-30
    assert [mean_and_gradient(GradientAscent(), forget=answers([nll], [10]))[0] for nll in (10, 1000)] == [-1, -100]
