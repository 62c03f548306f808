"""Reward ensembles (arXiv 2310.02743): combination, standardisation, best-of-n estimator, noise, distance, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paperworks.core.errors import OptionError, RewardError
from paperworks.language.data.label_noise import flip_preferences
from paperworks.language.data.schemas import Preference
from paperworks.language.rewards.best_of import best_of_curve, best_of_weights, kl_of_best_of
from paperworks.language.rewards.ensemble import combine, member_variance, scale_of, standardised
from paperworks.language.testbeds import overoptimisation
from paperworks.language.testbeds.gaussian_policies import train_gaussian
from paperworks.language.testbeds.overoptimisation import aggregate

SCORES = [[1.0], [2.0], [4.0], [1.5], [1.5]]


def test_combinations_of_five_scores() -> None:
    assert combine(SCORES, "mean") == pytest.approx([2.0])
    assert combine(SCORES, "wco") == pytest.approx([1.0])
    assert member_variance(SCORES) == pytest.approx([1.1])
    assert combine(SCORES, "uwo", 0.5) == pytest.approx([1.45])
    assert combine(SCORES, "uwo", 0.0) == pytest.approx([2.0])  # lambda 0 is given, and is the mean
    assert combine(SCORES, "uwo", 0.5) != pytest.approx([1.3125])  # the variance over k - 1


def test_the_testbed_combines_alike() -> None:
    scores = torch.randn(5, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for rule in ("mean", "wco", "uwo"):
        flat = combine(scores.flatten(1).numpy(), rule)  # type: ignore[arg-type]
        assert aggregate(scores, rule).flatten().numpy() == pytest.approx(flat)


def test_identical_members_agree_and_conservative_rules_never_exceed_the_mean() -> None:
    same = [[0.3, -1.0]] * 4
    for rule in ("mean", "wco", "uwo"):
        assert combine(same, rule) == pytest.approx([0.3, -1.0])  # type: ignore[arg-type]
    scores = np.random.default_rng(0).normal(size=(5, 200))
    assert (combine(scores, "wco") <= combine(scores, "mean")).all()
    assert (combine(scores, "uwo") <= combine(scores, "mean")).all()
    assert (
        not (combine(scores, "wco") <= combine(scores, "uwo")).all()
        or not (combine(scores, "uwo") <= combine(scores, "wco")).all()
    )


def test_standardisation_takes_offsets_away() -> None:
    members = [[1.0, 3.0, 5.0, 7.0], [10.0, 10.0, 30.0, 30.0]]
    scales = [scale_of(row) for row in members]
    z = standardised(members, scales)
    assert z == pytest.approx(np.array([[-1.341641, -0.447214, 0.447214, 1.341641], [-1, -1, 1, 1]]), abs=1e-6)
    assert combine(z, "mean") == pytest.approx([-1.170820, -0.723607, 0.723607, 1.170820], abs=1e-6)
    assert combine(z, "wco") == pytest.approx([-1.341641, -1, 0.447214, 1], abs=1e-6)
    assert combine(z, "uwo", 0.5) == pytest.approx([-1.185410, -0.761803, 0.685410, 1.156231], abs=1e-6)
    moved = [members[0], [value + 100 for value in members[1]]]
    assert standardised(moved, [scale_of(row) for row in moved]) == pytest.approx(z)


def test_best_of_n_over_all_subsets() -> None:
    curve = best_of_curve([0, 1, 2, 3], [0.1, 0.4, 0.9, 0.2], [1, 2, 3, 4])
    assert curve == pytest.approx([0.4, 0.466667, 0.375, 0.2], abs=1e-6)
    for total, n in ((4, 2), (12_600, 12_500), (12_600, 64)):
        assert best_of_weights(total, n).sum() == pytest.approx(1)


def test_best_of_n_equals_the_mean_over_enumerated_subsets() -> None:
    from itertools import combinations

    rng = np.random.default_rng(1)
    proxy, gold = rng.normal(size=7), rng.normal(size=7)
    chosen = [gold[max(subset, key=lambda i: proxy[i])] for subset in combinations(range(7), 3)]
    assert best_of_curve(proxy, gold, [3]) == pytest.approx([np.mean(chosen)])


@pytest.mark.parametrize(
    ("n", "kl"), [(1, 0), (2, 0.193147), (4, 0.636294), (16, 1.835089), (128, 3.859843), (12_500, 8.433564)]
)
def test_kl_of_best_of_n(n: int, kl: float) -> None:
    assert kl_of_best_of(n) == pytest.approx(kl, abs=1e-6)


def test_a_perfect_proxy_never_turns_down_and_a_blind_one_stays_flat() -> None:
    rng = np.random.default_rng(2)
    gold = rng.normal(size=(300, 256))
    sizes = [1, 2, 4, 16, 64, 256]
    assert (np.diff(best_of_curve(gold, gold, sizes).mean(0)) > 0).all()
    blind = best_of_curve(rng.normal(size=gold.shape), gold, sizes).mean(0)
    assert np.abs(blind).max() < 4 / np.sqrt(300)


def test_the_curve_does_not_depend_on_the_order_of_answers() -> None:
    rng = np.random.default_rng(3)
    proxy, gold, order = rng.normal(size=(2, 20)), rng.normal(size=(2, 20)), rng.permutation(20)
    sizes = [1, 3, 20]
    assert best_of_curve(proxy[:, order], gold[:, order], sizes) == pytest.approx(best_of_curve(proxy, gold, sizes))
    tied = np.round(proxy)  # with ties only their average is free of the order
    found = best_of_curve(tied[:, order], gold[:, order], sizes, ties="average")
    assert found == pytest.approx(best_of_curve(tied, gold, sizes, ties="average"))


def test_distance_is_half_the_mean_squared_log_ratio() -> None:
    ratios = np.array([0.5, -0.2, 1.0])
    assert np.square(ratios).mean() / 2 == pytest.approx(0.215)
    still = train_gaussian(lambda a: a.sum(-1), lambda a: a.sum(-1), [0.0], dimensions=2, seed=0, updates=0)
    assert float(still.distance[0, 0]) == 0 and float(still.kl[0, 0]) == 0


def test_the_penalty_holds_a_policy_near_its_start() -> None:
    course = train_gaussian(
        lambda a: a.sum(-1), lambda a: a.sum(-1), [0.0, 2.0], dimensions=2, seed=0, updates=60, rate=0.05, samples=64
    )
    assert course.kl[-1, 1] < course.kl[-1, 0]
    assert (course.distance >= 0).all()
    assert course.gold[-1, 0] > course.gold[0, 0] + 1  # and without it the reward rises


def test_label_noise_is_one_bernoulli_draw_a_pair_for_all_members() -> None:
    world = overoptimisation.make_world(3)
    clean, noisy, again = (overoptimisation.draw_pairs(world, noise) for noise in (0.0, 0.25, 0.25))
    assert torch.equal(noisy.better, again.better)
    flipped = (clean.better != noisy.better).any(1)
    assert 0.15 < float(flipped.float().mean()) < 0.35
    assert torch.equal(noisy.better[flipped], clean.worse[flipped])
    rows = [Preference(str(i), "a", "b") for i in range(200)]
    once = flip_preferences(rows, 0.25, 0)
    swapped = [row.chosen == "b" for row in once]
    assert swapped == (np.random.default_rng(0).random(200) < 0.25).tolist()
    twice = flip_preferences(once, 0.25, 1)  # another seed: noise on noise, not its undoing
    assert [row.chosen for row in twice] != [row.chosen for row in rows]


def test_members_differ_by_seed_alone_and_a_world_does_not_depend_on_its_neighbours() -> None:
    worlds = [overoptimisation.make_world(seed) for seed in (0, 1)]
    pairs = [overoptimisation.draw_pairs(world, 0.25) for world in worlds]
    together = overoptimisation.train_proxies(pairs, worlds, 2, epochs=2)
    alone = overoptimisation.train_proxies(pairs[1:], worlds[1:], 2, epochs=2)[0]
    answers = worlds[1].answers((50,), "test")
    scores = together[1].score(answers)
    assert alone.score(answers).numpy() == pytest.approx(scores.numpy(), abs=1e-4)
    assert not torch.allclose(scores[0], scores[1], atol=0.05)
    assert overoptimisation.equal_width(5) == 81


def test_what_cannot_be_combined_is_refused() -> None:
    for rule in ("wco", "uwo"):
        with pytest.raises(OptionError, match="at least 2 members"):
            combine([[1.0, 2.0]], rule)  # type: ignore[arg-type]
    with pytest.raises(RewardError, match="member 2 gave 1 scores, member 1 gave 2"):
        combine([[1.0, 2.0], [1.0]], "mean")
    with pytest.raises(RewardError, match="member 1 gave nan for response 2"):
        combine([[1.0, float("nan")]], "mean")
    with pytest.raises(OptionError, match="uwo_lambda"):
        combine(SCORES, "uwo", -0.1)
    with pytest.raises(OptionError, match="did you mean 'wco'"):
        combine(SCORES, "wcoo")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="between 1 and the 4 samples"):
        best_of_weights(4, 5)
    with pytest.raises(RewardError, match="expected the same"):
        best_of_curve([1, 2], [1], [1])
