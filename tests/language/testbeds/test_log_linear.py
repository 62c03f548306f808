import pytest
import torch

from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.rdpo import ConservativeDPO, RobustDPO
from paperworks.language.testbeds.log_linear import (
    best_by,
    calibration_error,
    draw_pairs,
    fit,
    make_world,
    mean_loss,
    pair_accuracy,
)

SEEDS = range(3)


@pytest.fixture(scope="module")
def world():
    return make_world(SEEDS, contexts=40, actions=6, dimensions=4)


@pytest.fixture(scope="module")
def pairs(world):
    return draw_pairs(world, SEEDS, 600)


def test_the_optimal_parameter_has_no_gap_and_others_have(world) -> None:
    assert torch.equal(world.value_gap(world.theta_star), torch.zeros(3, dtype=torch.float64))
    assert (world.value_gap(world.theta_star + 0.3) > 0).all()
    assert torch.allclose(world.theta_star.norm(dim=-1), torch.full((3,), 4.0, dtype=torch.float64))
    assert calibration_error(world, world.theta_star).max() < 1e-12
    assert pair_accuracy(world, world.theta_star).min() == 1


def test_the_gap_is_beta_times_the_kl_to_the_optimum(world) -> None:
    theta = 0.5 * world.theta_star
    logp, best = world.log_policy(theta), world.log_policy(world.theta_star)
    kl = (logp.exp() * (logp - best)).sum(-1).mean(-1)
    assert torch.allclose(world.value_gap(theta), world.beta * kl, atol=1e-12)


def test_a_seed_has_the_same_world_and_pairs_whoever_is_beside_it(world, pairs) -> None:
    alone = make_world([2], contexts=40, actions=6, dimensions=4)
    assert torch.equal(alone.features[0], world.features[2])
    assert torch.equal(draw_pairs(alone, [2], 600).preferred[0], pairs.preferred[2])
    assert not torch.equal(draw_pairs(alone, [2], 600, stream="validation").context[0], pairs.context[2])


def test_flips_swap_pairs_and_nest(pairs) -> None:
    chosen, rejected = pairs.labelled(0.3)
    swapped = chosen != pairs.preferred
    assert torch.equal(rejected[swapped], pairs.preferred[swapped])
    assert abs(swapped.double().mean() - 0.3) < 0.05
    fewer = pairs.labelled(0.1)[0] != pairs.preferred
    assert bool((swapped | ~fewer).all())


def test_labels_follow_the_reward(world, pairs) -> None:
    seed = torch.arange(3)[:, None]
    margin = (
        world.reward[seed, pairs.context, pairs.preferred] - world.reward[seed, pairs.context, pairs.other]
    ).flatten()
    # under Bradley-Terry the chance that the preferred one is better, given the size of the margin, is sigmoid(size)
    expected = torch.sigmoid(margin.abs()).mean()
    assert abs((margin > 0).double().mean() - expected) < 0.03


def test_fits_are_exact(world, pairs) -> None:
    assert fit(world, DPO(beta=1.0), pairs).gradient_norm.max() <= 1e-8
    assert fit(world, RobustDPO(beta=1.0, flip_rate=0.3), pairs, flip_rate=0.3).gradient_norm.max() <= 1e-8


def test_more_data_bring_dpo_to_the_optimum(world, pairs) -> None:
    few = world.value_gap(fit(world, DPO(beta=1.0), pairs).theta)
    many = world.value_gap(fit(world, DPO(beta=1.0), draw_pairs(world, SEEDS, 20_000)).theta)
    assert (many < few).all()
    assert many.max() < 0.01


def test_under_flips_only_rdpo_is_consistent(world) -> None:
    pairs = draw_pairs(world, SEEDS, 20_000)
    gap = {
        objective.name: world.value_gap(fit(world, objective, pairs, flip_rate=0.2).theta)
        for objective in (DPO(beta=1.0), ConservativeDPO(beta=1.0, flip_rate=0.2), RobustDPO(beta=1.0, flip_rate=0.2))
    }
    assert (gap["rdpo"] < 0.1 * gap["dpo"]).all()
    assert (gap["dpo"] < gap["cdpo"]).all()


def test_best_by_takes_each_seeds_lowest_criterion(world, pairs) -> None:
    candidates = [fit(world, DPO(beta=beta), pairs, flip_rate=0.2) for beta in (0.3, 1.0, 3.0)]
    criterion = RobustDPO(beta=1.0, flip_rate=0.2)
    chosen, index = best_by(world, candidates, criterion, pairs, 0.2)
    for seed in range(3):
        assert torch.equal(chosen.theta[seed], candidates[int(index[seed])].theta[seed])
    lowest = mean_loss(world, chosen.theta, criterion, pairs, 0.2)
    for candidate in candidates:
        assert (lowest <= mean_loss(world, candidate.theta, criterion, pairs, 0.2)).all()
