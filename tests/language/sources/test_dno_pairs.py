"""Pairs of a round of DNO-Prct: who may be chosen, over whom, and what is replayed."""

from __future__ import annotations

import math

import pytest

from paperworks.core.errors import OptionError, RewardError
from paperworks.language.sources.dno_pairs import (
    AnswerPair,
    PairRule,
    Writer,
    is_repetitive,
    provenance,
    replayed,
    score_histogram,
    win_rates,
)

T: Writer = "teacher"
S: Writer = "student"


def test_a_prompt_without_a_good_answer_gives_no_pairs() -> None:
    assert PairRule().pairs([4, 4.9, 1], [T, S, S]) == []


def test_the_margin_is_that_of_who_wrote_the_better_answer() -> None:
    assert PairRule().pairs([6, 5], [T, S]) == []
    assert PairRule().pairs([5, 6], [T, S]) == [AnswerPair(1, 0, "student > teacher")]
    assert PairRule(margin=1).pairs([6, 5], [T, S]) == [AnswerPair(0, 1, "teacher > student")]


def test_without_any_margin_equal_scores_still_make_no_pair() -> None:
    assert PairRule(student_margin=0).pairs([5, 5], [S, S]) == []


def test_restrictive_chooses_the_teacher_alone() -> None:
    scores, writers = [6, 6, 3, 2], [T, S, S, S]
    assert provenance(PairRule(positives="teacher").pairs(scores, writers)) == {"teacher > student": 2}
    assert provenance(PairRule().pairs(scores, writers)) == {"teacher > student": 2, "student > student": 2}


def test_two_answers_of_the_teacher_make_no_pair() -> None:
    assert PairRule().pairs([6, 1], [T, T]) == []


def test_a_degenerate_answer_is_rejected_whatever_its_score() -> None:
    assert PairRule().pairs([5, 6], [S, S], degenerate=[False, True]) == [AnswerPair(0, 1, "student > student")]
    assert PairRule().pairs([3, 6], [S, S], degenerate=[False, True]) == []


@pytest.mark.parametrize("scores", [[5, math.nan], [5, math.inf], [5], [5, 4, 3]])
def test_a_judge_that_gives_no_number_an_answer_is_refused(scores: list[float]) -> None:
    with pytest.raises(RewardError, match="pair rule"):
        PairRule().pairs(scores, [S, S])


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(OptionError, match="margin"):
        PairRule(margin=-1)
    with pytest.raises(OptionError, match="positives"):
        PairRule(positives="student")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="replay"):
        replayed([[1]], 10, shares=[1.5])


def test_win_rates_leave_the_answer_itself_out_and_count_ties_half() -> None:
    assert win_rates([[0.5, 1, 0.5], [0, 0.5, 1], [0.5, 0, 0.5]]) == pytest.approx([0.75, 0.5, 0.25])
    assert win_rates([[math.nan, 0.9], [0.1, math.nan]]) == pytest.approx([0.9, 0.1])  # the diagonal is not read


@pytest.mark.parametrize(
    ("matrix", "what"),
    [
        ([[0.5, 0.9], [0.2, 0.5]], "expected 1"),
        ([[0.5, 1.2], [-0.2, 0.5]], "not in"),
        ([[0.5, math.nan], [0.5, 0.5]], "not in"),
        ([[0.5, 0.9]], "square"),
        ([[0.5]], "2 or more"),
    ],
)
def test_matrices_that_are_no_preferences_are_refused(matrix: list[list[float]], what: str) -> None:
    with pytest.raises(RewardError, match=what):
        win_rates(matrix)


def test_replay_draws_shares_of_the_new_pairs_and_halves_them() -> None:
    earlier = [[f"{number}-{pair}" for pair in range(100)] for number in (1, 2, 3, 4)]
    drawn = replayed(earlier, 40)
    counts = {number: sum(pair.startswith(f"{number}-") for pair in drawn) for number in (4, 3, 2, 1)}
    assert counts == {4: 12, 3: 6, 2: 3, 1: 2}
    assert len(set(drawn)) == len(drawn)
    assert replayed(earlier, 40) == drawn != replayed(earlier, 40, seed=1)


def test_a_small_round_is_replayed_whole_and_the_first_round_has_none() -> None:
    assert sorted(replayed([[1, 2]], 100)) == [1, 2]
    assert replayed([], 100) == []


def test_repetition_is_seen() -> None:
    assert is_repetitive("the same four words " * 5)
    assert not is_repetitive("a sentence that says one thing and then says quite another thing")
    assert not is_repetitive("")


def test_the_histogram_is_by_whole_scores() -> None:
    assert score_histogram([3.2, 4, 2.9, 1]) == "1: 1, 3: 2, 4: 1"
