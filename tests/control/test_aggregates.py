"""Aggregates of scores by hand: interquartile mean, profiles, who beats whom, and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from paperworks.control import aggregates
from paperworks.control.scores import Reference, reference_of
from paperworks.core.errors import OptionError


def test_the_interquartile_mean_leaves_a_quarter_out_at_each_end() -> None:
    scores = np.array([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 1000.0]])
    assert aggregates.interquartile_mean(scores) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert aggregates.interquartile_mean(np.array([[1.0, 5.0, 9.0]])) == pytest.approx(5)  # a quarter of three is none
    assert aggregates.mean(scores) == pytest.approx(scores.mean())
    assert aggregates.median(np.array([[0.0, 2.0], [5.0, 5.0], [100.0, 100.0]])) == pytest.approx(5)


def test_it_is_scipy_s_trimmed_mean() -> None:
    from scipy.stats import trim_mean

    scores = np.random.default_rng(0).normal(size=(3, 7))
    assert aggregates.interquartile_mean(scores) == pytest.approx(trim_mean(scores, 0.25, axis=None))


def test_a_profile_is_a_share_of_runs_and_falls() -> None:
    found = aggregates.profile(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.0, 1.0, 2.5, 4.0]))
    assert found.tolist() == [1, 0.75, 0.5, 0]


def test_improvement_is_by_pairs_within_a_task() -> None:
    first, second = np.array([[1.0, 3.0], [10.0, 10.0]]), np.array([[2.0, 2.0], [10.0, 20.0]])
    assert aggregates.improvement(first, second) == pytest.approx((0.5 + 0.25) / 2)
    assert aggregates.improvement(second, first) == pytest.approx(1 - (0.5 + 0.25) / 2)
    assert aggregates.improvement(first, first[:, :1]) == pytest.approx((0.75 + 0.5) / 2)


def test_intervals_hold_what_they_are_of_and_resample_within_tasks() -> None:
    draw = np.random.default_rng(1)
    scores = draw.normal(size=(2, 8)) + np.array([[0.0], [100.0]])
    found = aggregates.aggregated(scores, aggregates.mean)
    assert found.low < found.mean < found.high
    assert found.high - found.low < 3  # tasks that differ widely make no interval wide: they are not resampled
    assert aggregates.aggregated(scores, aggregates.mean) == found
    better = aggregates.improvement_interval(scores + 5, scores)
    assert better.mean > 0.95 and better.low > 0.5 and better.high <= 1
    low, high = aggregates.profile_band(scores, np.array([50.0]))
    assert low == high == 0.5


def test_one_run_a_task_has_no_interval() -> None:
    one = np.array([[1.0], [2.0]])
    assert math.isnan(aggregates.aggregated(one, aggregates.mean).low)
    assert math.isnan(aggregates.improvement_interval(one, one).high)


def test_scales() -> None:
    assert Reference(10, 30).score(np.array([10.0, 30.0, 40.0])).tolist() == [0, 100, 150]
    hopper = reference_of("Hopper-v5")
    assert hopper is not None and "Hopper-v2" in hopper.source and hopper.score(np.array(3234.3)) == pytest.approx(100)
    assert reference_of("HopperHop-v5") is None and reference_of("Pendulum-v1") is None and reference_of(None) is None
    given = reference_of("Hopper-v5", random=0.0, best=10.0)
    assert given is not None and given.score(np.array(5.0)) == 50
    for random, best in ((1.0, None), (None, 1.0), (2.0, 2.0)):
        with pytest.raises(OptionError, match="two ends"):
            reference_of("Hopper-v5", random, best)
