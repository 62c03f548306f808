"""The evaluation as training uses it: which weights are kept, when it stops."""

from __future__ import annotations

import pytest

from paperworks.core.errors import OptionError, RunError
from paperworks.language.policy import Policy
from paperworks.language.unlearning.evaluator import UnlearningEvaluator
from paperworks.language.unlearning.logs import log_of
from paperworks.language.unlearning.protocol import UnlearningOptions, UnlearningSets, evaluate_unlearning

QUICK = UnlearningOptions(rouge=False)


@pytest.fixture
def evaluator(sets: UnlearningSets) -> UnlearningEvaluator:
    return UnlearningEvaluator(sets, QUICK, keep_floor=0.9, utility_floor=0.5, start_utility=0.6)


def test_its_values_are_the_reports(small_policy: Policy, sets: UnlearningSets) -> None:
    log = log_of(evaluate_unlearning(small_policy, sets, QUICK))
    evaluator = UnlearningEvaluator(sets, QUICK, retain_log=log)
    values = evaluator(small_policy)
    assert values == evaluator.reports[0].values
    assert values["forget_quality"] == 1.0
    assert {"utility", "log10_forget_quality", "forget_nll", "forget_probability", "retain_truth_ratio"} <= set(values)
    assert evaluator.start_utility == values["utility"]


def test_among_useful_weights_the_highest_forget_quality_is_kept(evaluator: UnlearningEvaluator) -> None:
    points = [(0.60, -12.0), (0.58, -3.0), (0.55, -1.0), (0.53, -0.1), (0.10, 0.0)]  # floor: 0.54
    qualities = [
        evaluator.quality({"utility": utility, "log10_forget_quality": quality}, step)
        for step, (utility, quality) in enumerate(points)
    ]
    assert max(range(5), key=qualities.__getitem__) == 2
    assert qualities[3] > qualities[4]  # where none is useful, the most useful


def test_without_a_retain_only_log_the_latest_useful_weights_are_kept(evaluator: UnlearningEvaluator) -> None:
    assert evaluator.quality({"utility": 0.55}, 30) > evaluator.quality({"utility": 0.6}, 20)
    assert evaluator.quality({"utility": 0.5}, 40) < evaluator.quality({"utility": 0.6}, 0)


def test_collapse_is_worth_less_than_any_p_value(evaluator: UnlearningEvaluator) -> None:
    worst = evaluator.quality({"utility": 0.6, "log10_forget_quality": float("-inf")}, 1)
    assert worst > evaluator.quality({"utility": 0.0, "log10_forget_quality": 0.0}, 2)
    assert worst > evaluator.quality({"utility": float("nan"), "log10_forget_quality": 0.0}, 2)


def test_it_stops_when_utility_falls_below_the_floor(evaluator: UnlearningEvaluator) -> None:
    history = [{"step": 0, "utility": 0.8}, {"step": 10, "utility": 0.41}]
    assert evaluator.stop(history) is None
    assert evaluator.start_utility == 0.8  # a resumed run knows its start from the history
    reason = evaluator.stop([*history, {"step": 20, "utility": 0.39}])
    assert reason is not None
    assert "0.390 fell below 0.5 of the 0.800 before training" in reason


def test_a_floor_of_0_never_stops(sets: UnlearningSets) -> None:
    assert UnlearningEvaluator(sets, QUICK).stop([{"utility": 0.8}, {"utility": 0.0}]) is None


def test_a_floor_needs_rows_to_keep(sets: UnlearningSets) -> None:
    with pytest.raises(OptionError, match=r"utility_floor=0\.5 needs rows that the model is to keep"):
        UnlearningEvaluator(UnlearningSets(sets.forget), utility_floor=0.5)
    with pytest.raises(OptionError, match="keep_floor=2 is out of range"):
        UnlearningEvaluator(sets, keep_floor=2)


def test_a_log_of_other_questions_is_refused_before_training(
    small_policy: Policy, sets: UnlearningSets, questions: object
) -> None:
    assert callable(questions)
    log = log_of(evaluate_unlearning(small_policy, UnlearningSets(questions(3, 50)), QUICK))
    with pytest.raises(RunError, match="a log of another forget set"):
        UnlearningEvaluator(sets, QUICK, retain_log=log)
