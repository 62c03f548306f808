import pytest
import torch

from paperworks.core.errors import OptionError
from paperworks.language.objectives import DPO, HyPO
from paperworks.language.testbeds import coverage_bandit, reward_model_bandit
from paperworks.language.testbeds.coverage_bandit import draw_covered_pairs, make_bandit, train

SEEDS = range(4)


@pytest.fixture(scope="module")
def bandit():
    return make_bandit(SEEDS)


@pytest.fixture(scope="module")
def pairs(bandit):
    return draw_covered_pairs(bandit, SEEDS, 100)


def test_the_fitted_reward_orders_covered_responses_as_the_true_one(bandit, pairs) -> None:
    learned = reward_model_bandit.fit_reward(bandit, pairs)
    for seed in SEEDS:
        covered = bandit.covered[seed]
        assert torch.corrcoef(torch.stack([learned[seed, covered], bandit.reward[seed, covered]]))[0, 1] > 0.6


def test_a_stronger_kl_keeps_the_climber_nearer() -> None:
    course = reward_model_bandit.run([0.03, 1.0], SEEDS, pairs=60, steps=150)
    assert (course.kl[-1, 0] > course.kl[-1, 1]).all()
    assert course.held_out.isnan().all()


def test_a_fit_without_ridge_is_refused(bandit, pairs) -> None:
    with pytest.raises(OptionError, match="ridge=0"):
        reward_model_bandit.fit_reward(bandit, pairs, ridge=0)


def test_sampled_and_exact_kl_lead_to_nearly_the_same_place(bandit, pairs) -> None:
    sampled = train(bandit, [HyPO(beta=0.1, lam=0.1)], pairs, pairs, samples=8, steps=80)
    exact, free = train(bandit, [DPO(beta=0.1)] * 2, pairs, pairs, kl_penalties=[0.1, 0.0], steps=80).kl[-1]
    assert (sampled.kl[-1, 0] - exact).abs().mean() < 0.3 * (free - exact).mean()


def test_without_lam_hypo_s_course_is_dpo_s(bandit, pairs) -> None:
    both = train(bandit, [HyPO(beta=0.1, lam=0.0), DPO(beta=0.1)], pairs, pairs, steps=30)
    assert torch.equal(both.reward[:, 0], both.reward[:, 1])
    assert torch.equal(both.held_out[:, 0], both.held_out[:, 1])


def test_a_seed_s_samples_are_its_own(bandit, pairs) -> None:
    together = train(bandit, [HyPO(beta=0.1, lam=0.1)], pairs, pairs, steps=20)
    alone_pairs = draw_covered_pairs(make_bandit([2]), [2], 100)
    alone = train(make_bandit([2]), [HyPO(beta=0.1, lam=0.1)], alone_pairs, alone_pairs, seeds=[2], steps=20)
    assert torch.allclose(together.kl[:, 0, 2], alone.kl[:, 0, 0], atol=1e-10)


def test_points_stand_beside_each_other(bandit, pairs) -> None:
    first, second = (train(bandit, [DPO(beta=beta)], pairs, pairs, steps=10) for beta in (0.1, 0.3))
    both = train(bandit, [DPO(beta=0.1), DPO(beta=0.3)], pairs, pairs, steps=10)
    joined = coverage_bandit.Course.beside(first, second)
    assert torch.allclose(joined.reward, both.reward, atol=1e-12)
    assert joined.held_out.shape == both.held_out.shape
