"""`paperworks report RUN`: where a run's report is; made again from what the run stored where it is missing or old.

Nothing is computed anew here: what a killed run finished is what its report shows.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperworks.core.errors import PaperworksError, RunError
from paperworks.core.files import read_json
from paperworks.core.options import build, load_yaml
from paperworks.core.runs import RunRecord, RunStore

if TYPE_CHECKING:
    from paperworks.experiment import CellResult, Experiment, Results
    from paperworks.experiment.results import Failure

HELP = "The report of a run: its path, made again where it is missing."

# The verbs whose reports a module writes from the run's folder alone: `write_report(folder) -> path`.
WRITERS: Mapping[str, str] = {
    "train": "paperworks.language.train_report",
    "compare": "paperworks.language.comparison.report",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="id, beginning of an id, folder, or name of a run (`paperworks runs` shows them)"
    )
    parser.add_argument("--open", action="store_true", help="also open it in a browser")
    parser.add_argument("--json", action="store_true", help="a JSON object for programs")


def run(args: argparse.Namespace) -> int:
    record = find_run(RunStore(), args.run)
    path, is_new = current_report(record)
    if args.json:
        import json

        names = {"id": record.id, "verb": record.verb, "name": record.name, "status": record.status}
        print(json.dumps({**names, "report": str(path), "made_now": is_new}, indent=2, ensure_ascii=False))
    else:
        print(path)
        if record.status not in ("finished", "running"):
            print(f"paperworks: run {record.id} was not finished ({record.status})", file=sys.stderr)
        elif record.status == "running":
            print(f"paperworks: run {record.id} is still going on; this is what it has so far", file=sys.stderr)
    if args.open:
        open_in_browser(path)
    return 0


def find_run(store: RunStore, word: str) -> RunRecord:
    """The run with that id, beginning of an id or folder, else the newest of that name. Raises RunError for none."""
    try:
        return store.get(word)
    except RunError:
        newest = store.list(name=word, limit=1)
        if newest:
            return newest[0]
        raise


def current_report(record: RunRecord) -> tuple[Path, bool]:
    """report.html of a run and whether it was made now: where there is none, or cells were finished after it.

    Raises RunError where the run has left nothing to make it from.
    """
    path = record.folder / "report.html"
    if path.is_file() and not (record.verb == "run" and _is_older_than_cells(path)):
        return path, False
    if not record.folder.is_dir():
        raise RunError(f"run {record.id}: its folder {record.folder} is gone; `paperworks runs delete {record.id}`")
    if record.verb == "run":
        from paperworks.experiment.report import write_report

        return write_report(stored_results(record)), True
    return _write_by_module(record), True


def stored_results(record: RunRecord) -> Results:
    """The results of an experiment's run as its folder holds them: finished cells, and the failures written down.

    Only the parts, arms and seeds that the run's command asked for. Raises RunError where no cell is finished.
    """
    from paperworks.cli.run_cmd import RunOptions
    from paperworks.experiment import Results
    from paperworks.experiment.results import Failure
    from paperworks.papers import experiment_of

    config = load_yaml(record.folder / "run.yaml")
    slug = str(config.pop("slug", record.name))
    options = build(RunOptions, config, what=f"{record.folder / 'run.yaml'}")
    experiment = experiment_of(slug)
    wanted = _wanted(experiment, options)
    cells = [cell for cell in map(_cell, _cell_files(record.folder)) if cell is not None]
    found = {(cell.part, cell.setting, cell.arm, cell.seed): cell for cell in cells}
    kept = tuple(found[place] for place in wanted if place in found)
    if not kept:
        raise RunError(
            f"run {record.id}: no cell is finished, there is nothing to report; "
            f"`paperworks run --config {record.folder / 'run.yaml'} --out {record.folder}` computes them"
        )
    ended = record.results()
    failures = tuple(Failure(**{**each, "log": Path(each["log"])}) for each in ended.get("failures", ()))
    failures = tuple(each for each in failures if not any(_mends(cell, each) for cell in kept))
    wall_s = float(ended.get("wall_s") or record.wall_s or 0.0)
    return Results(experiment, options.budget, record.folder, kept, failures, wall_s)


def open_in_browser(path: Path) -> bool:
    """Shows a file in the user's browser; says so on standard error where there is none."""
    import webbrowser

    try:
        is_open = webbrowser.open(path.absolute().as_uri())
    except webbrowser.Error:
        is_open = False
    if not is_open:
        print(f"paperworks: no browser can be opened here; the report is {path}", file=sys.stderr)
    return is_open


def _is_older_than_cells(report: Path) -> bool:
    written = report.stat().st_mtime_ns
    return any(file.stat().st_mtime_ns > written for file in _cell_files(report.parent))


def _cell_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("cells/*/*/*/*.json"))  # cells/PART/SETTING/ARM/SEED.json, as the runner writes them


def _cell(file: Path) -> CellResult | None:
    """A finished cell; None where its file is damaged: the runner computes such a cell again."""
    from paperworks.experiment import CellResult

    try:
        content = read_json(file)
        place = (content["part"], content["setting"], content["arm"], content["seed"])
        return CellResult(*place, content["metrics"], content["wall_s"], content["code"])
    except (RunError, KeyError, TypeError):
        return None


def _mends(cell: CellResult, failure: Failure) -> bool:
    """Whether a cell finished after all; a failed preparation (no arm) is mended by any cell of its seed."""
    if (cell.part, cell.seed) != (failure.part, failure.seed):
        return False
    return not failure.arm or (cell.setting, cell.arm) == (failure.setting, failure.arm)


def _wanted(experiment: Experiment, options: Any) -> list[tuple[str, str, str, int]]:
    """(part, setting, arm, seed) of every cell that the command asked for, in the experiment's order."""
    return [
        (part.name, setting, arm.name, seed)
        for part in experiment.parts
        if not options.parts or part.name in options.parts
        for setting in part.settings
        for arm in part.arms_in(setting)
        if not options.arms or arm.name in options.arms
        for seed in range(part.seeds[options.budget] if options.seeds is None else options.seeds)
    ]


def _write_by_module(record: RunRecord) -> Path:
    """The report written by the module of the run's verb."""
    name = WRITERS.get(record.verb)
    try:
        module = importlib.import_module(name) if name else None
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        module = None
    if module is None:
        raise RunError(f"run {record.id}: this version makes no report of the verb {record.verb!r} after the run")
    try:
        return Path(module.write_report(record.folder))
    except PaperworksError as error:
        raise RunError(f"run {record.id} ({record.status}): its report cannot be made: {error}") from error
