"""Token rewards in a task of local credit: scores by hand, where each variant pays, nets that share nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from paperworks.language.sources.token_rewards import TokenRewardOptions
from paperworks.language.testbeds import token_rewarded_ppo as bed
from paperworks.language.testbeds.bigram_task import KINDS, BigramTask, drawn_prompts
from paperworks.language.testbeds.token_rewarded_part import GRIDS
from paperworks.language.testbeds.token_rewarded_ppo import Point, Recipe, World, WorldSize

SIZE = WorldSize(64, imitation_steps=10, reward_steps=5, dpo_steps=10)
RECIPE = Recipe(updates=2, rollouts=6, measured=16)
PPO = Point(TokenRewardOptions(beta1=0.0))
UNCLIPPED = TokenRewardOptions(beta1=0.2, token_clip=None)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder: Path = tmp_path_factory.mktemp("worlds")
    made = [folder / f"{seed}.safetensors" for seed in (0, 1)]
    for seed, file in enumerate(made):
        bed.make_world(seed, bed.make_reference(seed, SIZE), 0.2, SIZE).save(file)
    return made


@pytest.fixture(scope="module")
def world(files: list[Path]) -> World:
    return bed.load_worlds(files, (0, 1), SIZE)


def rewards_of(world: World, options: TokenRewardOptions) -> Tensor:
    """The token rewards of six answers a seed that the DPO model wrote, so that its policy's own ratio is not 0."""
    written = world.dpo.sample(drawn_prompts(world.seeds, 6, "test"), 16, torch.Generator().manual_seed(0))
    found, _ = bed.token_rewards(world, [Point(options)], written, (world.reference, world.dpo, world.reward_model))
    return found


def test_a_token_scores_by_its_kind_and_that_of_the_one_before() -> None:
    task = BigramTask.of([5])
    prompts, answers = torch.tensor([[[1, 2, 3, 3]]]), torch.tensor([[[4, 9, 9] + [0] * 13]])
    found = task.scores(prompts, answers)[0, 0]
    kind = task.kind[0]
    for place, (before, after) in enumerate([(4, 9), (9, 9)], start=1):
        pair = int(kind[before - 1] * KINDS + kind[after - 1])
        named = task.named[0, [0, 1, 2, 2], pair].sum() / 2
        assert float(found[place]) == pytest.approx(float(task.common[0, pair] + named) / 2**0.5, rel=1e-5)
    assert found[0] == 0
    assert (found[3:] == 0).all()
    assert float(task.returns(prompts, answers)) == pytest.approx(float(found.sum()) / 15**0.5, rel=1e-5)


def test_text_is_better_than_letters_at_random_and_its_seed_is_its_own() -> None:
    task, prompts = BigramTask.of([0, 1]), drawn_prompts([0, 1], 200, "test")
    draw = torch.Generator().manual_seed(0)
    text, chance = task.text(prompts, draw), torch.randint(1, 13, (2, 200, 16), generator=draw)
    assert (task.returns(prompts, text).mean(1) > task.returns(prompts, chance).mean(1) + 0.3).all()
    alone = BigramTask.of([1]).returns(prompts[1:], text[1:])
    assert torch.equal(alone, task.returns(prompts, text)[1:])


def test_without_token_terms_the_reward_is_ppos(world: World) -> None:
    found = rewards_of(world, TokenRewardOptions(beta1=0.0, beta2=0.0))
    assert ((found != 0).sum(-1) == 1).all()


def test_where_each_variant_pays(world: World) -> None:
    no_penalty = replace(UNCLIPPED, beta2=0.0, beta3=0.0)
    token = rewards_of(world, no_penalty)
    total = token.sum(-1)
    sequence = rewards_of(world, replace(no_penalty, granularity="sequence"))
    semi = rewards_of(world, replace(no_penalty, granularity="delimiter", delimiters=(3,)))
    shaping = rewards_of(world, replace(no_penalty, shaping_only=True))
    assert ((sequence != 0).sum(-1) <= 1).all()
    torch.testing.assert_close(sequence.sum(-1), total, rtol=1e-4, atol=1e-5)
    full = (token != 0).all(-1)
    assert full.any()
    torch.testing.assert_close(semi[full][:, 3::4], token[full].unflatten(1, (4, 4)).sum(2), rtol=1e-4, atol=1e-5)
    assert shaping.sum(-1).flatten().tolist() == pytest.approx([0.0] * 12, abs=1e-5)
    torch.testing.assert_close(shaping[full][:, :-1], token[full][:, :-1])


def test_rewards_of_the_references_answers_have_mean_0_and_deviation_1(world: World) -> None:
    standing = bed.measure(world, world.reference, 2048)
    assert standing.reward.tolist() == pytest.approx([0, 0], abs=0.25)
    assert standing.kl.tolist() == pytest.approx([0, 0], abs=1e-5)


def test_a_seed_is_the_same_alone_and_among_others_and_points_share_nothing(world: World, files: list[Path]) -> None:
    alone = bed.load_worlds(files[1:], (1,), SIZE)
    both = bed.train(world, [PPO, Point(UNCLIPPED)], RECIPE)
    one = bed.train(alone, [Point(UNCLIPPED)], RECIPE)
    torch.testing.assert_close(both.gold[:, 3], one.gold[:, 0], rtol=1e-3, atol=0.02)
    torch.testing.assert_close(both.terms[3:], one.terms, rtol=1e-3, atol=1e-4)
    assert (both.terms[:2] == 0).all()
    assert (both.terms[2:] > 0).all()


def test_starting_from_the_dpo_model_is_another_start(world: World) -> None:
    first = [bed.train(world, [PPO], RECIPE, from_dpo=start).gold[0] for start in (False, True)]
    assert not torch.equal(*first)


def test_examining_knows_a_model_that_learned_nothing(world: World) -> None:
    told = bed.examine(replace(world, dpo=world.reference), rows=64)
    assert (told.spread == 0).all()
    assert 0.2 < float(told.reward_accuracy.mean()) < 0.95


def test_every_grid_has_six_points() -> None:
    assert {len(grid) for grid in GRIDS.values()} == {6}
