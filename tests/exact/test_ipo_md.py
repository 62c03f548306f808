"""Online IPO and IPO-MD against worked numbers and closed forms (arXiv 2403.08635), in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from paperworks.language.objectives import IPOMD, PairLogps, ResponseLogps
from paperworks.language.objectives.soft_preferences import JudgedPairLogps, OnlineDPO, OnlineIPO
from paperworks.language.testbeds.game_learners import NashMDPG, PairRule, exact_gradient, learn
from paperworks.language.testbeds.preference_games import PreferenceGames, make_games

CIRCLE = [[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]]


def tensor(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def game(preference: list[list[float]], reference: list[float]) -> PreferenceGames:
    return PreferenceGames(tensor(preference), tensor(reference).log())


def random_policy(games: PreferenceGames, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(torch.randn(games.log_reference.shape, generator=generator, dtype=torch.float64), -1)


THREE = game(CIRCLE, [0.6, 0.3, 0.1])


@pytest.mark.parametrize(
    ("tau", "equilibrium", "of_reference"),
    [
        (1.0, [0.644255, 0.241952, 0.113793], 0.009056),
        (0.1, [0.492747, 0.154147, 0.353106], 0.056444),
        (0.05, [0.387969, 0.208438, 0.403593], 0.072219),
    ],
)
def test_equilibria_and_the_exploitability_of_the_reference(
    tau: float, equilibrium: list[float], of_reference: float
) -> None:
    found = THREE.equilibrium(tau)
    assert torch.allclose(found.exp(), tensor(equilibrium), atol=5e-7)
    assert THREE.regularised_exploitability(found, tau).abs().max() < 1e-14
    assert THREE.regularised_exploitability(THREE.log_reference, tau).item() == pytest.approx(of_reference, abs=5e-7)


def game_gradient(games: PreferenceGames, policy: Tensor, tau: float) -> Tensor:
    """Of P(pi > opponent) - tau KL(pi || pi_ref) with respect to the logits of pi, the opponent being pi held fixed."""
    logits = policy.clone().requires_grad_(True)
    log_policy = torch.log_softmax(logits, -1)
    value = games.win_rate(log_policy, policy) - tau * games.kl(log_policy)
    return torch.autograd.grad(value.sum(), logits)[0]


def test_the_gradient_of_online_ipo_is_that_of_self_play() -> None:
    policy, tau = tensor([0.5, 0.2, 0.3]).log(), 0.1
    of_loss = exact_gradient(THREE, PairRule(OnlineIPO(tau=tau, scale="square")), policy)
    of_game = game_gradient(THREE, policy, tau)
    assert torch.allclose(of_loss, tensor([-0.479303, 0.429764, 0.049539]), atol=5e-7)
    assert torch.allclose(of_game, tensor([0.011983, -0.010744, -0.001238]), atol=1e-6)
    assert torch.allclose(of_loss, -4 / tau * of_game, rtol=1e-12)
    assert torch.allclose(exact_gradient(THREE, PairRule(OnlineIPO(tau=tau)), policy), -4 * of_game, rtol=1e-12)
    assert torch.allclose(exact_gradient(THREE, NashMDPG(tau), policy), -of_game, rtol=1e-12)


@pytest.mark.parametrize(
    ("mixture", "policy", "mixed"),
    [
        (0.25, [0.49160, 0.09826, 0.41014], [0.552753, 0.138942, 0.308305]),
        (0.5, [0.51502, 0.04963, 0.43535], [0.627021, 0.137631, 0.235348]),
    ],
)
def test_the_mixture_of_ipo_md_s_fixed_point_is_an_equilibrium(
    mixture: float, policy: list[float], mixed: list[float]
) -> None:
    tau = 0.1
    equilibrium = THREE.equilibrium(tau / (1 - mixture))
    fixed_point = THREE.soft_best_response(equilibrium, tau)
    assert torch.allclose(equilibrium.exp(), tensor(mixed), atol=5e-7)
    assert torch.allclose(fixed_point.exp(), tensor(policy), atol=5e-6)
    assert torch.allclose(THREE.mixture(fixed_point, mixture), equilibrium, atol=1e-9)
    for rule in (PairRule(IPOMD(tau=tau), mixture), NashMDPG(tau, mixture)):  # the same fixed points
        assert exact_gradient(THREE, rule, fixed_point).abs().max() < 1e-10
        assert exact_gradient(THREE, rule, THREE.equilibrium(tau)).abs().max() > 1e-4


def test_without_mixture_the_fixed_point_is_the_equilibrium_and_with_nothing_else_offline_ipo_s() -> None:
    assert exact_gradient(THREE, PairRule(IPOMD(tau=0.1)), THREE.equilibrium(0.1)).abs().max() < 1e-10
    offline = THREE.soft_best_response(THREE.log_reference, 0.1)
    assert torch.allclose(offline.exp(), tensor([0.83924, 0.02089, 0.13987]), atol=5e-6)
    assert exact_gradient(THREE, PairRule(IPOMD(tau=0.1), 1.0), offline).abs().max() < 1e-10


def test_descent_finds_the_equilibrium() -> None:
    course = learn(THREE, PairRule(OnlineIPO(tau=0.1)), [10.0], steps=400)
    assert torch.allclose(course.last[0].exp(), THREE.equilibrium(0.1).exp(), atol=1e-6)


def test_ipo_md_and_nash_md_average_one_field_over_different_answers() -> None:
    games, tau, mixture = make_games([3, 4], "random", actions=5), 0.2, 0.3
    policy = random_policy(games)
    mixed = games.mixture(policy, mixture)
    log_ratio = policy - games.log_reference

    def averaged(weight: Tensor) -> Tensor:
        """Over y of that weight: (P(y > pi^b) - 1/2 - tau (h - mean h)) grad log pi(y), with respect to the logits."""
        field = games.against(mixed) - 0.5 - tau * (log_ratio - (weight * log_ratio).sum(-1, keepdim=True))
        return weight * field - policy.exp() * (weight * field).sum(-1, keepdim=True)

    of_ipo = exact_gradient(games, PairRule(IPOMD(tau=tau, scale="square"), mixture), policy)
    assert torch.allclose(of_ipo, -4 / tau * averaged(mixed.exp()), rtol=1e-9, atol=1e-12)
    assert torch.allclose(exact_gradient(games, NashMDPG(tau, mixture), policy), -averaged(policy.exp()), atol=1e-12)
    # and so the gradients point in different directions
    cosine = torch.cosine_similarity(of_ipo, exact_gradient(games, NashMDPG(tau, mixture), policy), dim=-1)
    assert (cosine < 0.99).all()


def pair(gap: float, probability: float = math.nan) -> JudgedPairLogps:
    """One pair whose log-ratios are `gap` apart."""
    one = torch.ones(1, dtype=torch.float64)
    return JudgedPairLogps(
        ResponseLogps(tensor(gap - 3.0), one, tensor(-3.0)),
        ResponseLogps(tensor(-5.0), one, tensor(-5.0)),
        one,
        None,
        tensor(probability),
    )


def test_hard_labels_by_hand() -> None:
    objective = OnlineIPO(tau=0.1, scale="square")
    assert objective.loss(pair(3.0)).item() == pytest.approx(4)
    assert objective.loss(pair(-1.0)).item() == pytest.approx(36)
    assert OnlineIPO(tau=0.1).loss(pair(3.0)).item() == pytest.approx(0.4)


def test_a_plain_pair_has_a_hard_label() -> None:
    judged = pair(3.0)
    plain = PairLogps(judged.chosen, judged.rejected, judged.weight)
    assert torch.equal(OnlineIPO().loss(plain), OnlineIPO().loss(judged))


def test_hard_labels_have_the_soft_gradient_on_average() -> None:
    policy = random_policy(THREE)
    soft, hard = (
        exact_gradient(THREE, PairRule(OnlineIPO(tau=0.1), 0.25, hard_labels=hard), policy) for hard in (False, True)
    )
    assert torch.allclose(soft, hard, rtol=1e-12)


def test_the_loss_is_the_weighted_loss_of_both_orders_up_to_a_constant() -> None:
    gap, tau, p = torch.linspace(-4, 4, 9, dtype=torch.float64), 0.3, 0.7
    both = p * (-gap + tau * gap**2) + (1 - p) * (gap + tau * gap**2)
    ours = torch.cat([OnlineIPO(tau=tau).loss(pair(float(each), p)) for each in gap])
    assert torch.allclose(ours - both, (ours - both)[0].expand(9), atol=1e-12)


def test_an_indifferent_judge_at_the_reference_gives_no_loss_and_no_gradient() -> None:
    games = game([[0.5] * 3] * 3, [0.6, 0.3, 0.1])
    assert OnlineIPO(tau=0.1).loss(pair(0.0, 0.5)).item() == 0
    assert exact_gradient(games, PairRule(OnlineIPO(tau=0.1)), games.log_reference).abs().max() == 0


def test_the_mixture_runs_from_policy_to_reference_and_does_not_see_constants() -> None:
    policy = random_policy(THREE)
    assert torch.allclose(THREE.mixture(policy, 0.0), policy, atol=1e-14)
    assert torch.allclose(THREE.mixture(policy, 1.0), THREE.log_reference, atol=1e-14)
    shifted = PreferenceGames(THREE.preference, THREE.log_reference - 7)
    assert torch.allclose(shifted.mixture(policy + 5, 0.3), THREE.mixture(policy, 0.3), atol=1e-12)


def test_online_dpo_rests_at_the_rlhf_optimum_of_a_bradley_terry_judge() -> None:
    games, tau = make_games([0, 1], "transitive", actions=4), 0.3
    rule = PairRule(OnlineDPO(beta=tau))
    rlhf = games.tilted(games.bradley_terry(), tau)
    assert exact_gradient(games, rule, rlhf).abs().max() < 1e-8
    assert (games.regularised_exploitability(rlhf, tau) > 0.005).all()
    assert exact_gradient(games, rule, games.equilibrium(tau)).abs().amax(-1).min() > 1e-3


def test_with_two_answers_online_dpo_is_at_the_equilibrium_only_under_an_indifferent_judge() -> None:
    for p, is_at_rest in ((0.5, True), (0.6, False), (0.9, False)):
        games = game([[0.5, p], [1 - p, 0.5]], [0.7, 0.3])
        gradient = exact_gradient(games, PairRule(OnlineDPO(beta=0.2)), games.equilibrium(0.2))
        assert (gradient.abs().max() < 1e-9) == is_at_rest


def test_symmetric_rock_paper_scissors_is_the_exception() -> None:
    games = game([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]], [1 / 3, 1 / 3, 1 / 3])
    assert exact_gradient(games, PairRule(OnlineDPO(beta=0.2)), games.equilibrium(0.2)).abs().max() < 1e-12


def test_with_two_answers_offline_and_online_ipo_rest_at_the_same_policy() -> None:
    games = game([[0.5, 0.8], [0.2, 0.5]], [0.7, 0.3])
    offline = games.soft_best_response(games.log_reference, 0.2)
    assert torch.allclose(offline, games.equilibrium(0.2), atol=1e-9)
    for mixture in (0.0, 1.0):
        assert exact_gradient(games, PairRule(OnlineIPO(tau=0.2), mixture), offline).abs().max() < 1e-9
