"""Measures of unlearning at their ends: collapsed models, few questions, no questions."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperworks.language.unlearning.measured_sets import MeasuredItem, MeasuredSet, question_key
from paperworks.language.unlearning.measures import (
    FEWEST_FOR_A_TEST,
    ForgetQuality,
    forget_quality,
    forget_truth_ratio,
    log_truth_statistic,
    model_utility,
    normalised_probability,
    other_truth_ratio,
)

losses = st.floats(0, 500)


@given(losses, st.lists(losses, min_size=1, max_size=6))
def test_losses_of_hundreds_of_nats_never_overflow(true: float, wrong: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for averaging in ("geometric", "arithmetic"):
            log_s = log_truth_statistic(true, wrong, averaging)  # type: ignore[arg-type]
            assert 0 <= forget_truth_ratio(log_s) <= 1
            assert 0 <= other_truth_ratio(log_s) <= 1
        assert 0 <= normalised_probability(true, wrong) <= 1


@given(losses, st.lists(losses, min_size=1, max_size=6))
def test_the_arithmetic_mean_of_wrong_answers_is_never_below_the_geometric(true: float, wrong: list[float]) -> None:
    assert log_truth_statistic(true, wrong, "arithmetic") <= log_truth_statistic(true, wrong) + 1e-9


def test_one_wrong_answer_makes_both_means_the_same() -> None:
    assert log_truth_statistic(1.5, [2.0], "arithmetic") == pytest.approx(log_truth_statistic(1.5, [2.0]))


def test_equally_likely_answers_leave_nothing_to_be_known() -> None:
    log_s = log_truth_statistic(2.0, (2.0, 2.0))
    assert (float(forget_truth_ratio(log_s)), float(other_truth_ratio(log_s))) == (1.0, 0.0)
    assert normalised_probability(2.0, (2.0, 2.0, 2.0)) == pytest.approx(0.25)


@pytest.mark.parametrize("values", [(), (0.5, -0.1)])
def test_utility_of_nothing_or_of_negative_numbers_is_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\]"):
        model_utility(values)


def test_too_few_questions_are_said_to_be_too_few() -> None:
    few, enough = np.arange(FEWEST_FOR_A_TEST - 1.0), np.arange(float(FEWEST_FOR_A_TEST))
    assert "fewer than 20 items" in forget_quality(few, enough).warning
    assert forget_quality(enough, enough).warning == ""


def test_models_far_apart_have_a_tiny_p_and_its_logarithm() -> None:
    found = forget_quality(np.arange(300.0), np.arange(300.0) + 1000)
    assert found.log10 < -170
    assert not found.is_forgotten
    assert ForgetQuality(0.0, 1.0, (9, 9)).log10 == -math.inf


def test_a_sample_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match="0 and 1 values"):
        forget_quality([], [1.0])


def test_the_name_of_a_set_decides_the_formulas() -> None:
    item = MeasuredItem(nll=1.0, paraphrased_nll=1.0, perturbed_nll=(2.0, 2.5, 3.0))
    forget, retain, facts = (MeasuredSet(name, (item,)) for name in ("forget", "retain", "world_facts"))  # type: ignore[arg-type]
    assert forget.mean("probability") == retain.mean("probability") == pytest.approx(math.exp(-1))
    assert facts.mean("probability") == pytest.approx(0.579259, abs=5e-7)
    assert forget.mean("truth_ratio") == pytest.approx(math.exp(-1.5))
    assert retain.mean("truth_ratio") == facts.mean("truth_ratio") == pytest.approx(1 - math.exp(-1.5))
    assert retain.available == ("probability", "truth_ratio")  # nothing was generated


def test_a_key_tells_wrong_answers_apart_too() -> None:
    assert question_key("Q", "A", "", ("B",)) == question_key("Q", "A", "", ("B",))
    assert question_key("Q", "A", "", ("B",)) != question_key("Q", "A", "", ("C",))
