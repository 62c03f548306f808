"""The same for programs: papers, commands, jobs and their events as JSON. The page's own script asks here too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Request, UploadFile
from fastapi import Path as InPath
from fastapi import Query as InQuery
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from paperworks.catalog.record import read_record
from paperworks.core.errors import OptionError
from paperworks.core.jobs import Job
from paperworks.web import uploads
from paperworks.web.forms import Typed
from paperworks.web.listing import Query, listing
from paperworks.web.orders import command_of, order, place
from paperworks.web.paper_view import record_path
from paperworks.web.rooms import rooms
from paperworks.web.routes.jobs import cancel
from paperworks.web.routes.orders import NOT_OPTIONS
from paperworks.web.security import csrf_token, keep_csrf
from paperworks.web.streams import MOST_STREAMS


class Problem(BaseModel):
    """What went wrong, in one line."""

    detail: str


_REFUSED: Mapping[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": text}
    for code, text in (
        (400, "not what its Content-Type says"),
        (401, "needs the token"),
        (403, "forged or without the CSRF token"),
        (422, "cannot be done so"),
    )
}
_UNKNOWN: Mapping[int | str, dict[str, Any]] = {**_REFUSED, 404: {"model": Problem, "description": "there is none"}}
router = APIRouter(prefix="/api", tags=["papers"], responses=dict(_REFUSED))
jobs_router = APIRouter(prefix="/api/jobs", tags=["jobs"], responses=dict(_UNKNOWN))

Slug = Annotated[str, InPath(pattern=r"^[a-z0-9-]+$", max_length=80, description="a paper's short name")]
JobId = Annotated[str, InPath(pattern=r"^[0-9a-f]+$", max_length=32)]


class Session(BaseModel):
    """What a change needs: this token in the header X-CSRF-Token, beside the cookie that came with it."""

    csrf: str


class PaperEntry(BaseModel):
    """One paper of a list."""

    slug: str
    title: str
    summary: str
    wing: str
    topic: str
    year: int
    arxiv: str
    usable: bool
    verdict: str
    counts: dict[str, int] | None = Field(description="claims of the recorded experiment by verdict")
    recorded: str | None = Field(description="date of the recorded result")
    runs: int = Field(description="runs here in the last 30 days")
    snippet: str = Field(description="the text that a search matched")


class PaperList(BaseModel):
    """Papers in order, and how many there are in all."""

    total: int
    papers: list[PaperEntry]
    note: str
    near: list[str]


class CommandLine(BaseModel):
    """A command line as one would type it, and the folder that its run would have."""

    command: str
    arguments: list[str]
    folder: str


class Uploaded(BaseModel):
    """Where an uploaded file is: the value to give an option that takes a file."""

    path: str
    bytes: int


class NewJob(BaseModel):
    """A job to start: what the form of its command holds."""

    model_config = ConfigDict(extra="forbid")
    verb: Literal["run", "train", "compare"]
    names: list[Annotated[str, Field(max_length=80)]] = Field(
        min_length=1, max_length=40, description="paper or methods"
    )
    options: dict[str, str | list[str]] = Field(default_factory=dict, description="by name, as GET /api/options says")


class JobView(BaseModel):
    """A job and what is true of it now."""

    id: str
    arguments: list[str]
    verb: str
    name: str
    folder: str
    status: Literal["queued", "running", "finished", "failed", "cancelled", "killed"]
    submitted: str
    started: str | None
    ended: str | None
    attempts: int
    exit_code: int | None
    error: str | None
    is_cancelled: bool

    @classmethod
    def of(cls, job: Job) -> JobView:
        """The view of a job, without what names its process."""
        return cls(**{name: value for name, value in job.to_json().items() if name in cls.model_fields})


@router.get("/session")
def session(request: Request) -> Response:
    """The token that changes need, with its cookie."""
    response: Response = keep_csrf(request, JSONResponse(Session(csrf=csrf_token(request)).model_dump()))
    return response


@router.get("/papers")
async def papers(
    request: Request,
    q: Annotated[str, InQuery(max_length=300)] = "",
    wing: str = "",
    topic: str = "",
    year: str = "",
    verdict: str = "",
    runs: str = "",
    order_by: Annotated[str, InQuery(alias="order")] = "",
) -> PaperList:
    """Papers by filters and words, as the page lists them; unknown values of a filter count as not given."""
    given = {"q": q, "wing": wing, "topic": topic, "year": year, "verdict": verdict, "runs": runs, "order": order_by}
    found = listing(rooms(request).freshness.catalog(), Query.of(given))
    entries = []
    for item in found.items:
        recorded = item.evidence.recorded
        is_whole = recorded is not None and not recorded.problem
        entries.append(
            PaperEntry(
                **{
                    name: getattr(item.card, name)
                    for name in ("slug", "title", "summary", "wing", "topic", "year", "arxiv")
                },
                usable=item.card.usable,
                verdict=item.verdict,
                counts=recorded.counts if recorded and is_whole else None,
                recorded=recorded.date if recorded and is_whole else None,
                runs=item.runs,
                snippet="".join(text for text, _ in item.snippet),
            )
        )
    return PaperList(total=found.total, papers=entries, note=found.note, near=list(found.near))


@router.get("/papers/{slug}", responses=dict(_UNKNOWN))
async def paper(request: Request, slug: Slug) -> dict[str, Any]:
    """All that is known of a paper: its card, whether it runs here, what its experiment showed."""
    catalog = rooms(request).freshness.catalog()
    return catalog.as_dict(catalog.card(slug).slug)


@router.get("/papers/{slug}/record", responses=dict(_UNKNOWN))
async def record(request: Request, slug: Slug) -> dict[str, Any]:
    """The recorded result of a paper: every arm, setting, seed and claim."""
    rooms(request).freshness.catalog().card(slug)
    found = read_record(record_path(slug))
    if found is None:
        raise HTTPException(404, f"{slug}: no result is recorded")
    return dict(found)


@router.get("/options/{verb}/{name}", responses=dict(_UNKNOWN))
async def options(request: Request, verb: Literal["run", "train", "compare"], name: Slug) -> dict[str, Any]:
    """The options of a command: of a paper's experiment, a method's training, a comparison with that method in it."""
    shared = rooms(request)
    return dict(await shared.descriptions.of(await command_of(shared, verb, [name])))


@router.get("/methods")
async def methods(request: Request) -> dict[str, dict[str, Any]]:
    """What can be trained and compared, by name."""
    return {name: dict(about) for name, about in (await rooms(request).descriptions.methods()).items()}


@router.post("/command-line", openapi_extra={"requestBody": {"content": {"application/x-www-form-urlencoded": {}}}})
async def command_line(request: Request) -> CommandLine:
    """The command line that a form stands for (fields `verb`, `names`, and the options); nothing is run."""
    form = await request.form()
    pairs = [(name, value) for name, value in form.multi_items() if isinstance(value, str) and name not in NOT_OPTIONS]
    names = [str(name) for name in form.getlist("names")]
    wanted = await order(rooms(request), str(form.get("verb", "")), names, Typed.of(pairs))
    return CommandLine(command=wanted.command_line(), arguments=list(wanted.arguments), folder=str(wanted.folder))


@router.post("/uploads", status_code=201)
async def upload(request: Request, file: UploadFile) -> Uploaded:
    """Stores a data file, to be named by options such as `data`."""
    shared = rooms(request)
    path = await uploads.keep(file, shared.folders.uploads, shared.settings.upload_bytes)
    return Uploaded(path=str(path), bytes=path.stat().st_size)


@jobs_router.get("")
def jobs(request: Request, limit: Annotated[int, InQuery(ge=1, le=500)] = 100) -> list[JobView]:
    """The queue: jobs that have not ended in the order of their turn, then ended ones, newest first."""
    return [JobView.of(job) for job in rooms(request).queue.list(limit)]


@jobs_router.post("", status_code=201)
async def new_job(request: Request, wanted: NewJob) -> JobView:
    """Checks a command's options, and queues it."""
    shared = rooms(request)
    pairs = [
        (name, value)
        for name, values in wanted.options.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    return JobView.of(await place(shared, await order(shared, wanted.verb, wanted.names, Typed.of(pairs))))


@jobs_router.get("/{job_id}")
def job(request: Request, job_id: JobId) -> JobView:
    """One job."""
    return JobView.of(rooms(request).queue.get(job_id))


@jobs_router.post("/{job_id}/cancel")
def cancel_job(request: Request, job_id: JobId) -> JobView:
    """Stops a job; what it has finished is kept. A job that has ended stays as it is."""
    return JobView.of(cancel(rooms(request), job_id))


@jobs_router.post("/{job_id}/resume")
def resume_job(request: Request, job_id: JobId) -> JobView:
    """Queues a job again that was cancelled, killed or failed."""
    return JobView.of(rooms(request).queue.resume(job_id))


@jobs_router.delete("/{job_id}", status_code=204)
def forget_job(request: Request, job_id: JobId) -> None:
    """Takes an ended job off the list; its run stays."""
    rooms(request).queue.forget(job_id)


@jobs_router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}, 503: {"model": Problem, "description": "too many streams"}},
)
async def events(request: Request, job_id: JobId) -> Response:
    """The job as it goes on: events `state`, `progress`, `log`; ends with the job. Last-Event-ID goes on in the log."""
    shared = rooms(request)
    found = shared.queue.get(job_id)
    if shared.streams.followers >= MOST_STREAMS:
        raise HTTPException(503, f"{MOST_STREAMS} streams are open; close some")
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    stream = shared.streams.follow(found, _place(request))
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def _place(request: Request) -> int:
    """Where in its log a stream goes on."""
    given = request.headers.get("last-event-id") or request.query_params.get("from", "0")
    if not (given.isascii() and given.isdecimal() and len(given) < 16):
        raise OptionError(f"from: expected a place in the log, got {given[:40]!r}")
    return int(given)
