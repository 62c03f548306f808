"""Filters by the rank of the reward, how one is chosen, and PPO on what they keep, in closed form (arXiv 2409.06957)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paperworks.core.errors import DataError
from paperworks.language.objectives.objective import ByToken, ResponseLogps
from paperworks.language.objectives.pf_ppo import PFPPO
from paperworks.language.objectives.policy_gradient import PPO, Penalty, RolloutLogps, clipped_surrogate
from paperworks.language.online.rollouts import Rollouts
from paperworks.language.sources.filter_choice import fit_groups
from paperworks.language.sources.filters import Filter, parse_filter
from paperworks.language.values.head import ValueHead, ValueHeadOptions

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


# ------------------------------------------------------------------------------------------------- losses and budgets


def buffer(prompts: int = 3, samples: int = 4) -> Rollouts:
    """Answers of 1 to 3 tokens with random rewards, values and log-probabilities."""
    draw = torch.Generator().manual_seed(0)
    count = prompts * samples
    lengths = torch.randint(1, 4, (count,), generator=draw)
    tokens = int(lengths.sum())
    return Rollouts(
        prompts=[""] * prompts,
        rows=[None] * prompts,
        prompt_ids=[(0,)] * prompts,
        prefixes=[()] * prompts,
        texts=[""] * count,
        ids=[tuple(range(length)) for length in lengths.tolist()],
        group=torch.arange(count) // samples,
        finished=torch.ones(count, dtype=torch.bool),
        response=torch.arange(count).repeat_interleave(lengths),
        logps=-torch.rand(tokens, generator=draw, dtype=torch.float64),
        values=torch.randn(tokens, generator=draw, dtype=torch.float64),
        rewards=torch.randn(count, generator=draw, dtype=torch.float64),
    )


def loss_of(
    objective: PPO, whole: Rollouts, kept: list[int], now: torch.Tensor, critic: ValueHead, states: torch.Tensor
) -> torch.Tensor:
    """PPO's loss on these responses, credit of the whole buffer, `now` the log-probabilities of all tokens today."""
    credit = {name: whole.of(values, kept) for name, values in objective.credit(whole, Penalty(0.0)).items()}
    part = whole.select(kept)
    by_token = ByToken(whole.of(now, kept), None, part.response, len(kept), whole.of(states, kept))
    response = ResponseLogps(
        by_token.summed(by_token.policy), part.counts.double(), by_token=by_token, weight=torch.ones(len(kept))
    )
    batch = RolloutLogps(response, credit, critic)
    terms, weights = objective.terms(batch), objective.weights(batch)
    return torch.stack([(terms[name] * weights[name]).sum() / weights[name].sum() for name in terms]).sum()


@pytest.fixture
def updated() -> tuple[Rollouts, torch.Tensor, ValueHead, torch.Tensor]:
    """A buffer, its tokens' log-probabilities after a step, a critic and hidden states."""
    whole = buffer()
    draw = torch.Generator().manual_seed(1)
    now = whole.logps + 0.4 * torch.randn(whole.logps.shape, generator=draw, dtype=torch.float64)
    torch.manual_seed(0)
    critic = ValueHead(4, ValueHeadOptions(kind="mean", dropout=0.0))
    return whole, now.requires_grad_(), critic, torch.randn(len(now), 4, generator=draw)


def test_no_filter_with_everything_kept_is_ppo(updated: tuple[Rollouts, torch.Tensor, ValueHead, torch.Tensor]) -> None:
    whole, now, critic, states = updated
    kept = PFPPO(filter="none").selected(whole, (0,))
    assert kept == list(range(len(whole)))
    filtered = loss_of(PFPPO(filter="none"), whole, kept, now, critic, states)
    plain = loss_of(PPO(), whole, list(range(len(whole))), now, critic, states)
    assert filtered.item() == plain.item()


def test_no_filter_with_same_steps_has_ppo_s_expected_gradient(
    updated: tuple[Rollouts, torch.Tensor, ValueHead, torch.Tensor],
) -> None:
    whole, now, critic, states = updated
    objective = PFPPO(filter="none", budget="same_steps", averaging="response")
    everything = list(range(len(whole)))

    def gradient(kept: list[int]) -> torch.Tensor:
        return torch.autograd.grad(loss_of(objective, whole, kept, now, critic, states), now)[0]

    expected = gradient(everything)
    one_by_one = torch.stack([gradient([each]) for each in everything])  # a draw adds one of these, each as likely
    torch.testing.assert_close(one_by_one.mean(0), expected)
    drawn = torch.stack([gradient(objective.selected(whole, (seed,))) for seed in range(150)])
    error = drawn.std(0) / len(drawn) ** 0.5
    assert ((drawn.mean(0) - expected).abs() <= 4 * error + 1e-12).all()


def test_credit_is_that_of_the_whole_buffer_before_the_filter(
    updated: tuple[Rollouts, torch.Tensor, ValueHead, torch.Tensor],
) -> None:
    whole = updated[0]
    objective = PFPPO(filter="bw")
    kept = objective.selected(whole, (0,))
    assert len(kept) == 6  # of 12: the best and the worst of four
    before = whole.of(objective.credit(whole, Penalty(0.0))["advantage"], kept)
    after = objective.credit(whole.select(kept), Penalty(0.0))["advantage"]
    assert objective.credit(whole, Penalty(0.0))["advantage"].mean().item() == pytest.approx(0, abs=1e-9)
    assert after.mean().item() == pytest.approx(0, abs=1e-9)
    assert abs(before.mean().item()) > 0.01  # the filter may shift the balance of signs; normalising after it would not


def test_clipped_loss_by_hand() -> None:
    ratios, advantages = torch.tensor([1.5, 0.7, 1.1]), torch.tensor([1.0, -1.0, 0.5])
    loss, _ = clipped_surrogate(ratios.log(), advantages, 0.2)
    assert loss.tolist() == pytest.approx([-1.2, 0.8, -0.55])
    assert loss.mean().item() == pytest.approx(-0.316667, abs=5e-7)
