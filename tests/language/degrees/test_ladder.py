"""Ladders of versions, and what building many of them says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paperworks.core.errors import DataError, OptionError
from paperworks.language.degrees import Ladder, LadderOptions, Phrase, build_ladder, build_ladders
from paperworks.language.degrees.ladder_file import write_ladders

TEXT = "My landlord kept the security deposit. The deposit was two months rent."
SHORT = LadderOptions(degrees=3, stop_words="short")


def ladder(text: str, options: LadderOptions = SHORT) -> Ladder:
    found = build_ladder(text, options)
    assert found is not None
    return found


def texts(text: str, options: LadderOptions = SHORT) -> list[str]:
    return [version.text for version in ladder(text, options).versions]


def test_fewer_phrases_than_steps_give_none() -> None:
    assert build_ladder("red apple and green pear", LadderOptions(degrees=4)) is None
    assert build_ladder("red apple and green pear", LadderOptions(degrees=3)) is not None
    assert build_ladder("", SHORT) is None


def test_a_small_share_needs_more_phrases() -> None:
    assert LadderOptions(degrees=4).phrases_needed == 3
    assert LadderOptions(degrees=4, rho=0.5).phrases_needed == 5  # removes 1, 2, 3
    assert LadderOptions(degrees=4, rho=0.5).removed(5) == [0, 1, 2, 3]
    assert LadderOptions(degrees=4, rho=0.1).removed(30) == [0, 1, 2, 3]


def test_a_version_of_which_nothing_is_left_is_dropped() -> None:
    found = ladder("red apple, green pear".replace(",", " and"), LadderOptions(degrees=3))
    assert [version.degree for version in found.versions] == [0, 1, 2]  # "and" is left
    assert texts("red\ngreen", LadderOptions(degrees=3)) == ["red\ngreen", "\ngreen"]
    made = build_ladders(["red\ngreen"], LadderOptions(degrees=3))
    assert made.statistics.dropped_versions == 1
    assert build_ladder("red apple", LadderOptions(degrees=2)) is None


def test_no_word_is_cut_and_case_does_not_matter() -> None:
    text = "ART is part of an art party, an artful Art"
    found = build_ladder(text, LadderOptions(degrees=2), extractor=lambda _: [Phrase("art", 1.0)])
    assert found is not None and found.versions[1].text == "is part of an party, an artful"


def test_a_part_of_a_phrase_does_not_break_it() -> None:
    ranked = [Phrase("deposit", 3.0), Phrase("security deposit", 2.0)]
    found = build_ladder(TEXT, LadderOptions(degrees=2), extractor=lambda _: ranked)
    assert found is not None and found.versions[1].text == "My landlord kept the. The was two months rent."


def test_markup_stays_as_it_was() -> None:
    text = "<p>The <b>security</b> deposit is **big**.</p>\n\n- see `my_code()`\n- one red apple"
    last = texts(text)[-1]
    for kept in ("<p>", "<b></b>", "****", "</p>\n\n- ", "`my_code()`"):
        assert kept in last
    assert "security" not in last and "apple" not in last


def test_leading_white_space_stays() -> None:
    assert texts(" very dull, but the music was superb.")[-1] == " very, but the was."


def test_masked_versions_have_as_many_words() -> None:
    found = ladder(TEXT, LadderOptions(degrees=3, stop_words="short", removal="masked", neutral="thing"))
    assert [len(version.text.split()) for version in found.versions] == [12, 12, 12]
    assert found.versions[2].text == "My thing thing the thing thing. The thing was thing thing thing."


def test_random_removal_takes_as_many_words_and_is_cumulative() -> None:
    key = ladder(TEXT)
    random = ladder(TEXT, LadderOptions(degrees=3, stop_words="short", removal="random"))
    for ours, control in zip(key.versions, random.versions, strict=True):
        assert len(ours.text.split()) == len(control.text.split())
    assert random.removed[2][: len(random.removed[1])] == random.removed[1]
    assert random.versions[1].text != key.versions[1].text


def test_an_extractor_of_ones_own() -> None:
    def my_phrases(text: str) -> list[Phrase]:
        return [Phrase("Was two", 1.0), Phrase("not there", 9.0), Phrase("my landlord", 2.0)]

    found = build_ladder(TEXT, SHORT, extractor=my_phrases)
    assert found is not None
    assert found.removed == ((), ("my landlord",), ("my landlord", "Was two"))
    assert found.versions[2].text == "kept the security deposit. The deposit months rent."


def test_a_phrase_does_not_cross_a_full_stop() -> None:
    found = build_ladder("red apple. pear red", LadderOptions(degrees=2), extractor=lambda _: [Phrase("apple pear", 1)])
    assert found is None


def test_tfidf_takes_many_texts() -> None:
    options = LadderOptions(degrees=3, extractor="tfidf")
    with pytest.raises(OptionError, match="use build_ladders"):
        build_ladder(TEXT, options)
    many = [f"common thing and rare gem{i}" for i in range(4)]
    found = build_ladders(many, options).ladders[0]
    assert found is not None and found.removed[1] == ("rare gem0",)


def test_statistics() -> None:
    made = build_ladders([TEXT, "Yes.", ""], SHORT)
    assert [each is None for each in made.ladders] == [False, True, True]
    found = made.statistics
    assert (found.responses, found.with_ladder, found.too_few_phrases) == (3, 1, 2)
    assert found.words == pytest.approx(13 / 3) and found.phrases == pytest.approx(5 / 3)
    assert found.words_by_degree == (12, 7, 4)
    assert found.as_dict()["share"] == pytest.approx(1 / 3)
    assert any("33.3%" in line for line in found.lines())


def test_too_few_ladders_is_an_error_that_names_the_stop_words() -> None:
    made = build_ladders(["Ja gerne"] * 19 + [TEXT], SHORT)
    with pytest.raises(DataError, match=r"only 1 of 20 responses have the 2 key phrases .* stop words \(short\)"):
        made.require_enough(SHORT)
    build_ladders(["Ja gerne"] * 9 + [TEXT], SHORT).require_enough(SHORT)


def test_processes_give_the_same() -> None:
    many = [f"{TEXT} Number {i} is a new house." for i in range(6)]
    assert build_ladders(many, SHORT, workers=2) == build_ladders(many, SHORT)


def test_an_extractor_that_cannot_be_sent_is_used_here() -> None:
    made = build_ladders([TEXT], LadderOptions(degrees=2), extractor=lambda _: [Phrase("rent", 1.0)], workers=2)
    assert made.ladders[0] is not None and made.ladders[0].removed[1] == ("rent",)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"degrees": 1}, "degrees=1 is out of range: it must be ≥ 2"),
        ({"rho": 0.0}, "rho=0.0 is out of range"),
        ({"rho": 1.1}, "rho=1.1 is out of range"),
        ({"removal": "all"}, "removal=all: expected key, random, masked"),
        ({"extractor": "yake"}, "extractor=yake: expected rake, tfidf"),
        ({"removal": "masked", "neutral": " "}, "neutral is empty"),
    ],
)
def test_options_out_of_range(options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        LadderOptions(**options)  # type: ignore[arg-type]


def test_responses_of_messages_are_refused() -> None:
    with pytest.raises(DataError, match="plain text; found tuple"):
        build_ladder(({"role": "user", "content": "x"},), SHORT)  # type: ignore[arg-type]


def test_the_file_has_a_version_a_line(tmp_path: Path) -> None:
    write_ladders(tmp_path / "ladders.jsonl", [("Tell.", "chosen", ladder(TEXT))])
    rows = [json.loads(line) for line in (tmp_path / "ladders.jsonl").read_text().splitlines()]
    assert [row["degree"] for row in rows] == [0, 1, 2]
    assert rows[1] == {
        "prompt": "Tell.",
        "role": "chosen",
        "degree": 1,
        "text": "My the security deposit. The deposit was.",
        "removed": ["two months rent", "landlord kept"],
    }
