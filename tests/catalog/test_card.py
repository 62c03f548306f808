"""One card: what is read from its file, and how each mistake in it is named. Then the cards that are shipped."""

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperworks.catalog.card import TOPICS, Card, Equation, Published, Sourcing, parse_card, read_card
from paperworks.catalog.index import CARDS_FOLDER
from paperworks.core.errors import DataError, PaperworksError

EXAMPLE = '''slug = "two-words"
title = "A Title"
arxiv = "2404.05868"
year = 2024
venue = "COLM 2024"
wing = "language"
code = ""
summary = "Do a thing"
gives = """You have a problem.
This mends it."""
verbs = ["train", "run"]
nouns = []
keywords = ["unlearning", "forget set"]
mechanism = "The loss is l(x) = x."
claim = "It is better."
baselines = ["DPO"]
defaults = "lr 1e-5"
data = "JSONL"

[sourcing]
kind = "published"
note = "From the paper."

[[published]]
setting = "TOFU"
metric = "quality"
figures = "0.09"
source = "Table 1"
'''


def test_card_has_every_field_and_texts_are_one_paragraph():
    assert parse_card(EXAMPLE) == Card(
        slug="two-words",
        title="A Title",
        arxiv="2404.05868",
        year=2024,
        venue="COLM 2024",
        wing="language",
        code="",
        summary="Do a thing",
        gives="You have a problem. This mends it.",
        verbs=("train", "run"),
        nouns=(),
        keywords=("unlearning", "forget set"),
        mechanism="The loss is l(x) = x.",
        claim="It is better.",
        baselines=("DPO",),
        defaults="lr 1e-5",
        data="JSONL",
        sourcing=Sourcing("published", "From the paper."),
        published=(Published("TOFU", "quality", "0.09", "Table 1"),),
    )


def test_published_figures_may_be_missing():
    assert parse_card(EXAMPLE.split("[[published]]")[0]).published == ()


def test_card_survives_as_dict():
    card = parse_card(EXAMPLE)
    assert Card.from_dict(card.as_dict()) == card


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('title = "A Title"\n', "", "field 'title': is missing"),
        ('title = "A Title"', 'title = " "', "field 'title': is empty"),
        ('title = "A Title"', 'tittle = "A Title"', "field 'tittle': is not a field of a card (did you mean 'title'?)"),
        ("year = 2024", 'year = "2024"', "field 'year': expected a year as a whole number, got '2024'"),
        ("year = 2024", "year = true", "field 'year': expected a year"),
        ("year = 2024", "year = 2025", "field 'year': 2025 is after arXiv 2404.05868"),
        ('arxiv = "2404.05868"', 'arxiv = "arXiv 2404"', "field 'arxiv': expected an arXiv id"),
        ('slug = "two-words"', 'slug = "Two words"', "field 'slug': expected lower-case words"),
        ('wing = "language"', 'wing = "langage"', "field 'wing': 'langage' is unknown (did you mean 'language'?)"),
        ('verbs = ["train", "run"]', 'verbs = ["trian", "run"]', "'trian' is unknown (did you mean 'train'?)"),
        ('verbs = ["train", "run"]', 'verbs = ["run", "run"]', "field 'verbs': has 'run' twice"),
        ('verbs = ["train", "run"]', 'verbs = ["train"]', "field 'verbs': lacks 'run'"),
        ("nouns = []", 'nouns = "objective"', "field 'nouns': expected a list of non-empty strings, got 'objective'"),
        ('keywords = ["unlearning", "forget set"]', "keywords = []", "field 'keywords': is empty"),
        ('summary = "Do a thing"', f'summary = "{"x" * 141}"', "has 141 characters; at most 140 are allowed"),
        ('kind = "published"', 'kind = "guessed"', "field 'sourcing.kind': 'guessed' is unknown"),
        ('source = "Table 1"\n', "", "field 'published[1].source': is missing"),
        ("[[published]]", "[published]", "field 'published': expected tables [[published]]"),
        ("year = 2024", "year = = 2024", "card:4: not valid TOML"),
    ],
)
def test_a_mistake_names_its_field_and_what_was_expected(before, after, message):
    assert before in EXAMPLE
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        parse_card(EXAMPLE.replace(before, after, 1))
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_text_is_a_card_or_our_error(text):
    with pytest.raises(PaperworksError):
        parse_card(text)


def test_file_name_and_slug_must_agree(tmp_path):
    path = tmp_path / "another.toml"
    path.write_text(EXAMPLE)
    with pytest.raises(DataError, match="is 'two-words', but the file is named 'another'"):
        read_card(path)


def test_bytes_that_are_not_utf8_and_missing_files_are_our_error(tmp_path):
    path = tmp_path / "two-words.toml"
    with pytest.raises(DataError, match=r"cannot be read"):
        read_card(path)
    path.write_bytes(b'slug = "\xff"')
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 8\)"):
        read_card(path)


@pytest.fixture(scope="module")
def shipped() -> list[Card]:
    return [read_card(path) for path in CARDS_FOLDER.glob("*.toml")]


def test_every_paper_has_a_card_and_slugs_match_file_names(shipped):
    assert {card.slug for card in shipped} == {path.stem for path in CARDS_FOLDER.glob("*.toml")}
    assert len(shipped) == 71


def test_wings_have_their_papers(shipped):
    assert Counter(card.wing for card in shipped) == {
        "language": 34,
        "control": 11,
        "incontext": 5,
        "layers": 5,
        "vision": 4,
        "text": 3,
        "formal": 3,
        "audit": 6,
    }


def test_titles_and_arxiv_ids_are_not_repeated(shipped):
    assert len({card.title for card in shipped}) == len(shipped)
    ids = [card.arxiv for card in shipped if card.arxiv]
    assert len(set(ids)) == len(ids)


def test_cards_folder_holds_nothing_but_cards():
    assert {path.suffix for path in Path(CARDS_FOLDER).iterdir()} == {".toml"}


def test_a_whole_card_has_5_to_10_keywords_at_most_12(shipped):
    assert {card.slug: len(card.keywords) for card in shipped if not 5 <= len(card.keywords) <= 12} == {}


def test_example_is_valid_toml():
    assert tomllib.loads(EXAMPLE)["year"] == 2024


def test_every_paper_says_in_plain_words_what_it_is_and_what_is_easy_to_get_wrong(shipped):
    lacking = [
        card.slug
        for card in shipped
        if card.topic not in TOPICS
        or not 200 <= len(card.plain) <= 700
        or not 3 <= len(card.traps) <= 7
        or not 2 <= len(card.equations) <= 8
    ]
    assert lacking == []


def test_plain_words_traps_and_formulas_are_read_and_come_back_from_the_index():
    more = """plain = "What it is."
traps = ["One.", "Two."]
"""
    formula = """
[[equations]]
name = "The loss"
tex = '\\ell(x) = x'
where = "$x$ is a number."
"""
    card = parse_card(EXAMPLE.replace("[sourcing]", more + "\n[sourcing]") + formula)
    assert (card.plain, card.traps) == ("What it is.", ("One.", "Two."))
    assert card.equations == (Equation("The loss", "\\ell(x) = x", "$x$ is a number.", ""),)
    assert Card.from_dict(card.as_dict()) == card


def test_a_formula_without_tex_is_named():
    with pytest.raises(DataError, match=r"equations\[1\]\.tex"):
        parse_card(EXAMPLE + '\n[[equations]]\nname = "The loss"\n')
