"""Statistical rejection sampling against closed forms (arXiv 2309.06657)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from paperworks.language.objectives import DPO, RSO, HingeNorm, PairLogps, ResponseLogps, SLiC
from paperworks.language.sources.ranking import rank_pairs, reward_labeller, symmetric
from paperworks.language.sources.rejection import (
    RejectionOptions,
    acceptance_probabilities,
    pointwise_reward,
    rejection_sample,
    symmetrised,
)

MANY = 100_000  # prompts: a probability is then known to +-0.005 with 3 standard errors


def first_sample_law(
    rewards: list[float], beta: float, sampler: Literal["paper", "exact"], *, shuffle: bool = False
) -> np.ndarray:
    """How often each candidate is the one that is accepted, over many prompts with the same rewards."""
    options = RejectionOptions(sampler=sampler, n_samples=1, beta=beta, shuffle=shuffle)
    accepted = rejection_sample(np.tile(rewards, (MANY, 1)), options, seed=3).indices[:, 0]
    return np.bincount(accepted, minlength=len(rewards)) / MANY


def test_acceptance_in_the_first_sweep() -> None:
    chances = acceptance_probabilities([[0, 0.5, 1]], beta=0.5)
    assert chances[0] == pytest.approx([0.135335, 0.367879, 1], abs=5e-7)
    assert chances.mean() == pytest.approx(0.501072, abs=5e-7)
    assert rejection_sample([[0, 0.5, 1]], RejectionOptions(n_samples=2)).rates[0] == pytest.approx(0.501072, abs=5e-7)


@pytest.mark.parametrize(
    ("rewards", "beta", "sweeps", "exact"),
    [
        ([0, 0.5], 0.5, [0.367879, 0.632121], [0.268941, 0.731059]),
        ([0.5, 0], 0.5, [1, 0], [0.731059, 0.268941]),  # in list order, what stands first is favoured
        ([0, 0.2, 0.4], 0.2, [0.135335, 0.318092, 0.546572], [0.090031, 0.244728, 0.665241]),
    ],
)
def test_law_of_one_sample(rewards: list[float], beta: float, sweeps: list[float], exact: list[float]) -> None:
    assert first_sample_law(rewards, beta, "paper") == pytest.approx(sweeps, abs=0.005)
    assert first_sample_law(rewards, beta, "exact") == pytest.approx(exact, abs=0.005)


def test_shuffling_averages_over_orders_and_stays_greedier_than_exact() -> None:
    law = first_sample_law([0, 0.5], 0.5, "paper", shuffle=True)
    assert law == pytest.approx([0.367879 / 2, 1 - 0.367879 / 2], abs=0.005)


def test_exact_draws_are_a_softmax_without_replacement() -> None:
    rewards, beta = np.array([0.0, 0.2, 0.4]), 0.2
    accepted = rejection_sample(np.tile(rewards, (MANY, 1)), RejectionOptions("exact", 2, beta), seed=1).indices
    weights = np.exp(rewards / beta) / np.exp(rewards / beta).sum()
    for first, second in ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)):
        expected = weights[first] * weights[second] / (1 - weights[first])
        found = ((accepted[:, 0] == first) & (accepted[:, 1] == second)).mean()
        assert found == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("sampler", ["paper", "exact"])
def test_shift_and_common_scale_change_nothing(sampler: Literal["paper", "exact"]) -> None:
    rewards = np.round(np.random.default_rng(0).normal(size=(50, 32)) * 64) / 64  # exact in binary, so that sums are
    options = RejectionOptions(sampler, n_samples=8, beta=0.5)
    plain = rejection_sample(rewards, options, seed=5).indices
    assert (rejection_sample(rewards + 16, options, seed=5).indices == plain).all()
    scaled = RejectionOptions(sampler, n_samples=8, beta=2.0)
    assert (rejection_sample(rewards * 4, scaled, seed=5).indices == plain).all()


@pytest.mark.parametrize("sampler", ["paper", "exact"])
@pytest.mark.parametrize("beta", [1e-6, 0.0])
def test_a_tiny_beta_takes_the_best(sampler: Literal["paper", "exact"], beta: float) -> None:
    rewards = np.random.default_rng(1).normal(size=(40, 20))
    accepted = rejection_sample(rewards, RejectionOptions(sampler, n_samples=5, beta=beta)).indices
    assert (np.sort(accepted, 1) == np.sort(np.argsort(-rewards, 1)[:, :5], 1)).all()


def test_a_huge_beta_takes_what_comes_first() -> None:
    rewards = np.random.default_rng(2).normal(size=(40, 20))
    in_order = RejectionOptions(n_samples=5, beta=1e9, shuffle=False)
    assert (rejection_sample(rewards, in_order).indices == np.arange(5)).all()
    shuffled = rejection_sample(rewards, RejectionOptions(n_samples=5, beta=1e9), seed=1)
    assert (shuffled.sweeps == 1).all()
    assert (
        shuffled.indices == rejection_sample(-rewards, RejectionOptions(n_samples=5, beta=1e9), seed=1).indices
    ).all()


def test_reward_is_the_logit_of_the_ranking_model() -> None:
    assert pointwise_reward([0.8, 0.5]) == pytest.approx([1.386294, 0], abs=5e-7)
    assert np.isfinite(pointwise_reward([0.0, 1.0])).all()
    # a model that likes the first place still gives the baseline response reward 0
    assert pointwise_reward(symmetrised(0.6, 0.6)) == 0


def pair(chosen: float, rejected: float, *, reference: float = 0.0) -> PairLogps:
    def side(policy: float) -> ResponseLogps:
        logp = torch.tensor([policy + reference], dtype=torch.float64)
        return ResponseLogps(logp, torch.ones_like(logp), torch.full_like(logp, reference))

    return PairLogps(side(chosen), side(rejected), torch.ones(1, dtype=torch.float64))


def test_worked_losses() -> None:
    batch = pair(4, -6, reference=-30)
    assert RSO(loss_type="sigmoid-norm").loss(batch).item() == pytest.approx(0.474077, abs=5e-7)
    assert RSO(loss_type="hinge-norm").loss(batch).item() == pytest.approx(0.5, abs=1e-12)
    assert RSO(loss_type="hinge").loss(pair(-20, -18)).item() == pytest.approx(1.1, abs=1e-12)
    assert RSO(loss_type="hinge", sft_coef=0.1).loss(pair(-20, -18)).item() == pytest.approx(1.1 + 2, abs=1e-12)


@pytest.mark.parametrize("gap", [-40.0, -3.0, 0.5, 30.0])
def test_the_losses_by_their_other_names(gap: float) -> None:
    batch = pair(gap, 1.0, reference=-9)
    assert torch.equal(RSO(gamma=0.2).loss(batch), DPO(beta=0.2).loss(batch))
    assert torch.equal(RSO(loss_type="hinge-norm", gamma=0.2).loss(batch), HingeNorm(beta=0.2).loss(batch))
    calibrated = 0.2 * SLiC(delta=5.0).loss(batch)
    assert RSO(loss_type="hinge", gamma=0.2).loss(batch).item() == pytest.approx(calibrated.item(), abs=1e-12)


def test_only_the_hinge_without_reference_needs_none() -> None:
    assert [RSO(loss_type=name).needs_reference for name in ("sigmoid-norm", "hinge", "hinge-norm")] == [
        True,
        False,
        True,
    ]


def test_first_round_and_tournament() -> None:
    rewards = np.random.default_rng(4).normal(size=(30, 20))
    accepted = rejection_sample(rewards, RejectionOptions(n_samples=8)).indices
    labeller = symmetric(reward_labeller(1000 * rewards))
    first = rank_pairs(accepted, labeller, seed=2)
    both = np.concatenate([first.chosen, first.rejected], 1)
    assert first.chosen.shape == (30, 4) and (np.sort(both, 1) == np.sort(accepted, 1)).all()
    tournament = rank_pairs(accepted, labeller, ranking="tournament", seed=2)
    assert tournament.chosen.shape == (30, 7)
    winner = accepted[np.arange(30), np.take_along_axis(rewards, accepted, 1).argmax(1)]
    assert ((tournament.chosen == winner[:, None]).sum(1) == 3).all()
    assert not (tournament.rejected == winner[:, None]).any()
    assert (
        np.take_along_axis(rewards, tournament.chosen, 1) > np.take_along_axis(rewards, tournament.rejected, 1)
    ).all()
