"""Rejection sampling: by index, per prompt, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from paperworks.core.errors import DataError, OptionError, RewardError
from paperworks.language.sources.rejection import (
    RejectionOptions,
    Sampler,
    first_of_each,
    pointwise_reward,
    rejection_sample,
    standardised,
)

samplers = pytest.mark.parametrize("sampler", ["paper", "exact"])


def rewards(prompts: int = 20, candidates: int = 16) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(prompts, candidates))


@samplers
@pytest.mark.parametrize("beta", [0.0, 0.05, 0.5, 5.0])
def test_every_accepted_candidate_is_another(sampler: Sampler, beta: float) -> None:
    accepted = rejection_sample(rewards(), RejectionOptions(sampler, n_samples=8, beta=beta)).indices
    assert accepted.shape == (20, 8) and all(len(set(row)) == 8 for row in accepted.tolist())
    assert accepted.min() >= 0 and accepted.max() < 16


@samplers
def test_all_candidates_may_be_asked_for(sampler: Sampler) -> None:
    accepted = rejection_sample(rewards(), RejectionOptions(sampler, n_samples=16, beta=0.2)).indices
    assert (np.sort(accepted, 1) == np.arange(16)).all()


@samplers
def test_the_same_seed_gives_the_same_and_a_prompt_does_not_see_later_ones(sampler: Sampler) -> None:
    options = RejectionOptions(sampler, n_samples=4)
    together = rejection_sample(rewards(), options, seed=7).indices
    assert (rejection_sample(rewards()[:3], options, seed=7).indices == together[:3]).all()
    assert (rejection_sample(rewards(), options, seed=8).indices != together).any()


@samplers
def test_doubled_texts_are_accepted_once(sampler: Sampler) -> None:
    texts = [["a", "b", "a", "c", "b", "d"], ["x", "x", "y", "z"]]
    available = first_of_each(texts)
    assert available.tolist() == [[True, True, False, True, False, True], [True, False, True, True, False, False]]
    values = np.array([[1.0, 0, 1, 2, 0, 3], [1, 1, 2, 0, np.nan, np.nan]])
    accepted = rejection_sample(values, RejectionOptions(sampler, n_samples=3), available=available).indices
    assert all(len({texts[row][place] for place in places}) == 3 for row, places in enumerate(accepted.tolist()))
    with pytest.raises(
        DataError, match=r"prompt 2 has 3 different candidates, n_samples=4; draw more, .* \(1 such prompts\)"
    ):
        rejection_sample(values, RejectionOptions(sampler, n_samples=4), available=available)


def test_a_sweep_stops_when_it_has_enough_and_the_next_looks_at_what_is_left() -> None:
    options = RejectionOptions(n_samples=2, beta=1e-3, shuffle=False)
    found = rejection_sample([[0.0, 5.0, 3.0], [5.0, 5.0, 0.0]], options)
    assert found.indices.tolist() == [[1, 2], [0, 1]]  # 3.0 is the best of what the first sweep left
    assert found.sweeps.tolist() == [2, 1]


def test_a_beta_too_small_for_the_rewards_is_noted() -> None:
    found = rejection_sample([[0.0, 1, 100], [0, 0, 0]], RejectionOptions(n_samples=1, beta=0.5))
    assert found.rates.tolist() == pytest.approx([1 / 3, 1])
    (note,) = found.notes(0.5)
    assert "1 of 2 prompts accept fewer than 1 in 1000 of their candidates below the best: beta=0.5 is small" in note
    assert found.notes(0.0) == [] and "nan" not in note


def test_one_candidate_is_accepted_and_nothing_is_said_of_those_below_it() -> None:
    found = rejection_sample([[2.0]], RejectionOptions(n_samples=1))
    assert found.indices.tolist() == [[0]] and np.isnan(found.rates_below_best).all() and found.notes(0.5) == []


def test_standardised_rewards_have_one_scale_a_prompt() -> None:
    values = standardised([[1.0, 3.0], [5.0, 5.0]])
    assert values.tolist() == [[-1, 1], [0, 0]]


def test_refusals() -> None:
    with pytest.raises(RewardError, match="prompt 2, candidate 1: expected a finite reward, got nan"):
        rejection_sample([[0.0, 1.0], [np.nan, 1.0]], RejectionOptions(n_samples=1))
    with pytest.raises(DataError, match=r"expected rewards \[prompts, candidates\]"):
        rejection_sample([1.0, 2.0])
    with pytest.raises(OptionError, match=r"beta=-1.* is out of range: it must be ≥ 0"):
        RejectionOptions(beta=-1.0)
    with pytest.raises(OptionError, match="sampler=best: expected paper or exact"):
        RejectionOptions(sampler="best")  # type: ignore[arg-type]
    assert pointwise_reward(1.0) == pytest.approx(13.8155, abs=1e-3)  # a sure win is 14 nats, not infinitely many
