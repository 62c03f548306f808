"""The feeds: valid Atom and JSON Feed, whatever stands in claims and titles."""

import dataclasses
import datetime
import json
import re
from xml.etree import ElementTree

import pytest
from following import PUBLIC

from paperworks.web.follow.feeds import MOST_ENTRIES, atom_feed, json_feed, last_changed
from paperworks.web.follow.history import Change, ClaimChange

ATOM = "{http://www.w3.org/2005/Atom}"
AT = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
HOSTILE = "<script>alert(1)</script> & \x00\x0b\ud800 ]]> \"'"
CHANGE = Change("rdpo", "new", None, {"holds": 1}, (ClaimChange("a < b", "", "holds"),), AT, "2026-02-03", "d" * 64)
CHANGED = dataclasses.replace(
    CHANGE, kind="changed", before={"holds": 0, "not shown": 1}, claims=(ClaimChange("a", "not shown", "holds"),)
)


def atom(changes=(CHANGED, CHANGE), titles=None, base=PUBLIC) -> ElementTree.Element:
    return ElementTree.fromstring(atom_feed(changes, titles or {"rdpo": "A Title"}, base))


def test_atom_has_all_that_its_standard_demands():
    feed = atom()
    assert feed.findtext(f"{ATOM}id") == "tag:papers.example.org,2026:paperworks/feed"
    assert feed.findtext(f"{ATOM}updated") == "2026-02-03T04:05:06Z"
    assert feed.findtext(f"{ATOM}author/{ATOM}name") == "paperworks"
    assert {link.get("rel"): link.get("href") for link in feed.findall(f"{ATOM}link")} == {
        "self": f"{PUBLIC}/feed.atom",
        "alternate": f"{PUBLIC}/",
    }
    for entry in feed.findall(f"{ATOM}entry"):
        assert all(entry.findtext(f"{ATOM}{name}") for name in ("id", "title", "updated", "content"))
        assert entry.find(f"{ATOM}link").get("href") == f"{PUBLIC}/papers/rdpo"
    assert feed.findtext(f"{ATOM}entry/{ATOM}title") == (
        "rdpo: verdicts changed: 1/1 claims hold; before: 0/1 claims hold (A Title)"
    )


def test_both_feeds_have_the_same_entries():
    feed = json.loads(json_feed([CHANGED, CHANGE], {"rdpo": "A Title"}, PUBLIC))
    assert feed["version"] == "https://jsonfeed.org/version/1.1"
    assert (feed["feed_url"], feed["home_page_url"]) == (f"{PUBLIC}/feed.json", f"{PUBLIC}/")
    assert [item["id"] for item in feed["items"]] == [
        entry.findtext(f"{ATOM}id") for entry in atom().findall(f"{ATOM}entry")
    ]
    assert feed["items"][0]["content_html"] == atom().findtext(f"{ATOM}entry/{ATOM}content")
    assert feed["items"][1]["tags"] == ["new"]


def test_what_stands_in_claims_and_titles_stays_text():
    hostile = dataclasses.replace(CHANGE, claims=(ClaimChange(HOSTILE, "", "holds"),))
    feed = atom([hostile], {"rdpo": HOSTILE})
    content = feed.findtext(f"{ATOM}entry/{ATOM}content")
    assert "<script" not in content
    assert "&lt;script&gt;" in content
    assert feed.findtext(f"{ATOM}entry/{ATOM}title").endswith("(<script>alert(1)</script> & ��� ]]> \"')")
    assert "<script" not in json.loads(json_feed([hostile], {"rdpo": HOSTILE}, PUBLIC))["items"][0]["content_html"]


def test_a_verdict_that_comes_back_is_another_entry():
    again = dataclasses.replace(CHANGE, at=AT + datetime.timedelta(days=1))
    ids = [entry.findtext(f"{ATOM}id") for entry in atom([again, CHANGE]).findall(f"{ATOM}entry")]
    assert len(set(ids)) == 2


@pytest.mark.parametrize(
    "base", ["http://127.0.0.1:8765", "http://[::1]:8765", "http://my_host", "https://a.b.example"]
)
def test_ids_are_tag_uris_under_every_host(base):
    tag = r"tag:[a-z0-9.-]+,2026:[\w./%-]+"
    feed = atom(base=base)
    assert all(re.fullmatch(tag, element.text) for element in feed.iter(f"{ATOM}id"))


def test_a_feed_holds_the_newest_and_may_be_empty():
    assert len(atom([CHANGE] * 60).findall(f"{ATOM}entry")) == MOST_ENTRIES == 50
    assert atom([]).findtext(f"{ATOM}updated") == "1970-01-01T00:00:00Z"
    assert json.loads(json_feed([], {}, PUBLIC))["items"] == []
    assert last_changed([CHANGE]) == AT
