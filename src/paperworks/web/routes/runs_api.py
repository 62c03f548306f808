"""Runs for programs: list, one, its metrics, delete, run again. The same functions as the pages'."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from fastapi import Query as InQuery
from pydantic import BaseModel, Field

from paperworks.core.runs import RunRecord, Status
from paperworks.web.orders import place
from paperworks.web.rooms import rooms
from paperworks.web.routes.api import JobView, Problem
from paperworks.web.routes.runs import delete
from paperworks.web.run_again import again
from paperworks.web.run_listing import RunItem, RunQuery, filtered
from paperworks.web.run_view import find, metrics_of, run_view

_ANSWERS: Mapping[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": text}
    for code, text in (
        (401, "needs the token"), (403, "forged or without the CSRF token"), (404, "there is none"), (422, "cannot be done so"),
    )
}  # fmt: skip
router = APIRouter(prefix="/api/runs", tags=["runs"], responses=dict(_ANSWERS))

RunId = Annotated[str, InPath(pattern=r"^[0-9a-f]{1,32}$", description="a run's id, or the beginning of one")]


class RunEntry(BaseModel):
    """A line of the index of runs. Times are ISO 8601 with zone."""

    id: str
    verb: str
    name: str
    folder: str
    status: Literal["running", "finished", "failed", "interrupted", "diverged", "killed"]
    seed: int | None
    started: str
    ended: str | None
    wall_s: float | None = Field(description="seconds, over all times it was resumed")
    host: str | None
    error: str | None
    result: str = Field(description="what came out, in a few words")
    claims: dict[str, int] = Field(description="claims by verdict; empty where the run shows none")

    @classmethod
    def of(cls, record: RunRecord) -> RunEntry:
        """The entry of a run, without what names its process."""
        item = RunItem.of(record)
        own = {name: value for name, value in record.to_json().items() if name in cls.model_fields}
        return cls(**own, result=item.result, claims=dict(item.counts))


class RunList(BaseModel):
    """Runs, newest first, and how many answer the filters in all."""

    total: int
    runs: list[RunEntry]


class RunClaim(BaseModel):
    """One claim of an experiment as a run found it."""

    part: str
    verdict: str
    text: str
    evidence: str


class WholeRun(BaseModel):
    """All that a run's folder says; `problems` names what could not be read."""

    run: RunEntry
    command: str
    facts: dict[str, str]
    settings: dict[str, str] = Field(description="what run.yaml sets, nested names with a dot between")
    results: dict[str, float] = Field(description="the numbers at the top of results.json")
    claims: list[RunClaim]
    problems: list[str]


class Metrics(BaseModel):
    """The lines of metrics.jsonl."""

    total: int
    lines: list[dict[str, Any]]


@router.get("")
def runs(
    request: Request,
    verb: Annotated[str, InQuery(max_length=80)] = "",
    name: Annotated[str, InQuery(max_length=300)] = "",
    status: Status | Literal[""] = "",
    limit: Annotated[int, InQuery(ge=1, le=500)] = 50,
    offset: Annotated[int, InQuery(ge=0, le=10**9)] = 0,
) -> RunList:
    """Runs by verb, name and state."""
    found = filtered(rooms(request).runs.list(), RunQuery(verb=verb, name=name, status=status))
    return RunList(total=len(found), runs=[RunEntry.of(record) for record in found[offset : offset + limit]])


@router.get("/{run_id}")
def one_run(request: Request, run_id: RunId) -> WholeRun:
    """One run: what it was, on what, and what it found."""
    view = run_view(find(rooms(request).runs, run_id))
    return WholeRun(
        run=RunEntry.of(view.record),
        command=view.command,
        facts=dict(view.facts),
        settings=dict(view.settings),
        results=dict(view.numbers),
        claims=[RunClaim(**claim) for claim in view.claims],
        problems=list(view.problems),
    )


@router.get("/{run_id}/metrics")
def metrics(
    request: Request,
    run_id: RunId,
    limit: Annotated[int, InQuery(ge=1, le=100_000)] = 10_000,
    offset: Annotated[int, InQuery(ge=0, le=10**9)] = 0,
) -> Metrics:
    """What a run logged, line by line."""
    lines = metrics_of(find(rooms(request).runs, run_id).folder)
    return Metrics(total=len(lines), lines=lines[offset : offset + limit])


@router.delete("/{run_id}", status_code=204)
def delete_run(request: Request, run_id: RunId, keep_files: bool = False) -> None:
    """Takes a run out of the index and, unless `keep_files`, removes its folder."""
    shared = rooms(request)
    delete(shared, find(shared.runs, run_id), keeps_files=keep_files)


@router.post("/{run_id}/again", status_code=201)
async def run_again(request: Request, run_id: RunId) -> JobView:
    """Queues the command line that repeats a run into a new folder."""
    shared = rooms(request)
    record = await asyncio.to_thread(find, shared.runs, run_id)
    return JobView.of(await place(shared, again(shared, record)))
