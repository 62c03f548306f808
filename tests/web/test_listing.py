"""The list: filters that combine and live in the address, orders, words that are found."""

from __future__ import annotations

import datetime

import pytest

from paperworks.catalog import Catalog
from paperworks.core.runs import RunStore
from paperworks.web.listing import Query, listing, verdict_of


@pytest.fixture(scope="module")
def catalog():
    return Catalog.open()


def slugs(catalog, **given):
    return [item.card.slug for item in listing(catalog, Query.of(given)).items]


def run(name, folder, verb="run"):
    with RunStore().start(verb, name, folder, {}):
        pass


def test_all_papers_with_the_newest_results_first(catalog):
    items = listing(catalog, Query()).items
    dates = [item.evidence.recorded.date if item.evidence.recorded else "" for item in items]
    assert len(items) == len(catalog.cards())
    assert dates == sorted(dates, reverse=True) and dates[0]


def test_filters_combine_and_each_tells_how_many_it_would_leave(catalog):
    found = listing(catalog, Query(wing="control", runs="here"))
    assert found.items and all(item.card.wing == "control" and item.card.usable for item in found.items)
    assert found.counts["wing"]["control"] == len(found.items)
    assert found.counts["wing"]["language"] == len(slugs(catalog, wing="language", runs="here"))
    assert sum(found.counts["year"].values()) == len(found.items)


def test_a_verdict_is_that_of_all_claims(catalog):
    for item in listing(catalog, Query(verdict="some reversed")).items:
        assert item.evidence.recorded.counts["reversed"] > 0
    for item in listing(catalog, Query(verdict="not recorded")).items:
        assert verdict_of(item.evidence) == "not recorded"


def test_words_are_found_best_first_with_the_text_that_matched(catalog):
    items = listing(catalog, Query(q="flipped labels")).items
    assert items[0].card.slug == "rdpo"
    assert any(is_match for item in items for _, is_match in item.snippet)


def test_what_was_run_most_here_in_the_last_month_comes_first(catalog, tmp_path):
    for number in range(3):
        run("npo", tmp_path / f"a{number}")
    run("spo", tmp_path / "b")
    run("spo", tmp_path / "c", verb="evaluate")
    items = listing(catalog, Query(order="trending")).items
    assert [(item.card.slug, item.runs) for item in items[:2]] == [("npo", 3), ("spo", 1)]


def test_older_runs_are_no_trend(tmp_path):
    run("npo", tmp_path / "a")
    tomorrow = datetime.datetime.now().astimezone() + datetime.timedelta(days=1)
    assert RunStore().counts((tomorrow - datetime.timedelta(days=2)).isoformat()) == {("run", "npo"): 1}
    assert RunStore().counts(tomorrow.isoformat()) == {}


def test_an_address_typed_by_hand_does_not_fail():
    query = Query.of({"wing": "nowhere", "year": "²", "order": "best", "q": " x " * 500, "verdict": "holds"})
    assert (query.wing, query.year, query.order, query.verdict) == ("", "", "", "")
    assert len(query.q) <= 300


def test_by_meaning_all_that_are_near_come_in_its_order_and_words_are_still_shown(catalog):
    ranking = [
        ("spo", 0.9),
        ("rdpo", 0.5),
        *((card.slug, 0.1) for card in catalog.cards() if card.slug not in ("spo", "rdpo")),
    ]
    found = listing(catalog, Query(q="nowhere to be found"), ranking)
    assert [item.card.slug for item in found.items[:2]] == ["spo", "rdpo"] and len(found.items) == 20
    blended = listing(catalog, Query(q="flipped labels"), ranking).items
    assert any(is_match for item in blended for _, is_match in item.snippet)
