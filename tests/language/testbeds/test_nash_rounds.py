"""Rounds of self-improvement: closed forms, DPO's gradient steps, averages."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from paperworks.language.objectives import DPO, PairLogps, ResponseLogps
from paperworks.language.objectives.soft_preferences import DNO, OnlineDPO
from paperworks.language.testbeds.nash_rounds import (
    Rounds,
    hard_label_round,
    refitted_reward,
    regressed_round,
    run_rounds,
    soft_policy_iteration,
)
from paperworks.language.testbeds.preference_games import divergence, make_games

GAMES = make_games(range(3), "random-cycle", actions=5)
CURRENT = torch.log_softmax(torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64), -1)


@pytest.mark.parametrize("eta", [0.02, 1.0, 50.0])
def test_the_regression_is_the_closed_form(eta: float) -> None:
    fitted = regressed_round(GAMES, CURRENT, DNO(eta=eta))
    assert torch.allclose(fitted.exp(), soft_policy_iteration(GAMES, CURRENT, eta).exp(), atol=1e-8)


def test_online_dpo_on_all_pairs_tilts_by_the_bradley_terry_fit() -> None:
    fitted = regressed_round(GAMES, CURRENT, OnlineDPO(beta=0.5))
    tilted = torch.log_softmax(CURRENT + GAMES.bradley_terry() / 0.5, -1)
    assert torch.allclose(fitted.exp(), tilted.exp(), atol=1e-7)


@pytest.mark.parametrize("eta", [0.05, 0.5, 5.0])
def test_every_round_improves_by_at_least_the_bound(eta: float) -> None:
    rounds = run_rounds(CURRENT, lambda now: soft_policy_iteration(GAMES, now, eta), 30)
    assert (rounds.improvements(GAMES) - 0.5 - eta * rounds.divergences() > -1e-12).all()


def test_grid_points_of_eta_are_rounds_of_their_own() -> None:
    etas = torch.tensor([0.5, 2.0], dtype=torch.float64)
    together = soft_policy_iteration(GAMES, CURRENT.expand(2, -1, -1), etas[:, None, None])
    hard = hard_label_round(CURRENT.expand(2, -1, -1), GAMES.bradley_terry(), etas[:, None, None])
    for index, eta in enumerate(etas.tolist()):
        assert torch.allclose(together[index], soft_policy_iteration(GAMES, CURRENT, eta))
        assert torch.allclose(hard[index], hard_label_round(CURRENT, GAMES.bradley_terry(), eta))


def test_the_regularised_mixture_comes_to_rest_at_an_equilibrium() -> None:
    eta, tau = 2.0, 0.5
    rounds = run_rounds(CURRENT, lambda now: soft_policy_iteration(GAMES, now, eta, tau=tau), 400)
    mixed = GAMES.mixture(rounds.log_policies[-1], tau / eta)
    assert torch.allclose(mixed.exp(), GAMES.equilibrium(tau / (1 - tau / eta)).exp(), atol=1e-8)


def dpo_steps(reward: Tensor, eta: float, steps: int) -> Tensor:
    """The same by autograd on the shipped objective, for one game."""
    current = CURRENT[:1]
    winner, loser = torch.nonzero(reward[0][:, None] > reward[0][None, :], as_tuple=True)
    logits = current.clone()
    for _ in range(steps):
        logits = logits.detach().requires_grad_(True)
        one = torch.ones(len(winner), dtype=torch.float64)
        log_policy = torch.log_softmax(logits, -1)[0]
        batch = PairLogps(
            ResponseLogps(log_policy[winner], one, current[0, winner]),
            ResponseLogps(log_policy[loser], one, current[0, loser]),
            one,
        )
        (gradient,) = torch.autograd.grad(DPO(beta=eta).loss(batch).mean(), logits)
        logits = logits - 4 / eta**2 * gradient
    return torch.log_softmax(logits.detach(), -1)


def test_a_hard_label_round_is_gradient_steps_of_dpo() -> None:
    reward = GAMES.bradley_terry()
    ours = hard_label_round(CURRENT[:1], reward[:1], 0.7, steps=4)
    assert torch.allclose(ours, dpo_steps(reward[:1], 0.7, 4), atol=1e-10)


def test_a_refitted_reward_looks_at_what_the_policy_answers() -> None:
    rock_paper_scissors = make_games([0], "random-cycle", actions=3)
    concentrated = torch.log_softmax(torch.tensor([[6.0, 0.0, 0.0]], dtype=torch.float64), -1)
    reward = refitted_reward(rock_paper_scissors, concentrated)
    assert reward[0].argmax() == rock_paper_scissors.preference[0, :, 0].argmax()  # what beats the answer it gives


def test_averages_are_mixtures_of_the_rounds_so_far() -> None:
    policies = torch.tensor([[[0.5, 0.5]], [[0.1, 0.9]], [[1.0, 0.0]]], dtype=torch.float64).log()
    averages = Rounds(policies).averages().exp()
    assert torch.allclose(averages[:, 0, 0], torch.tensor([0.5, 0.3, 1.6 / 3], dtype=torch.float64))
    assert Rounds(policies).divergences()[-1].item() == pytest.approx(-torch.tensor(0.1).log().item(), rel=1e-5)
    assert divergence(policies[0], policies[0]).item() == 0
