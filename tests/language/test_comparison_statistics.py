"""Intervals over crossed seeds and prompts have the width that theory gives; wins and the slope on length by hand."""

import numpy as np
import pytest

from paperworks.language.comparison.statistics import crossed_interval, slope_on_length, wins


def half_width(values: np.ndarray) -> float:
    found = crossed_interval(values)
    return (found.high - found.low) / 2


def test_more_seeds_do_not_make_up_for_few_prompts():
    by_prompt = np.random.default_rng(0).normal(size=25)
    of_prompts_alone = 1.96 * by_prompt.std() / 5
    for seeds in (1, 5, 40):
        assert half_width(np.tile(by_prompt, (seeds, 1))) == pytest.approx(of_prompts_alone, rel=0.08)


def test_more_prompts_do_not_make_up_for_few_seeds():
    by_seed = np.random.default_rng(1).normal(size=9)
    of_seeds_alone = 1.96 * by_seed.std() / 3
    for prompts in (1, 200):
        assert half_width(np.tile(by_seed[:, None], (1, prompts))) == pytest.approx(of_seeds_alone, rel=0.08)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        values = rng.normal(size=(8, 1)) + rng.normal(size=(1, 30)) + rng.normal(size=(8, 30))
        found = crossed_interval(values)
        covered += found.low <= 0 <= found.high
    assert 0.85 <= covered / 200 <= 1.0


def test_prompts_weigh_by_their_rows():
    found = crossed_interval(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([3.0, 1.0]))
    assert (found.mean, found.n) == (0.75, 2)


def test_one_value_has_no_interval_and_a_missing_one_no_mean():
    assert np.isnan(crossed_interval(np.array([[2.0]])).low)
    assert np.isnan(crossed_interval(np.array([[2.0, np.nan]])).mean)


def test_wins_compare_all_samples_of_the_same_prompt_and_seed():
    a, b = np.array([[[1.0, 3.0]], [[2.0, 2.0]]]), np.array([[[2.0, 0.0]], [[2.0, 2.0]]])
    assert wins(a, b).tolist() == [[0.75], [0.5]]
    assert (wins(a, b) + wins(b, a)).tolist() == [[1.0], [1.0]]


def test_the_slope_on_length_is_taken_within_arms():
    tokens = np.arange(10.0)
    short, long = (0.5 * tokens + 7, tokens), (0.5 * tokens - 3, tokens + 100)
    assert slope_on_length([short, long]) == pytest.approx(0.5)
    assert slope_on_length([(np.ones(3), np.full(3, 4.0))]) == 0.0
