"""Templates to pages: Jinja2 with everything escaped, and the few words that templates have of their own."""

from __future__ import annotations

import datetime
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup, escape

from paperworks import __version__
from paperworks.core.progress import duration
from paperworks.web.equations import mathml, with_formulas
from paperworks.web.security import csrf_token, keep_csrf

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"


@cache
def templates() -> jinja2.Environment:
    """The templates of the page, with its filters."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters.update(
        code=inline_code,
        moment=moment,
        day=day,
        took=took,
        formulas=with_formulas,
        anchor=anchor,
        paragraphs=paragraphs,
    )
    environment.globals.update(version=__version__, static=static_address, mathml=mathml)
    return environment


def html(name: str, **values: Any) -> str:
    """A page that is the same for every browser."""
    return templates().get_template(name).render(**values)


def form_page(request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page with forms that change something: it carries this browser's token and is never kept."""
    text = html(name, csrf=csrf_token(request), **values)
    response: HTMLResponse = keep_csrf(request, HTMLResponse(text, status))
    return response


@cache
def static_address(name: str) -> str:
    """The address of a file in static/, with a digest, so that browsers may keep it for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def inline_code(text: str) -> Markup:
    """Text in which what stands between backticks is code."""
    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(text))))


def paragraphs(text: str) -> list[str]:
    """A text's paragraphs, parted by empty lines."""
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def moment(text: str | None) -> Markup:
    """An ISO time as a time element: `2026-02-03 14:05`, in the server's zone."""
    if not text:
        return Markup("–")
    try:
        shown = datetime.datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return escape(text)
    return Markup('<time datetime="{}">{}</time>').format(text, shown)


def day(text: str) -> Markup:
    """A date as a time element: `3 February 2026`."""
    try:
        found = datetime.date.fromisoformat(text[:10])
    except ValueError:
        return escape(text)
    return Markup('<time datetime="{}">{} {:%B %Y}</time>').format(found.isoformat(), found.day, found)


def took(seconds: float | None) -> str:
    """A length of time as the command line writes it; a dash where there is none."""
    return "–" if seconds is None else duration(seconds)


def anchor(text: str) -> str:
    """A text as the name of a place in a page."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
