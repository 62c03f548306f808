"""Credit for tokens: GAE, whitening, leave-one-out and group baselines, KL estimators, all with numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from paperworks.language.objectives.policy_gradient import clipped_surrogate, clipped_value_loss
from paperworks.language.online.credit import (
    KlEstimator,
    generalised_advantages,
    group_normalised,
    kl_terms,
    last_of,
    leave_one_out,
    silent_groups,
    token_rewards,
    whitened,
)

VALUES = torch.tensor([0.5, 0.6, 0.7])
ONE = torch.zeros(3, dtype=torch.long)  # all three tokens are of the one response


def close(found: Tensor, wanted: list[float] | Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype), atol=atol, rtol=0)


# -------------------------------------------------------------------------------------------------------------------- GAE


def test_advantages_and_returns_by_hand() -> None:
    rewards = torch.tensor([0.019, -0.052, 1.206])
    advantages, returns = generalised_advantages(rewards, VALUES, ONE, gamma=1.0, decay=0.95)
    close(advantages, [0.621265, 0.5287, 0.506])
    close(returns, [1.121265, 1.1287, 1.206])


def test_lambda_one_is_the_return_less_the_value() -> None:
    rewards = torch.tensor([0.019, -0.052, 1.206])
    advantages, returns = generalised_advantages(rewards, VALUES, ONE, decay=1.0)
    close(advantages, [0.673, 0.554, 0.506])
    close(returns, rewards.flip(0).cumsum(0).flip(0))


def test_lambda_zero_is_the_one_step_error() -> None:
    rewards = torch.tensor([0.019, -0.052, 1.206])
    advantages, _ = generalised_advantages(rewards, VALUES, ONE, decay=0.0)
    close(advantages, [0.019 + 0.6 - 0.5, -0.052 + 0.7 - 0.6, 1.206 - 0.7])


def test_the_kl_penalty_is_paid_token_by_token_and_the_reward_at_the_end() -> None:
    rewards = token_rewards(torch.tensor([1.2]), ONE, torch.tensor([0.001, 0.002, -0.001]))
    close(rewards, [-0.001, -0.002, 1.201])
    close(generalised_advantages(rewards, VALUES, ONE, decay=0.95)[0], [0.6442525, 0.57395, 0.501])


def test_a_discount_shrinks_what_is_far() -> None:
    rewards = torch.tensor([0.0, 0.0, 1.0])
    close(generalised_advantages(rewards, torch.zeros(3), ONE, gamma=0.5, decay=1.0)[0], [0.25, 0.5, 1.0])


def test_a_bootstrap_stands_in_for_what_the_length_limit_cut() -> None:
    advantages, _ = generalised_advantages(torch.zeros(3), VALUES, ONE, decay=1.0, bootstrap=torch.tensor([2.0]))
    close(advantages, [1.5, 1.4, 1.3])


def test_responses_do_not_meet() -> None:
    """A batch of several lengths gives each response what it has alone."""
    torch.manual_seed(0)
    lengths = [3, 1, 5]
    response = torch.arange(3).repeat_interleave(torch.tensor(lengths))
    rewards, values = torch.randn(9), torch.randn(9)
    together, _ = generalised_advantages(rewards, values, response)
    apart = [
        generalised_advantages(r, v, torch.zeros(len(r), dtype=torch.long))[0]
        for r, v in zip(rewards.split(lengths), values.split(lengths), strict=True)
    ]
    close(together, torch.cat(apart))


def test_nothing_comes_of_nothing() -> None:
    none, nowhere = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    assert len(generalised_advantages(none, none, nowhere)[0]) == 0
    assert len(silent_groups(none, nowhere)) == 0


def test_the_last_token_of_each_response() -> None:
    assert last_of(torch.tensor([0, 0, 1, 2, 2])).tolist() == [False, True, True, False, True]


# -------------------------------------------------------------------------------------------------------------- whitening


def test_whitening_by_hand() -> None:
    close(whitened(torch.tensor([0.0, 0.0, 1.0, 0.0]), shift=False), [-0.32735, -0.32735, 1.98205, -0.32735], 1e-5)
    close(whitened(torch.tensor([1.0, 2.0, 3.0, 4.0])), [-1.341641, -0.447214, 0.447214, 1.341641])


def test_whitening_measures_what_the_mask_shows() -> None:
    values, mask = torch.tensor([1.0, 2.0, 3.0, 4.0, 99.0]), torch.tensor([True, True, True, True, False])
    close(whitened(values, mask=mask)[:4], whitened(values[:4]))


def test_equal_values_whiten_to_zero_without_dividing_by_it() -> None:
    close(whitened(torch.full((4,), 3.0)), [0.0] * 4)


# -------------------------------------------------------------------------------------------------------------- baselines

GROUP = torch.tensor([0, 0, 0, 1, 1, 2])
REWARDS = torch.tensor([1.0, 2.0, 6.0, 3.0, 5.0, 9.0])


def test_leave_one_out_by_hand() -> None:
    """1 - (2+6)/2, 2 - (1+6)/2, 6 - (1+2)/2; 3 - 5, 5 - 3; a lone response has nothing to be compared with."""
    close(leave_one_out(REWARDS, GROUP), [-3.0, -1.5, 4.5, -2.0, 2.0, 0.0])


def test_leave_one_out_is_the_centred_reward_times_n_over_n_minus_one() -> None:
    centred = REWARDS[:3] - REWARDS[:3].mean()
    close(leave_one_out(REWARDS, GROUP)[:3], centred * 3 / 2)


def test_group_normalised_by_hand() -> None:
    """Means 3 and 4; deviations with n - 1: sqrt(7) and sqrt(2)."""
    close(group_normalised(REWARDS, GROUP, scale=False), [-2.0, -1.0, 3.0, -1.0, 1.0, 0.0])
    by_hand = [value / (math.sqrt(7) + 1e-4) for value in (-2, -1, 3)] + [
        value / (math.sqrt(2) + 1e-4) for value in (-1, 1)
    ]
    close(group_normalised(REWARDS, GROUP), [*by_hand, 0.0])


def test_silent_groups_are_those_of_several_equal_rewards() -> None:
    rewards, group = torch.tensor([1.0, 1.0, 2.0, 3.0, 5.0]), torch.tensor([0, 0, 1, 1, 2])
    assert silent_groups(rewards, group).tolist() == [True, False, False]
    close(leave_one_out(rewards, group)[:2], [0.0, 0.0])
    close(group_normalised(rewards, group)[:2], [0.0, 0.0])


# -------------------------------------------------------------------------------------------------------- clipped losses


def test_the_clipped_surrogate_by_hand() -> None:
    ratios, advantages = torch.tensor([1.5, 0.7, 1.1]), torch.tensor([1.0, -1.0, 0.5])
    loss, clipped = clipped_surrogate(ratios.log(), advantages, 0.2)
    close(loss, [-1.2, 0.8, -0.55])
    assert float(loss.mean()) == pytest.approx(-0.316667, abs=1e-6)
    assert clipped.tolist() == [True, True, False]


def test_a_clipped_token_has_no_gradient() -> None:
    log_ratio = torch.tensor([1.5, 0.7, 1.1]).log().requires_grad_()
    clipped_surrogate(log_ratio, torch.tensor([1.0, -1.0, 0.5]), 0.2)[0].sum().backward()
    assert log_ratio.grad is not None and log_ratio.grad[:2].tolist() == [0.0, 0.0]
    assert float(log_ratio.grad[2]) == pytest.approx(-0.55)


def test_the_clipped_value_loss_by_hand() -> None:
    value, old, target = (torch.tensor([x]) for x in (0.9, 0.5, 1.0))
    close(clipped_value_loss(value, old, target, 0.2), [0.045])  # 0.5 (0.7 - 1)^2 > 0.5 (0.9 - 1)^2
    close(clipped_value_loss(value, old, target, 0.0), [0.005])


# ---------------------------------------------------------------------------------------------------------- KL estimators


def expected(estimator: KlEstimator, policy: Tensor, reference: Tensor) -> tuple[float, float]:
    """The estimator's mean under the policy, by enumeration, and the true KL(policy || reference)."""
    log_ratio = policy.log() - reference.log()
    return float((policy * kl_terms(log_ratio, estimator)).sum()), float((policy * log_ratio).sum())


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(-2, 2), min_size=8, max_size=8))
def test_k1_and_k3_are_unbiased(logits: list[float]) -> None:
    both = torch.tensor(logits, dtype=torch.float64).view(2, 4).softmax(-1)
    estimators: tuple[KlEstimator, ...] = ("k1", "k3")
    for estimator in estimators:
        mean, true = expected(estimator, both[0], both[1])
        assert mean == pytest.approx(true, abs=1e-9)


def test_k2_is_biased() -> None:
    policy, reference = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5])
    mean, true = expected("k2", policy, reference)
    assert mean == pytest.approx(0.5 * (0.9 * math.log(1.8) ** 2 + 0.1 * math.log(0.2) ** 2), abs=1e-6)
    assert abs(mean - true) > 0.05


def test_k2_and_k3_are_never_negative_and_k1_may_be() -> None:
    log_ratio = torch.linspace(-3, 3, 61)
    assert bool((kl_terms(log_ratio, "k2") >= 0).all()) and bool((kl_terms(log_ratio, "k3") >= -1e-7).all())
    assert bool((kl_terms(log_ratio, "k1") < 0).any())
