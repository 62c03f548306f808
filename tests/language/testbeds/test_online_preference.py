"""Online learning from a judge: rules by hand, matched divergences, seeds that do not meet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paperworks.language.testbeds import online_preference
from paperworks.language.testbeds.decoders import Decoders
from paperworks.language.testbeds.list_completion import SHAPE
from paperworks.language.testbeds.online_preference import Course, Kind, Rule, Scale, World

SMALL = Scale(steps=2, prompts=4, judged=6, points=2)


def world(seeds: list[int]) -> World:
    return World(Decoders.fresh(SHAPE, seeds), Decoders.fresh(SHAPE, [seed + 100 for seed in seeds]))


@pytest.mark.parametrize(
    ("kind", "mixture"), [("ipo", 0.0), ("ipo", 0.25), ("ipo", 1.0), ("dpo", 0.0), ("nash-md", 0.125), ("rl", 0.0)]
)
def test_a_net_learns_the_same_alone_and_among_others(kind: Kind, mixture: float) -> None:
    rule, grid = Rule(kind, mixture), [(0.1, 1e-2), (0.5, 1e-3)]
    together = online_preference.train(world([1, 2]), [1, 2], rule, grid, SMALL)
    alone = online_preference.train(world([2]), [2], rule, grid[1:], SMALL)
    assert torch.allclose(together.kl[:, 3], alone.kl[:, 0], atol=1e-4)
    assert torch.equal(together.traits[:, 3], alone.traits[:, 0])
    assert together.learned_with[3].tolist() == pytest.approx([0.5, 1e-3])
    assert float(together.kl[0].abs().max()) < 1e-6 < float(together.kl[-1].min())


def test_a_stronger_pull_keeps_nearer_to_the_reference() -> None:
    scale = Scale(steps=15, prompts=8, judged=8, points=1)
    course = online_preference.train(world([1]), [1], Rule("ipo"), [(0.01, 3e-3), (10.0, 3e-3)], scale)
    assert float(course.kl[-1, 1]) < 0.5 * float(course.kl[-1, 0])


def test_win_rates_are_read_where_the_divergence_is_the_same() -> None:
    course = Course(torch.tensor([[0.0], [1.0], [3.0]]), torch.zeros(3, 1, 2, 4, 3), torch.zeros(1, 2))
    assert online_preference.weights_at_kl(course, 0, 2.0).tolist() == pytest.approx([0, 0.5, 0.5])
    assert online_preference.weights_at_kl(course, 0, 0.25).tolist() == pytest.approx([0.75, 0.25, 0])
    assert online_preference.weights_at_kl(course, 0, 9.0).tolist() == pytest.approx([0, 0, 1])
    winning = torch.zeros(3, 1, 2, 4, 3)
    winning[..., 0] = torch.tensor([0.0, 9.0, 9.0])[:, None, None, None]
    winning[..., 1] = torch.tensor([0.0, 9.0, 9.0])[:, None, None, None]
    far = Course(torch.tensor([[0.0], [2.0], [2.0]]), winning, torch.zeros(1, 2))
    rate, level = online_preference.matched_win_rate(far, course, 0)
    assert level == 2.0
    assert rate == pytest.approx(1.0, abs=1e-3)
    assert online_preference.matched_win_rate(course, far, 0)[0] == pytest.approx(0.0, abs=1e-3)


def test_courses_are_kept_in_files(tmp_path: Path) -> None:
    course = Course(torch.rand(3, 2), torch.rand(3, 2, 2, 4, 3), torch.rand(2, 2))
    for net in range(2):
        course.save(net, tmp_path / f"{net}")
    again = Course.load([tmp_path / "0", tmp_path / "1"])
    assert torch.equal(again.traits, course.traits) and torch.equal(again.learned_with, course.learned_with)
