"""All cards, parsed once and searchable: one SQLite file in the cache, rebuilt whenever a card or a record changes.

Parsing 71 TOML files on each start would be most of the time of `paperworks list`; reading them back from SQLite is
not. Where the cache cannot be written (a read-only home, a full disk) the same database lives in memory. It holds
nothing that cannot be computed again, so a damaged file is simply replaced.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paperworks import __version__
from paperworks.catalog.card import WINGS, Card, read_card
from paperworks.catalog.evidence import PACKAGE, Evidence, Recorded, Verdict, read_recorded, results_folder, runs_here
from paperworks.core.errors import DataError, OptionError, PaperworksError, RunError, did_you_mean

CARDS_FOLDER = PACKAGE / "catalog" / "cards"
INDEX_FORMAT = 3  # raise it when the tables below or the way they are filled change

# Columns of the full-text tables and their weights in bm25: a word in a paper's name says more than one in its text.
WEIGHTS = {
    "slug": 12.0,
    "title": 8.0,
    "keywords": 8.0,
    "summary": 4.0,
    "plain": 2.0,
    "gives": 2.0,
    "claim": 2.0,
    "mechanism": 1.0,
    "baselines": 2.0,
    "traps": 1.0,
    "other": 1.0,
}
SNIPPET_COLUMNS = "plain gives claim mechanism baselines traps"  # the texts that a list of hits does not show anyway
SNIPPET_WORDS = 16
SNIPPET_START, SNIPPET_END = "\x02", "\x03"  # TOML allows no control characters, so a card cannot hold them
_LITTLE_WORDS = "a an and are as at by do for from how i in is it my of on or that the to what which with"
STOP_WORDS = frozenset(_LITTLE_WORDS.split())  # say nothing about a paper
MOST_WORDS = 32  # of one query; the rest is not looked at


@dataclass(frozen=True)
class Hit:
    """A paper found by a search. Higher scores are better; `snippet` is text in pieces, True where a word matched."""

    card: Card
    score: float
    snippet: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True)
class Found:
    """The answer to a search: hits, best first. `complete` says whether each hit has all the words (else some).

    `near` names papers with a similar slug, title word or keyword; filled only where nothing was found.
    """

    hits: tuple[Hit, ...] = ()
    complete: bool = True
    near: tuple[str, ...] = ()


class Catalog:
    """The cards of all papers in the order of their wings. Made by `Catalog.open()`; reading only."""

    def __init__(self, cards_folder: Path, results: Path, connection: sqlite3.Connection) -> None:
        self._sources = cards_folder, results
        self._connection = connection
        rows = connection.execute("SELECT card, recorded FROM paper ORDER BY rowid").fetchall()
        cards = [Card.from_dict(json.loads(card)) for card, _ in rows]
        self._cards = {card.slug: card for card in cards}
        self._recorded = {card.slug: _recorded_from_json(text) for card, (_, text) in zip(cards, rows)}
        self._runs_here: dict[str, str] | None = None

    @classmethod
    def open(cls, cards_folder: Path | None = None, results: Path | None = None) -> Catalog:
        """The catalogue of this installation (or of other folders, for tests).

        Raises DataError naming file and field where a card is not whole.
        """
        folders = cards_folder or CARDS_FOLDER, results or results_folder()
        path, signature = _cache_path(folders[0]), _signature(folders)
        if path is not None:
            try:
                return cls(*folders, _open_current(path, signature))
            except (sqlite3.Error, LookupError, ValueError, TypeError):
                pass  # missing, older or damaged: made anew below
        connection = _build(folders, signature)
        if path is not None:
            _save(connection, path)
        return cls(*folders, connection)

    def cards(self) -> tuple[Card, ...]:
        """Every card, by wing and then by slug."""
        return tuple(self._cards.values())

    def card(self, slug: str) -> Card:
        """The card of one paper. Raises OptionError naming the nearest slug."""
        try:
            return self._cards[slug]
        except KeyError:
            hint = did_you_mean(slug.lower(), self._cards)
            if "did you mean" not in hint:  # all 71 names would not help
                hint = "; `paperworks list` names all, `paperworks search` finds by words"
            raise OptionError(f"no paper named {slug!r}{hint}") from None

    def evidence(self, slug: str) -> Evidence:
        """What is known of a paper's experiment, as `Card.experiment` says it, without reading its record again."""
        if self._runs_here is None:
            self._runs_here = dict(runs_here())
        return Evidence(self._recorded[slug], self._runs_here.get(slug, ""))

    def as_dict(self, slug: str) -> dict[str, Any]:
        """All that is known of a paper, fit for JSON: its card, `usable`, and `experiment` with its verdict counts."""
        evidence = self.evidence(slug)
        recorded = {**asdict(evidence.recorded), "counts": evidence.recorded.counts} if evidence.recorded else None
        experiment = {"status": str(evidence), "recorded": recorded, "run_here": evidence.run_here or None}
        card = self._cards[slug]
        return {**card.as_dict(), "usable": card.usable, "experiment": experiment}

    def search(self, words: str, limit: int = 10) -> Found:
        """Papers with all the words (with some of them where none has all), best first; any text is allowed.

        Words are matched by their stem, -ise and -ize alike; the last one also as the beginning of a word.
        """
        queries = _queries(words)
        if not queries:
            return Found()
        try:
            hits, complete = self._ranked(queries)
            snippets = self._snippets(queries)
        except sqlite3.DatabaseError:  # damaged after it was opened
            self._connection = _build(self._sources, "")
            hits, complete = self._ranked(queries)
            snippets = self._snippets(queries)
        cards = self.cards()
        found = tuple(Hit(cards[row - 1], score, snippets.get(row, ())) for row, score in hits[:limit])
        return Found(found, complete, () if found else self._near(words))

    def _ranked(self, queries: list[tuple[str, str]]) -> tuple[list[tuple[int, float]], bool]:
        """(row, score) of the papers found, best first, and whether they have all the words.

        bm25 of several words is the sum of bm25 of each, so the words are looked up one by one: this tells how many
        a paper has, and lets a word count by its better match, stem or beginning.
        """
        totals: dict[int, float] = {}
        counts: dict[int, int] = {}
        for stems, beginnings in queries:
            scores: dict[int, float] = {}
            for table, query in (("stem", stems), ("word", beginnings)):
                for row, score in self._scores(table, query) if query else ():
                    scores[row] = max(score, scores.get(row, 0.0))
            for row, score in scores.items():
                totals[row] = totals.get(row, 0.0) + score
                counts[row] = counts.get(row, 0) + 1
        having_all = {row: totals[row] for row, count in counts.items() if count == len(queries)}
        ranked = sorted((having_all or totals).items(), key=lambda item: (-item[1], item[0]))
        return ranked, bool(having_all) or not totals

    def _scores(self, table: str, query: str) -> Iterable[tuple[int, float]]:
        weights = ", ".join(map(str, WEIGHTS.values()))
        return self._connection.execute(
            f"SELECT rowid, -bm25({table}, {weights}) FROM {table} WHERE {table} MATCH ?", (query,)
        )

    def _snippets(self, queries: list[tuple[str, str]]) -> dict[int, tuple[tuple[str, bool], ...]]:
        """For each row that matches in its texts: the piece of text with most of the words."""
        snippets: dict[int, tuple[tuple[str, bool], ...]] = {}
        stems = " OR ".join(stems for stems, _ in queries)
        beginnings = " OR ".join(beginnings or stems for stems, beginnings in queries)
        for table, query in (("word", beginnings), ("stem", stems)):  # the stem's, where both have one
            for row, text in self._connection.execute(
                f"SELECT rowid, snippet({table}, -1, ?, ?, '…', {SNIPPET_WORDS}) FROM {table} WHERE {table} MATCH ?",
                (SNIPPET_START, SNIPPET_END, f"{{{SNIPPET_COLUMNS}}} : ({query})"),
            ):
                snippets[row] = _pieces(text)
        return snippets

    def _near(self, words: str) -> tuple[str, ...]:
        from difflib import get_close_matches

        slugs_by_word: dict[str, dict[str, None]] = {}  # dictionaries as ordered sets
        for card in self.cards():
            for text in (card.slug, *card.keywords, *card.title.split()):
                slugs_by_word.setdefault(text.lower().strip(":,.?()"), {})[card.slug] = None
        near: dict[str, None] = {}
        for word in [words.strip().lower(), *words.lower().split()[:MOST_WORDS]]:
            for match in get_close_matches(word[:80], slugs_by_word, n=3, cutoff=0.7):
                near.update(slugs_by_word[match])
        return tuple(near)[:3]


