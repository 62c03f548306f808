"""Which filter to train with: where the reward can be trusted, the figure is high; bad numbers are refused."""

from __future__ import annotations

import numpy as np
import pytest

from paperworks.core.errors import DataError, OptionError, RewardError
from paperworks.language.sources.filter_choice import ChoiceOptions, choose_filter, fit_groups
from paperworks.language.sources.filters import Filter, parse_filter

FILTERS = [Filter("none"), Filter("bon"), Filter("br"), Filter("bw")]


def noisy_in_the_middle(prompts: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rewards in [-1, 1] that say much about the score at the ends and mislead in between."""
    rng = np.random.default_rng(seed)
    rewards = rng.uniform(-1, 1, size=(prompts, 5))
    chance = np.where(np.abs(rewards) > 0.6, 0.5 + 0.45 * rewards, 0.5 - 0.8 * rewards)
    return rewards, (rng.random(rewards.shape) < chance).astype(float)


def test_a_reward_that_misleads_in_the_middle_is_best_used_at_its_ends() -> None:
    rewards, scores = noisy_in_the_middle()
    narrow = np.clip(rewards, -0.55, 0.55)  # only the misleading middle
    choice = choose_filter(rewards, scores, FILTERS)
    by_name = {figures.name: figures for figures in choice.figures}
    kept = {name: figures.kept_share for name, figures in by_name.items()}
    assert kept == pytest.approx({"none": 1.0, "bon": 0.2, "br": 0.4, "bw": 0.4})
    fits = {name: figures.fit for name, figures in by_name.items()}
    assert fits["bw"] is not None and fits["none"] is not None
    assert fits["bw"].weighted_r2 > fits["none"].weighted_r2
    assert all(figures.interval.low <= figures.interval.high for figures in choice.usable)
    worst = choose_filter(narrow, scores, [Filter("none")]).recommendation()
    assert any("higher rewards go with lower scores" in line for line in worst)


def test_the_interval_narrows_with_more_prompts() -> None:
    def width(prompts: int) -> float:
        rng = np.random.default_rng(1)
        rewards = rng.uniform(-1, 1, size=(prompts, 4))
        scores = rewards + rng.normal(size=rewards.shape)
        (figures,) = choose_filter(rewards, scores, [Filter("none")]).figures
        return figures.interval.high - figures.interval.low

    assert width(1000) < 0.6 * width(60)


def test_expected_survivors_are_what_drawn_ones_tend_to() -> None:
    rewards, scores = noisy_in_the_middle(4000)
    for kind in ("none", "bw", "br"):
        drawn, expected = (
            choose_filter(rewards, scores, [Filter(kind)], ChoiceOptions(survivors=how, resamples=100)).figures[0].fit
            for how in ("drawn", "expected")
        )
        assert drawn is not None and expected is not None
        assert drawn.r2 == pytest.approx(expected.r2, abs=0.1 if kind == "br" else 1e-9)


def test_groups_of_as_many_samples() -> None:
    rewards, scores = noisy_in_the_middle()
    (figures,) = choose_filter(rewards, scores, [Filter("none")], ChoiceOptions(bins="quantile")).figures
    assert figures.fit is not None
    assert [group.samples for group in figures.fit.groups] == pytest.approx([200] * 10, abs=2)


def test_single_samples_fit_worse_than_groups() -> None:
    rewards, scores = noisy_in_the_middle()
    fit = fit_groups(rewards, scores)
    assert fit.sample_r2 < fit.r2


def test_a_filter_whose_rewards_are_all_alike_is_named_and_comes_last() -> None:
    rewards, scores = noisy_in_the_middle()
    choice = choose_filter(rewards, scores, [parse_filter("top", high=0.95), Filter("none")])
    assert [figures.name for figures in choice.figures] == ["none", "top"]
    assert choice.figures[1].fit is None and "of 10 groups" in choice.figures[1].why_not
    assert choice.figures[1].as_dict()["r2"] is None


def test_refusals() -> None:
    rewards, scores = noisy_in_the_middle(20)
    with pytest.raises(DataError, match="all scores are 1: nothing to predict"):
        choose_filter(rewards, np.ones_like(scores), FILTERS)
    with pytest.raises(DataError, match="all rewards are 0: no filter can tell"):
        choose_filter(np.zeros_like(rewards), scores, FILTERS)
    with pytest.raises(DataError, match=r"alike; got the shapes \(20, 5\) and \(20, 4\)"):
        choose_filter(rewards, scores[:, :4], FILTERS)
    with pytest.raises(RewardError, match="1 of 100 scores are not finite"):
        choose_filter(rewards, np.where(np.arange(100).reshape(20, 5) == 3, np.nan, scores), FILTERS)
    with pytest.raises(OptionError, match="no filter to judge"):
        choose_filter(rewards, scores, [])
    with pytest.raises(DataError, match="3 of 10 groups of rewards have samples, a line takes 4 or more"):
        fit_groups([-1.0, 0.0, 1.0], [0.0, 1.0, 0.5])
    with pytest.raises(OptionError, match="bins=equal: expected width or quantile"):
        ChoiceOptions(bins="equal")  # type: ignore[arg-type]
