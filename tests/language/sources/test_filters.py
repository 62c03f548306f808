"""Filters of a prompt's samples: ties, thresholds, both budgets, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from paperworks.core.errors import DataError, OptionError, RewardError
from paperworks.language.sources.filters import Filter, parse_filter, ranked, tied_prompts

REWARDS = np.random.default_rng(0).uniform(-1, 1, size=(200, 5))


@pytest.mark.parametrize(
    "name", ["none", "bon", "br", "bw", "pow:2", "custom:0.6,0.4,0,0,0", "top", "top_random", "top_bottom"]
)
def test_weights_sum_to_1_and_selections_follow_the_seed(name: str) -> None:
    each = parse_filter(name, high=0.5, low=-0.5)
    assert each.weights(REWARDS).sum() == pytest.approx(1)
    for budget in ("kept_only", "same_steps"):
        first = each.select(REWARDS, budget=budget, seed=1)
        assert np.array_equal(first, each.select(REWARDS, budget=budget, seed=1))
        assert len(first) and first.min() >= 0 and first.max() < 1000
    assert len(each.same_steps(REWARDS)) == 1000
    kept = each.kept_only(REWARDS)
    assert len(set(kept)) == len(kept) and (np.diff(kept) > 0).all()
    assert (each.weights(REWARDS).ravel()[kept] > 0).all()


@pytest.mark.parametrize(("name", "share"), [("bon", 0.2), ("br", 0.4), ("bw", 0.4), ("none", 1.0), ("pow:1", 0.4)])
def test_what_kept_only_keeps(name: str, share: float) -> None:
    kept = parse_filter(name).kept_only(REWARDS)
    assert len(kept) == share * 1000
    assert (np.bincount(kept // 5, minlength=200) == share * 5).all()


def test_best_and_worst_and_best_and_another() -> None:
    marks = np.zeros(REWARDS.shape, dtype=bool)
    marks.ravel()[Filter("bw").kept_only(REWARDS)] = True
    assert (np.where(marks, REWARDS, -9).max(1) == REWARDS.max(1)).all()
    assert (np.where(marks, REWARDS, 9).min(1) == REWARDS.min(1)).all()
    kept = Filter("br").kept_only(REWARDS)
    order = np.argsort(-REWARDS, 1)
    others = [int(np.flatnonzero(order[index // 5] == index % 5)[0]) for index in kept]
    assert np.bincount(others, minlength=5) / 200 == pytest.approx([1, 0.25, 0.25, 0.25, 0.25], abs=0.1)


def test_equal_rewards_are_ranked_by_chance_and_best_and_worst_stay_two_samples() -> None:
    equal = np.zeros((3000, 4))
    kept = Filter("bw").kept_only(equal, seed=2)
    assert len(kept) == 6000 and (np.bincount(kept // 4) == 2).all()
    assert np.bincount(kept % 4) / 6000 == pytest.approx([0.25] * 4, abs=0.02)
    assert tied_prompts(equal) == 1 and tied_prompts(REWARDS) == 0
    assert (ranked(equal, seed=1) != ranked(equal, seed=2)).any()


def test_thresholds() -> None:
    values = [[0.9, 0.1, -0.9], [0.2, 0.3, 0.4]]
    assert Filter("top", high=0.5).kept_only(values).tolist() == [0]
    assert Filter("top_bottom", high=0.5, low=-0.5).kept_only(values).tolist() == [0, 2]
    many = np.tile(values, (2000, 1))
    kept = Filter("top_random", high=0.5).kept_only(many) % 6
    assert (kept == 0).sum() == 2000 and (kept != 0).sum() / 10_000 == pytest.approx(0.5, abs=0.02)
    weights = Filter("top_random", high=0.5).weights(values)
    assert weights[0, 0] == pytest.approx(2 * weights[0, 1])


def test_names() -> None:
    assert parse_filter(" Top-Bottom ", high=1, low=0).name == "top_bottom"
    assert parse_filter("pow:2").name == "pow:2" and parse_filter("pow:2").power == 2
    assert parse_filter("custom:[0.5, 0.25, 0.25]").by_rank == (0.5, 0.25, 0.25)


def test_refusals() -> None:
    for name in ("bon", "br", "bw"):
        with pytest.raises(OptionError, match=f"filter {name}: ranks 1 sample a prompt; expected at least 2"):
            Filter(name).weights([[1.0], [2.0]])  # type: ignore[arg-type]
    assert Filter("none").kept_only([[1.0], [2.0]]).tolist() == [0, 1]
    with pytest.raises(OptionError, match="3 weights for 2 samples"):
        parse_filter("custom:0.5,0.25,0.25").weights([[1.0, 2.0]])
    with pytest.raises(RewardError, match=r"1 of 2 rewards are outside \[-1, 1\] \(the largest 3\)"):
        parse_filter("pow:2").weights([[0.5, 3.0]])
    with pytest.raises(DataError, match="filter pow:2: nothing is left of 2 samples; all rewards are 0"):
        parse_filter("pow:2").weights([[0.0, 0.0]])
    with pytest.raises(RewardError, match="prompt 1, sample 2: expected a finite reward, got nan"):
        Filter("bw").kept_only([[0.0, np.nan]])
    with pytest.raises(OptionError, match="budget=both"):
        Filter("bw").select([[0.0, 1.0]], budget="both")  # type: ignore[arg-type]
    with pytest.raises(
        OptionError, match=r"unknown filter 'bwr' \(did you mean 'br'|unknown filter 'bwr' \(did you mean 'bw'"
    ):
        parse_filter("bwr")
    with pytest.raises(DataError, match=r"expected rewards \[prompts, samples\]"):
        Filter("none").weights([1.0, 2.0])
