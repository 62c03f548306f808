"""Who wants digests by e-mail: addresses that were confirmed, how often, and requests that wait for confirmation.

Tables of the run store's file, so that every server and `paperworks digest` see the same. Tokens are kept as SHA-256 only.
An unsubscribed address is forgotten altogether. Nothing here sends a mail.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import secrets
import sqlite3
from dataclasses import dataclass, field
from typing import Literal, get_args

from paperworks.core.database import Database
from paperworks.core.errors import OptionError, did_you_mean
from paperworks.web.follow.addresses import checked_address
from paperworks.web.follow.history import time_text

Frequency = Literal["daily", "weekly"]
FREQUENCIES: tuple[Frequency, ...] = get_args(Frequency)
CONFIRM_WITHIN = datetime.timedelta(hours=48)
# Shorter than a day and a week, so that a cron job that starts a little earlier than the last time still finds them due.
WAIT = {"daily": datetime.timedelta(hours=23), "weekly": datetime.timedelta(days=7, hours=-1)}
CLAIM_HOLDS = datetime.timedelta(hours=1)  # after it, who claimed a digest and did not say how it went counts as killed
MOST_LETTERS_A_DAY = 3  # to one address
MOST_REQUESTS_AN_HOUR = 20  # of one client

# The limits are counted in a table, not in a process: they hold over restarts and for several servers on one home.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS subscribers (
    email TEXT PRIMARY KEY COLLATE NOCASE, frequency TEXT NOT NULL, wants_runs INTEGER NOT NULL,
    created TEXT NOT NULL, confirmed TEXT NOT NULL, last_sent TEXT NOT NULL, claimed TEXT
);
CREATE TABLE IF NOT EXISTS subscription_requests (
    email TEXT NOT NULL COLLATE NOCASE, frequency TEXT NOT NULL, wants_runs INTEGER NOT NULL, created TEXT NOT NULL,
    token_hash TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS unsubscribe_tokens (token_hash TEXT PRIMARY KEY, email TEXT NOT NULL COLLATE NOCASE);
CREATE TABLE IF NOT EXISTS subscription_attempts (kind TEXT NOT NULL, who TEXT NOT NULL, at TEXT NOT NULL)"""


class TooManyRequests(OptionError):
    """A client asked for more subscriptions than it may in an hour."""


@dataclass(frozen=True)
class Subscriber:
    """A confirmed subscription. `last_sent` is the end of what the last digest told (at first, when it was confirmed)."""

    email: str
    frequency: Frequency
    wants_runs: bool
    confirmed: datetime.datetime
    last_sent: datetime.datetime


@dataclass(frozen=True)
class Letter:
    """The answer to a request, which goes to the address alone: only its owner may learn whether it was known.

    `kind`: "new" asks to confirm a subscription, "change" to confirm other wishes of one, "known" says that all is as
    wished already. Without a confirmation nothing changes.
    """

    kind: Literal["new", "change", "known"]
    email: str
    frequency: Frequency
    wants_runs: bool
    confirm_token: str = field(default="", repr=False)
    unsubscribe_token: str = field(default="", repr=False)


@dataclass(frozen=True)
class Counts:
    """How many subscribers of each kind there are; `pending` counts requests that can still be confirmed."""

    daily: int
    weekly: int
    with_runs: int
    pending: int


