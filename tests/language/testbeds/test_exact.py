"""Theory on enumerable token MDPs: what each objective's population minimiser is, to 1e-6."""

import pytest
import torch

from paperworks.core.errors import OptionError
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.ipo import IPO
from paperworks.language.objectives.kto import KTO
from paperworks.language.objectives.ln_dpo import LNDPO
from paperworks.language.objectives.objective import PairObjective
from paperworks.language.objectives.rdpo import ConservativeDPO, RobustDPO
from paperworks.language.objectives.simpo import SimPO
from paperworks.language.testbeds.exact import (
    TokenMDP,
    flipped,
    population_feedback_loss,
    population_pair_loss,
    random_token_mdp,
)
from paperworks.language.testbeds.newton import minimise

BETA = 0.7


@pytest.fixture(scope="module")
def mdp() -> TokenMDP:
    return random_token_mdp(0, vocabulary=2, horizon=2)


def minimiser(mdp: TokenMDP, objective: PairObjective, preference: torch.Tensor) -> torch.Tensor:
    """log pi of every response at the objective's population minimum."""
    start = mdp.reference_logits.flatten()[None]
    found = minimise(population_pair_loss(mdp, objective, preference), start, tolerance=1e-10)
    assert found.converged(1e-8)
    return mdp.log_probabilities(found.point[0].unflatten(0, mdp.reference_logits.shape))


def test_enumeration_is_complete() -> None:
    mdp = random_token_mdp(3, vocabulary=3, horizon=4)
    assert len(mdp.responses) == len(set(mdp.responses)) == 121
    assert len(mdp.prefixes) == 40
    assert torch.allclose(mdp.reference.exp().sum(), torch.ones((), dtype=torch.float64), atol=1e-12)
    assert mdp.tokens.tolist() == [len(response) for response in mdp.responses]


def test_log_probability_is_the_sum_over_tokens(mdp: TokenMDP) -> None:
    response = (1, 0)
    by_hand = torch.log_softmax(mdp.reference_logits, -1)
    expected = by_hand[mdp.prefixes.index(()), 1] + by_hand[mdp.prefixes.index((1,)), 0]
    assert torch.allclose(mdp.reference[mdp.responses.index(response)], expected, atol=1e-14)


def test_log_probabilities_take_batches_of_policies(mdp: TokenMDP) -> None:
    logits = torch.stack([mdp.reference_logits, torch.zeros_like(mdp.reference_logits)])
    assert torch.allclose(mdp.log_probabilities(logits)[0], mdp.reference)


def test_optimum_attains_the_best_value_and_no_policy_passes_it(mdp: TokenMDP) -> None:
    optimum = mdp.optimum(BETA)
    assert torch.allclose(mdp.value(optimum, BETA), mdp.best_value(BETA), atol=1e-12)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, *mdp.reference_logits.shape, generator=generator, dtype=torch.float64)
    regrets = mdp.regret(mdp.log_probabilities(logits), BETA)
    assert (regrets > 0).all()


def test_regret_is_beta_times_kl_to_the_optimum(mdp: TokenMDP) -> None:
    logp = mdp.log_probabilities(torch.zeros_like(mdp.reference_logits))
    kl_to_optimum = (logp.exp() * (logp - mdp.optimum(BETA))).sum()
    assert torch.allclose(mdp.regret(logp, BETA), BETA * kl_to_optimum, atol=1e-12)


def test_the_table_represents_any_distribution(mdp: TokenMDP) -> None:
    optimum = mdp.optimum(0.1)
    assert torch.allclose(mdp.log_probabilities(mdp.table(optimum)), optimum, atol=1e-10)


def test_dpo_finds_the_optimal_policy(mdp: TokenMDP) -> None:
    found = minimiser(mdp, DPO(beta=BETA), mdp.preference())
    assert torch.allclose(found, mdp.optimum(BETA), atol=1e-6)
    assert mdp.regret(found, BETA) < 1e-8


@pytest.mark.parametrize("flip_rate", [0.1, 0.3, 0.45])
def test_rdpo_finds_it_under_flipped_labels(mdp: TokenMDP, flip_rate: float) -> None:
    noisy = flipped(mdp.preference(), flip_rate)
    found = minimiser(mdp, RobustDPO(beta=BETA, flip_rate=flip_rate), noisy)
    assert torch.allclose(found, mdp.optimum(BETA), atol=1e-6)


def test_rdpo_with_the_robust_ipo_loss_equals_ipo_on_clean_labels(mdp: TokenMDP) -> None:
    noisy = flipped(mdp.preference(), 0.3)
    robust = minimiser(mdp, RobustDPO(beta=BETA, flip_rate=0.3, pair_loss="ipo"), noisy)
    assert torch.allclose(robust, minimiser(mdp, IPO(tau=BETA), mdp.preference()), atol=1e-6)


