"""Words, stop words and key phrases of real-looking text."""

from __future__ import annotations

from pathlib import Path

import pytest

from paperworks.core.errors import OptionError
from paperworks.language.degrees import ENGLISH, SHORT_ENGLISH, Rake, TfIdf, load_stop_words, rake
from paperworks.language.degrees.words import split_words


def phrases(text: str) -> list[str]:
    return [phrase.text for phrase in rake(text, ENGLISH)]


def in_order(text: str) -> list[str]:
    return sorted(phrases(text), key=text.lower().index)


def test_the_pieces_are_the_text() -> None:
    text = "  A <b>big</b> dog,\n`x = 1` costs 1,000.50 &amp; more…\t"
    found = split_words(text)
    assert "".join(found.pieces) == text
    assert found.words == ["a", "big", "dog", "costs", "1,000.50", "more"]


def test_numbers_are_words() -> None:
    assert phrases("at 3 pm") == ["3 pm"]


def test_line_breaks_and_marks_end_a_phrase() -> None:
    assert in_order("red apple\ngreen pear, blue plum") == ["red apple", "green pear", "blue plum"]
    assert in_order("red apple\r\ngreen pear") == ["red apple", "green pear"]


def test_inline_markup_does_not_end_a_phrase() -> None:
    assert phrases("the <b>security</b> deposit") == ["security deposit"]
    assert phrases("the **security** _deposit_") == ["security deposit"]
    assert phrases('the <a href="big.html">security</a> deposit') == ["security deposit"]


def test_blocks_and_code_are_no_words_and_end_a_phrase() -> None:
    assert in_order("red <p>apple</p> pear") == ["red", "apple", "pear"]
    assert in_order("red `def apple` pear") == ["red", "pear"]
    assert in_order("red\n```\ndef apple\n```\npear") == ["red", "pear"]
    assert in_order("red ```def apple pear") == ["red"]


def test_case_does_not_matter_and_a_phrase_is_listed_once() -> None:
    assert phrases("Red Apple, red apple. RED APPLE") == ["red apple"]


def test_equal_scores_stand_in_order_of_occurrence() -> None:
    assert phrases("pear and apple and plum") == ["pear", "apple", "plum"]


def test_words_hold_together() -> None:
    assert split_words("state-of-the-art don’t o'clock snake_case naïve नमस्ते 3.5kg").words == [
        "state-of-the-art", "don't", "o'clock", "snake_case", "naïve", "नमस्ते", "3.5kg",
    ]  # fmt: skip


def test_a_curly_apostrophe_is_an_apostrophe_to_stop_words() -> None:
    assert phrases("I don’t") == []


def test_nothing_comes_of_nothing() -> None:
    assert rake("") == rake("the of and, …!") == []


def test_tf_idf_ranks_what_is_rare_elsewhere() -> None:
    texts = ["common thing and rare gem", "common thing", "common thing", "common thing and others"]
    found = TfIdf.of(texts, SHORT_ENGLISH)(texts[0])
    assert [phrase.text for phrase in found] == ["rare gem", "common thing"]
    assert [phrase.text for phrase in Rake(SHORT_ENGLISH)(texts[0])] == ["common thing", "rare gem"]


def test_stop_words_by_name_and_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "german.txt"
    file.write_text("# articles\nder die das\nUND  # and\n", encoding="utf-8")
    assert load_stop_words("english") is ENGLISH and load_stop_words("short") is SHORT_ENGLISH
    assert load_stop_words(str(file)) == {"der", "die", "das", "und"}


def test_stop_words_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"stop words 'englisch': no such file or list \(did you mean 'english'\?\)"):
        load_stop_words("englisch")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(OptionError, match="the file has no word"):
        load_stop_words(str(tmp_path / "empty.txt"))
    (tmp_path / "latin.txt").write_bytes(b"\xe4\xff")
    with pytest.raises(OptionError, match="cannot be read as UTF-8"):
        load_stop_words(str(tmp_path / "latin.txt"))
