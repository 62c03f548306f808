"""Filters by the rank of the reward, and how one is chosen, against closed forms (arXiv 2409.06957)."""

from __future__ import annotations

import numpy as np
import pytest

from paperworks.core.errors import DataError
from paperworks.language.sources.filter_choice import fit_groups
from paperworks.language.sources.filters import Filter, parse_filter

REWARDS, SCORES = (-0.9, -0.5, 0, 0.5, 0.9), (0.05, 0.3, 0.2, 0.6, 0.95)


@pytest.mark.parametrize(
    ("name", "samples", "weights"),
    [
        ("br", 5, [0.5, 0.125, 0.125, 0.125, 0.125]),
        ("bw", 5, [0.5, 0, 0, 0, 0.5]),
        ("bon", 5, [1, 0, 0, 0, 0]),
        ("br", 2, [0.5, 0.5]),
        ("bw", 2, [0.5, 0.5]),
        ("none", 2, [0.5, 0.5]),
        ("br", 3, [0.5, 0.25, 0.25]),
    ],
)
def test_rank_weights(name: str, samples: int, weights: list[float]) -> None:
    assert parse_filter(name).rank_weights(samples) == pytest.approx(weights)


@pytest.mark.parametrize("name", ["none", "bon", "br", "bw", "custom:0.4,0.3,0.2,0.1,0"])
def test_permuting_samples_permutes_what_is_kept(name: str) -> None:
    rewards = np.random.default_rng(0).normal(size=(40, 5))
    permutation = np.random.default_rng(1).permutation(5)
    each = parse_filter(name)
    plain = each.weights(rewards, seed=3)
    assert np.array_equal(each.weights(rewards[:, permutation], seed=3), plain[:, permutation])
    assert np.array_equal(each.weights(np.exp(rewards) - 7, seed=3), plain)
    assert np.array_equal(each.kept_only(np.exp(rewards) - 7, seed=3), each.kept_only(rewards, seed=3))
    if name in ("none", "bon", "br", "bw"):
        marks = np.zeros((2, 40, 5), dtype=bool)
        for values, mark in zip((rewards, rewards[:, permutation]), marks):
            mark.ravel()[each.kept_only(values, seed=3)] = True
        assert np.array_equal(marks[1], marks[0][:, permutation])


def test_r2_of_groups() -> None:
    fit = fit_groups(REWARDS, SCORES)
    assert (fit.slope, fit.intercept, fit.r2) == (
        pytest.approx(0.452830, abs=5e-7),
        pytest.approx(0.42, abs=5e-7),
        pytest.approx(0.847402, abs=5e-7),
    )
    assert fit.weighted_r2 == pytest.approx(fit.r2) and fit.sample_r2 == pytest.approx(fit.r2)  # one sample a group
    assert fit_groups(REWARDS, [2 * x + 1 for x in REWARDS]).r2 == pytest.approx(1)
    with pytest.raises(DataError, match="nothing to predict"):
        fit_groups(REWARDS, [0.3] * 5)


def test_pow_2_weights() -> None:
    weights = parse_filter("pow:2").weights([REWARDS])
    assert weights[0] == pytest.approx([0.382075, 0.117925, 0, 0.117925, 0.382075], abs=5e-7)


def test_draws_of_best_and_random() -> None:
    rewards = [[0.1, 0.9, 0.2, 0.3, 0.4], [-3, -5, -1, -2, -4]]
    drawn = parse_filter("br").same_steps(rewards, seed=1, count=40_000)
    assert (drawn < 5).mean() == pytest.approx(0.5, abs=0.01)
    assert (drawn == 1).mean() == pytest.approx(0.25, abs=0.01)
    assert (drawn == 7).mean() == pytest.approx(0.25, abs=0.01)


def test_no_filter_keeps_everything_or_weighs_it_alike() -> None:
    rewards = np.random.default_rng(0).normal(size=(7, 4))
    assert np.array_equal(Filter("none").kept_only(rewards), np.arange(28))
    assert np.allclose(Filter("none").weights(rewards), 1 / 28)  # the expected gradient is the plain mean
    drawn = Filter("none").same_steps(rewards, seed=0, count=100_000)
    assert np.bincount(drawn, minlength=28) / 100_000 == pytest.approx(np.full(28, 1 / 28), abs=0.003)


def test_best_of_n_keeps_the_maxima_whose_advantages_are_not_negative() -> None:
    rewards = np.random.default_rng(0).normal(size=(50, 6))
    advantages = rewards - rewards.mean(axis=1, keepdims=True)
    for kept in (Filter("bon").kept_only(rewards), Filter("bon").same_steps(rewards, seed=2)):
        assert (rewards.ravel()[kept] == rewards.max(1)[kept // 6]).all()
        assert (advantages.ravel()[kept] >= 0).all()
