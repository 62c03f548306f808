import pytest
import torch

from paperworks.core.errors import OptionError
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.rpo import RPO
from paperworks.language.testbeds.coverage_bandit import draw_covered_pairs, make_bandit, train

SEEDS = range(4)


@pytest.fixture(scope="module")
def bandit():
    return make_bandit(SEEDS)


@pytest.fixture(scope="module")
def pairs(bandit):
    return draw_covered_pairs(bandit, SEEDS, 100)


def course(bandit, pairs, *objectives, **options):
    return train(bandit, objectives, pairs, pairs, steps=options.pop("steps", 60), **options)


def test_the_reward_is_low_outside_the_covered_set(bandit) -> None:
    assert bandit.covered.sum(-1).tolist() == [30] * 4
    outside = bandit.reward[~bandit.covered]
    assert outside.mean() < -0.9
    assert outside.max() < 0
    assert abs(bandit.reward[bandit.covered].mean()) < 0.3


def test_pairs_are_covered_and_differ(bandit, pairs) -> None:
    assert bool(bandit.covered.gather(1, pairs.chosen).all())
    assert bool(bandit.covered.gather(1, pairs.rejected).all())
    assert bool((pairs.chosen != pairs.rejected).all())
    assert bandit.reward.gather(1, pairs.chosen).mean() > bandit.reward.gather(1, pairs.rejected).mean()


def test_baseline_samples_come_from_where_they_should(bandit, pairs) -> None:
    uniform = draw_covered_pairs(bandit, SEEDS, 100, base="covered")
    assert bool(bandit.covered.gather(1, uniform.base).all())
    assert torch.equal(uniform.chosen, pairs.chosen)
    share = bandit.covered.gather(1, pairs.base).double().mean()
    expected = (bandit.log_reference.exp() * bandit.covered).sum(-1).mean()
    assert abs(share - expected) < 0.1


def test_step_zero_is_the_reference(bandit, pairs) -> None:
    start = course(bandit, pairs, DPO(beta=0.1), steps=1)
    assert start.kl[0].abs().max() < 1e-14
    assert torch.allclose(start.reward[0, 0], (bandit.log_reference.exp() * bandit.reward).sum(-1))
    assert torch.allclose(start.held_out[0], torch.full((1, 4), 0.693147, dtype=torch.float64), atol=1e-6)


def test_grid_points_and_seeds_do_not_see_each_other(bandit, pairs) -> None:
    together = course(bandit, pairs, DPO(beta=0.1), RPO(beta=0.1, eta=0.1, base="ref"))
    alone = course(bandit, pairs, DPO(beta=0.1))
    assert torch.allclose(together.reward[:, :1], alone.reward, atol=1e-12)
    single = make_bandit([3])
    single_pairs = draw_covered_pairs(single, [3], 100)
    last = train(single, [DPO(beta=0.1)], single_pairs, single_pairs, steps=60)
    assert torch.allclose(last.reward[:, 0, 0], alone.reward[:, 0, 3], atol=1e-12)


def test_eta_zero_is_dpo_and_a_large_eta_holds_the_chosen_up(bandit, pairs) -> None:
    both = course(bandit, pairs, DPO(beta=0.1), RPO(beta=0.1, eta=0.0), RPO(beta=0.1, eta=1.0), steps=300)
    assert torch.equal(both.reward[:, 0], both.reward[:, 1])
    assert (both.logp_chosen[-1, 2] > both.logp_chosen[-1, 0]).all()
    assert (both.outside[-1, 2] < both.outside[0, 2]).all()


def test_a_kl_penalty_keeps_the_policy_near(bandit, pairs) -> None:
    free = course(bandit, pairs, DPO(beta=0.1), steps=300)
    held = course(bandit, pairs, DPO(beta=0.1), steps=300, kl_penalties=[0.1])
    assert (held.kl[-1] < free.kl[-1]).all()


def test_the_last_step_is_always_recorded(bandit, pairs) -> None:
    assert course(bandit, pairs, DPO(), steps=25, record_every=10).steps.tolist() == [0, 10, 20, 25]


def test_impossible_worlds_are_refused(bandit) -> None:
    with pytest.raises(OptionError, match="covered=101"):
        make_bandit(SEEDS, covered=101)
    with pytest.raises(OptionError, match="base=chosen"):
        draw_covered_pairs(bandit, SEEDS, 10, base="chosen")
