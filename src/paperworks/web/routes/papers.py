"""The list of papers and the page of each: read only, the same for every browser, kept as bytes until something changes."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from paperworks.catalog.evidence import is_usable
from paperworks.catalog.meaning import is_installed
from paperworks.core.errors import DataError, ModelError, RunError
from paperworks.web.listing import ORDERS, Query, listing
from paperworks.web.paper_view import paper_view, record_path
from paperworks.web.rendering import html
from paperworks.web.rooms import Rooms, rooms

router = APIRouter(include_in_schema=False)
_SMALL = 1024  # bytes: not worth compressing


@router.get("/")
async def show_list(request: Request) -> Response:
    """All papers, or those that are searched for; with `part=results` only the list, for the page's own script."""
    shared, query = rooms(request), Query.of(request.query_params)
    is_part = request.query_params.get("part") == "results"

    async def make() -> tuple[str, bool]:
        catalog, ranked, problem = shared.freshness.catalog(), None, ""
        if query.q and query.by == "meaning":
            try:
                ranked = shared.meaning().rank(await shared.encoder.encode(query.q))
            except (ModelError, DataError) as error:  # words find something all the same
                problem = f"Found by words alone: {error}"
        found = listing(catalog, query, ranked, problem)
        name = "_results.html" if is_part else "papers.html"
        text = html(name, found=found, query=query, orders=ORDERS, has_meaning=is_installed())
        return text, bool(problem)

    return await _kept(request, shared, ("list", query, is_part), make)


@router.get("/papers/{slug}")
async def show_paper(request: Request, slug: str) -> Response:
    """One paper."""
    return await _paper(request, slug, "paper.html")


@router.get("/papers/{slug}/figures")
async def show_figures(request: Request, slug: str) -> Response:
    """Every figure of a paper's recorded result."""
    return await _paper(request, slug, "figures.html")


async def _paper(request: Request, slug: str, template: str) -> Response:
    shared = rooms(request)

    async def make() -> tuple[str, bool]:
        shared.freshness.catalog().card(slug)
        figures, problem = await _figures(shared, slug)
        view = paper_view(shared.freshness.catalog(), slug, figures)
        text = html(template, view=view, card=view.card, drawing_problem=problem)
        return text, any(run.status == "running" for run, _ in view.runs)

    return await _kept(request, shared, (template, slug), make)


async def _figures(shared: Rooms, slug: str) -> tuple[Mapping[str, Sequence[Mapping[str, Any]]], str]:
    """The figures of a paper's record, and why there are none where they cannot be drawn."""
    path = record_path(slug)
    if not is_usable(slug) or not path.is_file():
        return {}, ""
    try:
        return await shared.drawings.of_record(path), ""
    except RunError as error:  # the page has all numbers as tables too
        return {}, str(error)


async def _kept(
    request: Request, shared: Rooms, key: object, make: Callable[[], Awaitable[tuple[str, bool]]]
) -> Response:
    """The page under a key, made (with whether it shows something running) where it is not kept; compressed where it may be."""
    number = shared.freshness.number()
    kept = shared.cache.get(key, number)
    if kept is None:
        text, is_live = await make()
        body = text.encode()
        kept = (body, gzip.compress(body, 5) if len(body) > _SMALL else b"")
        shared.cache.put(key, number, kept, is_live=is_live)
    headers = {"cache-control": "no-cache", "vary": "accept-encoding"}
    if kept[1] and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(kept[1], headers={**headers, "content-encoding": "gzip"}, media_type="text/html")
    return Response(kept[0], headers=headers, media_type="text/html")
