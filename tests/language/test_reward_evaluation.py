"""Measures of a reward: worked numbers, known distributions, and what they say where nothing can be told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from paperworks.language.reward_evaluation import (
    calibrating_temperature,
    calibration,
    measure_pairs,
    measure_scores,
    reliability,
)


def clusters(count: int) -> list[int]:
    return list(range(count))


def calibrated_margins(count: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Margins that are right with probability sigmoid(|margin| / scale)."""
    draw = np.random.default_rng(seed)
    size = np.abs(draw.normal(0, 2, count))
    is_right = draw.random(count) < 1 / (1 + np.exp(-size))
    return np.where(is_right, size, -size) * scale


# ------------------------------------------------------------------------------------------------------------------- pairs


def test_accuracy_counts_a_tie_as_half() -> None:
    found = measure_pairs([2, 1, 0, 5], [1, 1, 1, 1], [1] * 4, [1] * 4, clusters(4))
    assert found.margins == (1, 0, -1, 4)
    assert found.accuracy.mean == pytest.approx(2.5 / 4)
    assert found.margin.mean == 1


def test_rows_of_one_prompt_are_resampled_together() -> None:
    draw = np.random.default_rng(0)
    chosen, zero = np.repeat(draw.normal(size=40), 25), np.zeros(1000)  # all pairs of a prompt go the same way
    alone = measure_pairs(chosen, zero, zero + 1, zero + 1, clusters(1000)).accuracy
    together = measure_pairs(chosen, zero, zero + 1, zero + 1, np.repeat(np.arange(40), 25).tolist()).accuracy
    assert together.mean == alone.mean
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_a_calibrated_reward_has_no_calibration_error_and_temperature_one() -> None:
    found = calibration(calibrated_margins(4_000), clusters(4_000))
    assert found.error < 0.03
    assert found.temperature == pytest.approx(1, abs=0.1)
    assert all(each.accuracy.low - 0.03 < each.confidence < each.accuracy.high + 0.03 for each in found.bins)


@pytest.mark.parametrize("scale", [0.1, 5.0])
def test_temperature_undoes_a_scale(scale: float) -> None:
    found = calibration(calibrated_margins(4_000, scale), clusters(4_000))
    assert found.temperature == pytest.approx(scale, rel=0.1)
    assert found.error_at_temperature is not None and found.error_at_temperature < 0.03 < found.error


def test_brier_and_log_loss_of_known_margins() -> None:
    found = calibration([0.0, math.log(3)], clusters(2))
    assert found.brier.mean == pytest.approx((0.25 + 0.0625) / 2)
    assert found.log_loss.mean == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_bins_hold_every_pair_once_and_huge_margins_are_fine() -> None:
    margins = np.array([0.0, 0.01, -0.01, 1.0, -3.0, 800.0, -800.0])
    bins = reliability(margins, clusters(7))
    assert sum(each.pairs for each in bins) == 7
    assert (bins[0].pairs, bins[0].accuracy.mean) == (3, 0.5)
    assert (bins[-1].pairs, bins[-1].confidence) == (3, pytest.approx(1, abs=0.02))
    assert math.isfinite(calibration(margins, clusters(7)).log_loss.mean)


@pytest.mark.parametrize("margins", [[1.0, 2.0], [0.0, 0.0], [-1.0, 0.5], [1.0, 0.0]])
def test_no_temperature_where_none_is_best(margins: list[float]) -> None:
    assert calibrating_temperature(np.array(margins)) is None


def test_a_reward_that_counts_words_follows_length_alone() -> None:
    draw = np.random.default_rng(1)
    chosen, rejected = draw.integers(1, 50, 400), draw.integers(1, 50, 400)
    found = measure_pairs(0.3 * chosen, 0.3 * rejected, chosen, rejected, clusters(400), unit="words").length
    assert found.correlation == pytest.approx(1)
    assert (found.slope.mean, found.slope.low, found.slope.high) == pytest.approx((3, 3, 3))
    assert (found.longer_preferred.mean, found.accuracy_longer.mean, found.accuracy_shorter.mean) == (1, 1, 0)
    assert found.longer_chosen.mean == pytest.approx((chosen > rejected).sum() / (chosen != rejected).sum())
    lengths, means = zip(*((each.length, each.reward.mean) for each in found.chosen), strict=True)
    assert np.allclose(means, 0.3 * np.array(lengths))


def test_a_reward_that_ignores_length_shows_no_slope() -> None:
    draw = np.random.default_rng(2)
    lengths = draw.integers(1, 50, (2, 500))
    found = measure_pairs(*draw.normal(size=(2, 500)), *lengths, clusters(500)).length
    assert found.slope.low < 0 < found.slope.high
    assert found.longer_preferred.low < 0.5 < found.longer_preferred.high


def test_equal_lengths_say_nothing_about_length() -> None:
    found = measure_pairs([1, 2], [0, 0], [3, 3], [3, 3], clusters(2)).length
    assert all(math.isnan(x) for x in (found.correlation, found.slope.mean, found.longer_preferred.mean))


# ------------------------------------------------------------------------------------------------------------------ scores


def test_measures_of_scores_on_a_worked_example() -> None:
    found = measure_scores([1, 2, 3, 4], [1, 2, 4, 5], [9, 9, 1, 1], clusters(4))
    assert found.squared_error.mean == 0.5
    assert found.r_squared == pytest.approx(1 - 0.5 / 2.5)
    assert found.rank_correlation == pytest.approx(1)
    assert found.correlation == pytest.approx(np.corrcoef([1, 2, 3, 4], [1, 2, 4, 5])[0, 1])
    assert found.length_correlation == found.score_length_correlation < -0.8


def test_always_saying_the_mean_explains_nothing() -> None:
    found = measure_scores([3, 3, 3], [1, 3, 5], [1, 2, 3], clusters(3))
    assert found.r_squared == pytest.approx(0)
    assert math.isnan(found.correlation) and math.isnan(found.rank_correlation)


def test_tenths_go_by_rising_reward() -> None:
    draw = np.random.default_rng(3)
    reward = draw.normal(size=200)
    found = measure_scores(reward, 2 * reward, np.ones(200), clusters(200))
    rewards = [each for each, _ in found.bins]
    assert len(rewards) == 10 and rewards == sorted(rewards)
    assert [score.mean for _, score in found.bins] == pytest.approx([2 * each for each in rewards])
