"""What the experiments' verdicts were, over time: a row for each change of `results/` that was noticed here.

The run store's file keeps the rows; `results/` alone says what is so now. Nothing here writes a record, and rows are only
ever added. Any number of processes may notice changes at once.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from paperworks.catalog import Catalog, Recorded
from paperworks.catalog.evidence import counts_text
from paperworks.core.database import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdict_history (
    number INTEGER PRIMARY KEY AUTOINCREMENT, slug TEXT NOT NULL, seen_at TEXT NOT NULL, recorded TEXT NOT NULL,
    digest TEXT NOT NULL, counts TEXT NOT NULL, claims TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS verdict_history_by_slug ON verdict_history (slug, number)"""
_NEWEST = """
SELECT slug, recorded, digest FROM verdict_history
WHERE number IN (SELECT max(number) FROM verdict_history GROUP BY slug)"""


@dataclass(frozen=True)
class ClaimChange:
    """A claim whose verdict is another one now. `before` or `after` is "" where the experiment did not make the claim."""

    text: str
    before: str
    after: str

    def __str__(self) -> str:
        if not self.before:
            return f"{self.text}: {self.after}"
        return f"{self.text}: {self.before} → {self.after or 'no longer claimed'}"


@dataclass(frozen=True)
class Change:
    """A paper's first record ("new": it is newly built), or a record whose verdicts differ from those before ("changed").

    `before` and `after` count the claims by verdict. `claims` are the ones that changed; of a new paper, all.
    """

    slug: str
    kind: Literal["new", "changed"]
    before: Mapping[str, int] | None
    after: Mapping[str, int]
    claims: tuple[ClaimChange, ...]
    at: datetime.datetime  # when it was noticed; with zone
    recorded: str  # date of the record, YYYY-MM-DD
    digest: str  # of the verdicts

    def __str__(self) -> str:
        if self.before is None:
            return f"newly built: {counts_text(self.after)}"
        return f"verdicts changed: {counts_text(self.after)}; before: {counts_text(self.before)}"


def note_changes(catalog: Catalog, moment: datetime.datetime | None = None) -> list[Change]:
    """Compares the catalogue's records with what was seen last, writes down what differs, and returns it.

    The first time, each row has its record's date as its time, so that a fresh history is in the order of recording;
    later ones have `moment` (default: now). Only reads where nothing differs. A record older than the one seen last is
    no news: another installation that shares this home has it. Raises RunError where the run store cannot be used.
    """
    database = Database(None, _SCHEMA)
    with database.transaction() as connection:
        if not _unseen(connection, catalog):
            return []
    with database.transaction(writes=True) as connection:
        unseen = _unseen(connection, catalog)  # again, under the lock: another process may have noted them
        is_first = connection.execute("SELECT 1 FROM verdict_history LIMIT 1").fetchone() is None
        now = moment or datetime.datetime.now(datetime.UTC)
        last = connection.execute("SELECT coalesce(max(number), 0) AS number FROM verdict_history").fetchone()
        for slug, recorded in sorted(unseen.items(), key=lambda item: (item[1].date, item[0])):
            seen_at = min(now, _day(recorded.date)) if is_first else now
            connection.execute(
                "INSERT INTO verdict_history (slug, seen_at, recorded, digest, counts, claims) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    slug,
                    time_text(seen_at),
                    recorded.date,
                    _digest(recorded),
                    json.dumps(recorded.counts),
                    _claims(recorded),
                ),
            )
        return _changes(connection, last["number"])


def all_changes() -> tuple[list[Change], datetime.datetime]:
    """Every change, newest first, and the moment up to which that is all: what is noted later has a later time.

    Raises RunError where the run store cannot be used.
    """
    # Under the lock of writers: nobody is about to write down a change whose time has passed already.
    with Database(None, _SCHEMA).transaction(writes=True) as connection:
        return _changes(connection)[::-1], datetime.datetime.now(datetime.UTC)


def newest_changes(most: int) -> list[Change]:
    """The last changes, newest first. Raises RunError where the run store cannot be used."""
    with Database(None, _SCHEMA).transaction() as connection:
        return _changes(connection)[::-1][:most]


def time_text(moment: datetime.datetime) -> str:
    """A moment as the tables of this room keep it: ISO 8601 in UTC, so that texts compare as times do."""
    return moment.astimezone(datetime.UTC).isoformat(timespec="microseconds")


def _unseen(connection: sqlite3.Connection, catalog: Catalog) -> dict[str, Recorded]:
    seen = {row["slug"]: row for row in connection.execute(_NEWEST)}
    unseen = {}
    for card in catalog.cards():
        recorded = catalog.evidence(card.slug).recorded
        if recorded is None or recorded.problem:
            continue
        last = seen.get(card.slug)
        if last is None or (last["digest"] != _digest(recorded) and recorded.date >= last["recorded"]):
            unseen[card.slug] = recorded
    return unseen


def _changes(connection: sqlite3.Connection, after_number: int = 0) -> list[Change]:
    """The changes whose rows have higher numbers, in the order in which they were noted."""
    changes: list[Change] = []
    earlier: dict[str, sqlite3.Row] = {}
    for row in connection.execute("SELECT * FROM verdict_history ORDER BY number"):
        before = earlier.get(row["slug"])
        earlier[row["slug"]] = row
        if row["number"] > after_number:
            changes.append(_change(before, row))
    return changes


def _change(before: sqlite3.Row | None, row: sqlite3.Row) -> Change:
    return Change(
        slug=row["slug"],
        kind="new" if before is None else "changed",
        before=None if before is None else json.loads(before["counts"]),
        after=json.loads(row["counts"]),
        claims=_differences([] if before is None else json.loads(before["claims"]), json.loads(row["claims"])),
        at=datetime.datetime.fromisoformat(row["seen_at"]),
        recorded=row["recorded"],
        digest=row["digest"],
    )


def _differences(before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]) -> tuple[ClaimChange, ...]:
    """The claims with another verdict, in the order of the newer record, then those that are gone."""
    old, new = _by_claim(before), _by_claim(after)
    return tuple(
        ClaimChange(claim[0], old.get(claim, ""), new.get(claim, ""))
        for claim in dict.fromkeys([*new, *old])
        if old.get(claim) != new.get(claim)
    )


def _by_claim(claims: Iterable[Sequence[str]]) -> dict[tuple[str, int], str]:
    """Verdicts by text and number: parts of an experiment may make claims of the same wording."""
    verdicts: dict[tuple[str, int], str] = {}
    for text, verdict in claims:
        number = 0
        while (text, number) in verdicts:
            number += 1
        verdicts[text, number] = verdict
    return verdicts


def _claims(recorded: Recorded) -> str:
    return json.dumps([(claim.text, claim.verdict) for claim in recorded.claims], ensure_ascii=False)


def _digest(recorded: Recorded) -> str:
    """Of the verdicts alone: other figures or another order of the same verdicts are no news."""
    verdicts = json.dumps(sorted((claim.text, claim.verdict) for claim in recorded.claims))
    return hashlib.sha256(verdicts.encode()).hexdigest()


def _day(date: str) -> datetime.datetime:
    """The beginning of a day; the beginning of time where the record's date is none."""
    try:
        return datetime.datetime.fromisoformat(date).replace(tzinfo=datetime.UTC)
    except ValueError:
        return datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
