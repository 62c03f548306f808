"""The index: the same cards however they are read, rebuilt when something changed, never in the way; and search."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paperworks.catalog import Catalog, index
from paperworks.catalog.card import read_card
from paperworks.core.errors import DataError, OptionError

CARD = """slug = "{slug}"
title = "{title}"
arxiv = ""
year = 2024
venue = "arXiv"
wing = "{wing}"
code = ""
summary = "Do a thing"
gives = "{gives}"
verbs = ["run"]
nouns = []
keywords = ["{keyword}"]
mechanism = "The loss."
claim = "It is better."
baselines = []
defaults = "lr"
data = "JSONL"
[sourcing]
kind = "published"
note = "From the paper."
"""


def write_card(folder: Path, slug: str, title="A Title", wing="language", gives="Gives.", keyword="word") -> Path:
    path = folder / f"{slug}.toml"
    path.write_text(CARD.format(slug=slug, title=title, wing=wing, gives=gives, keyword=keyword))
    return path


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERWORKS_HOME", str(tmp_path / "home"))


@pytest.fixture
def cards_folder(tmp_path):
    folder = tmp_path / "cards"
    folder.mkdir()
    write_card(folder, "npo", "Negative Preference Optimization", keyword="unlearning", gives="Forget chosen data.")
    write_card(folder, "ln-dpo", "A Guide", keyword="length normalisation", gives="Any length counts equally.")
    write_card(
        folder, "prdc", "Dataset Constraint", wing="control", keyword="offline", gives="Here unlearning is a word."
    )
    return folder


@pytest.fixture
def open_catalog(cards_folder, tmp_path):
    (tmp_path / "results").mkdir()
    return lambda: Catalog.open(cards_folder, tmp_path / "results")


@pytest.fixture
def parsed(monkeypatch):
    """The names of the card files parsed from now on."""
    names = []
    monkeypatch.setattr(index, "read_card", lambda path: names.append(path.name) or read_card(path))
    return names


def cache_file(tmp_path) -> Path:
    (path,) = (tmp_path / "home" / "cache" / "catalog").iterdir()
    return path


def slugs(found) -> list[str]:
    return [hit.card.slug for hit in found.hits]


def test_cards_come_by_wing_then_slug(open_catalog):
    assert [card.slug for card in open_catalog().cards()] == ["ln-dpo", "npo", "prdc"]


def test_second_start_reads_the_same_cards_without_parsing(open_catalog, parsed):
    first = open_catalog().cards()
    assert len(parsed) == 3
    assert open_catalog().cards() == first
    assert len(parsed) == 3


def test_changed_added_and_removed_cards_are_seen(open_catalog, cards_folder):
    open_catalog()
    write_card(cards_folder, "npo", "Another Title")
    assert open_catalog().card("npo").title == "Another Title"
    added = write_card(cards_folder, "rpo")
    assert len(open_catalog().cards()) == 4
    added.unlink()
    assert len(open_catalog().cards()) == 3


def test_new_version_of_the_package_rebuilds(open_catalog, parsed, monkeypatch):
    open_catalog()
    monkeypatch.setattr(index, "__version__", "99.0")
    open_catalog()
    assert len(parsed) == 6


def test_new_record_is_seen(open_catalog, tmp_path):
    assert open_catalog().evidence("npo").recorded is None
    (tmp_path / "results" / "npo.json").write_text(
        '{"date": "2026-02-03", "budget": "small", "seeds": {}, "claims": []}'
    )
    assert open_catalog().evidence("npo").recorded.date == "2026-02-03"


@pytest.mark.parametrize("damage", [b"", b"not a database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_damaged_index_is_replaced(open_catalog, tmp_path, damage):
    cards = open_catalog().cards()
    cache_file(tmp_path).write_bytes(damage)
    assert open_catalog().cards() == cards
    assert sqlite3.connect(cache_file(tmp_path)).execute("SELECT count(*) FROM paper").fetchone() == (3,)


def test_index_with_other_tables_is_replaced(open_catalog, tmp_path):
    open_catalog()
    connection = sqlite3.connect(cache_file(tmp_path))
    connection.execute("UPDATE paper SET card = '{}'")
    connection.commit()
    connection.close()
    assert len(open_catalog().cards()) == 3


def test_text_index_damaged_later_still_searches(open_catalog, tmp_path):
    open_catalog()
    connection = sqlite3.connect(cache_file(tmp_path))
    connection.execute("DROP TABLE stem")
    connection.commit()
    connection.close()
    assert slugs(open_catalog().search("forget")) == ["npo"]


def test_home_that_cannot_be_written_works_in_memory(open_catalog, tmp_path):
    (tmp_path / "home").write_text("a file stands where the folder should be")
    catalog = open_catalog()
    assert len(catalog.cards()) == 3
    assert slugs(catalog.search("forget")) == ["npo"]


def test_full_disk_works_in_memory(open_catalog, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("paperworks.core.files.write_atomic", full)
    assert len(open_catalog().cards()) == 3


def test_two_cards_folders_do_not_rebuild_each_other(open_catalog, tmp_path, parsed):
    other = tmp_path / "other"
    other.mkdir()
    write_card(other, "rpo")
    for _ in range(2):
        open_catalog()
        assert [card.slug for card in Catalog.open(other, tmp_path).cards()] == ["rpo"]
    assert len(parsed) == 4


def test_a_wrong_card_names_file_and_field(open_catalog, cards_folder):
    write_card(cards_folder, "npo", wing="langage")
    with pytest.raises(DataError, match=r"npo\.toml: field 'wing': 'langage' is unknown"):
        open_catalog()


def test_no_cards_at_all_is_an_incomplete_installation(tmp_path):
    with pytest.raises(DataError, match="install paperworks again"):
        Catalog.open(tmp_path / "nothing", tmp_path)


def test_wrong_slug_names_the_nearest(open_catalog):
    with pytest.raises(OptionError, match=r"no paper named 'LNDPO' \(did you mean 'ln-dpo'\?\)"):
        open_catalog().card("LNDPO")
    with pytest.raises(OptionError, match="no paper named 'zzz'; `paperworks list` names all"):
        open_catalog().card("zzz")


def test_a_word_in_the_keywords_outranks_one_in_the_text(open_catalog):
    assert slugs(open_catalog().search("unlearning")) == ["npo", "prdc"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("forgetting", ["npo"]),  # by its stem
        ("prefer", ["npo"]),
        ("preferenc", ["npo"]),  # a beginning that is no stem
        ("negative opt", ["npo"]),  # only the last word may be a beginning
        ("optimisation", ["npo"]),  # British for the title's American
        ("LENGTH normalized", ["ln-dpo"]),
        ("ln-dpo", ["ln-dpo"]),
        ("how to forget the data", ["npo"]),  # words that say nothing are left out
    ],
)
def test_words_are_found_in_their_forms(open_catalog, words, expected):
    found = open_catalog().search(words)
    assert slugs(found) == expected
    assert found.complete


def test_only_the_last_word_may_be_a_beginning(open_catalog):
    found = open_catalog().search("nega optimization")
    assert slugs(found) == ["npo"]
    assert not found.complete  # found by "optimization" alone


def test_papers_with_some_of_the_words_when_none_has_all(open_catalog):
    found = open_catalog().search("forget offline")
    assert set(slugs(found)) == {"npo", "prdc"}
    assert not found.complete


def test_limit(open_catalog):
    assert slugs(open_catalog().search("unlearning", limit=1)) == ["npo"]


def test_snippet_marks_the_words_that_matched(open_catalog):
    (hit,) = open_catalog().search("forgetting chosen").hits
    assert hit.snippet == (("Forget", True), (" ", False), ("chosen", True), (" data.", False))


def test_nothing_found_suggests_near_papers(open_catalog):
    found = open_catalog().search("unlaerning")
    assert found.hits == ()
    assert found.near == ("npo",)
    assert open_catalog().search("lndpo").near[0] == "ln-dpo"


@pytest.mark.parametrize("words", ["", "   ", '"', "''", "()", "* ^ - + : {", "\0", "😀"])
def test_nothing_to_look_for_finds_nothing(open_catalog, words):
    assert open_catalog().search(words).hits == ()


@pytest.mark.parametrize(
    "words", ['"forget', "forget*", "forget)", "forget:chosen", "forget NEAR", "^forget", "NOT forget"]
)
def test_query_syntax_is_read_as_words(open_catalog, words):
    assert slugs(open_catalog().search(words)) == ["npo"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(words=st.one_of(st.text(), st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape"))))
def test_any_bytes_may_be_typed(shared_catalog, words):
    for hit in shared_catalog.search(words).hits:
        assert hit.score >= 0


@pytest.fixture(scope="module")
def shared_catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    write_card(folder, "npo", "Negative Preference Optimization 0 a b c", keyword="é β 漢字")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAPERWORKS_HOME", str(folder / "home"))
        return Catalog.open(folder, folder)


def test_very_long_queries_are_cut_not_refused(open_catalog):
    assert slugs(open_catalog().search("forget " * 5000)) == ["npo"]


def test_index_file_is_never_seen_half_written(open_catalog, tmp_path):
    open_catalog()
    before = cache_file(tmp_path)
    assert not [path for path in before.parent.iterdir() if path != before]
