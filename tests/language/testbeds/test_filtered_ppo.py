"""Worlds of small programmers: saved and stacked without a change, rewards of one scale, filters of the rows they name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paperworks.core.errors import DataError
from paperworks.language.sources.filters import parse_filter
from paperworks.language.testbeds import filtered_ppo
from paperworks.language.testbeds.filtered_ppo import Recipe, World, WorldSize

SIZE = WorldSize(128, 16, 12, imitation_steps=45, reward_prompts=64, reward_steps=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder: Path = tmp_path_factory.mktemp("worlds")
    files = [folder / f"{seed}.safetensors" for seed in (0, 1)]
    for seed, file in enumerate(files):
        filtered_ppo.make_world(seed, SIZE).save(file)
    return filtered_ppo.load_worlds(files, (0, 1), SIZE)


@pytest.mark.parametrize("kind", ["learned", "true", "noisy"])
def test_rewards_have_one_scale(world: World, kind: filtered_ppo.RewardKind) -> None:
    rewards = world.rewards_of(kind).flatten(1)
    tolerance = 0.6 if kind == "noisy" else 1e-4  # of a draw of 80
    assert rewards.mean(1).tolist() == pytest.approx([0, 0], abs=tolerance)
    assert rewards.std(1, correction=0).tolist() == pytest.approx([1, 1], abs=tolerance)


def test_a_seed_is_the_same_alone_and_among_others(world: World) -> None:
    recipe = Recipe(parse_filter("bw"), iterations=2, judge_every=1, generated=20)
    both, alone = (filtered_ppo.train(each, recipe, [1e-3]) for each in (world, world.take([1])))
    torch.testing.assert_close(both.generated_reward[1:, 1], alone.generated_reward[1:, 0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(both.kl[1:, 1], alone.kl[1:, 0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("recipe", "rows"),
    [
        (Recipe(parse_filter("none")), 20),
        (Recipe(parse_filter("none"), samples=1), 20),
        (Recipe(parse_filter("bw")), 8),
        (Recipe(parse_filter("bw"), "same_steps"), 20),
        (Recipe(parse_filter("bon")), 4),
        (Recipe(parse_filter("pow:2")), 8),
    ],
)
def test_samples_in_gradients_are_those_of_the_budget(world: World, recipe: Recipe, rows: int) -> None:
    course = filtered_ppo.train(world, replace(recipe, iterations=1, judge_every=1, generated=20), [1e-3])
    assert course.trained == rows
    assert course.at == [0, 1]
    if recipe.filter.kind == "bon":
        assert (course.kept_reward[1] > course.generated_reward[1]).all()
    if recipe.filter.kind == "none":
        assert torch.equal(course.kept_reward[1], course.generated_reward[1])


def test_correcting_for_the_filter_weighs_kept_samples_by_what_it_left_out(world: World) -> None:
    rewards = torch.arange(20.0).view(1, 20)
    kept, weight = filtered_ppo._kept(Recipe(parse_filter("br"), corrected=True), rewards, [0], 0)
    best = kept % 5 == 4
    assert weight[best].tolist() == pytest.approx([0.4] * 4)
    assert weight[~best].tolist() == pytest.approx([1.6] * 4)
    assert (filtered_ppo._kept(Recipe(parse_filter("br")), rewards, [0], 0)[1] == 1).all()


def test_the_noise_is_standard_normal_and_the_same_for_the_same_program() -> None:
    tokens = torch.randint(0, 25, (2, 4000, 19), generator=torch.Generator().manual_seed(0))
    noise = filtered_ppo._noise(tokens, [0, 1])
    assert torch.equal(noise, filtered_ppo._noise(tokens.clone(), [0, 1]))
    assert noise.mean(1).tolist() == pytest.approx([0, 0], abs=0.06)
    assert noise.std(1).tolist() == pytest.approx([1, 1], abs=0.04)
    assert not torch.equal(noise[0, :100], filtered_ppo._noise(tokens[:1, :100], [1])[0])


def test_a_policy_that_never_differs_in_score_gives_no_reward_model() -> None:
    with pytest.raises(DataError, match="no two programs of a specification differ"):
        filtered_ppo.make_world(0, replace(SIZE, imitation_steps=0, reward_prompts=2))
