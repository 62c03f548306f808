"""Texts of four styles: what is plain, what it earns, and that points, seeds and sampling do not mix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.hypo import HyPO
from paperworks.language.objectives.rpo import RPO
from paperworks.language.testbeds import style_texts
from paperworks.language.testbeds.style_texts import Effort, World

SHORT = Effort(steps=3, batch=4, records=1, measured=32)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder: Path = tmp_path_factory.mktemp("worlds")
    files = [folder / f"{seed}.safetensors" for seed in (0, 1)]
    for seed, file in enumerate(files):
        style_texts.make_world(seed, steps=20, pairs=40).save(file)
    return style_texts.load_worlds(files, (0, 1))


@pytest.mark.parametrize(
    ("words", "plain", "reward"),
    [
        ([1, 11, 2, 13, 4, 0, 0, 0, 0], True, 1.0),
        ([1, 12, 5, 0, 0, 0, 0, 0, 0], True, 0.0),
        ([9, 11, 1, 11, 6, 11, 1, 0, 0], True, 0.25),
        ([1, 14, 2, 0, 0, 0, 0, 0, 0], False, 0.0),  # another style's connector
        ([1, 0, 0, 0, 0, 0, 0, 0, 0], False, 0.0),  # too short
        ([1, 11, 2, 11, 0, 0, 0, 0, 0], False, 0.0),  # ends behind a connector
        ([1, 1, 2, 0, 0, 0, 0, 0, 0], False, 0.0),  # no connector
        ([1, 11, 2, 11, 3, 11, 4, 11, 1], False, 0.0),  # no end
    ],
)
def test_reward_is_the_sentiment_less_one_off_the_style(words: list[int], plain: bool, reward: float) -> None:
    answer = torch.tensor([words])
    assert style_texts.is_plain(answer).tolist() == [plain]
    assert style_texts.reward(answer).tolist() == [reward]


def test_pairs_are_plain_and_the_chosen_ones_better(world: World) -> None:
    for side in (world.chosen, world.rejected):
        assert bool(style_texts.is_plain(side[..., 1:]).all())
    better = style_texts.sentiment(world.chosen[..., 1:]) - style_texts.sentiment(world.rejected[..., 1:])
    assert better.mean() > 0.2


def test_points_and_seeds_do_not_see_each_other(world: World) -> None:
    points = [(DPO(beta=0.1), 1e-3), (HyPO(beta=0.1, lam=0.1), 3e-3), (RPO(beta=0.1, eta=1.0), 1e-3)]
    together = style_texts.train(world, points, SHORT)
    for place, point in enumerate(points):
        alone = style_texts.train(world, [point], SHORT)
        torch.testing.assert_close(together.kl[:, place], alone.kl[:, 0], rtol=1e-3, atol=1e-5)
    single = World((1,), world.start.take([1]), world.chosen[1:], world.rejected[1:])
    apart = style_texts.train(single, points[1:2], SHORT)
    torch.testing.assert_close(apart.kl[:, 0, 0], together.kl[:, 1, 1], rtol=1e-3, atol=1e-5)


def test_hypo_without_a_weight_is_dpo_and_with_one_stays_nearer(world: World) -> None:
    effort = replace(SHORT, steps=15, batch=8)
    points = [(DPO(beta=0.1), 5e-3), (HyPO(beta=0.1, lam=0.0), 5e-3), (HyPO(beta=0.1, lam=0.3), 5e-3)]
    course = style_texts.train(world, points, effort, samples=4)
    torch.testing.assert_close(course.kl[:, 0], course.kl[:, 1], rtol=1e-3, atol=1e-5)
    assert (course.kl[-1, 2] < course.kl[-1, 0]).all()


def test_only_hypo_draws(world: World) -> None:
    assert style_texts.train(world, [(DPO(), 1e-3)], SHORT).drawn.max() == 0
    drawn = style_texts.train(world, [(HyPO(), 1e-3)], SHORT, samples=3).drawn
    assert (drawn >= 3 * 4 * 3).all()


def test_imitation_raises_the_chosen_responses(world: World) -> None:
    course = style_texts.train(
        world, [(DPO(beta=0.1), 3e-3), (RPO(beta=0.1, eta=30.0), 3e-3)], replace(SHORT, steps=10)
    )
    assert (course.logp_chosen[-1, 1] > course.logp_chosen[-1, 0]).all()
