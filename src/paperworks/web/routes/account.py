"""The token's form, and the page that explains the API. A server without a token has no use for the first."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from paperworks.web.rendering import form_page, html
from paperworks.web.rooms import rooms
from paperworks.web.security import SESSION_COOKIE, is_right_token, is_secure, session_value

router = APIRouter(include_in_schema=False)


@router.get("/login")
def show_login(request: Request, next: str = "/") -> Response:
    """The form that takes the token."""
    return form_page(request, "login.html", next=own_address(next), problem="")


@router.post("/login")
def log_in(request: Request, token: Annotated[str, Form()] = "", next: Annotated[str, Form()] = "/") -> Response:
    """Gives the browser a cookie that stands for the token."""
    known = rooms(request).settings.token
    client = request.client.host if request.client else ""
    if rooms(request).tries.is_exceeded(client):
        return form_page(request, "login.html", 429, next=own_address(next), problem="Too many tries; wait a minute.")
    if not known or not is_right_token(token.strip(), known):
        return form_page(request, "login.html", 403, next=own_address(next), problem="That is not this server's token.")
    response = RedirectResponse(own_address(next), 303)
    response.set_cookie(
        SESSION_COOKIE, session_value(known), httponly=True, samesite="strict", secure=is_secure(request)
    )
    return response


@router.get("/api")
async def show_api(request: Request) -> Response:
    """What programs can ask for, from the same description that they read."""
    description = request.app.openapi()
    calls = [
        (method.upper(), path, about)
        for path, methods in description["paths"].items()
        for method, about in methods.items()
    ]
    return HTMLResponse(html("api.html", calls=calls))


def own_address(address: str) -> str:
    """An address of this server, "/" for anything that leads elsewhere."""
    is_own = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_own else "/"
