import math

import pytest
import torch

from paperworks.core.errors import OptionError
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.kto import KTO
from paperworks.language.objectives.ln_dpo import LNDPO
from paperworks.language.testbeds.unigram import (
    CountedPairs,
    CountedResponses,
    at_kl,
    draw_unigram_pairs,
    make_unigram_world,
    train_unigram,
)

SEEDS = range(3)


@pytest.fixture(scope="module")
def world():
    return make_unigram_world(SEEDS)


@pytest.fixture(scope="module")
def pairs(world):
    return draw_unigram_pairs(world, SEEDS, 400)


def logits_of(world):
    return world.log_reference.expand(3, -1)


def test_the_reference_is_exact(world) -> None:
    length = (1 - 0.92**60) / 0.08
    assert torch.allclose(world.expected_length(logits_of(world)), torch.full((3,), length, dtype=torch.float64))
    assert world.kl(logits_of(world)).abs().max() < 1e-12
    assert world.expected_quality(logits_of(world)).abs().max() < 1e-12  # values are standardised


def test_exact_figures_agree_with_samples(world, pairs) -> None:
    counts = torch.cat([pairs.chosen.counts, pairs.rejected.counts], dim=1)
    assert torch.allclose(counts.sum(-1).mean(-1), world.expected_length(logits_of(world)), rtol=0.1)
    assert bool((counts[..., -1] <= 1).all())
    cut = counts[..., -1] == 0  # no end token: only at the cap
    assert bool((counts.sum(-1)[cut] == 60).all())


def test_kl_of_a_response_is_length_times_that_of_a_token(world) -> None:
    logits = torch.randn(3, 21, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logp = logits.log_softmax(-1)
    per_token = (logp.exp() * (logp - world.log_reference)).sum(-1)
    assert torch.allclose(world.kl(logits), per_token * (1 - (1 - logp[:, -1].exp()) ** 60) / logp[:, -1].exp())


def test_annotators_who_like_length_choose_the_longer(world, pairs) -> None:
    assert pairs.chosen.tokens.mean() > pairs.rejected.tokens.mean() + 3
    averse = draw_unigram_pairs(world, SEEDS, 400, length_bias=-0.1)
    assert averse.chosen.tokens.mean() < averse.rejected.tokens.mean() - 3
    fair = draw_unigram_pairs(world, SEEDS, 400, length_bias=0.0)
    assert abs(fair.chosen.tokens.mean() - fair.rejected.tokens.mean()) < 1.5


def test_grid_points_and_seeds_do_not_see_each_other(world, pairs) -> None:
    together = train_unigram(world, [DPO(beta=0.1), KTO(beta=0.1)], pairs, steps=20)
    alone_world = make_unigram_world([2])
    alone = train_unigram(alone_world, [KTO(beta=0.1)], draw_unigram_pairs(alone_world, [2], 400), steps=20)
    assert torch.allclose(together[1, 2], alone[0, 0], atol=1e-12)


def test_dpo_follows_the_length_bias_where_ln_dpo_does_not(world, pairs) -> None:
    logits = train_unigram(world, [DPO(beta=0.1), LNDPO(beta=6.0)], pairs)
    length, quality = world.expected_length(logits), world.expected_quality(logits)
    assert (length[0] > 1.5 * length[1]).all()
    assert (quality[1] > quality[0]).all()


def test_responses_of_one_length_make_both_the_same_objective(world, pairs) -> None:
    def cut(responses: CountedResponses) -> CountedResponses:
        counts = responses.counts / responses.tokens[..., None] * 10  # ten tokens each, in the same proportions
        return CountedResponses(counts)

    equal = CountedPairs(cut(pairs.chosen), cut(pairs.rejected))
    logits = train_unigram(world, [DPO(beta=0.5), LNDPO(beta=5.0)], equal, steps=20)
    assert torch.allclose(logits[0], logits[1], atol=1e-10)


def test_matched_kl_interpolates_between_neighbours_only() -> None:
    kl = torch.tensor([6.0, 2.0, 40.0])
    value = torch.tensor([3.0, 1.0, 9.0])
    assert at_kl(4.0, kl, value) == pytest.approx(2.0)
    assert at_kl(6.0, kl, value) == 3.0
    assert math.isnan(at_kl(1.0, kl, value))  # below the grid
    assert math.isnan(at_kl(50.0, kl, value))  # above it
    assert math.isnan(at_kl(20.0, kl, value))  # between points too far apart to say


def test_an_end_probability_out_of_range_is_refused() -> None:
    with pytest.raises(OptionError, match="end_probability=0"):
        make_unigram_world(SEEDS, end_probability=0)
