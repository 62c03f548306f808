"""Direct Nash optimisation against worked numbers (arXiv 2404.03715), in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from paperworks.language.objectives import DNO, DPO, PairLogps, ResponseLogps
from paperworks.language.objectives.soft_preferences import JudgedPairLogps
from paperworks.language.sources.dno_pairs import PairRule, Writer, provenance
from paperworks.language.testbeds.nash_rounds import regressed_round, run_rounds, soft_policy_iteration
from paperworks.language.testbeds.preference_games import PreferenceGames, divergence


def tensor(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


CURRENT = tensor([0.5, 0.3, 0.2]).log()
GAME = PreferenceGames(tensor([[0.5, 0.9, 0.3], [0.1, 0.5, 0.7], [0.7, 0.3, 0.5]]), CURRENT)


def test_the_reward_is_the_win_rate_against_the_current_policy() -> None:
    assert torch.allclose(GAME.against(CURRENT), tensor([0.58, 0.34, 0.54]), atol=1e-12)


@pytest.mark.parametrize(
    ("eta", "following", "improvement", "bound"),
    [
        (1.0, [0.538708, 0.254258, 0.207034], 0.510697, 0.505263),
        (0.25, [0.636702, 0.146273, 0.217025], 0.536213, 0.516637),
    ],
)
def test_a_round_by_hand(eta: float, following: list[float], improvement: float, bound: float) -> None:
    found = soft_policy_iteration(GAME, CURRENT, eta)
    assert torch.allclose(found.exp(), tensor(following), atol=5e-7)
    assert GAME.win_rate(found, CURRENT).item() == pytest.approx(improvement, abs=5e-7)
    assert (0.5 + eta * divergence(found, CURRENT)).item() == pytest.approx(bound, abs=5e-7)
    assert improvement >= bound


def pair(gap: float = 0.0, chosen_reward: float = 0.58, rejected_reward: float = 0.34) -> JudgedPairLogps:
    """The first two answers, with log-ratios `gap` apart."""
    one = torch.ones(1, dtype=torch.float64)
    return JudgedPairLogps(
        ResponseLogps(tensor(gap - 3.0), one, tensor(-3.0)),
        ResponseLogps(tensor(-5.0), one, tensor(-5.0)),
        one,
        None,
        tensor(0.9),
        tensor(chosen_reward),
        tensor(rejected_reward),
    )


def test_the_target_of_a_pair_and_its_loss() -> None:
    objective = DNO(eta=1.0)
    target = objective.metrics(pair())["target"].item()
    assert target == pytest.approx(0.559714, abs=5e-7)
    assert objective.loss(pair()).item() == pytest.approx(math.log(2))
    at_minimum = objective.loss(pair(gap=0.24)).item()  # eta times the gap is the difference of win rates
    entropy = -target * math.log(target) - (1 - target) * math.log(1 - target)
    assert at_minimum == pytest.approx(0.685999, abs=5e-7)
    assert at_minimum == pytest.approx(entropy, abs=1e-12)
    assert all(objective.loss(pair(gap=gap)).item() > at_minimum for gap in (0.23, 0.25))


@pytest.mark.parametrize("eta", [0.25, 1.0, 5.0])
def test_the_regression_over_all_pairs_is_soft_policy_iteration(eta: float) -> None:
    fitted = regressed_round(GAME, CURRENT, DNO(eta=eta))
    assert torch.allclose(fitted.exp(), soft_policy_iteration(GAME, CURRENT, eta).exp(), atol=1e-8)


def test_rewards_and_eta_may_be_scaled_together() -> None:
    win_rates = GAME.against(CURRENT)
    plain, scaled = (torch.log_softmax(CURRENT + scale * win_rates / (scale * 0.5), -1) for scale in (1.0, 3.0))
    assert torch.allclose(plain, scaled, atol=1e-12)
    # in the loss: at the minimiser of one, the other has no slope either
    gap = tensor(0.24 / 0.5).requires_grad_(True)
    for scale in (1.0, 3.0):
        one = pair(0.0, scale * 0.58, scale * 0.34)
        moved = JudgedPairLogps(
            ResponseLogps(gap - 3.0, one.weight, tensor(-3.0)),
            one.rejected,
            one.weight,
            None,
            None,
            one.chosen_reward,
            one.rejected_reward,
        )
        (slope,) = torch.autograd.grad(DNO(eta=scale * 0.5).loss(moved).sum(), gap)
        assert slope.abs().item() < 1e-12


def test_the_minimax_winner_is_indifferent_and_the_average_of_rounds_nears_it() -> None:
    winner = tensor([0.25, 0.25, 0.5]).log()
    assert torch.allclose(GAME.against(winner), tensor([0.5, 0.5, 0.5]), atol=1e-12)
    uniform = torch.full_like(CURRENT, -math.log(3))
    average = run_rounds(uniform, lambda now: soft_policy_iteration(GAME, now, 3.0), 1000).averages()[-1]
    assert torch.allclose(average.exp(), tensor([0.252754, 0.238928, 0.508318]), atol=5e-7)
    assert GAME.exploitability(average).item() == pytest.approx(0.002765, abs=5e-7)


def test_the_last_round_circles_where_the_average_does_not() -> None:
    uniform = torch.full_like(CURRENT, -math.log(3))
    rounds = run_rounds(uniform, lambda now: soft_policy_iteration(GAME, now, 1.0), 1000)
    assert GAME.exploitability(rounds.log_policies[-1]).item() > 0.15
    assert GAME.exploitability(rounds.averages()[-1]).item() < 0.005


def test_the_hard_label_limit_is_dpo_against_the_round_s_policy() -> None:
    for gap in (-3.0, 0.0, 2.0):
        one = pair(gap)
        plain = PairLogps(one.chosen, one.rejected, one.weight)
        assert torch.equal(DNO(eta=0.4, target="hard").loss(one), DPO(beta=0.4).loss(plain))
    assert DNO(eta=0.4).loss(pair(2.0, 60.0, 0.0)).item() == pytest.approx(DPO(beta=0.4).loss(pair(2.0)).item())


@pytest.mark.parametrize(
    ("teacher", "students", "counts"),
    [
        (6, [5, 5, 4, 3, 2], {"student > student": 6, "teacher > student": 3}),
        (4, [5, 4, 4, 4, 1], {"student > student": 4, "student > teacher": 1}),
    ],
)
def test_pairs_of_the_practical_form(teacher: float, students: list[float], counts: dict[str, int]) -> None:
    writers: list[Writer] = ["teacher", *["student" for _ in students]]
    assert provenance(PairRule().pairs([teacher, *students], writers)) == counts
