"""A job's page: what it is, how far it is, what it prints, and the buttons that stop it and let it go on."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from paperworks.catalog import run_results
from paperworks.core.errors import RunError
from paperworks.core.files import read_json
from paperworks.core.jobs import Job
from paperworks.core.runs import RunRecord
from paperworks.web.rendering import form_page
from paperworks.web.rooms import Rooms, rooms

router = APIRouter(include_in_schema=False)
SHOWN_LOG = 100_000  # bytes of it in the page


@router.get("/jobs/{job_id}")
def show_job(request: Request, job_id: str) -> Response:
    """One job, followed live where scripts run, and loaded again every few seconds where not."""
    shared = rooms(request)
    job = shared.queue.get(job_id)
    run = run_of(shared, job)
    return form_page(
        request,
        "job.html",
        job=job,
        line=shlex.join(["paperworks", *job.arguments]),
        run=run,
        claims=run_results.claims(run) if run and job.has_ended else [],
        result=run_results.result_text(run) if run and job.has_ended else "",
        log=_log(shared, job),
        bars=_bars(shared, job),
        ahead=sum(other.status == "queued" and other.submitted < job.submitted for other in shared.queue.list()),
        problem=shared.workers.problem,
    )


@router.post("/jobs/{job_id}/cancel")
def cancel_job(request: Request, job_id: str) -> Response:
    """Stops a job; what it has finished is kept."""
    cancel(rooms(request), job_id)
    return RedirectResponse(f"/jobs/{job_id}", 303)


@router.post("/jobs/{job_id}/resume")
def resume_job(request: Request, job_id: str) -> Response:
    """Lets a job that was stopped or failed go on where it was."""
    rooms(request).queue.resume(job_id)
    return RedirectResponse(f"/jobs/{job_id}", 303)


@router.post("/jobs/{job_id}/forget")
def forget_job(request: Request, job_id: str) -> Response:
    """Takes an ended job off the list; its run stays."""
    rooms(request).queue.forget(job_id)
    return RedirectResponse("/runs", 303)


def cancel(shared: Rooms, job_id: str) -> Job:
    """Takes a job out of the queue, or interrupts its process. Raises RunError for an unknown one."""
    job = shared.queue.cancel(job_id)
    if job.status == "running":
        shared.workers.interrupt(job)
    return job


def run_of(shared: Rooms, job: Job) -> RunRecord | None:
    """The run in a job's folder, once there is one."""
    with contextlib.suppress(RunError):
        return shared.runs.get(job.folder)
    return None


def _log(shared: Rooms, job: Job) -> str:
    try:
        with shared.queue.log(job.id).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - SHOWN_LOG))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _bars(shared: Rooms, job: Job) -> list[Mapping[str, Any]]:
    try:
        found = read_json(shared.queue.progress(job.id))
        return [bar for bar in found["bars"] if {"label", "done", "total", "note", "finished"} <= bar.keys()]
    except (RunError, KeyError, TypeError, AttributeError):
        return []
