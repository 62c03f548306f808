"""Who may ask and change what: host names, the token, forged requests, headers, sizes, rates. One place for all addresses.

The server answers only under names of its own, asks for the token where one is set, takes changes only from its own pages
or from clients that prove they are none of a browser's, and tells browsers to run no script but its own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi import HTTPException, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paperworks.web.settings import WebSettings, is_loopback

CSRF_COOKIE = "paperworks-csrf"
SESSION_COOKIE = "paperworks-session"
CSRF_HEADER = "x-csrf-token"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

# Figures carry their looks in style attributes; style sheets and scripts come from here alone, none stands in a page.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# A report is a page of a run, with a style sheet of its own and no script; it may be shown in a frame of ours.
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'self'"
_HEADERS: Mapping[str, str] = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
# What answers without the token: the form that takes it, its looks, and links in mails, which carry one of their own.
_OPEN_PATHS = ("/login", "/static/", "/follow/confirm", "/follow/unsubscribe")


class Guard:
    """The outermost layer of the server: host, token, size of what is sent, headers of what is answered."""

    def __init__(self, app: ASGIApp, settings: WebSettings) -> None:
        self._app, self._settings = app, settings
        self._hosts = {"localhost", "127.0.0.1", "::1", settings.host, urlsplit(settings.base_url).hostname or ""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answered.setdefault(name, value)
            await send(message)

        refused = self._refusal(scope, headers)
        if refused is not None:
            await refused(scope, receive, send_guarded)
            return
        try:
            await self._app(scope, _limited(receive, self._most_bytes(scope)), send_guarded)
        except _TooLarge:
            await _plain(413, "that is more than this server takes; see --upload-mb")(scope, receive, send_guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> Any:
        # A page elsewhere can point its own name at this address; the name it asks under gives it away.
        if is_loopback(self._settings.host) and host_name(headers.get("host", "")) not in self._hosts:
            return _plain(421, "this server answers only under its own names; start it with --public-url to add one")
        length = headers.get("content-length", "")
        if length.isascii() and length.isdecimal() and int(length[:20]) > self._most_bytes(scope):
            return _plain(413, "that is more than this server takes; see --upload-mb")
        if self._settings.token and not scope["path"].startswith(_OPEN_PATHS) and not self._is_known(headers, scope):
            if scope["path"].startswith("/api/"):
                return JSONResponse({"detail": "needs the token: Authorization: Bearer TOKEN"}, 401)
            if scope["path"].startswith("/feed."):  # feed readers know how to answer this
                return PlainTextResponse("needs the token as password", 401, {"www-authenticate": "Basic"})
            target = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
            return RedirectResponse(f"/login?next={quote(target, safe='')}", 303)
        return None

    def _is_known(self, headers: Headers, scope: Scope) -> bool:
        if is_right_token(sent_token(headers), self._settings.token):
            return True
        return hmac.compare_digest(Request(scope).cookies.get(SESSION_COOKIE, ""), session_value(self._settings.token))

    def _most_bytes(self, scope: Scope) -> int:
        is_upload = scope["path"] in ("/compare", "/api/uploads") or scope["path"].startswith("/train/")
        return self._settings.upload_bytes + 1_000_000 if is_upload else 1_000_000


class RateLimit:
    """At most `most` times in `seconds` for one key (a client's address), in memory; the oldest keys are forgotten first."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._times: dict[str, deque[float]] = {}

    def is_exceeded(self, key: str) -> bool:
        """Counts one more attempt and says whether it is one too many."""
        now = time.monotonic()
        times = self._times.pop(key, deque())
        while times and now - times[0] > self._seconds:
            times.popleft()
        self._times[key] = times  # last again: the order is that of the last attempt
        if len(self._times) > 10_000:
            self._times.pop(next(iter(self._times)))
        if len(times) >= self._most:
            return True
        times.append(now)
        return False


def host_name(host: str) -> str:
    """The name in a Host header, without its port; "" for what is no host."""
    if re.search(r"[@/?#\\\s]", host):
        return ""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets that are no IPv6 address
        return ""


def is_secure(request: Request) -> bool:
    """Whether the browser reaches this server by TLS, its own or that of a proxy before it: its cookies then keep to that."""
    public = urlsplit(request.app.state.settings.public_url)
    asked = host_name(request.headers.get("host", ""))
    return request.url.scheme == "https" or (public.scheme == "https" and public.hostname == asked)


def sent_token(headers: Headers) -> str:
    """The token in an Authorization header: a bearer's, or the password of Basic; "" where there is none."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def is_right_token(given: str, token: str) -> bool:
    """Whether a token is the server's, in a time that does not tell how much of it was right."""
    return bool(token) and hmac.compare_digest(given.encode(), token.encode())


def session_value(token: str) -> str:
    """What the cookie of a browser holds that gave the token: made from it, but not it."""
    return hmac.new(token.encode(), b"paperworks session", hashlib.sha256).hexdigest() if token else ""


def csrf_token(request: Request) -> str:
    """The token that this browser's forms carry; a new one where it has none yet (`keep_csrf` sends it along)."""
    known: str | None = getattr(request.state, "csrf", None)
    if known is None:
        known = request.cookies.get(CSRF_COOKIE, "")
        if len(known) < 32:
            known = secrets.token_urlsafe(32)
        request.state.csrf = known
    return known


def keep_csrf(request: Request, response: Any) -> Any:
    """The response with the cookie that its forms are checked against."""
    if request.cookies.get(CSRF_COOKIE) != csrf_token(request):
        kept = {"httponly": True, "samesite": "strict", "secure": is_secure(request)}
        response.set_cookie(CSRF_COOKIE, csrf_token(request), **kept)
    response.headers["cache-control"] = "no-store"
    return response


async def refuse_forged(request: Request) -> None:
    """Raises 403 for a change that another site's page could have asked for. Holds for every address of the app.

    A change needs the browser's own token, as the form field `csrf` or the header X-CSRF-Token, equal to its cookie; or
    the server's token in an Authorization header, which no other site's page can send.
    """
    if request.method in SAFE_METHODS or request.url.path == "/follow/unsubscribe":  # one click in a mail program
        return
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "this change was asked for by another site's page")
    authorization = request.headers.get("authorization", "")
    if authorization and is_right_token(sent_token(request.headers), request.app.state.settings.token):
        return
    given = request.headers.get(CSRF_HEADER, "")
    if not given and request.headers.get("content-type", "").startswith(
        ("application/x-www-form-urlencoded", "multipart/form-data")
    ):
        field = (await request.form()).get("csrf", "")
        given = field if isinstance(field, str) else ""
    cookie = request.cookies.get(CSRF_COOKIE, "")
    if len(cookie) < 32 or not hmac.compare_digest(given.encode(), cookie.encode()):
        raise HTTPException(
            403, "the form is too old or not this server's; load its page again (API: GET /api/session)"
        )


class _TooLarge(Exception):
    """More was sent than is taken."""


def _limited(receive: Receive, most: int) -> Receive:
    taken = 0

    async def receive_limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise _TooLarge
        return message

    return receive_limited


def _plain(status: int, text: str) -> PlainTextResponse:
    return PlainTextResponse(text + "\n", status)