def _queries(words: str) -> list[tuple[str, str]]:
    """For each word typed: an FTS5 query for its stems, and for the last one another for words that begin with it.

    Everything stands in FTS5 strings, so that nothing typed is read as an operator.
    """
    readable = words.encode("utf-8", "replace").decode("utf-8").replace("\0", " ")
    typed = [word for word in readable.split() if any(letter.isalnum() for letter in word)]
    telling = [word for word in typed if word.lower() not in STOP_WORDS] or typed
    queries = []
    for number, word in enumerate(telling[:MOST_WORDS], start=1):
        strings = ['"' + form.replace('"', '""') + '"' for form in _spellings(word[:200])]
        beginnings = " OR ".join(f"{string} *" for string in strings) if number == len(telling) else ""
        queries.append(("(" + " OR ".join(strings) + ")", f"({beginnings})" if beginnings else ""))
    return queries


def _spellings(word: str) -> list[str]:
    """The word as typed and with British and American endings exchanged: titles have one, cards often the other."""
    ending = "(?=(e|ed|er|es|ing|ation|ations)$)"
    swaps = {f"is{ending}": "iz", f"iz{ending}": "is", "our(?=s?$)": "or", "(?<!u)or(?=s?$)": "our"}
    forms = [word, *(re.sub(pattern, other, word, flags=re.IGNORECASE) for pattern, other in swaps.items())]
    return list(dict.fromkeys(forms))


