"""The server: its rooms put together, what they share, and what becomes of errors. Loads no model and no torch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException

from paperworks import __version__
from paperworks.core.errors import OptionError, PaperworksError, RunError
from paperworks.core.files import home
from paperworks.web import rendering
from paperworks.web.folders import Folders
from paperworks.web.paper_view import record_path
from paperworks.web.rooms import Rooms
from paperworks.web.security import Guard, refuse_forged
from paperworks.web.settings import WebSettings

SECONDS_BEFORE_DRAWING = 20.0  # figures nobody has asked for yet


def create_app(settings: WebSettings) -> FastAPI:
    """The server's application. Raises RunError where its folders cannot be made."""
    from paperworks.web.routes import account, api, follow, jobs, orders, papers, runs, runs_api

    uploads = home() / "uploads"
    for folder in (settings.runs, uploads):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: cannot be made ({error.strerror}); choose another with --runs") from None
    app = FastAPI(
        title="paperworks", version=__version__, lifespan=_lifespan, dependencies=[Depends(refuse_forged)],
        openapi_url="/api/openapi.json", docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.state.settings = settings
    app.state.rooms = Rooms(settings, Folders((settings.runs, *settings.folders), uploads))
    for room in (papers, orders, jobs, runs, follow, account, api, runs_api):
        app.include_router(room.router)
    for router in (api.jobs_router, follow.api_router):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=rendering.STATIC))
    app.add_exception_handler(PaperworksError, _say_mistake)
    app.add_exception_handler(StarletteHTTPException, _say_refusal)
    app.add_exception_handler(RequestValidationError, _say_invalid)
    app.add_middleware(Guard, settings=settings)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """While the server is up: its hand in the queue, and what takes seconds to make is made before it is asked for."""
    shared: Rooms = app.state.rooms
    tasks = [asyncio.create_task(_prepare(shared))]
    if shared.settings.works_queue:
        tasks.append(asyncio.create_task(shared.workers.work()))
    try:
        yield
    finally:
        shared.streams.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, shared.encoder.close(), return_exceptions=True)


async def _prepare(shared: Rooms) -> None:
    # Whoever asks for one of these meanwhile waits for it, and is told what went wrong.
    with contextlib.suppress(PaperworksError):
        await shared.descriptions.prepare()
    await asyncio.sleep(SECONDS_BEFORE_DRAWING)
    for card in shared.freshness.catalog().cards():
        path = record_path(card.slug)
        if card.usable and path.is_file():
            with contextlib.suppress(PaperworksError):
                await shared.drawings.of_record(path, at_leisure=True)


def is_for_programs(request: Request) -> bool:
    """Whether a request is answered with JSON rather than a page."""
    return request.url.path.startswith("/api/")


async def _say_mistake(request: Request, error: Exception) -> Response:
    """A mistake that its message explains: an unknown name is not found, the rest is unprocessable."""
    is_unknown = isinstance(error, (OptionError, RunError)) and str(error).startswith("no ")
    return _answer(request, HTTPStatus.NOT_FOUND if is_unknown else HTTPStatus.UNPROCESSABLE_ENTITY, str(error))


async def _say_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException | StarletteHTTPException)
    return _answer(request, HTTPStatus(error.status_code), str(error.detail), error.headers)


async def _say_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    return _answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, f"{where}: {first['msg']}" if where else str(first["msg"]))


def _answer(request: Request, status: HTTPStatus, text: str, headers: object = None) -> Response:
    kept = dict(headers) if isinstance(headers, dict) else None
    if is_for_programs(request):
        return JSONResponse({"detail": text}, status, headers=kept)
    shown = text if text != status.phrase else ""
    return HTMLResponse(rendering.html("problem.html", title=status.phrase, text=shown), status, headers=kept)
