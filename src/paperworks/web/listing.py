"""The list of papers: what the address of the page asks for, and the papers that answer it. No HTML is made here."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from paperworks.catalog import Card, Catalog, Evidence
from paperworks.catalog.card import TOPICS, WINGS
from paperworks.catalog.commands import methods
from paperworks.catalog.meaning import blend
from paperworks.core.runs import RunStore

Order = Literal["", "new", "trending", "year", "name"]
Verdict = Literal["", "all hold", "some hold", "some reversed", "not recorded"]
ORDERS: Mapping[Order, str] = {
    "new": "newest results",
    "trending": "most run here",
    "year": "newest papers",
    "name": "by name",
}
DAYS_OF_TREND = 30
MOST_BY_MEANING = 20  # every paper means something; these are near
MOST_WORDS = 300  # letters of a search that are looked at


@dataclass(frozen=True)
class Query:
    """What is asked for. Unknown values of a filter count as not given: an address typed by hand must not fail."""

    q: str = ""
    wing: str = ""
    topic: str = ""
    year: str = ""
    verdict: str = ""
    runs: str = ""  # "here": papers that this installation can run
    order: str = ""
    by: str = ""  # "meaning": search by what the words mean

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> Query:
        """The query in an address's parameters."""
        known = {
            "wing": WINGS, "topic": TOPICS, "verdict": get_args(Verdict), "runs": ("here",), "order": tuple(ORDERS),
            "by": ("meaning",),
        }  # fmt: skip
        values = {field.name: parameters.get(field.name, "").strip() for field in fields(cls)}
        for name, allowed in known.items():
            if values[name] not in allowed:
                values[name] = ""
        if not (values["year"].isascii() and values["year"].isdecimal()):
            values["year"] = ""
        return cls(**{**values, "q": values["q"][:MOST_WORDS]})

    @property
    def is_filtered(self) -> bool:
        return any((self.q, self.wing, self.topic, self.year, self.verdict, self.runs))


@dataclass(frozen=True)
class Item:
    """One paper of the list. `snippet` is text in pieces, True where a searched word stands."""

    card: Card
    evidence: Evidence
    verdict: Verdict
    snippet: tuple[tuple[str, bool], ...] = ()
    runs: int = 0  # here, in the last 30 days


@dataclass(frozen=True)
class Listing:
    """The papers that answer a query, in its order, and how many more each filter would find."""

    query: Query
    items: tuple[Item, ...]
    total: int
    counts: Mapping[str, Mapping[str, int]]  # by filter and value: papers in the list if it were set to that
    note: str = ""  # what a reader must know of the search
    near: tuple[str, ...] = ()


def listing(
    catalog: Catalog, query: Query, by_meaning: Sequence[tuple[str, float]] | None = None, note: str = ""
) -> Listing:
    """Answers a query. `by_meaning` ranks all papers by what the words mean, where that was asked for."""
    trend = trending(catalog)
    items = {card.slug: _item(card, catalog.evidence(card.slug), trend) for card in catalog.cards()}
    near: tuple[str, ...] = ()
    if query.q:
        found = catalog.search(query.q, limit=len(items))
        hits = {hit.card.slug: replace(items[hit.card.slug], snippet=hit.snippet) for hit in found.hits}
        if by_meaning is not None:
            ranked = [slug for slug, _ in blend(found, by_meaning)][:MOST_BY_MEANING]
            items = {slug: hits.get(slug, items[slug]) for slug in ranked}
        else:
            items, near = hits, found.near
            if hits and not found.complete:
                note = note or "No paper has all these words; these have some of them."
    chosen = [item for item in items.values() if _passes(item, query)]
    return Listing(
        query, tuple(_ordered(chosen, query)), len(catalog.cards()), _counts(items.values(), query), note, near
    )


def trending(catalog: Catalog) -> Mapping[str, int]:
    """How often each paper was run here in the last 30 days: its experiment, and trainings with its methods."""
    since = datetime.datetime.now().astimezone() - datetime.timedelta(days=DAYS_OF_TREND)
    counts = RunStore().counts(since.isoformat())
    total: Counter[str] = Counter()
    for card in catalog.cards():
        own = [("run", card.slug), *(("train", name) for name in methods(card))]
        total[card.slug] = sum(counts.get(each, 0) for each in own)
    return total


def verdict_of(evidence: Evidence) -> Verdict:
    """A paper's verdict in two words: whether all claims of its recorded experiment hold."""
    if not evidence.recorded or evidence.recorded.problem or not evidence.recorded.claims:
        return "not recorded"
    counts = evidence.recorded.counts
    if counts["reversed"]:
        return "some reversed"
    return "some hold" if counts["not shown"] else "all hold"


def _item(card: Card, evidence: Evidence, trend: Mapping[str, int]) -> Item:
    return Item(card, evidence, verdict_of(evidence), runs=trend[card.slug])


def _passes(item: Item, query: Query, skip: str = "") -> bool:
    tests: dict[str, Any] = {
        "wing": item.card.wing,
        "topic": item.card.topic,
        "year": str(item.card.year),
        "verdict": item.verdict,
        "runs": "here" if item.card.usable else "",
    }
    return all(getattr(query, name) in ("", value) for name, value in tests.items() if name != skip)


def _ordered(items: Sequence[Item], query: Query) -> list[Item]:
    order = query.order or ("" if query.q else "new")
    if order == "new":
        return sorted(items, key=lambda item: (_recorded_on(item), item.card.usable, item.card.year), reverse=True)
    if order == "trending":
        return sorted(items, key=lambda item: (item.runs, _recorded_on(item)), reverse=True)
    if order == "year":
        return sorted(items, key=lambda item: (item.card.year, item.card.arxiv), reverse=True)
    if order == "name":
        return sorted(items, key=lambda item: item.card.slug)
    return list(items)  # as the search ranked them


def _recorded_on(item: Item) -> str:
    return item.evidence.recorded.date if item.evidence.recorded else ""


def _counts(items: Any, query: Query) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {name: Counter() for name in ("wing", "topic", "year", "verdict", "runs")}
    for item in items:
        for name, value in (
            ("wing", item.card.wing),
            ("topic", item.card.topic),
            ("year", str(item.card.year)),
            ("verdict", item.verdict),
            ("runs", "here" if item.card.usable else ""),
        ):
            if value and _passes(item, query, skip=name):
                found[name][value] += 1
    order: dict[str, Sequence[str]] = {"wing": WINGS, "topic": TOPICS, "verdict": get_args(Verdict), "runs": ("here",)}
    years = sorted(found["year"], reverse=True)
    return {name: {key: counts[key] for key in order.get(name, years) if counts[key]} for name, counts in found.items()}
