"""`paperworks digest`: what followers get by e-mail: look at it, send what is due (for cron), count who gets it."""

from __future__ import annotations

import argparse
import datetime
import json
import os

from paperworks.catalog import Catalog
from paperworks.core.errors import OptionError, RunError
from paperworks.web.follow.digest import News, digest, send_due
from paperworks.web.follow.mail import MailSettings, one_line
from paperworks.web.follow.subscribers import FREQUENCIES, Subscribers
from paperworks.web.settings import WebSettings

HELP = (
    "Digests of new papers and changed verdicts by e-mail. --send suits cron: it says nothing where nothing is due. "
    "The mail server is read from PAPERWORKS_SMTP_HOST, _PORT, _USER, _PASSWORD, _TLS (none, starttls, ssl) and _FROM, "
    "the address of links from PAPERWORKS_BASE_URL."
)
PERIODS = {"daily": datetime.timedelta(days=1), "weekly": datetime.timedelta(days=7)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_mutually_exclusive_group(required=True)
    actions.add_argument("--preview", action="store_true", help="print what a subscriber would get now; send nothing")
    actions.add_argument("--send", action="store_true", help="send every digest that is due")
    actions.add_argument("--subscribers", action="store_true", help="how many subscribers there are")
    parser.add_argument("--frequency", choices=FREQUENCIES, help="preview: since a day or a week ago (default: weekly)")
    parser.add_argument("--since", metavar="DATE", help="preview: since this date or time, as 2026-02-03")
    parser.add_argument("--format", choices=("text", "html"), help="preview: which part of the mail (default: text)")
    parser.add_argument("--show-addresses", action="store_true", help="subscribers: list their addresses too")
    parser.add_argument("--json", action="store_true", help="send, subscribers: a JSON object for programs")


def run(args: argparse.Namespace) -> int:
    _refuse_useless(args)
    if args.preview:
        return _preview(args)
    return _send(args) if args.send else _subscribers(args)


def _refuse_useless(args: argparse.Namespace) -> None:
    """An option that would be passed over was meant for another action."""
    belongs = {
        "--frequency": (args.frequency, args.preview),
        "--since": (args.since, args.preview),
        "--format": (args.format, args.preview),
        "--show-addresses": (args.show_addresses, args.subscribers),
        "--json": (args.json, not args.preview),
    }
    for option, (is_given, fits) in belongs.items():
        if is_given and not fits:
            raise OptionError(f"{option} says nothing to this action; see `paperworks digest --help`")
    if args.since and args.frequency:
        raise OptionError("--since and --frequency both say from when on; give one")


def _preview(args: argparse.Namespace) -> int:
    base_url = os.environ.get("PAPERWORKS_BASE_URL", "").rstrip("/") or WebSettings().base_url
    news = News.of_now(Catalog.open())
    since = _moment(args.since) if args.since else news.until - PERIODS[args.frequency or "weekly"]
    told = digest(news, since, wants_runs=True, base_url=base_url)
    if not told.sections:
        print(f"nothing new since {since.astimezone():%Y-%m-%d %H:%M}; no mail would go out")
        return 0
    text, html = told.parts(base_url, f"{base_url}/follow/unsubscribe?token=…")
    if args.format == "html":
        print(html, end="")
    else:
        print(f"Subject: {one_line(told.subject)}\n\n{text}", end="")
    return 0


def _send(args: argparse.Namespace) -> int:
    outcome = send_due(MailSettings.from_environment(), Catalog.open())
    if args.json:
        print(json.dumps({**vars(outcome), "problems": list(outcome.problems)}, indent=2, ensure_ascii=False))
    elif outcome.sent:
        print(f"{outcome.sent} digest{'s' if outcome.sent > 1 else ''} sent")
    if not outcome.problems:
        return 0
    more = f" (and {len(outcome.problems) - 1} more)" if len(outcome.problems) > 1 else ""
    raise RunError(f"not all digests were sent: {outcome.problems[0]}{more}; they stay due")


def _subscribers(args: argparse.Namespace) -> int:
    subscribers = Subscribers()
    counts = subscribers.counts()
    shown = subscribers.all() if args.show_addresses else []
    if args.json:
        people = [
            {
                "email": subscriber.email,
                "frequency": subscriber.frequency,
                "wants_runs": subscriber.wants_runs,
                "last_sent": subscriber.last_sent.isoformat(timespec="seconds"),
            }
            for subscriber in shown
        ]
        print(json.dumps({**vars(counts), **({"subscribers": people} if args.show_addresses else {})}, indent=2))
        return 0
    print(f"daily {counts.daily}, weekly {counts.weekly}; with runs {counts.with_runs}; unconfirmed {counts.pending}")
    for subscriber in shown:
        print(f"{subscriber.email}  {subscriber.frequency}{'  with runs' if subscriber.wants_runs else ''}")
    return 0


def _moment(text: str) -> datetime.datetime:
    try:
        # What happened at that very moment has happened since it.
        return datetime.datetime.fromisoformat(text).astimezone() - datetime.timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise OptionError(
            f"--since: expected a date as 2026-02-03, or a time as 2026-02-03T14:00, got {text!r}"
        ) from None