def _pieces(text: str) -> tuple[tuple[str, bool], ...]:
    pieces = []
    for number, part in enumerate(re.split(f"[{SNIPPET_START}{SNIPPET_END}]", text)):
        if part:
            pieces.append((part, number % 2 == 1))
    return tuple(pieces)


def _cache_path(cards_folder: Path) -> Path | None:
    """One file for each cards folder, so that two installations that share a home do not rebuild it in turns."""
    from paperworks.core.files import cache_dir

    try:
        return cache_dir("catalog").absolute() / f"cards-{zlib.crc32(str(cards_folder).encode()):08x}.sqlite"
    except (OSError, PaperworksError):
        return None


def _signature(folders: Iterable[Path]) -> str:
    """Changes whenever a card or a record is added, removed or written, and with the version of the package."""
    parts = [f"{__version__} {INDEX_FORMAT}"]
    for folder in folders:
        parts.append(str(folder))
        files = folder.iterdir() if folder.is_dir() else ()
        for path in sorted(path for path in files if path.suffix in (".toml", ".json")):
            status = path.stat()
            parts.append(f"{path.name} {status.st_size} {status.st_mtime_ns}")
    return "\n".join(parts)


def _open_current(path: Path, signature: str) -> sqlite3.Connection:
    # The file is never changed in place, so SQLite need not look for locks or journals.
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    stored = connection.execute("SELECT signature FROM about").fetchone()
    if stored is None or stored[0] != signature:
        connection.close()
        raise LookupError("made from other cards")
    return connection


def _build(folders: tuple[Path, Path], signature: str) -> sqlite3.Connection:
    """The whole database, in memory."""
    cards_folder, results = folders
    cards = [read_card(path) for path in sorted(cards_folder.glob("*.toml"))]
    if not cards:
        raise DataError("has no cards; the installation is incomplete, install paperworks again", file=cards_folder)
    cards.sort(key=lambda card: (WINGS.index(card.wing), card.slug))
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE about (signature TEXT)")
    connection.execute("CREATE TABLE paper (card TEXT, recorded TEXT)")
    connection.execute("INSERT INTO about VALUES (?)", (signature,))
    columns = ", ".join(WEIGHTS)
    try:
        connection.execute(f"CREATE VIRTUAL TABLE stem USING fts5({columns}, tokenize='porter unicode61')")
        connection.execute(f"CREATE VIRTUAL TABLE word USING fts5({columns}, tokenize='unicode61', prefix='2 3')")
    except sqlite3.OperationalError as error:
        raise RunError(
            f"this Python's SQLite lacks full-text search (FTS5): {error}; use another Python build"
        ) from None
    marks = ", ".join("?" * len(WEIGHTS))
    for row, card in enumerate(cards, start=1):
        recorded = read_recorded(results / f"{card.slug}.json")
        stored = json.dumps(asdict(recorded)) if recorded else None
        connection.execute("INSERT INTO paper VALUES (?, ?)", (json.dumps(card.as_dict()), stored))
        for table in ("stem", "word"):
            statement = f"INSERT INTO {table} (rowid, {columns}) VALUES (?, {marks})"
            connection.execute(statement, (row, *_searchable(card)))
    connection.commit()
    return connection


def _searchable(card: Card) -> list[str]:
    published = [f"{entry.setting} {entry.metric} {entry.source}" for entry in card.published]
    facts = [card.arxiv, card.wing, card.venue, card.code, *card.verbs, *card.nouns]
    other = [*facts, card.defaults, card.data, *published]
    joined = {
        "keywords": ", ".join(card.keywords),
        "baselines": ", ".join(card.baselines),
        "traps": " ".join(card.traps),
        "other": " · ".join(part for part in other if part),
    }
    return [joined[column] if column in joined else getattr(card, column) for column in WEIGHTS]


def _save(connection: sqlite3.Connection, path: Path) -> None:
    from paperworks.core.files import write_atomic

    # The database in memory serves as well. AttributeError: a SQLite built without serialize.
    with contextlib.suppress(OSError, PaperworksError, AttributeError, sqlite3.Error):
        write_atomic(path, connection.serialize())


def _recorded_from_json(text: str | None) -> Recorded | None:
    if text is None:
        return None
    values = json.loads(text)
    return Recorded(**{**values, "claims": tuple(Verdict(**claim) for claim in values["claims"])})
