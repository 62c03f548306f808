"""Following: the feeds, and subscriptions to digests by e-mail.

No answer tells whether an address is known: what depends on that is said in a mail to the address alone, sent after the
answer. A link in a mail changes nothing by being opened, because programs that check mails open links too.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
from email.utils import format_datetime, parsedate_to_datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from paperworks.catalog import Catalog
from paperworks.core.errors import OptionError, PaperworksError
from paperworks.web.follow import feeds
from paperworks.web.follow.digest import send_letter
from paperworks.web.follow.history import Change, newest_changes, note_changes
from paperworks.web.follow.mail import MailSettings, is_configured
from paperworks.web.follow.subscribers import FREQUENCIES, Letter, Subscribers, TooManyRequests
from paperworks.web.rendering import form_page
from paperworks.web.rooms import Rooms, rooms

router = APIRouter(include_in_schema=False)
api_router = APIRouter(prefix="/api", tags=["following"])
_log = logging.getLogger("uvicorn.error")  # the server's own


async def _catalog(request: Request) -> Catalog:
    # Opened in the server's own thread, not in one of a pool: the search of other rooms uses its connection there.
    return rooms(request).freshness.catalog()


Papers = Annotated[Catalog, Depends(_catalog)]


@router.get("/follow")
def show_follow(request: Request, catalog: Papers) -> HTMLResponse:
    """The feeds and, where mails can be sent, the form to subscribe."""
    return _follow(request, catalog)


@router.post("/follow/subscribe")
def subscribe(
    request: Request,
    catalog: Papers,
    email: Annotated[str, Form()] = "",
    frequency: Annotated[str, Form()] = "weekly",
    runs: Annotated[str, Form()] = "",
) -> HTMLResponse:
    """Takes a request; the same answer for every address that is one."""
    try:
        send = _taken(request, email, frequency, bool(runs))
    except (TooManyRequests, _NoMails) as error:
        return _follow(request, catalog, _STATUS[type(error)], problem=_sentence(error))
    except OptionError as error:
        return _follow(request, catalog, 422, problem=_sentence(error), email=email)
    answer = _follow(request, catalog, is_taken=True)
    answer.background = send
    return answer


class Subscription(BaseModel):
    """A request for a digest by e-mail."""

    email: str = Field(max_length=254)
    frequency: Literal["daily", "weekly"] = "weekly"
    runs: bool = Field(False, description="with the results of runs that finished here")


class Taken(BaseModel):
    """What every address that is one is answered."""

    detail: str = "A letter is on its way to this address: it says how to confirm."


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"description": text, "content": {"application/json": {"schema": {"type": "object"}}}}
    for code, text in (
        (400, "no JSON"), (401, "needs the token"), (403, "without the CSRF token"), (422, "no address"),
        (429, "too many"), (503, "no mails"),
    )
}  # fmt: skip


@api_router.post("/subscriptions", status_code=202, responses=_PROBLEMS)
def request_subscription(request: Request, wanted: Subscription, background: BackgroundTasks) -> Taken:
    """Asks for a digest; the address confirms by the link in the letter that it gets."""
    try:
        send = _taken(request, wanted.email, wanted.frequency, wanted.runs)
    except (TooManyRequests, _NoMails) as error:
        raise HTTPException(_STATUS[type(error)], str(error)) from None
    if send is not None:
        background.add_task(send)
    return Taken()


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
def show_atom(request: Request, catalog: Papers) -> Response:
    """The newest changes as Atom."""
    return _feed(request, catalog, "atom", "application/atom+xml")


@router.get("/feed.json")
def show_json(request: Request, catalog: Papers) -> Response:
    """The newest changes as JSON Feed."""
    return _feed(request, catalog, "json", "application/feed+json")


class _NoMails(OptionError):
    """Mails are not set up."""


_STATUS: dict[type[Exception], int] = {TooManyRequests: 429, _NoMails: 503}


def _taken(request: Request, email: str, frequency: str, wants_runs: bool) -> BackgroundTask | None:
    """Takes a request, and returns what sends its letter after the answer. Raises OptionError where it is refused."""
    settings = _mail_settings(rooms(request))
    if settings is None:
        raise _NoMails("this server sends no mails")
    client = request.client.host if request.client else ""
    letter = Subscribers().subscribe(email, frequency, wants_runs, client=client)
    return None if letter is None else BackgroundTask(_send, settings, letter)


def _follow(
    request: Request, catalog: Catalog, status: int = 200, *, problem: str = "", email: str = "", is_taken: bool = False
) -> HTMLResponse:
    return form_page(
        request,
        "follow.html",
        status,
        changes=_changes(catalog)[:10],
        sends_mails=_mail_settings(rooms(request)) is not None,
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


def _changes(catalog: Catalog) -> list[Change]:
    note_changes(catalog)
    return newest_changes(feeds.MOST_ENTRIES)


def _feed(request: Request, catalog: Catalog, kind: str, media_type: str) -> Response:
    changes = _changes(catalog)
    titles = {card.slug: card.title for card in catalog.cards()}
    make = feeds.atom_feed if kind == "atom" else feeds.json_feed
    body = make(changes, titles, rooms(request).settings.base_url)
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
