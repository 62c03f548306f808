"""Pairs of responses by index, the best of them, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from paperworks.core.errors import DataError, OptionError, RewardError
from paperworks.language.sources.ranking import above_scaled, best_of, rank_pairs, reward_labeller, symmetric

PLACES = np.tile(np.arange(4), (500, 1))


def test_labels_come_from_the_labeller_not_from_rewards() -> None:
    def contrary(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.where(first > second, 0.2, 0.8)  # the lower index is better

    pairs = rank_pairs(PLACES, contrary)
    assert (pairs.chosen < pairs.rejected).all() and np.allclose(pairs.probability, 0.8)


def test_a_liking_for_the_first_place_cancels() -> None:
    def first_place(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.full(first.shape, 0.9)

    assert np.allclose(symmetric(first_place)(PLACES, PLACES[:, ::-1]), 0.5)


def test_ties_are_decided_by_a_coin() -> None:
    pairs = rank_pairs(PLACES, reward_labeller(np.zeros((500, 4))), seed=1)
    assert (pairs.chosen > pairs.rejected).mean() == pytest.approx(0.5, abs=0.05)
    assert (pairs.probability == 0.5).all()


@pytest.mark.parametrize(("samples", "pairs"), [(2, 1), (3, 2), (5, 4), (8, 7)])
def test_a_tournament_has_one_pair_fewer_than_players_and_each_loses_once(samples: int, pairs: int) -> None:
    places = np.tile(np.arange(samples), (50, 1))
    found = rank_pairs(
        places, reward_labeller(np.random.default_rng(0).normal(size=(50, samples))), ranking="tournament"
    )
    assert found.chosen.shape == (50, pairs)
    assert all(len(set(row)) == pairs for row in found.rejected.tolist())


def test_the_best_and_equal_ones_by_chance() -> None:
    assert best_of([[1.0, 3.0, 2.0]]).tolist() == [1]
    assert np.bincount(best_of(np.zeros((3000, 3))), minlength=3) / 3000 == pytest.approx([1 / 3] * 3, abs=0.04)


def test_rest_keeps_what_is_above_the_threshold_of_the_whole_data_set() -> None:
    kept = above_scaled([[0.0, 8.0], [10.0, 7.0]], 0.7)
    assert kept.tolist() == [[False, True], [True, False]]


def test_refusals() -> None:
    label = reward_labeller(np.zeros((1, 3)))
    with pytest.raises(
        OptionError, match="ranking=first_round: 3 samples a prompt cannot all be paired; expected an even"
    ):
        rank_pairs([[0, 1, 2]], label)
    with pytest.raises(OptionError, match="ranking=knockout: expected first_round or tournament"):
        rank_pairs([[0, 1]], label, ranking="knockout")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected at least 2 responses"):
        rank_pairs([[0]], label)
    with pytest.raises(RewardError, match="the labeller gave nan for pair 1 of prompt 1; expected a probability"):
        rank_pairs([[0, 1]], lambda first, second: np.full(first.shape, np.nan))
    with pytest.raises(RewardError, match="expected one each"):
        rank_pairs([[0, 1]], lambda first, second: np.zeros(3))
    with pytest.raises(DataError, match="all rewards are 2: nothing to scale"):
        above_scaled([[2.0, 2.0]])
    with pytest.raises(OptionError, match="threshold=1"):
        above_scaled([[2.0, 1.0]], 1.0)
    with pytest.raises(RewardError, match="1 of 2 that are not"):
        best_of([[np.inf, 1.0]])