def test_dpo_and_cdpo_stay_short_of_it_under_flipped_labels(mdp: TokenMDP) -> None:
    noisy = flipped(mdp.preference(), 0.2)
    optimum = mdp.kl(mdp.optimum(BETA))
    plain = minimiser(mdp, DPO(beta=BETA), noisy)
    smoothed = minimiser(mdp, ConservativeDPO(beta=BETA, flip_rate=0.2), noisy)
    assert mdp.kl(smoothed) < mdp.kl(plain) < optimum
    assert mdp.regret(smoothed, BETA) > mdp.regret(plain, BETA) > 0.01


def test_cdpo_on_clean_labels_is_dpo_on_flipped_ones(mdp: TokenMDP) -> None:
    smoothed = minimiser(mdp, ConservativeDPO(beta=BETA, flip_rate=0.2), mdp.preference())
    plain = minimiser(mdp, DPO(beta=BETA), flipped(mdp.preference(), 0.2))
    assert torch.allclose(smoothed, plain, atol=1e-6)


def test_ipo_has_its_closed_form(mdp: TokenMDP) -> None:
    # Azar et al. 2023: pi proportional to pi_ref exp(p(y > mu) / tau), mu the policy the responses come from
    preference = mdp.preference()
    total_preference = preference @ mdp.reference.exp()
    found = minimiser(mdp, IPO(tau=0.4), preference)
    assert torch.allclose(found, mdp.optimum(0.4, total_preference), atol=1e-6)


@pytest.mark.parametrize("objective", [LNDPO(beta=3.0), SimPO(beta=3.0, gamma_ratio=0.0)], ids=["ln-dpo", "simpo"])
def test_length_normalised_objectives_rank_by_averages(mdp: TokenMDP, objective: PairObjective) -> None:
    # margin = reward difference at the minimum, so that the averages are reward / beta up to one constant
    found = minimiser(mdp, objective, mdp.preference())
    start = mdp.reference if objective.needs_reference else torch.zeros_like(found)
    constants = (found - start) / mdp.tokens - mdp.reward / objective.beta
    assert torch.allclose(constants, constants[0].expand_as(constants), atol=1e-6)


def test_simpo_with_a_target_margin_moves_past_the_reward(mdp: TokenMDP) -> None:
    without = minimiser(mdp, SimPO(beta=3.0, gamma_ratio=0.0), mdp.preference())
    beyond = minimiser(mdp, SimPO(beta=3.0, gamma_ratio=0.3), mdp.preference())
    assert (beyond.exp() * mdp.reward).sum() > (without.exp() * mdp.reward).sum()


@pytest.mark.parametrize("objective", [DPO(beta=BETA), RobustDPO(beta=BETA, flip_rate=0.2)], ids=["dpo", "rdpo"])
def test_gradient_at_the_reference_is_half_beta_times_the_score_difference(
    mdp: TokenMDP, objective: PairObjective
) -> None:
    # margin 0 everywhere: d loss / d margin is -(1/2 + eps / (1 - 2 eps))
    flip_rate = getattr(objective, "flip_rate", 0.0)
    push = 0.5 + flip_rate / (1 - 2 * flip_rate)
    logits = mdp.reference_logits.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(
        population_pair_loss(mdp, objective, mdp.preference())(logits.flatten()[None]).sum(), logits
    )
    mass = (mdp.reference[:, None] + mdp.reference[None, :]).exp() * mdp.preference()
    mass.fill_diagonal_(0.0)
    mass /= mass.sum()
    logp = mdp.log_probabilities(logits)
    difference = (mass * (logp[:, None] - logp[None, :])).sum()
    (by_hand,) = torch.autograd.grad(-push * BETA * difference, logits)
    assert torch.allclose(gradient, by_hand, atol=1e-12)


def test_kto_gradient_at_the_reference(mdp: TokenMDP) -> None:
    # sigmoid'(0) = 1/4: a desirable response is pushed up by beta/4, an undesirable one down by as much
    desirable = mdp.reward > 0
    logits = mdp.reference_logits.clone().requires_grad_(True)
    loss = population_feedback_loss(mdp, KTO(beta=BETA), desirable)(logits.flatten()[None])
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    push = mdp.reference.exp() * torch.where(desirable, -BETA / 4, BETA / 4)
    (by_hand,) = torch.autograd.grad((push * mdp.log_probabilities(logits)).sum(), logits)
    assert torch.allclose(gradient, by_hand, atol=1e-12)


def test_a_world_too_large_to_enumerate_is_refused() -> None:
    with pytest.raises(OptionError, match="vocabulary=10, horizon=5"):
        random_token_mdp(0, vocabulary=10, horizon=5)
