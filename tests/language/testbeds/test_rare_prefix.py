"""A language model's world with a rare beginning: exact rates, rewards of hand-made texts, learners that do not meet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paperworks.language.testbeds import rare_prefix
from paperworks.language.testbeds.rare_prefix import Effort, Learner, World

SHORT = Effort(rounds=2, pairs=16, steps=3, batch=8, rate=3e-3, measured=64)
ONLINE, OPTIMIST = Learner(), Learner(alpha=0.3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder: Path = tmp_path_factory.mktemp("worlds")
    files = [folder / f"{seed}.safetensors" for seed in (0, 1)]
    for seed, file in enumerate(files):
        rare_prefix.make_world(seed, 0.2, 0.25, steps=40).save(file)
    return rare_prefix.load_worlds(files, (0, 1))


def test_reward_is_the_beginning_and_the_good_tokens_after_it(world: World) -> None:
    good = int(world.good[0].nonzero()[0])
    bad = int((~world.good[0]).nonzero()[3])
    a, b = world.prefix[0].tolist()
    texts = torch.tensor([[a, b, good, good, good, good], [a, b, bad, bad, bad, bad], [b, a, good, good, bad, bad]])
    assert world.reward(texts.expand(2, -1, -1))[0].tolist() == pytest.approx([1.0, 0.5, 0.25])


def test_the_rate_is_that_of_samples(world: World) -> None:
    prompts = torch.arange(1, 5).repeat(2000)[None, :, None].expand(2, -1, -1)
    written = world.reference.sample(prompts, 6, torch.Generator().manual_seed(0))
    drawn = world.has_prefix(written.answers).float().mean(1)
    torch.testing.assert_close(drawn, world.prefix_rate(world.reference), rtol=0.2, atol=2e-3)


def test_the_start_is_the_reference(world: World) -> None:
    course = rare_prefix.run(world, [ONLINE], SHORT)
    assert course.kl[0].abs().max() < 1e-5
    torch.testing.assert_close(course.rate[0, 0], world.prefix_rate(world.reference))
    assert not course.queried[0].any()


def test_learners_and_seeds_do_not_see_each_other(world: World) -> None:
    together, alone = rare_prefix.run(world, [ONLINE, OPTIMIST], SHORT), rare_prefix.run(world, [OPTIMIST], SHORT)
    torch.testing.assert_close(together.rate[:, 1], alone.rate[:, 0], rtol=1e-3, atol=1e-5)
    single = World((1,), world.reference.take([1]), world.prefix[1:], world.good[1:])
    torch.testing.assert_close(
        rare_prefix.run(single, [OPTIMIST], SHORT).kl[:, 0, 0], alone.kl[:, 0, 1], rtol=1e-3, atol=1e-4
    )


def test_optimism_lowers_the_references_responses_and_its_opposite_raises_them(world: World) -> None:
    course = rare_prefix.run(world, [ONLINE, OPTIMIST, Learner(alpha=-0.3)], SHORT)
    plain, optimist, imitator = course.logp_explored[-1].mean(-1).tolist()
    assert optimist < plain < imitator


def test_an_entropy_bonus_spreads_tokens(world: World) -> None:
    course = rare_prefix.run(world, [ONLINE, Learner(entropy=1.0)], SHORT)
    assert not torch.allclose(course.kl[-1, 0], course.kl[-1, 1], rtol=1e-2)
