import dataclasses

import pytest
import torch

from paperworks.core.errors import OptionError
from paperworks.language.testbeds.rare_action import Learner, make_bandit, run

SEEDS = range(3)
ONLINE, OPTIMIST, UNIFORM = Learner(), Learner(alpha=3e-3), Learner(epsilon=1.0)


def short(*learners, seeds=SEEDS, mass=1e-3, **options):
    return run(make_bandit(seeds, mass), learners, seeds, **{"rounds": 3, "steps": 20} | options)


def test_the_best_action_is_rare_and_worth_its_price() -> None:
    bandit = make_bandit(SEEDS, 1e-3)
    assert torch.allclose(bandit.log_reference[..., 0].exp(), torch.tensor(1e-3, dtype=torch.float64))
    assert torch.allclose(bandit.log_reference.exp().sum(-1), torch.ones(3, 2, dtype=torch.float64))
    assert bool((bandit.reward[..., 0] == 1).all()) and bandit.reward[..., 1:].max() <= 0.5
    optimum = torch.log_softmax(bandit.log_reference + bandit.reward / bandit.beta, dim=-1)
    assert torch.allclose(bandit.value(optimum), bandit.best_value)
    assert optimum[..., 0].exp().min() > 0.99


def test_the_same_seeds_differ_in_the_mass_alone() -> None:
    rare, common = make_bandit(SEEDS, 1e-4), make_bandit(SEEDS, 0.2)
    assert torch.equal(rare.reward, common.reward)
    others = [torch.log_softmax(b.log_reference[..., 1:], dim=-1) for b in (rare, common)]
    assert torch.allclose(*others)


def test_the_start_is_the_reference() -> None:
    bandit, course = make_bandit(SEEDS, 1e-3), short(ONLINE)
    assert torch.allclose(course.gap[0, 0], bandit.best_value - bandit.value(bandit.log_reference))
    assert course.kl[0].abs().max() < 1e-12
    assert not course.found[0].any()


def test_learners_and_seeds_do_not_see_each_other() -> None:
    together, alone = short(ONLINE, OPTIMIST), short(OPTIMIST)
    assert torch.allclose(together.gap[:, 1], alone.gap[:, 0], atol=1e-12)
    assert torch.allclose(short(OPTIMIST, seeds=[2]).gap[:, 0, 0], alone.gap[:, 0, 2], atol=1e-12)


def test_without_weights_only_the_sampler_matters() -> None:
    fixed, current = short(ONLINE, dataclasses.replace(ONLINE, sampler="current")).gap.unbind(1)
    assert torch.equal(fixed[0], current[0])
    assert not torch.equal(fixed[-1], current[-1])


def test_optimism_finds_a_rare_best_action_that_online_dpo_does_not() -> None:
    course = short(ONLINE, OPTIMIST, rounds=6, steps=60)
    assert course.found[-1, 1].mean() == 1.0
    assert course.found[-1, 0].mean() < 0.5
    assert (course.gap[-1, 1] < course.gap[-1, 0]).all()


def test_uniform_draws_reach_every_action() -> None:
    assert short(UNIFORM, rounds=6).found[-1].min() == 1.0


def test_an_entropy_bonus_spreads_the_policy() -> None:
    plain, spread = short(ONLINE, Learner(entropy=1.0)).kl[-1].unbind(0)
    assert not torch.allclose(plain, spread)


def test_impossible_masses_are_refused() -> None:
    with pytest.raises(OptionError, match=r"mass=1\.0"):
        make_bandit(SEEDS, 1.0)
