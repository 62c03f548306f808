"""PF-PPO's choice of the responses to train on: which they are, what it asks for, and what it says of them."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from paperworks.core.errors import DataError, OptionError, RewardError
from paperworks.core.options import build
from paperworks.language.objectives.pf_ppo import PFPPO
from paperworks.language.online.rollouts import Rollouts

SEED = (0, "rows", 0)


def rollouts(rewards: list[float], group: list[int]) -> Rollouts:
    """Responses of one token with these rewards; `group` names the prompt of each."""
    count = len(rewards)
    prompts = max(group) + 1
    return Rollouts(
        prompts=[f"prompt {i}" for i in range(prompts)],
        rows=[None] * prompts,
        prompt_ids=[(i,) for i in range(prompts)],
        prefixes=[()] * prompts,
        texts=[str(i) for i in range(count)],
        ids=[(i,) for i in range(count)],
        group=torch.tensor(group),
        finished=torch.ones(count, dtype=torch.bool),
        response=torch.arange(count),
        logps=torch.zeros(count),
        rewards=torch.tensor(rewards),
    )


INTERLEAVED = rollouts([0.1, 5.0, 0.9, 7.0, 0.5, 6.0], [0, 2, 0, 2, 0, 2])  # prompt 1 has no answers


@pytest.mark.parametrize(("name", "kept"), [("bw", [0, 2, 1, 3]), ("bon", [2, 3]), ("none", [0, 2, 4, 1, 3, 5])])
def test_ranks_are_of_the_prompt_whatever_the_order_of_responses(name: str, kept: list[int]) -> None:
    assert PFPPO(filter=name).selected(INTERLEAVED, SEED) == kept


def test_best_and_random_keeps_the_best_and_one_other_by_the_seed() -> None:
    found = [PFPPO(filter="br").selected(INTERLEAVED, (seed, "rows", 0)) for seed in range(40)]
    assert all(len(kept) == 4 and {2, 3} < set(kept) for kept in found)
    assert {other for kept in found for other in set(kept) - {2, 3}} == {0, 1, 4, 5}
    assert PFPPO(filter="br").selected(INTERLEAVED, SEED) == PFPPO(filter="br").selected(INTERLEAVED, SEED)
    seeds = {tuple(PFPPO(filter="br", tie_seed=each).selected(INTERLEAVED, SEED)) for each in range(20)}
    assert len(seeds) > 1


def test_with_all_rewards_equal_best_and_worst_are_two_different_responses() -> None:
    tied = rollouts([1.0] * 10, [0] * 5 + [1] * 5)
    kept = [PFPPO(filter="bw").selected(tied, (seed,)) for seed in range(30)]
    assert all(len(set(each)) == 4 and sum(index < 5 for index in each) == 2 for each in kept)
    assert {index for each in kept for index in each} == set(range(10))


def test_same_steps_draws_as_many_as_there_are_from_the_extremes() -> None:
    drawn: Counter[int] = Counter()
    for seed in range(200):
        kept = PFPPO(filter="bw", budget="same_steps").selected(INTERLEAVED, (seed,))
        assert len(kept) == 6
        drawn.update(kept)
    assert set(drawn) == {0, 1, 2, 3}
    assert all(count == pytest.approx(300, abs=75) for count in drawn.values())


def test_pow_scales_the_rewards_of_the_iteration_or_takes_them_as_they_are() -> None:
    objective = PFPPO(filter="pow:2", keep=2)
    assert set(objective.selected(rollouts([-9.0, 0.0, 9.0], [0, 0, 0]), SEED)) == {0, 2}  # 0 is the middle: no weight
    assert len(objective.selected(rollouts([3.0, 3.0, 3.0], [0, 0, 0]), SEED)) == 2
    with pytest.raises(RewardError, match=r"outside \[-1, 1\]"):
        PFPPO(filter="pow:2", pow_scale="none").selected(INTERLEAVED, SEED)


def test_thresholds_are_rewards() -> None:
    assert PFPPO(filter="top", high=5.5).selected(INTERLEAVED, SEED) == [3, 5]
    assert PFPPO(filter="top_bottom", high=5.5, low=0.3).selected(INTERLEAVED, SEED) == [0, 3, 5]
    with pytest.raises(DataError, match="nothing is left of 6 samples"):
        PFPPO(filter="top", high=10).selected(INTERLEAVED, SEED)


def test_what_was_kept_in_numbers() -> None:
    figures = PFPPO().kept_figures(INTERLEAVED, [2, 3, 3])
    assert figures["kept_share"] == pytest.approx(1 / 3)
    assert figures["reward_kept"] == pytest.approx((0.9 + 7 + 7) / 3)
    assert figures["reward_dropped"] == pytest.approx((0.1 + 0.5 + 5 + 6) / 4)
    assert figures["tied_prompts"] == 0
    assert math.isnan(PFPPO().kept_figures(INTERLEAVED, range(6))["reward_dropped"])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"filter": "bestrandom"}, "unknown filter 'bestrandom'"),
        ({"filter": "top"}, "expected a threshold high"),
        ({"filter": "custom:0.5,0.6"}, "sum to 1.1"),
        ({"budget": "half"}, "budget"),
        ({"pow_scale": "batch"}, "pow_scale"),
        ({"keep": 0}, "keep"),
    ],
)
def test_what_is_no_filter_is_refused_at_once(options: dict[str, Any], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        build(PFPPO, options, what="objective pf-ppo")


def test_prompts_with_different_numbers_of_answers_are_refused() -> None:
    with pytest.raises(DataError, match="prompts have 1 to 2 answers"):
        PFPPO().selected(rollouts([1.0, 2.0, 3.0], [0, 0, 1]), SEED)


def test_one_answer_has_no_rank() -> None:
    with pytest.raises(OptionError, match="ranks 1 sample a prompt"):
        PFPPO(filter="bw").selected(rollouts([1.0, 2.0], [0, 1]), SEED)
    assert PFPPO(filter="none").selected(rollouts([1.0, 2.0], [0, 1]), SEED) == [0, 1]
