"""Intervals agree with scipy's bootstrap; verdicts, win rates and frontiers on worked numbers."""

import math

import numpy as np
import pytest
from scipy import stats

from paperworks.core import statistics
from paperworks.core.statistics import (
    Interval,
    bootstrap_mean,
    clustered_mean,
    paired_difference,
    pareto_front,
    spearman,
    verdict,
    win_rate,
)

VALUES = np.random.default_rng(1).normal(2.0, 1.5, size=40)


def test_interval_agrees_with_scipys_percentile_bootstrap():
    ours = bootstrap_mean(VALUES)
    theirs = stats.bootstrap((VALUES,), np.mean, method="percentile", n_resamples=10_000, rng=0).confidence_interval
    assert ours.mean == pytest.approx(VALUES.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.high, abs=0.02)


def test_interval_does_not_depend_on_how_resamples_are_split(monkeypatch):
    whole = bootstrap_mean(VALUES)
    monkeypatch.setattr(statistics, "_NUMBERS_AT_ONCE", 1000)
    assert bootstrap_mean(VALUES) == whole


def test_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_mean(rng.normal(size=50), resamples=500) for _ in range(300)]
    assert 0.90 <= np.mean([interval.low <= 0 <= interval.high for interval in intervals]) <= 0.98


def test_wider_confidence_is_wider():
    narrow, wide = bootstrap_mean(VALUES, 0.5), bootstrap_mean(VALUES, 0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("values", "mean"), [([], math.nan), ([2.0], 2.0), ([1.0, math.nan], math.nan), ([1.0, math.inf], math.nan)]
)
def test_too_little_or_not_finite_has_no_bounds(values, mean):
    interval = bootstrap_mean(values)
    assert interval.mean == pytest.approx(mean, nan_ok=True)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert interval.n == len(values)


def test_interval_reads_as_mean_and_bounds():
    assert str(Interval(0.1234, 0.1, 0.15, 5)) == "0.123 [0.100, 0.150]"
    assert str(Interval(0.1234, math.nan, math.nan, 1)) == "0.123"
    assert Interval(12.34, 10, 15, 5).format(".1f") == "12.3 [10.0, 15.0]"


def test_pairing_removes_what_the_pairs_share():
    seed_effect = np.array([0.0, 10.0, -7.0, 3.0, 25.0])
    difference = paired_difference(seed_effect + np.array([1.1, 0.9, 1.0, 1.2, 0.8]), seed_effect)
    assert difference.mean == pytest.approx(1.0)
    assert 0.8 <= difference.low < difference.high <= 1.2


def test_pairs_must_match():
    with pytest.raises(ValueError, match="got 2 and 3"):
        paired_difference([1, 2], [1, 2, 3])


def test_win_rate_counts_ties_half():
    assert win_rate([1, 2, 3, 4], [0, 2, 5, 3]).mean == (1 + 0.5 + 0 + 1) / 4
    a, b = VALUES[:20], VALUES[20:]
    assert win_rate(a, b).mean == pytest.approx(1 - win_rate(b, a).mean)
    assert math.isnan(win_rate([1, math.nan], [0, 0]).mean)


def test_items_of_one_cluster_do_not_count_as_independent():
    seeds = np.repeat(np.arange(8), 100)
    values = np.random.default_rng(2).normal(size=8)[seeds] + np.random.default_rng(3).normal(size=800) * 0.01
    clustered, naive = clustered_mean(values, list(seeds)), bootstrap_mean(values)
    assert clustered.mean == pytest.approx(naive.mean)
    assert clustered.high - clustered.low > 5 * (naive.high - naive.low)
    assert clustered.n == 8


def test_clusters_of_one_item_give_the_plain_bootstrap():
    clustered, plain = clustered_mean(VALUES, range(len(VALUES))), bootstrap_mean(VALUES)
    assert (clustered.low, clustered.high) == pytest.approx((plain.low, plain.high))


def test_resampling_items_adds_their_own_variance():
    clusters = np.repeat(np.arange(10), 3)
    values = np.random.default_rng(4).normal(size=30)
    only_clusters = clustered_mean(values, list(clusters))
    both = clustered_mean(values, list(clusters), resample_items=True)
    assert both.high - both.low > only_clusters.high - only_clusters.low


def test_one_cluster_has_no_interval():
    assert math.isnan(clustered_mean([1.0, 2.0], ["a", "a"]).low)


@pytest.mark.parametrize(
    ("low", "high", "direction", "expected"),
    [
        (0.1, 0.5, +1, "holds"),
        (-0.5, -0.1, +1, "reversed"),
        (-0.1, 0.5, +1, "not shown"),
        (0.0, 0.5, +1, "not shown"),
        (0.1, 0.5, -1, "reversed"),
        (-0.5, -0.1, -1, "holds"),
        (math.nan, math.nan, +1, "not shown"),
        (math.nan, math.nan, -1, "not shown"),
    ],
)
def test_verdict(low, high, direction, expected):
    assert verdict(Interval((low + high) / 2, low, high, 5), direction) == expected


def test_front_keeps_what_nothing_beats():
    points = [(1.0, 1.0), (2.0, 3.0), (2.0, 2.0), (3.0, 3.0), (0.5, 0.2), (4.0, 3.5), (math.nan, 9.0)]
    assert pareto_front(points) == [4, 0, 1, 5]
    assert pareto_front([]) == []


def test_spearman_sees_order_only():
    assert spearman([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1.0)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