class Subscribers:
    """The subscriptions in the run store's file, for any number of processes at once."""

    def __init__(self) -> None:
        self._database = Database(None, _SCHEMA)

    def subscribe(
        self,
        email: str,
        frequency: str,
        wants_runs: bool = False,
        *,
        client: str = "",
        moment: datetime.datetime | None = None,
    ) -> Letter | None:
        """Notes a request and returns the letter to send; None where the address had enough letters today.

        A caller answers both alike. Raises OptionError for what is no address or frequency, TooManyRequests where
        `client` (an address of the network) asked too often.
        """
        email, now = checked_address(email), moment or _now()
        if frequency not in FREQUENCIES:
            raise OptionError(f"no frequency {frequency!r}{did_you_mean(frequency, FREQUENCIES)}")
        with self._database.transaction(writes=True) as database:
            _forget_old(database, now)
            hour, day = datetime.timedelta(hours=1), datetime.timedelta(days=1)
            if client and not _count_attempt(database, "client", client, now, hour, MOST_REQUESTS_AN_HOUR):
                raise TooManyRequests("too many subscriptions were asked for from here; try again in an hour")
            if not _count_attempt(database, "address", email.lower(), now, day, MOST_LETTERS_A_DAY):
                return None
            return _letter(database, email, frequency, wants_runs, now)

    def is_waiting(self, confirm_token: str, moment: datetime.datetime | None = None) -> bool:
        """Whether the token still confirms a request."""
        with self._database.transaction() as database:
            return _request(database, confirm_token, moment or _now()) is not None

    def confirm(self, confirm_token: str, moment: datetime.datetime | None = None) -> Subscriber | None:
        """Makes the request a subscription, or changes the one there is; None where the token is unknown, used or old."""
        now = moment or _now()
        with self._database.transaction(writes=True) as database:
            request = _request(database, confirm_token, now)
            if request is None:
                return None
            # Of a known address only the wishes change: what was sent to it stays sent.
            database.execute(
                "INSERT INTO subscribers (email, frequency, wants_runs, created, confirmed, last_sent)"
                " VALUES (:email, :frequency, :wants_runs, :created, :now, :now)"
                " ON CONFLICT (email) DO UPDATE SET frequency = :frequency, wants_runs = :wants_runs, confirmed = :now",
                {**dict(request), "now": time_text(now)},
            )
            database.execute("DELETE FROM subscription_requests WHERE email = ?", (request["email"],))
            return _subscriber(_row(database, request["email"]))

    def has_unsubscribe(self, unsubscribe_token: str) -> bool:
        """Whether the token ends a subscription that is there."""
        with self._database.transaction() as database:
            return _holder(database, unsubscribe_token) is not None

    def unsubscribe(self, unsubscribe_token: str) -> bool:
        """Forgets the address that the token belongs to, and all about it. False where it belongs to none (any more)."""
        with self._database.transaction(writes=True) as database:
            email = _holder(database, unsubscribe_token)
            if email is None:
                return False
            for table in ("subscribers", "subscription_requests", "unsubscribe_tokens"):
                database.execute(f"DELETE FROM {table} WHERE email = ?", (email,))
            database.execute("DELETE FROM subscription_attempts WHERE who = ?", (_hash(email.lower()),))
            return True

    def all(self) -> list[Subscriber]:
        """Every confirmed subscriber, the longest confirmed first."""
        with self._database.transaction() as database:
            return [_subscriber(row) for row in database.execute("SELECT * FROM subscribers ORDER BY confirmed, email")]

    def counts(self, moment: datetime.datetime | None = None) -> Counts:
        """How many there are, without saying who."""
        everyone = self.all()
        oldest = time_text((moment or _now()) - CONFIRM_WITHIN)
        with self._database.transaction() as database:
            pending = database.execute(
                "SELECT count(DISTINCT email) AS n FROM subscription_requests WHERE created > ?", (oldest,)
            ).fetchone()["n"]
        frequencies = [subscriber.frequency for subscriber in everyone]
        return Counts(
            daily=frequencies.count("daily"),
            weekly=frequencies.count("weekly"),
            with_runs=sum(subscriber.wants_runs for subscriber in everyone),
            pending=pending,
        )

    def due(self, moment: datetime.datetime | None = None) -> list[Subscriber]:
        """Whose next digest may go out now: its day or week is over. Requests that nobody confirmed are forgotten."""
        now = moment or _now()
        with self._database.transaction(writes=True) as database:
            _forget_old(database, now)
        return [subscriber for subscriber in self.all() if now - subscriber.last_sent >= WAIT[subscriber.frequency]]

    def claim(self, subscriber: Subscriber, moment: datetime.datetime | None = None) -> str | None:
        """Takes on the subscriber's next digest and returns the token for its unsubscribe link.

        None where another process has it, or sent it already, or where the subscriber is gone. Whoever claims says
        `sent` or `put_back`; where it was killed before, the digest can be claimed again after CLAIM_HOLDS.
        """
        now = moment or _now()
        with self._database.transaction(writes=True) as database:
            claimed = database.execute(
                "UPDATE subscribers SET claimed = ? WHERE email = ? AND last_sent = ? AND (claimed IS NULL OR claimed < ?)",
                (time_text(now), subscriber.email, time_text(subscriber.last_sent), time_text(now - CLAIM_HOLDS)),
            ).rowcount
            return _new_unsubscribe_token(database, subscriber.email) if claimed else None

    def sent(self, subscriber: Subscriber, until: datetime.datetime) -> None:
        """Writes down that the digest of everything up to `until` went out."""
        with self._database.transaction(writes=True) as database:
            database.execute(
                "UPDATE subscribers SET last_sent = ?, claimed = NULL WHERE email = ?",
                (time_text(until), subscriber.email),
            )

    def put_back(self, subscriber: Subscriber, unsubscribe_token: str) -> None:
        """Gives a claimed digest back that could not be sent, and the token that nobody was told."""
        with self._database.transaction(writes=True) as database:
            database.execute("UPDATE subscribers SET claimed = NULL WHERE email = ?", (subscriber.email,))
            database.execute("DELETE FROM unsubscribe_tokens WHERE token_hash = ?", (_hash(unsubscribe_token),))


