"""Decoders aligned by calibrated rewards: what the optimiser sees of a reward, whom a policy beats, whose seed is whose."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from paperworks.language.rewards.calibration import Transform
from paperworks.language.rewards.inference_planner import QuantilePolicy
from paperworks.language.testbeds import inference_alignment as bed
from paperworks.language.testbeds.bold_letters import BOLDNESS, Source
from paperworks.language.testbeds.inference_alignment import Recipe, World, WorldSize

SIZE = WorldSize(6, 16, 8, imitation_steps=10, reward_steps=5)
RECIPE = Recipe(steps=2, prompts=3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder: Path = tmp_path_factory.mktemp("worlds")
    files = [folder / f"{seed}.safetensors" for seed in (0, 1)]
    for seed, file in enumerate(files):
        bed.make_world(seed, SIZE).save(file)
    return bed.load_worlds(files, (0, 1), SIZE)


def one_of(world: World, place: int) -> World:
    index = torch.tensor([place])
    nets = {name: getattr(world, name).take([place]) for name in bed._NETS}
    return replace(
        world, seeds=(world.seeds[place],), **nets, **{name: getattr(world, name)[index] for name in bed._TENSORS}
    )


def test_what_an_answer_is_worth_grows_with_its_boldness() -> None:
    source = Source.of(0)
    timid, bold = (int((source.boldness == value).nonzero()[0]) + 1 for value in BOLDNESS)
    answers = torch.randint(1, 13, (1, 12)).repeat(3, 1)
    answers[:, 0] = torch.tensor([timid, bold, bold])
    answers[2, 5] = 0
    prompts = torch.tensor([[3, 1, 1]]).expand(3, -1)
    worth = source.worth(prompts, answers)
    assert float(worth[1] / worth[0]) == pytest.approx(4.0, rel=1e-4)
    expected = 1.6 * source.taste[2, answers[2, 1:5] - 1].sum() / 11**0.5
    assert float(worth[2]) == pytest.approx(float(expected), rel=1e-4)


def test_the_references_rewards_are_sorted_with_their_answers(world: World) -> None:
    assert (world.rewards.diff(dim=2) >= 0).all()
    places = torch.arange(6).repeat_interleave(16).expand(2, -1)
    tokens = torch.cat([bed._picked(world.prompts, places), world.answers.flatten(1, 2)], 2)
    again = world.reward(world.reward_model, tokens, places).view(2, 6, 16)
    torch.testing.assert_close(again, world.rewards, rtol=1e-4, atol=1e-4)


def test_a_prompts_scale_and_offset_do_not_show_once_calibrated(world: World) -> None:
    chosen = torch.tensor([[0, 1, 2, 3]] * 4)  # two settings of two seeds
    raw = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    raw[:, 0] = 1e6
    moved = replace(world, rewards=4 * world.rewards - 8)
    found = bed.calibrated(world, raw, chosen)
    assert (found == bed.calibrated(moved, 4 * raw - 8, chosen)).all()
    assert (found[:, 0] == 1).all()
    own = world.rewards[1, 2].repeat(4, 1)
    assert bed.calibrated(world, own, torch.full((4, 16), 2))[3].mean() == pytest.approx(0.5)


def test_what_the_optimiser_sees(world: World) -> None:
    raw, chosen = torch.randn(2, 4), torch.tensor([[0, 1, 2, 3]] * 2)
    assert bed.shown_reward(world, "raw", raw, chosen) is raw
    standard = bed.shown_reward(world, "standardised", raw, chosen)
    assert standard.mean(1).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert standard.std(1).tolist() == pytest.approx([1, 1], rel=1e-5)
    steep = bed.shown_reward(world, Transform("exp", 10.0), raw, chosen)
    assert steep.numpy() == pytest.approx(Transform("exp", 10.0)(bed.calibrated(world, raw, chosen)), rel=1e-5)


def test_the_best_of_all_is_the_last_and_of_one_is_any(world: World) -> None:
    chosen = torch.randint(0, 6, (2, 400), generator=torch.Generator().manual_seed(1))
    rows = torch.arange(2)[:, None]
    assert torch.equal(bed.best_answers(world, chosen, 16, 0), world.answers[rows, chosen, -1])
    any_of = bed.best_answers(world, chosen, 1, 0)
    share = (any_of == world.answers[rows, chosen, -1]).all(-1).float().mean()
    assert 0.02 < float(share) < 0.15


def test_the_reference_wins_half_against_itself(world: World) -> None:
    many = replace(world, size=replace(SIZE, judged=400))
    places = torch.arange(6).repeat_interleave(400).expand(2, -1)
    written = world.reference.sample(bed._picked(world.prompts, places), 12, torch.Generator().manual_seed(2))
    many = replace(many, judged=world.reward(world.reward_model, written.tokens, places).view(2, 6, 400))
    found = bed.measure(many, world.reference, 4)
    assert found.kl.tolist() == pytest.approx([0, 0], abs=1e-5)
    for rates in (found.standard, found.best, found.worst):
        assert rates.tolist() == pytest.approx([0.5, 0.5], abs=0.05)


def test_a_seed_is_the_same_alone_and_among_others(world: World) -> None:
    def measured(of: World) -> list[bed.Outcome]:
        trained = bed.train(of, Transform("exp", 5.0), [0.2, 0.1], RECIPE)
        return [bed.measure(of, policy, 4) for policy in (trained, bed.distil(of, [2, 8], RECIPE))]

    for both, alone in zip(measured(world), measured(one_of(world, 1)), strict=True):
        torch.testing.assert_close(both.kl[1::2], alone.kl, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(both.best[1::2], alone.best, rtol=0, atol=0.02)
        assert (alone.kl > 0).all()


def test_win_rates_between_points_of_the_grid() -> None:
    kl, rates = [1.0, 0.5], [0.8, 0.7]
    assert [bed.at_kl(target, kl, rates) for target in (0.25, 0.5, 0.75, 1.0)] == pytest.approx([0.6, 0.7, 0.75, 0.8])
    assert math.isnan(bed.at_kl(1.01, kl, rates))


def test_quantiles_are_drawn_from_the_density() -> None:
    u = (np.arange(400) + 0.5) / 400
    theirs, ours = bed.drawn_quantiles(QuantilePolicy(2 * u), 100, 200, seed=3)
    assert theirs.mean() == pytest.approx(1 / 2, abs=0.01)
    assert ours.mean() == pytest.approx(2 / 3, abs=0.01)
    assert (ours**2).mean() == pytest.approx(1 / 2, abs=0.01)
