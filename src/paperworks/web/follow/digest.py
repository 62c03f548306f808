"""Digests: what is new since a subscriber's last one, as a mail, to each who is due.

A digest tells of newly built papers, of new or changed verdicts and, to those who want it, of runs that ended here. Where
there is nothing to tell, no mail goes out and the time of the last one stays, so that news never waits longer than a
subscriber's day or week after the mail before. Every subscriber gets a digest once, whichever processes send; only one
that is killed between the server's taking a mail and writing that down lets it go out again, an hour later at the
earliest, under the same Message-ID: rather twice than never.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

from paperworks.catalog import Catalog
from paperworks.catalog.run_results import result_text
from paperworks.core.errors import RunError
from paperworks.core.runs import RunRecord, RunStore
from paperworks.web.follow.feeds import paper_url
from paperworks.web.follow.history import Change, all_changes, note_changes
from paperworks.web.follow.mail import MailSettings, MessageRefused, message, render, send
from paperworks.web.follow.subscribers import CONFIRM_WITHIN, Letter, Subscriber, Subscribers

# A run writes its end down a little after it takes the time; runs of this last while are left to the next digest.
RUNS_SETTLE = datetime.timedelta(minutes=1)
TOLD_OF_RUNS = ("finished", "failed", "diverged")
MOST_RUNS = 50  # of one digest; the page lists all


class Entry(NamedTuple):
    """A paper or a run in a digest."""

    name: str
    title: str
    text: str
    lines: tuple[str, ...]
    url: str


@dataclass(frozen=True)
class News:
    """All that could be told, at one moment: every change and every ended run of this machine, newest first."""

    changes: tuple[Change, ...]
    runs: tuple[RunRecord, ...]
    titles: dict[str, str]
    until: datetime.datetime

    @classmethod
    def of_now(cls, catalog: Catalog) -> News:
        """Notes what changed in `results/` first. Raises RunError where the run store cannot be used."""
        note_changes(catalog)
        changes, until = all_changes()
        runs = tuple(run for run in RunStore().list() if run.status in TOLD_OF_RUNS)
        return cls(tuple(changes), runs, {card.slug: card.title for card in catalog.cards()}, until)


@dataclass(frozen=True)
class Digest:
    """What is told to one subscriber: after `since`, up to `until`."""

    since: datetime.datetime
    until: datetime.datetime
    sections: tuple[tuple[str, tuple[Entry, ...]], ...]  # the ones that have entries, with their titles

    @property
    def subject(self) -> str:
        """What is in it, in a few words."""
        return "paperworks: " + ", ".join(f"{title.lower()} ({len(entries)})" for title, entries in self.sections)

    def parts(self, base_url: str, unsubscribe_url: str = "") -> tuple[str, str]:
        """The digest as text and as HTML."""
        return render(
            "digest",
            subject=self.subject,
            since=_day(self.since),
            until=_day(self.until),
            sections=self.sections,
            home_url=f"{base_url}/",
            unsubscribe_url=unsubscribe_url,
        )


@dataclass(frozen=True)
class Outcome:
    """How the sending went: mails sent, subscribers who were due but had nothing new, and one line for each problem."""

    sent: int
    nothing_new: int
    problems: tuple[str, ...]


def digest(news: News, since: datetime.datetime, wants_runs: bool, base_url: str) -> Digest:
    """The news after `since`."""
    changes = [change for change in news.changes if since < change.at <= news.until]
    runs = [run for run in news.runs if wants_runs and _ended_between(run, since, news.until)]
    runs_title = "Runs" if len(runs) <= MOST_RUNS else f"Newest runs of {len(runs)}"
    sections = {
        "New papers": [_change_entry(change, news, base_url) for change in changes if change.kind == "new"],
        "Changed verdicts": [_change_entry(change, news, base_url) for change in changes if change.kind == "changed"],
        runs_title: [_run_entry(run, base_url) for run in runs[:MOST_RUNS]],
    }
    return Digest(since, news.until, tuple((title, tuple(entries)) for title, entries in sections.items() if entries))


def send_due(settings: MailSettings, catalog: Catalog, moment: datetime.datetime | None = None) -> Outcome:
    """Sends a digest to every subscriber who is due at `moment` (default: now) and for whom there is news.

    A refused mail is put back, and the others go on; where the server cannot be used, the rest is put back too. Raises
    RunError where the run store cannot be used.
    """
    subscribers = Subscribers()
    due = subscribers.due(moment)
    if not due:
        return Outcome(0, 0, ())
    news = News.of_now(catalog)
    sent, nothing_new, problems = 0, 0, []
    for subscriber in due:
        told = digest(news, subscriber.last_sent, subscriber.wants_runs, settings.base_url)
        if not told.sections:
            nothing_new += 1
            continue
        try:
            sent += _send_one(settings, subscribers, subscriber, told)
        except MessageRefused as error:
            problems.append(_without(subscriber.email, str(error)))
        except RunError as error:
            problems.append(_without(subscriber.email, str(error)))
            break
    return Outcome(sent, nothing_new, tuple(problems))


def send_letter(settings: MailSettings, letter: Letter) -> None:
    """Sends the answer to a request for a subscription. Raises RunError where the server refuses."""
    subject = "paperworks: you are subscribed" if letter.kind == "known" else "paperworks: please confirm"
    confirm = f"{settings.base_url}/follow/confirm?token={quote(letter.confirm_token)}" if letter.confirm_token else ""
    unsubscribe = unsubscribe_url(settings.base_url, letter.unsubscribe_token) if letter.unsubscribe_token else ""
    parts = render(
        "confirm",
        kind=letter.kind,
        subject=subject,
        frequency=letter.frequency,
        wants_runs=letter.wants_runs,
        hours=int(CONFIRM_WITHIN.total_seconds() // 3600),
        confirm_url=confirm,
        unsubscribe_url=unsubscribe,
    )
    send(settings, message(settings, letter.email, subject, parts, unsubscribe_url=unsubscribe))


def unsubscribe_url(base_url: str, token: str) -> str:
    """The link that ends a subscription: a page with a button, and what mail programs post to."""
    return f"{base_url}/follow/unsubscribe?token={quote(token)}"


def _send_one(settings: MailSettings, subscribers: Subscribers, subscriber: Subscriber, told: Digest) -> bool:
    """Whether it was ours to send."""
    token = subscribers.claim(subscriber)
    if token is None:
        return False
    try:
        url = unsubscribe_url(settings.base_url, token)
        identity = f"digest {subscriber.email} {subscriber.last_sent.isoformat()}"
        parts = told.parts(settings.base_url, url)
        mail = message(settings, subscriber.email, told.subject, parts, unsubscribe_url=url, identity=identity)
        send(settings, mail)
    except BaseException:
        subscribers.put_back(subscriber, token)
        raise
    subscribers.sent(subscriber, told.until)
    return True


def _change_entry(change: Change, news: News, base_url: str) -> Entry:
    claims = () if change.kind == "new" else tuple(map(str, change.claims))  # all claims of a paper are on its page
    return Entry(change.slug, news.titles.get(change.slug, ""), str(change), claims, paper_url(base_url, change.slug))


def _run_entry(run: RunRecord, base_url: str) -> Entry:
    # Not the error of a run that failed: it may name files, and mails travel further than the page.
    result = result_text(run) if run.status == "finished" else ""
    text = f"{run.status}: {result}" if result else run.status
    return Entry(f"{run.verb} {run.name}", "", text, (), f"{base_url}/runs/{quote(run.id)}")


def _ended_between(run: RunRecord, since: datetime.datetime, until: datetime.datetime) -> bool:
    try:
        ended = datetime.datetime.fromisoformat(run.ended or "")
    except ValueError:
        return False
    if ended.tzinfo is None:  # of a run folder that something else wrote
        ended = ended.astimezone()
    return since - RUNS_SETTLE < ended <= until - RUNS_SETTLE


def _without(address: str, line: str) -> str:
    """A problem's line without the address, which servers like to repeat: logs are not the place to keep it."""
    return line.replace(address, "…")


def _day(moment: datetime.datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")