def _letter(
    database: sqlite3.Connection, email: str, frequency: Frequency, wants_runs: bool, now: datetime.datetime
) -> Letter:
    row = _row(database, email)
    if row is not None and (row["frequency"], bool(row["wants_runs"])) == (frequency, wants_runs):
        unsubscribe = _new_unsubscribe_token(database, row["email"])
        return Letter("known", row["email"], frequency, wants_runs, unsubscribe_token=unsubscribe)
    confirm = secrets.token_urlsafe(32)
    known = email if row is None else row["email"]
    database.execute(
        "INSERT INTO subscription_requests (email, frequency, wants_runs, created, token_hash) VALUES (?, ?, ?, ?, ?)",
        (known, frequency, wants_runs, time_text(now), _hash(confirm)),
    )
    if row is None:
        return Letter("new", email, frequency, wants_runs, confirm)
    return Letter("change", known, frequency, wants_runs, confirm, _new_unsubscribe_token(database, known))


def _forget_old(database: sqlite3.Connection, now: datetime.datetime) -> None:
    """Requests that nobody confirmed in time, and attempts that no limit counts any more."""
    database.execute("DELETE FROM subscription_requests WHERE created <= ?", (time_text(now - CONFIRM_WITHIN),))
    day_ago = time_text(now - datetime.timedelta(days=1))
    database.execute("DELETE FROM subscription_attempts WHERE at <= ?", (day_ago,))


def _count_attempt(
    database: sqlite3.Connection, kind: str, who: str, now: datetime.datetime, within: datetime.timedelta, most: int
) -> bool:
    """Counts one more attempt where it is allowed. `who` is kept as a hash, for a day."""
    key = (kind, _hash(who), time_text(now - within))
    counted = "SELECT count(*) AS n FROM subscription_attempts WHERE kind = ? AND who = ? AND at > ?"
    if database.execute(counted, key).fetchone()["n"] >= most:
        return False
    database.execute("INSERT INTO subscription_attempts VALUES (?, ?, ?)", (*key[:2], time_text(now)))
    return True


def _request(database: sqlite3.Connection, token: str, now: datetime.datetime) -> sqlite3.Row | None:
    rows = database.execute(
        "SELECT * FROM subscription_requests WHERE created > ?", (time_text(now - CONFIRM_WITHIN),)
    ).fetchall()
    return next((row for row in rows if hmac.compare_digest(row["token_hash"], _hash(token))), None)


def _holder(database: sqlite3.Connection, token: str) -> str | None:
    """The subscriber's address that an unsubscribe token belongs to."""
    digest = _hash(token)
    # The index finds by the beginning, which tells nobody anything; the rest is compared in constant time.
    rows = database.execute(
        "SELECT token_hash, email FROM unsubscribe_tokens WHERE token_hash BETWEEN ? AND ?",
        (digest[:8], digest[:8] + "g"),
    ).fetchall()
    return next((row["email"] for row in rows if hmac.compare_digest(row["token_hash"], digest)), None)


def _new_unsubscribe_token(database: sqlite3.Connection, email: str) -> str:
    # A new one for each mail, because only hashes are kept; the links of earlier mails stay good.
    token = secrets.token_urlsafe(32)
    database.execute("INSERT INTO unsubscribe_tokens (token_hash, email) VALUES (?, ?)", (_hash(token), email))
    return token


def _row(database: sqlite3.Connection, email: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = database.execute("SELECT * FROM subscribers WHERE email = ?", (email,)).fetchone()
    return row


def _subscriber(row: sqlite3.Row | None) -> Subscriber:
    assert row is not None
    return Subscriber(
        email=row["email"],
        frequency=row["frequency"],
        wants_runs=bool(row["wants_runs"]),
        confirmed=datetime.datetime.fromisoformat(row["confirmed"]),
        last_sent=datetime.datetime.fromisoformat(row["last_sent"]),
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
