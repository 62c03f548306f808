"""Following: the feeds, and subscriptions to digests by e-mail.

No answer tells whether an address is known: what depends on that is said in a mail to the address alone, sent after the
answer. A link in a mail changes nothing by being opened, because programs that check mails open links too.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
from email.utils import format_datetime, parsedate_to_datetime
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response
from starlette.background import BackgroundTask

from paperworks.core.errors import OptionError, PaperworksError
from paperworks.web.follow import feeds
from paperworks.web.follow.digest import send_letter
from paperworks.web.follow.history import Change, newest_changes, note_changes
from paperworks.web.follow.mail import MailSettings, is_configured
from paperworks.web.follow.subscribers import FREQUENCIES, Letter, Subscribers, TooManyRequests
from paperworks.web.rendering import form_page
from paperworks.web.rooms import Rooms, rooms

router = APIRouter(include_in_schema=False)
_log = logging.getLogger("uvicorn.error")  # the server's own


@router.get("/follow")
def show_follow(request: Request) -> HTMLResponse:
    """The feeds and, where mails can be sent, the form to subscribe."""
    return _follow(request)


@router.post("/follow/subscribe")
def subscribe(
    request: Request,
    email: Annotated[str, Form()] = "",
    frequency: Annotated[str, Form()] = "weekly",
    runs: Annotated[str, Form()] = "",
) -> HTMLResponse:
    """Takes a request; the same answer for every address that is one."""
    settings = _mail_settings(rooms(request))
    if settings is None:
        return _follow(request, 503, problem="This server sends no mails.")
    client = request.client.host if request.client else ""
    try:
        letter = Subscribers().subscribe(email, frequency, bool(runs), client=client)
    except TooManyRequests as error:
        return _follow(request, 429, problem=_sentence(error))
    except OptionError as error:
        return _follow(request, 422, problem=_sentence(error), email=email)
    answer = _follow(request, is_taken=True)
    if letter is not None:
        answer.background = BackgroundTask(_send, settings, letter)
    return answer


@router.get("/follow/confirm")
def ask_to_confirm(request: Request, token: str = "") -> HTMLResponse:
    """A button that confirms, or why there is nothing to confirm."""
    is_waiting = Subscribers().is_waiting(token)
    return _token_page(request, "confirm", token if is_waiting else "", status=200 if is_waiting else 404)


@router.post("/follow/confirm")
def confirm(request: Request, token: Annotated[str, Form()] = "") -> HTMLResponse:
    """Makes the request of the token a subscription."""
    subscriber = Subscribers().confirm(token)
    return _token_page(request, "confirm", "", subscriber=subscriber, status=200 if subscriber else 404)


@router.get("/follow/unsubscribe")
def ask_to_unsubscribe(request: Request, token: str = "") -> HTMLResponse:
    """A button that ends the subscription."""
    return _token_page(request, "unsubscribe", token if Subscribers().has_unsubscribe(token) else "")


@router.post("/follow/unsubscribe")
def unsubscribe(
    request: Request, token: str = "", token_field: Annotated[str, Form(alias="token")] = ""
) -> HTMLResponse:
    """Ends the subscription of the token: of the address, as mail programs send it (RFC 8058), or of the form.

    A second time is no mistake: what was asked for is so.
    """
    Subscribers().unsubscribe(token or token_field)
    return _token_page(request, "unsubscribe", "")


@router.get("/feed.atom")
def show_atom(request: Request) -> Response:
    """The newest changes as Atom."""
    return _feed(request, "atom", "application/atom+xml")


@router.get("/feed.json")
def show_json(request: Request) -> Response:
    """The newest changes as JSON Feed."""
    return _feed(request, "json", "application/feed+json")


def _follow(
    request: Request, status: int = 200, *, problem: str = "", email: str = "", is_taken: bool = False
) -> HTMLResponse:
    shared = rooms(request)
    return form_page(
        request,
        "follow.html",
        status,
        changes=_changes(shared)[:10],
        sends_mails=_mail_settings(shared) is not None,
        frequencies=FREQUENCIES,
        problem=problem,
        email=email,
        is_taken=is_taken,
    )


def _token_page(
    request: Request, action: str, token: str, *, subscriber: object = None, status: int = 200
) -> HTMLResponse:
    template = "confirm.html" if action == "confirm" else "unsubscribe.html"
    return form_page(request, template, status, token=token, subscriber=subscriber, has_acted=request.method == "POST")


def _mail_settings(shared: Rooms) -> MailSettings | None:
    """None where mails are not set up, or wrongly: then the server's log says how, and the page that there are none."""
    if not is_configured():
        return None
    try:
        return MailSettings.from_environment(shared.settings.base_url)
    except OptionError as error:
        _log.warning("no mails: %s", error)
        return None


def _send(settings: MailSettings, letter: Letter) -> None:
    try:
        send_letter(settings, letter)
    except PaperworksError as error:
        _log.warning("a letter to confirm was not sent: %s", str(error).replace(letter.email, "…"))


def _changes(shared: Rooms) -> list[Change]:
    note_changes(shared.freshness.catalog())
    return newest_changes(feeds.MOST_ENTRIES)


def _feed(request: Request, kind: str, media_type: str) -> Response:
    shared = rooms(request)
    changes = _changes(shared)
    titles = {card.slug: card.title for card in shared.freshness.catalog().cards()}
    make = feeds.atom_feed if kind == "atom" else feeds.json_feed
    body = make(changes, titles, shared.settings.base_url)
    last = feeds.last_changed(changes).replace(microsecond=0)
    headers = {
        "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        "last-modified": format_datetime(last, usegmt=True),
        "cache-control": "no-cache",
    }
    if _has_it(request, headers["etag"], last):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def _has_it(request: Request, etag: str, last: datetime.datetime) -> bool:
    """Whether the reader has this state of the feed (RFC 9110: the tag decides where one is given)."""
    given = request.headers.get("if-none-match")
    if given is not None:
        return given.strip() == "*" or etag in [part.strip().removeprefix("W/") for part in given.split(",")]
    try:
        since = parsedate_to_datetime(request.headers.get("if-modified-since", ""))
    except (ValueError, TypeError):
        return False
    return since.tzinfo is not None and last <= since


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."
