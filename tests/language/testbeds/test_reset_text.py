"""A language model's lock under resets: rewards by hand, forced tokens that do not count, PPO where nothing is reset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paperworks.language.testbeds import reset_text, reset_text_part
from paperworks.language.testbeds.reset_text import FREE, LATE, STEPS, VOCABULARY, Recipe, World, WorldSize

SIZE = WorldSize(imitation_steps=20, pairs=60, reward_steps=5)
SHORT = Recipe(tokens=192, iterations=2, judge_every=1, looked_at=8, judged=16, clone_steps=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder: Path = tmp_path_factory.mktemp("worlds")
    files = [folder / f"{seed}.safetensors" for seed in (0, 1)]
    for seed, file in enumerate(files):
        reset_text.make_world(seed, SIZE).save(file)
    return reset_text.load_worlds(files, (0, 1))


def test_reward_counts_right_tokens_up_to_the_first_mistake() -> None:
    groups = torch.zeros(1, LATE, VOCABULARY, dtype=torch.bool)
    groups[0, :, 5] = True
    right = torch.full((STEPS,), 5)
    late = right.clone()
    late[:FREE] = 9  # the first tokens are free
    third, first = right.clone(), right.clone()
    third[FREE + 2] = 9
    first[FREE] = 9
    answers = torch.stack([right, late, third, first])[None]
    assert reset_text.run_of_right(groups, answers)[0].tolist() == pytest.approx([1, 1, 2 / LATE, 0])


def test_references_are_nearly_right_and_the_policy_is_not(world: World) -> None:
    references = world.references.flatten(1, 2)
    assert (world.reward(references) > 0.6 * torch.ones(2, 1)).float().mean() > 0.5
    prompts = reset_text.prompts_of(torch.arange(64)).expand(2, -1, -1)
    written = world.policy.sample(prompts, STEPS, torch.Generator().manual_seed(0))
    assert (world.reward(written.answers).mean(1) + 0.3 < world.reward(references).mean(1)).all()


def test_the_learned_reward_has_one_scale(world: World) -> None:
    pairs = torch.cat([world.chosen, world.rejected], 1)
    score = world.learned_reward(world.reward_model, pairs)
    assert score.mean(1).abs().max() < 0.5
    torch.testing.assert_close(score.std(1), torch.ones(2), rtol=0.3, atol=0)


def test_forced_tokens_are_a_references_and_do_not_count(world: World) -> None:
    learning = reset_text._Learning(world, replace(SHORT, share=1.0), 1)
    written, counted = learning.rolled_out(learning.start, 0)
    for net in range(2):
        for answer, own in zip(written.answers[net], counted[net], strict=True):
            forced = int(own.long().argmax())
            assert 1 <= forced < STEPS and own.any()
            known = world.references[net].flatten(0, 1)[:, :forced]
            assert bool((known == answer[:forced]).all(1).any())


def test_every_share_writes_as_many_tokens(world: World) -> None:
    rows = {share: replace(SHORT, tokens=512, share=share).rows for share in (0.0, 0.5, 1.0)}
    assert rows[1.0] == pytest.approx(2 * rows[0.0], abs=1)
    for share in rows:
        course = reset_text.train(world, replace(SHORT, share=share), [1e-3])
        assert course.written.mean() == pytest.approx(2 * 192, rel=0.15)


def test_seeds_and_rates_do_not_see_each_other(world: World) -> None:
    recipe = replace(SHORT, share=0.5)
    together, alone = reset_text.train(world, recipe, [0.0, 3e-3]), reset_text.train(world, recipe, [3e-3])
    torch.testing.assert_close(together.kl[:, 2:], alone.kl, rtol=1e-3, atol=1e-5)
    assert together.kl[-1, :2].abs().max() < 1e-5 < alone.kl[-1].min()


def test_dpo_moves_with_its_rate_alone(world: World) -> None:
    course = reset_text.train_dpo(world, [(0.1, 0.0), (0.1, 3e-3)], SHORT)
    assert course.kl[-1, :2].abs().max() < 1e-5 < course.kl[-1, 2:].min()


def test_rewards_at_one_kl_lie_between_the_points_measured() -> None:
    assert reset_text_part.at_kl([0, 4, 10], [0.0, 0.2, 0.8], 7) == pytest.approx(0.5)
    assert reset_text_part.at_kl([0, 4], [0.0, 0.2], 7) == 0.2
    bins = reset_text_part.binned(torch.tensor([-1.0, 0.5, 3.0, 99.0]), torch.tensor([0.1, 0.3, 0.5, 1.0]))
    assert bins[0] == pytest.approx([2, 0.4]) and bins[1] == [1, 0.5] and bins[-1] == [1, 1.0]
