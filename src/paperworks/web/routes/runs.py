"""The runs' pages: all of them, one, its report, two side by side; and the forms that delete one or run it again."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from paperworks.core.errors import OptionError, PaperworksError, RunError
from paperworks.core.jobs import Job
from paperworks.core.runs import RunRecord
from paperworks.web.orders import VERBS, place
from paperworks.web.rendering import form_page
from paperworks.web.rooms import Rooms, rooms
from paperworks.web.run_again import again
from paperworks.web.run_comparison import comparison
from paperworks.web.run_listing import FILTERS, RunQuery, run_listing
from paperworks.web.run_reports import is_current
from paperworks.web.run_view import MOST_FIGURES, curves, find, run_view
from paperworks.web.security import REPORT_POLICY

router = APIRouter(include_in_schema=False)
MOST_FILES = 50_000  # of a folder that are counted


@router.get("/runs")
def show_runs(request: Request) -> Response:
    """All runs, newest first, under the jobs that go on."""
    shared = rooms(request)
    found = run_listing(shared.runs, shared.queue, RunQuery.of(request.query_params))
    return form_page(request, "runs.html", found=found, query=found.query, filters=FILTERS)


@router.get("/runs/compare")
async def show_comparison(request: Request) -> Response:
    """Two runs side by side."""
    shared, words = rooms(request), list(dict.fromkeys(request.query_params.getlist("run")))
    if len(words) != 2:
        raise HTTPException(422, f"choose two different runs in the list; {len(words) or 'none'} came")
    records = [await asyncio.to_thread(find, shared.runs, word) for word in words]
    views = [await asyncio.to_thread(run_view, record) for record in records]
    if views[0].record.id == views[1].record.id:
        raise HTTPException(422, f"choose two different runs in the list; both are {views[0].record.id}")
    both = comparison(views[0], views[1])
    names = [f"{view.record.id} {view.record.name}" for view in views]
    series = {name: dict(zip(names, pair, strict=True)) for name, pair in both.curves.items()}
    figures, problem = await _figures(shared, series)
    return form_page(request, "run_compare.html", both=both, names=names, figures=figures, drawing_problem=problem)


@router.get("/runs/{run_id}")
async def show_run(request: Request, run_id: str) -> Response:
    """One run."""
    shared = rooms(request)
    record = await asyncio.to_thread(find, shared.runs, run_id)
    view = await asyncio.to_thread(run_view, record)
    found = curves(view.metrics)
    drawn = {name: curve for name, curve in found.items() if len(curve[0]) > 1}
    figures, problem = await _figures(shared, {name: {"this run": curve} for name, curve in drawn.items()})
    job = await asyncio.to_thread(job_of, shared, record)
    return form_page(
        request,
        "run.html",
        view=view,
        run=record,
        job=job,
        command=shlex.join(["paperworks", *job.arguments]) if job else view.command,
        figures=figures,
        left_out=list(drawn)[MOST_FIGURES:],
        single={name: f"{values[-1]:.4g}" for name, (_, values) in found.items() if name not in drawn},
        last={name: f"{values[-1]:.4g}" for name, (_, values) in drawn.items()},
        drawing_problem=problem,
        is_repeatable=record.verb in VERBS,
        has_report=await asyncio.to_thread(_has_report, record),
    )


@router.get("/runs/{run_id}/report")
async def show_report(request: Request, run_id: str, download: str = "") -> Response:
    """The report of a run as it is, to be looked at in a frame or kept; made anew where it is missing or old."""
    shared = rooms(request)
    record = await asyncio.to_thread(find, shared.runs, run_id)
    body = await shared.reports.of(record)
    headers = {"content-security-policy": REPORT_POLICY, "cache-control": "no-store"}
    if download:
        plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in record.name)[:80]
        headers["content-disposition"] = f'attachment; filename="paperworks-{plain}-{record.id}.html"'
    return Response(body, headers=headers, media_type="text/html; charset=utf-8")


@router.get("/runs/{run_id}/delete")
def ask_delete(request: Request, run_id: str) -> Response:
    """Says what would be deleted, and asks."""
    shared = rooms(request)
    record = find(shared.runs, run_id)
    files, size, is_whole = folder_size(record.folder)
    return form_page(
        request,
        "run_delete.html",
        run=record,
        problem=undeletable(shared, record),
        is_folder=(record.folder / "run.json").is_file(),
        amount=f"{'' if is_whole else 'more than '}{files} files, {size / 1e6:.1f} MB",
    )


@router.post("/runs/{run_id}/delete")
def delete_run(request: Request, run_id: str, keep_files: Annotated[str, Form()] = "") -> Response:
    """Deletes a run."""
    shared = rooms(request)
    delete(shared, find(shared.runs, run_id), keeps_files=bool(keep_files))
    return RedirectResponse("/runs", 303)


@router.get("/runs/{run_id}/again")
def ask_again(request: Request, run_id: str) -> Response:
    """Shows the command line that repeats a run, and asks; says why where it cannot be repeated from here."""
    shared = rooms(request)
    record = find(shared.runs, run_id)
    try:
        line = shlex.join(["paperworks", *again(shared, record).whole])
    except PaperworksError as error:
        return form_page(request, "run_again.html", 422, run=record, line="", problem=str(error))
    return form_page(request, "run_again.html", run=record, line=line, problem="")


@router.post("/runs/{run_id}/again")
async def run_again(request: Request, run_id: str) -> Response:
    """Lets the command check the run's options, and queues it."""
    shared = rooms(request)
    record = await asyncio.to_thread(find, shared.runs, run_id)
    try:
        job = await place(shared, again(shared, record))
    except PaperworksError as error:
        return form_page(request, "run_again.html", 422, run=record, line="", problem=str(error))
    return RedirectResponse(f"/jobs/{job.id}", 303)


