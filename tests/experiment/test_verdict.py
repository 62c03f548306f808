"""Verdicts on worked numbers: paired by seed, in the claimed direction, never from too little."""

import math
from pathlib import Path

import pytest

from paperworks.experiment import Arm, CellResult, Claim, Experiment, Metric, Part, Results
from paperworks.experiment.verdict import judge

SEEDS = {"smoke": 1, "small": 5, "full": 5}


def results(better, than, *, higher_is_better=True, claim_direction=None, **claim):
    part = Part(
        "A",
        "t",
        (Arm("a", "A!"), Arm("b")),
        SEEDS,
        cell=print,
        metrics=(Metric("m", higher_is_better=higher_is_better),),
    )
    experiment = Experiment("x", "X", (part,), (Claim("m", "a", "b", higher_is_better=claim_direction, **claim),))
    cells = [
        CellResult("A", "", arm, seed, {"m": value}, 0.0)
        for arm, values in (("a", better), ("b", than))
        for seed, value in (values.items() if isinstance(values, dict) else enumerate(values))
    ]
    return Results(experiment, "small", Path(), tuple(cells))


# Seeds differ by tens, the arms by about one: only the pairing shows it.
THAN = [0.0, 10.0, 20.0, 30.0, 40.0]
BETTER = [1.1, 10.9, 21.2, 30.8, 41.0]


def test_a_paired_gain_holds():
    (judged,) = judge(results(BETTER, THAN))
    assert judged.verdict == "holds"
    assert judged.difference.mean == pytest.approx(1.0)
    assert judged.differences == pytest.approx({0: 1.1, 1: 0.9, 2: 1.2, 3: 0.8, 4: 1.0})
    assert judged.wins == 5
    assert judged.is_as_expected


@pytest.mark.parametrize(
    ("metric_direction", "claim_direction", "expected"),
    [(True, None, "holds"), (False, None, "reversed"), (True, False, "reversed"), (False, True, "holds")],
)
def test_direction_is_the_metrics_unless_the_claim_says(metric_direction, claim_direction, expected):
    (judged,) = judge(results(BETTER, THAN, higher_is_better=metric_direction, claim_direction=claim_direction))
    assert judged.verdict == expected
    assert judged.wins == (5 if expected == "holds" else 0)
    assert (judged.gain.low > 0) == (expected == "holds")


def test_differences_on_both_sides_show_nothing():
    (judged,) = judge(results([1.0, 9.0, 21.0, 29.5, 40.0], THAN))
    assert judged.verdict == "not shown"
    assert judged.wins == 2
    assert not judged.is_as_expected
    assert judge(results([1.0, 9.0, 21.0, 29.5, 40.0], THAN, expected="not shown"))[0].is_as_expected


def test_only_seeds_of_both_arms_count():
    (judged,) = judge(results({1: 11.0, 2: 21.0, 9: 0.0}, {0: 5.0, 1: 10.0, 2: 20.0}))
    assert judged.differences == {1: 1.0, 2: 1.0}
    assert "2 of 2 seeds; too few seeds to show anything" in judged.evidence()


def test_one_seed_shows_nothing_and_none_is_not_tested():
    assert judge(results([1.0], [0.0]))[0].verdict == "not shown"
    (judged,) = judge(results([1.0], {}))
    assert not judged.was_tested
    assert judged.evidence() == "not tested: no seed has both arms"
    assert judge(results([], [])) == []


def test_a_diverged_seed_shows_nothing_and_is_said():
    (judged,) = judge(results([math.nan, 10.9, 21.2, 30.8, 41.0], THAN))
    assert judged.verdict == "not shown"
    assert "has no number" in judged.evidence()


def test_sentences():
    (judged,) = judge(results(BETTER, THAN))
    assert judged.sentence() == "A! has higher m than b"
    assert judged.evidence().startswith("A! − b: +1.000 [+0.")
    assert judge(results(BETTER, THAN, text="As the paper says"))[0].sentence() == "As the paper says"
