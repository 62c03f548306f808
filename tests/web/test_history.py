"""The history of verdicts: what is new and what changed, noted once, whoever looks."""

import datetime
import json
import multiprocessing

import pytest
from following import catalog_of, record

from paperworks.web.follow.history import all_changes, newest_changes, note_changes

LATER = datetime.datetime(2026, 5, 6, 7, 8, tzinfo=datetime.UTC)


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    record(folder, "rdpo", {"a": "holds", "b": "not shown"}, date="2026-02-03")
    record(folder, "npo", {"a": "holds"}, date="2026-01-02")
    return folder


def test_a_fresh_history_is_in_the_order_of_recording(results):
    found = note_changes(catalog_of(results), LATER)
    assert [(change.slug, change.kind, change.before) for change in found] == [
        ("npo", "new", None),
        ("rdpo", "new", None),
    ]
    assert [change.at.date().isoformat() for change in found] == ["2026-01-02", "2026-02-03"]
    assert found[1].after == {"holds": 1, "reversed": 0, "not shown": 1}
    assert str(found[1]) == "newly built: 1/2 claims hold"
    assert [change.slug for change in newest_changes(1)] == ["rdpo"]


def test_what_did_not_change_is_no_news(results):
    note_changes(catalog_of(results))
    assert note_changes(catalog_of(results)) == []
    assert len(newest_changes(50)) == 2


def test_changed_verdicts_name_the_claims_that_changed(results):
    note_changes(catalog_of(results))
    record(results, "rdpo", {"b": "reversed", "a": "holds", "c": "holds"}, date="2026-03-01")
    [change] = note_changes(catalog_of(results), LATER)
    assert (change.slug, change.kind, change.at) == ("rdpo", "changed", LATER)
    assert [str(claim) for claim in change.claims] == ["b: not shown → reversed", "c: holds"]
    assert str(change) == "verdicts changed: 2/3 claims hold, 1 reversed; before: 1/2 claims hold"
    assert all_changes()[0][0] == change


def test_the_same_verdicts_recorded_again_are_no_news(results):
    note_changes(catalog_of(results))
    record(results, "rdpo", {"b": "not shown", "a": "holds"}, date="2026-03-01")
    assert note_changes(catalog_of(results)) == []


def test_an_older_record_of_another_installation_is_no_news(results):
    note_changes(catalog_of(results))
    record(results, "rdpo", {"a": "reversed"}, date="2026-02-02")
    assert note_changes(catalog_of(results)) == []


def test_a_claim_that_is_gone_is_told(results):
    note_changes(catalog_of(results))
    record(results, "rdpo", {"a": "holds"})
    [change] = note_changes(catalog_of(results))
    assert [str(claim) for claim in change.claims] == ["b: not shown → no longer claimed"]


def test_claims_of_the_same_wording_are_told_apart(results):
    note_changes(catalog_of(results))
    two = json.loads((results / "npo.json").read_text())
    two["claims"] *= 2
    two["claims"][1] = {**two["claims"][1], "verdict": "reversed"}
    (results / "npo.json").write_text(json.dumps(two))
    [change] = note_changes(catalog_of(results))
    assert [str(claim) for claim in change.claims] == ["a: reversed"]


def test_damaged_and_missing_records_are_passed_over(results):
    note_changes(catalog_of(results))
    (results / "rdpo.json").write_text("{")
    (results / "npo.json").unlink()
    assert note_changes(catalog_of(results)) == []


def test_a_record_of_tomorrow_does_not_hide_what_comes_today(tmp_path):
    record(tmp_path / "results", "npo", {"a": "holds"}, date="2999-01-01")
    [change] = note_changes(catalog_of(tmp_path / "results"), LATER)
    assert change.at == LATER


def test_several_processes_note_a_change_once(results):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        noted = pool.map(_note, [results] * 8)
    assert sum(noted) == len(newest_changes(50)) == 2


def _note(results) -> int:
    return len(note_changes(catalog_of(results)))
