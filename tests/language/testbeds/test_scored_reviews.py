"""Scored answers: what the writers write, what the rewards measure, and that both follow from the seed."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from paperworks.core.errors import OptionError
from paperworks.language.testbeds.scored_reviews import (
    MAX_REWARD,
    REWARDS,
    SHARES,
    TOTAL,
    aspects,
    better_worse,
    distinct,
    length_in_range,
    no_repetition,
    on_topic,
    prompts,
    scored,
    write_answers,
)

PROMPT = "Review the music and the cast of the film:"


def test_there_is_a_prompt_for_every_set_of_one_to_three_aspects() -> None:
    found = prompts(0)
    sets = {frozenset(aspects(prompt)) for prompt in found}
    assert len(found) == len(sets) == 350
    assert {len(each) for each in sets} == {1, 2, 3}
    assert prompts(0) == found and prompts(1) != found


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (" The cast was fine and the music was dull.", 1.0),
        (" The music was fine.", 2 / 3),
        (" The music was fine and the plot was dull.", 0.5),
        (" The plot was fine.", 0.0),
        (" It was fine.", 0.0),
        ("", 0.0),
    ],
)
def test_on_topic_is_the_f1_of_aspects(response: str, expected: float) -> None:
    assert on_topic([PROMPT], [response]) == [pytest.approx(expected)]


@pytest.mark.parametrize(
    ("response", "expected"),
    [(" the plot was dull", 1.0), (" dull dull dull dull", 1 / 3), (" dull", 0.0), ("", 0.0)],
)
def test_repetition_is_of_pairs_of_words(response: str, expected: float) -> None:
    assert no_repetition([PROMPT], [response]) == [pytest.approx(expected)]


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (4, 0.5), (8, 1), (18, 1), (27, 0.5), (36, 0), (50, 0)])
def test_length_falls_off_outside_its_range(count: int, expected: float) -> None:
    assert length_in_range([PROMPT], [" word" * count]) == [pytest.approx(expected)]


def test_rewards_are_in_their_ranges_and_rank_the_writers() -> None:
    answers = write_answers(prompts(0), 0)
    rows = scored(answers)
    assert all(0 <= value <= 1 for row in rows for value in row.rewards.values())
    totals = [sum(row.rewards.values()) for row in rows]
    assert totals == pytest.approx(TOTAL([row.prompt for row in rows], [row.response for row in rows]))
    mean = {
        writer: math.fsum(t for t, a in zip(totals, answers, strict=True) if a.writer == writer) / count
        for writer, count in Counter(answer.writer for answer in answers).items()
    }
    assert MAX_REWARD >= mean["good"] > mean["average"] + 0.5 > mean["noise"] + 1
    assert all(tuple(row.rewards) == tuple(REWARDS) for row in rows)


@pytest.mark.parametrize("condition", sorted(SHARES))
def test_writers_come_in_their_shares(condition: str) -> None:
    answers = write_answers(prompts(0), 1, shares=SHARES[condition])
    counts = Counter(answer.writer for answer in answers)
    for writer, share in zip(("good", "average", "noise"), SHARES[condition], strict=True):
        assert counts[writer] / len(answers) == pytest.approx(share, abs=0.04)


def test_good_answers_speak_of_all_that_is_asked_for_and_nothing_else() -> None:
    for answer in write_answers(prompts(0), 2, shares=(1.0, 0.0, 0.0), each=1):
        assert sorted(aspects(answer.prompt)) == sorted(aspects(answer.response))


def test_answers_follow_from_the_seed() -> None:
    assert write_answers(prompts(0), 3) == write_answers(prompts(0), 3) != write_answers(prompts(0), 4)


def test_pairs_are_of_one_prompt_and_the_better_one_is_chosen() -> None:
    rows = scored(write_answers(prompts(0)[:50], 0, each=4))
    total = {(row.prompt, row.response): sum(row.rewards.values()) for row in rows}
    pairs = better_worse(rows)
    assert 60 < len(pairs) <= 100
    for pair in pairs:
        assert total[pair.prompt, pair.chosen] > total[pair.prompt, pair.rejected]


def test_distinct_counts_different_pairs_of_words_over_all_responses() -> None:
    assert distinct(["a b c", "a b d"]) == pytest.approx(3 / 4)
    assert distinct(["a b", "a b"], n=1) == pytest.approx(1 / 2)
    assert distinct(["a"]) == 0


def test_shares_must_be_probabilities() -> None:
    with pytest.raises(OptionError, match="three numbers"):
        write_answers([PROMPT], 0, shares=(0.5, 0.6, 0.2))
