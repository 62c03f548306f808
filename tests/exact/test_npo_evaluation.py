"""The evaluation of unlearning against worked numbers (arXiv 2401.06121 as used in arXiv 2404.05868)."""

from __future__ import annotations

import math

import pytest

from paperworks.language.unlearning.measures import (
    forget_quality,
    forget_truth_ratio,
    log_truth_statistic,
    model_utility,
    normalised_probability,
    other_truth_ratio,
    truth_statistic,
)

PERTURBED, PARAPHRASED = (2, 2.5, 3, 2.5, 2), 1.9
S_A, S_B = (0.9, 1.1, 1.3, 1.5, 1.7, 1.9, 2.1, 2.3), (0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.4, 1.6)
NINE = (0.99, 0.98, 0.5, 0.9, 0.45, 0.6, 0.85, 0.42, 0.55)


def test_truth_statistic_and_its_two_ratios() -> None:
    log_s = log_truth_statistic(PARAPHRASED, PERTURBED)
    assert truth_statistic(PARAPHRASED, PERTURBED) == pytest.approx(1.648721, abs=5e-7)
    assert float(forget_truth_ratio(log_s)) == pytest.approx(0.606531, abs=5e-7)
    assert float(other_truth_ratio(log_s)) == pytest.approx(0.393469, abs=5e-7)


def test_the_arithmetic_mean_gives_the_formula_of_the_paper() -> None:
    assert 1 / truth_statistic(PARAPHRASED, PERTURBED, "arithmetic") == pytest.approx(0.648034, abs=5e-7)


def test_kolmogorov_smirnov() -> None:
    found = forget_quality(S_A, S_B)
    assert (found.statistic, found.p) == (pytest.approx(0.5), pytest.approx(0.282673, abs=5e-7))
    assert found.log10 == pytest.approx(math.log10(found.p))
    assert forget_quality(S_A, S_A).p == 1.0


@pytest.mark.parametrize("function", [lambda s: 1 / s, math.log, lambda s: -math.log(s)])
def test_inverting_both_samples_or_taking_logarithms_leaves_p_unchanged(function: object) -> None:
    assert callable(function)
    p = forget_quality([function(s) for s in S_A], [function(s) for s in S_B]).p
    assert p == pytest.approx(forget_quality(S_A, S_B).p, rel=1e-12)


def test_model_utility_is_the_harmonic_mean() -> None:
    assert model_utility(NINE) == pytest.approx(0.624735, abs=5e-7)
    assert sum(NINE) / 9 == pytest.approx(0.693333, abs=5e-7)
    assert model_utility((*NINE[:-1], 0.001)) == pytest.approx(0.008888, abs=5e-7)
    assert model_utility((*NINE[:-1], 0.0)) == 0.0


def test_normalised_probability() -> None:
    assert normalised_probability(1, (2, 2.5, 3)) == pytest.approx(0.579259, abs=5e-7)
