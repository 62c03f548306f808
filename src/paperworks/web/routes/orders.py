"""Forms that start jobs: a paper's experiment, a method's training, a comparison. One form, made from the command's options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import FormData, UploadFile

from paperworks.catalog.record import read_record
from paperworks.core.errors import PaperworksError, RunError
from paperworks.web import uploads
from paperworks.web.forms import Typed, groups
from paperworks.web.orders import Order, command_of, order, place
from paperworks.web.paper_view import record_path
from paperworks.web.rendering import form_page
from paperworks.web.rooms import Rooms, rooms

router = APIRouter(include_in_schema=False)
NOT_OPTIONS = ("csrf", "verb", "names", "kind", "preview")
FAMILIES = {
    "rows": "from rows of data",
    "answers": "from its own answers",
    "log": "control policies, from a log",
    "environment": "control policies, in an environment",
    "front": "fronts of control policies",
}


@router.get("/papers/{slug}/run")
async def show_run(request: Request, slug: str) -> Response:
    """The form of a paper's experiment."""
    return await _form(request, "run", [slug], Typed.of(list(request.query_params.multi_items())))


@router.post("/papers/{slug}/run")
async def start_run(request: Request, slug: str) -> Response:
    """Starts a paper's experiment, or says what is wrong in its form."""
    return await _start(request, "run", [slug])


@router.get("/train/{name}")
async def show_train(request: Request, name: str) -> Response:
    """The form of a training."""
    return await _form(request, "train", [name], Typed.of(list(request.query_params.multi_items())))


@router.post("/train/{name}")
async def start_train(request: Request, name: str) -> Response:
    """Starts a training, or says what is wrong in its form."""
    return await _start(request, "train", [name])


@router.get("/compare")
async def show_compare(request: Request) -> Response:
    """The form of a comparison: objectives and online methods, or with kind=control algorithms for logs."""
    names = request.query_params.getlist("names")
    pairs = [(name, value) for name, value in request.query_params.multi_items() if name not in NOT_OPTIONS]
    return await _form(request, "compare", names, Typed.of(pairs))


@router.post("/compare")
async def start_compare(request: Request) -> Response:
    """Starts a comparison, or says what is wrong in its form."""
    form = await request.form()
    return await _start(request, "compare", [str(name) for name in form.getlist("names")])


async def _start(request: Request, verb: str, names: Sequence[str]) -> Response:
    shared, form, typed = rooms(request), await request.form(), Typed()
    texts = [(name, value) for name, value in form.multi_items() if isinstance(value, str) and name not in NOT_OPTIONS]
    try:
        typed = Typed.of(texts)
        kept = await _uploaded(shared, form)  # a file that was chosen takes the place of the path beside it
        typed = Typed.of([*(pair for pair in texts if pair[0] not in kept), *kept.items()])
        wanted = await order(shared, verb, names, typed)
        if form.get("preview"):
            return await _form(request, verb, names, typed, wanted=wanted)
        job = await place(shared, wanted)
    except PaperworksError as error:
        return await _form(request, verb, names, typed, problem=str(error), status=422)
    return RedirectResponse(f"/jobs/{job.id}", 303)


async def _uploaded(shared: Rooms, form: FormData) -> dict[str, str]:
    """Where the files of a form were stored, by the option that each is for. Raises DataError for what is no data."""
    kept: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) and value.filename:
            path = await uploads.keep(value, shared.folders.uploads, shared.settings.upload_bytes)
            kept[name.removeprefix("upload-")] = str(path)
    return kept


async def _form(
    request: Request,
    verb: str,
    names: Sequence[str],
    typed: Typed,
    *,
    problem: str = "",
    status: int = 200,
    wanted: Order | None = None,
) -> Response:
    shared = rooms(request)
    methods = await shared.descriptions.methods() if verb != "run" else {}
    kind = ""
    if verb == "compare":  # what is ticked says which, else the address or the form that was sent
        given = request.query_params.get("kind") or (await request.form()).get("kind")
        families = {methods[name]["family"] for name in names if name in methods}
        kind = "control" if families == {"log"} or (given == "control" and not families) else ""
        description = await shared.descriptions.of("compare td3-bc" if kind else "compare")
    else:
        description = await shared.descriptions.of(await command_of(shared, verb, names))
    try:
        line = (wanted or await order(shared, verb, names, typed)).command_line()
    except PaperworksError:  # not filled in yet, or wrong: the line begins with what there is
        line = " ".join(["paperworks", verb, *names])
    card = shared.freshness.catalog().card(names[0]) if verb == "run" else None
    return form_page(
        request,
        "order.html",
        status,
        verb=verb,
        names=list(names),
        card=card,
        about=description["about"],
        groups=groups(description, typed, _choices(verb, names)),
        kind=kind,
        methods=_by_family(methods, kind) if verb == "compare" else {},
        line=line,
        problem=problem,
        folders=shared.folders.roots,
        upload_mb=shared.settings.upload_bytes / 1e6,
    )


def _choices(verb: str, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """The parts and arms of a paper's experiment, as its record has them."""
    if verb != "run":
        return {}
    try:
        record = read_record(record_path(names[0]))
    except RunError:
        return {}
    if record is None:
        return {}
    arms = [arm["name"] for part in record["parts"] for setting in part["settings"] for arm in setting["arms"]]
    return {"parts": [part["name"] for part in record["parts"]], "arms": list(dict.fromkeys(arms))}


def _by_family(methods: Mapping[str, Mapping[str, Any]], kind: str) -> dict[str, list[str]]:
    """The names that can be compared, under the heading that a form has for them."""
    found: dict[str, list[str]] = {}
    for name, about in methods.items():
        if about["family"] in (("log",) if kind else ("rows", "answers")):
            found.setdefault(FAMILIES[about["family"]], []).append(name)
    return found
