"""Best of n keeps the responses that the reward likes most, and moves the policy no further than its bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from paperworks.core.errors import OptionError, RewardError
from paperworks.language.decoding import best_of, best_of_n, kl_bound
from paperworks.language.policy import Policy
from paperworks.language.rewards import CheckedReward
from paperworks.language.sampling import Sample, Samples, sample

LENGTH = CheckedReward("length", lambda prompts, responses: [len(response) for response in responses])


def samples_of(*texts: str) -> Samples:
    return Samples("Q", tuple(Sample(text, (1,), -1.0, True) for text in texts))


def test_the_highest_rewards_come_first_and_ties_keep_their_order() -> None:
    found = best_of(samples_of("bb", "a", "dddd", "cc"), LENGTH, 3)
    assert [sample.text for sample in found.best] == ["dddd", "bb", "cc"]
    assert found.rewards == (2, 1, 4, 2)
    assert found.ranking == [2, 0, 3, 1]
    assert len(found.samples) == 4


def test_the_reward_sees_the_prompt_it_is_told() -> None:
    seen: list[str] = []
    reward = CheckedReward("spy", lambda prompts, responses: seen.extend(prompts) or [0.0] * len(responses))
    best_of(samples_of("a", "b"), reward)
    best_of(samples_of("a"), reward, prompt="the question alone")
    assert seen == ["Q", "Q", "the question alone"]


@pytest.mark.parametrize("k", [0, 3])
def test_k_must_lie_within_the_samples(k: int) -> None:
    with pytest.raises(OptionError, match=f"k={k}: expected between 1 and the 2 samples"):
        best_of(samples_of("a", "b"), LENGTH, k)


def test_best_of_n_takes_the_best_of_the_policys_own_samples(small_policy: Policy) -> None:
    prompts = ["The film", "The plot of the film was"]
    found = best_of_n(small_policy, prompts, LENGTH, 6, k=2, max_new_tokens=8, seed=3)
    drawn = sample(small_policy, prompts, n=6, max_new_tokens=8, seed=3)
    for best, samples in zip(found, drawn, strict=True):
        assert best.samples == samples.samples
        assert [len(kept.text) for kept in best.best] == sorted(map(len, samples.texts), reverse=True)[:2]


def test_more_to_keep_than_to_draw_is_refused_before_drawing(small_policy: Policy) -> None:
    with pytest.raises(OptionError, match="k=3: expected at most n=2"):
        best_of_n(small_policy, ["The film"], LENGTH, 2, k=3)


def test_a_reward_that_is_no_number_is_named(small_policy: Policy) -> None:
    broken = CheckedReward("broken", lambda prompts, responses: [math.nan] * len(responses))
    with pytest.raises(RewardError, match="broken: expected a finite number"):
        best_of_n(small_policy, ["The film"], broken, 2, max_new_tokens=2)


def test_the_bound_on_the_divergence() -> None:
    assert kl_bound(1) == 0
    assert kl_bound(2) == pytest.approx(math.log(2) - 0.5)
    assert kl_bound(8) == pytest.approx(1.2044415)
    with pytest.raises(OptionError, match="n=0"):
        kl_bound(0)


@pytest.mark.parametrize("n", [2, 4, 16])
def test_the_exact_divergence_is_below_the_bound(n: int) -> None:
    # one-token responses with distinct rewards: P(best is the token of rank r) = F(r)**n - F(r-1)**n
    probabilities = torch.randn(50, generator=torch.Generator().manual_seed(n)).mul(2).softmax(-1).double().numpy()
    cumulative = np.cumsum(probabilities)
    of_best = np.diff(np.concatenate([[0.0], cumulative]) ** n)
    divergence = float((of_best * np.log(of_best / probabilities)).sum())
    assert 0 < divergence <= kl_bound(n)
