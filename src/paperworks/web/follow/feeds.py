"""The newest changes of verdicts as an Atom 1.0 feed (RFC 4287) and as a JSON Feed 1.1.

Links are absolute, below the base URL given. All texts are escaped, and letters that XML cannot hold are replaced. Nothing
here looks anything up: changes and titles come from the caller.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from paperworks import __version__
from paperworks.web.follow.history import Change

MOST_ENTRIES = 50
TITLE = "paperworks: what experiments showed"
DESCRIPTION = "Newly built papers, and verdicts that changed when an experiment was recorded again."
_ATOM = "http://www.w3.org/2005/Atom"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAG_AUTHORITY = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def atom_feed(changes: Sequence[Change], titles: Mapping[str, str], base_url: str) -> bytes:
    """The Atom document. `changes` come newest first, `titles` by slug; `base_url` has no slash at its end."""
    feed = ElementTree.Element("feed", {"xmlns": _ATOM, "xml:lang": "en"})
    _add(feed, "id", _tag(base_url, "feed"))
    _add(feed, "title", TITLE)
    _add(feed, "subtitle", DESCRIPTION)
    _add(feed, "updated", _rfc3339(last_changed(changes)))
    _add(feed, "link", rel="self", type="application/atom+xml", href=f"{base_url}/feed.atom")
    _add(feed, "link", rel="alternate", type="text/html", href=f"{base_url}/")
    _add(_add(feed, "author"), "name", "paperworks")
    _add(feed, "generator", "paperworks", version=__version__)
    for change in changes[:MOST_ENTRIES]:
        entry = _add(feed, "entry")
        _add(entry, "id", _entry_id(change, base_url))
        _add(entry, "title", _title(change, titles))
        _add(entry, "published", _rfc3339(change.at))
        _add(entry, "updated", _rfc3339(change.at))
        _add(entry, "link", rel="alternate", type="text/html", href=paper_url(base_url, change.slug))
        _add(entry, "category", term=change.kind)
        _add(entry, "content", _content(change), type="html")
    ElementTree.indent(feed)
    return ElementTree.tostring(feed, encoding="utf-8", xml_declaration=True) + b"\n"


def json_feed(changes: Sequence[Change], titles: Mapping[str, str], base_url: str) -> bytes:
    """The JSON Feed document, of the same entries and ids as `atom_feed`."""
    items = [
        {
            "id": _entry_id(change, base_url),
            "url": paper_url(base_url, change.slug),
            "title": _title(change, titles),
            "content_html": _content(change),
            "date_published": _rfc3339(change.at),
            "tags": [change.kind],
        }
        for change in changes[:MOST_ENTRIES]
    ]
    feed = {
        "version": "https://jsonfeed.org/version/1.1",
        "title": TITLE,
        "home_page_url": f"{base_url}/",
        "feed_url": f"{base_url}/feed.json",
        "description": DESCRIPTION,
        "language": "en",
        "authors": [{"name": "paperworks"}],
        "items": items,
    }
    return (json.dumps(feed, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def last_changed(changes: Sequence[Change]) -> datetime.datetime:
    """When the feed of these changes was last another; the beginning of 1970 where there are none."""
    return max((change.at for change in changes), default=datetime.datetime.fromtimestamp(0, datetime.UTC))


def paper_url(base_url: str, slug: str) -> str:
    """The address of a paper's page."""
    return f"{base_url}/papers/{quote(slug, safe='')}"


def _title(change: Change, titles: Mapping[str, str]) -> str:
    title = f" ({titles[change.slug]})" if change.slug in titles else ""
    return _legible(f"{change.slug}: {change}{title}")


def _content(change: Change) -> str:
    """HTML: what it is, then each claim that changed (of a new paper, each claim)."""
    claims = "".join(f"<li>{escape(_legible(str(claim)))}</li>" for claim in change.claims)
    return f"<p>{escape(f'{change} (recorded {_legible(change.recorded)})')}</p>" + (
        f"<ul>{claims}</ul>" if claims else ""
    )


def _entry_id(change: Change, base_url: str) -> str:
    # A verdict may come back to what it was: the time makes the id of that change another.
    return _tag(base_url, f"verdicts/{quote(change.slug)}/{change.at:%Y%m%dT%H%M%S}-{change.digest[:12]}")


def _tag(base_url: str, specific: str) -> str:
    """A tag URI (RFC 4151): stays what it is though pages move to other addresses of the same host."""
    host = urlsplit(base_url).hostname or ""
    return f"tag:{host if _TAG_AUTHORITY.fullmatch(host) else 'localhost'},2026:paperworks/{specific}"


def _rfc3339(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _legible(text: str) -> str:
    return _NOT_XML.sub("�", text)


def _add(parent: ElementTree.Element, name: str, text: str = "", **attributes: str) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, name, attributes)
    if text:
        element.text = _legible(text)
    return element
