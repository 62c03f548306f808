"""ROUGE-L recall: its words, its subsequences, its ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperworks.language.unlearning.rouge import longest_common_subsequence, rouge_l_recall, words


def test_recall_is_the_share_of_true_words_found_in_order() -> None:
    assert rouge_l_recall("the cat sat on the mat", "a cat on a mat") == pytest.approx(3 / 6)
    assert rouge_l_recall("one two three", "three two one") == pytest.approx(1 / 3)


def test_more_words_than_the_truth_cost_nothing() -> None:
    assert rouge_l_recall("Hina Ameen", "Her name, it is said, was Hina something Ameen.") == 1.0


@pytest.mark.parametrize(("truth", "answer"), [("", "word"), ("word", ""), ("?!", "word"), ("ß", "ß")])
def test_without_words_recall_is_0(truth: str, answer: str) -> None:
    assert rouge_l_recall(truth, answer) == 0.0


def test_words_of_more_than_three_letters_are_stemmed_as_nltk_does() -> None:
    assert words("Employed, employing: THEY lays news-writing 1975!") == [
        "employ", "employ", "they", "lay", "news", "write", "1975",
    ]  # fmt: skip


def plain_table(first: list[int], second: list[int]) -> int:
    row = [0] * (len(second) + 1)
    for a in first:
        above = row
        row = [0]
        for place, b in enumerate(second):
            row.append(above[place] + 1 if a == b else max(above[place + 1], row[-1]))
    return row[-1]


@given(st.lists(st.integers(0, 3), max_size=80), st.lists(st.integers(0, 3), max_size=80))
def test_the_bits_give_the_length_that_the_table_gives(first: list[int], second: list[int]) -> None:
    assert longest_common_subsequence(first, second) == plain_table(first, second)
