"""Rounds of self-improvement: the judge's table, which pairs there are, and nets that do not meet."""

from __future__ import annotations

import pytest
import torch

from paperworks.language.sources.dno_pairs import PairRule
from paperworks.language.testbeds import self_improvement
from paperworks.language.testbeds.decoders import Decoders
from paperworks.language.testbeds.list_completion import SHAPE
from paperworks.language.testbeds.self_improvement import Recipe, Scale

SMALL = Scale(rounds=2, prompts=6, steps=2, batch=4, judged=6)
EASY = PairRule(positive_threshold=3)
GRID = [(0.1, 1e-2), (0.3, 1e-3)]


@pytest.mark.parametrize("recipe", [Recipe(rule=EASY), Recipe("teacher over own"), Recipe("teacher and start")])
def test_a_net_learns_the_same_alone_and_among_others(recipe: Recipe) -> None:
    start = Decoders.fresh(SHAPE, [1, 2])
    together = self_improvement.improve(start, [1, 2], recipe, GRID, SMALL)
    alone = self_improvement.improve(start.take([1]), [2], recipe, GRID[1:], SMALL)
    assert torch.allclose(together.kl[:, 3], alone.kl[:, 0], atol=1e-4)
    assert together.kinds[3] == alone.kinds[0]
    assert torch.allclose(together.over_teacher[:, 3], alone.over_teacher[:, 0], atol=1e-5)
    assert together.over_previous[0].tolist() == pytest.approx([0.5] * 4)


def test_where_pairs_come_from() -> None:
    start = Decoders.fresh(SHAPE, [1])

    def kinds(recipe: Recipe) -> dict[str, int]:
        return dict(self_improvement.improve(start, [1], recipe, GRID[:1], SMALL).kinds[0])

    assert kinds(Recipe("teacher over own")) == {"teacher > student": 2 * 6 * 5}
    assert set(kinds(Recipe("teacher and start"))) <= {"teacher > student", "student > teacher"}
    assert set(kinds(Recipe(rule=PairRule(positive_threshold=3, positives="teacher")))) == {"teacher > student"}
    assert kinds(Recipe(rule=EASY)).keys() >= {"teacher > student"}


def test_the_judge_s_table_by_hand() -> None:
    prompt, steps = [1, 2, 3, 4], 12
    answers = torch.tensor(
        [[*prompt, *tokens, *[0] * (steps - len(tokens))] for tokens in ([1, 2, 3, 4, 9], [1, 2, 3], [11, 12, 13, 14])]
    )
    wins = self_improvement._wins(answers[None, None])[0, 0]
    assert wins.tolist() == [[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]
