"""The tree of answers: rewards that show late, and how many queries find the best answer."""

from __future__ import annotations

import pytest

from paperworks.language.testbeds.token_tree import TokenTree, queries_by_answer_rewards, queries_by_token_rewards

TREE = TokenTree(3, 4, (0, 1, 2, 0))


@pytest.mark.parametrize(
    ("prefix", "delay", "reward"),
    [
        ((0, 1), 0, 0),
        ((0, 0), 0, -1),
        ((0, 0), 1, 0),  # looks right for one token more
        ((0, 0, 0), 1, -1),
        ((0, 1, 2, 1), 3, -1),  # at the end everything shows
        ((0, 1, 2, 0), 3, 0),
    ],
)
def test_a_wrong_token_shows_after_the_delay_or_at_the_end(prefix: tuple[int, ...], delay: int, reward: float) -> None:
    assert TREE.reward(prefix, delay) == reward


def test_without_delay_every_step_costs_at_most_all_its_tokens() -> None:
    counts = [queries_by_token_rewards(TREE, seed, delay=0) for seed in range(200)]
    assert min(counts) >= 3 * 3 + 1 and max(counts) == 4 * 3


def test_with_rewards_at_the_end_alone_no_prefix_is_better_than_another() -> None:
    counts = [queries_by_token_rewards(TREE, seed, delay=9) for seed in range(300)]
    assert max(counts) <= 3 + 9 + 27 + 81
    assert sum(counts) / 300 > 40


def test_answers_are_found_after_half_of_them_on_average() -> None:
    counts = [queries_by_answer_rewards(TREE, seed) for seed in range(4000)]
    assert min(counts) == 1 and max(counts) == 81
    assert sum(counts) / 4000 == pytest.approx(41, abs=1.5)