def job_of(shared: Rooms, record: RunRecord) -> Job | None:
    """The job that made a run, or goes on with it."""
    return next((job for job in shared.queue.list() if job.folder == record.folder), None)


def undeletable(shared: Rooms, record: RunRecord) -> str:
    """Why a run cannot be deleted now; "" where it can."""
    if record.status == "running":
        return f"run {record.id} is still going on (process {record.pid}); stop it first, nothing is deleted"
    job = job_of(shared, record)
    if job is not None and not job.has_ended:
        return f"job {job.id} has this run's folder and is {job.status}; cancel it first, nothing is deleted"
    return ""


def delete(shared: Rooms, record: RunRecord, *, keeps_files: bool) -> None:
    """Takes a run out of the index and removes its folder. Raises RunError while it goes on, or for a folder that stays."""
    problem = undeletable(shared, record)
    if problem:
        raise RunError(problem)
    try:
        shared.runs.delete(record, files=not keeps_files)
    except OSError as error:
        raise RunError(
            f"{record.folder}: cannot be removed whole ({error.strerror}); remove it by hand, and delete the run again"
        ) from None


def folder_size(folder: Path) -> tuple[int, int, bool]:
    """Files of a folder and their bytes, links not followed; whether all of them were counted."""
    files = size = 0
    for place_, _, names in os.walk(folder):
        for name in names:
            if files >= MOST_FILES:
                return files, size, False
            files += 1
            try:
                size += (Path(place_) / name).lstat().st_size
            except OSError:  # removed meanwhile
                continue
    return files, size, True


def _has_report(record: RunRecord) -> bool:
    """Whether a report is there to be shown in the page as it is; a link makes one otherwise."""
    try:
        return is_current(record)
    except (RunError, OSError):
        return False


async def _figures(shared: Rooms, series: Mapping[str, Mapping[str, Any]]) -> tuple[Sequence[tuple[str, str]], str]:
    """The first figures with their names, and why there are none where they cannot be drawn."""
    shown = dict(list(series.items())[:MOST_FIGURES])
    if not shown:
        return [], ""
    requests = [
        {"title": "", "x": "step", "y": name, "series": {each: list(curve) for each, curve in lines.items()}}
        for name, lines in shown.items()
    ]
    try:
        return list(zip(shown, await shared.drawings.of_curves(requests), strict=True)), ""
    except (OptionError, RunError) as error:  # the last values stand in the page too
        return [], str(error)
