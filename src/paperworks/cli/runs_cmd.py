"""`paperworks runs`: what was run here: list, show one, open one, delete some."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from paperworks.catalog.run_results import DAMAGE, result_text
from paperworks.cli.layout import cut, on_terminal
from paperworks.cli.report_cmd import current_report, find_run, open_in_browser
from paperworks.core.errors import OptionError, PaperworksError, RunError
from paperworks.core.options import load_yaml
from paperworks.core.progress import duration, table
from paperworks.core.runs import RunRecord, RunStore, Status

HELP = "What was run here, newest first. RUN is an id, the beginning of an id, or a folder."
MOST_SHOWN = 20  # without --limit
NOT_SET: tuple[object, ...] = (None, [], {}, "")
COLUMNS = ("id", "verb", "name", "status", "started", "took", "result", "folder")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--verb", metavar="V", help="only runs of this verb: run, train, compare, …")
    parser.add_argument("--name", metavar="N", help="only runs of this name: a paper or an objective")
    parser.add_argument("--status", choices=get_args(Status), help="only runs that ended so")
    parser.add_argument("--limit", type=int, metavar="N", help=f"at most N (default: {MOST_SHOWN}; with --json all)")
    parser.add_argument("--json", action="store_true", help="JSON for programs")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions on one run")

    def action(name: str, help: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")

    show = action("show", "all that is known of a run")
    show.add_argument("run", metavar="RUN")
    # Suppressed, so that `runs --json show RUN` keeps what stands before the action.
    show.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="a JSON object for programs")
    opened = action("open", "print a run's folder; on a terminal also open its report in a browser")
    opened.add_argument("run", metavar="RUN")
    delete = action("delete", "delete runs and their folders")
    delete.add_argument("run", nargs="+", metavar="RUN")
    delete.add_argument("--yes", action="store_true", help="do not ask")
    delete.add_argument("--keep-files", action="store_true", help="only take them off the list; the folders stay")


def run(args: argparse.Namespace) -> int:
    store = RunStore()
    if args.action == "show":
        return _show(find_run(store, args.run), as_json=args.json)
    if args.action == "open":
        return _open(find_run(store, args.run))
    if args.action == "delete":
        return _delete(store, args.run, is_sure=args.yes, keeps_files=args.keep_files)
    return _list(store, args)


def _list(store: RunStore, args: argparse.Namespace) -> int:
    if args.limit is not None and args.limit < 1:
        raise OptionError(f"--limit: expected a whole number of at least 1, got {args.limit}")
    records = store.list(args.verb, args.name, args.status)
    if args.json:
        rows = [{**record.to_json(), "result": result_text(record)} for record in records[: args.limit]]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    shown = records[: args.limit or MOST_SHOWN]
    if not shown:
        is_filtered = any((args.verb, args.name, args.status))
        nothing = "nothing was run yet; try: paperworks run rdpo"
        print("no such run; `paperworks runs` lists all" if is_filtered else nothing)
        return 0
    table([_row(record) for record in shown], COLUMNS)
    if len(shown) < len(records):
        print(f"{len(records) - len(shown)} older ones: --limit {len(records)}")
    return 0


def _row(record: RunRecord) -> list[str]:
    result = result_text(record)
    return [
        record.id,
        record.verb,
        record.name,
        record.status,
        time_text(record.started),
        duration(record.wall_s) if record.wall_s is not None else "–",
        cut(result, 40) if on_terminal() else result,
        short_path(record.folder),
    ]


def time_text(moment: str) -> str:
    """An ISO time as `2026-02-03 14:05` in the local zone; as it is where it cannot be read."""
    try:
        return datetime.datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return moment


def short_path(path: Path) -> str:
    """Relative to the working folder where the path is inside it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _show(record: RunRecord, *, as_json: bool) -> int:
    info: dict[str, Any] = {}
    problem = ""
    try:
        info = record.info()
    except RunError as error:
        is_there = record.folder.is_dir()
        problem = (
            str(error) if is_there else f"the folder is gone; `paperworks runs delete {record.id}` forgets the run"
        )
    config: dict[str, Any] = {}
    with contextlib.suppress(PaperworksError):
        config = load_yaml(record.folder / "run.yaml")
    if as_json:
        results: dict[str, Any] = {}
        with contextlib.suppress(PaperworksError):
            results = record.results()
        # The index comes last: it knows that a run was killed, which the killed run could not write down.
        whole = {**info, **record.to_json(), "config": config, "results": results, "problem": problem or None}
        print(json.dumps(whole, indent=2, ensure_ascii=False))
        return 0
    facts = _facts(record, info, config)
    if problem:
        facts.append(("problem", problem))
    report = record.folder / "report.html"
    if report.is_file():
        facts.append(("report", short_path(report)))
    width = max(len(name) for name, _ in facts) + 2
    for name, text in facts:
        print(f"{name:{width}}{text}")
    _print_claims(record)
    return 0


def _facts(record: RunRecord, info: dict[str, Any], config: dict[str, Any]) -> list[tuple[str, str]]:
    hardware = info.get("hardware") or {}
    memory = info.get("peak_memory_bytes")
    versions = ", ".join(f"{name} {number}" for name, number in (info.get("versions") or {}).items())
    gpus = ", ".join(hardware.get("gpus") or ())
    arguments = info.get("arguments") or ()
    facts = {
        "run": f"{record.id} ({record.verb} {record.name})",
        "status": f"{record.status}{f': {record.error}' if record.error else ''}",
        "folder": str(record.folder),
        "started": time_text(record.started),
        "ended": time_text(record.ended) if record.ended else "",
        "took": duration(record.wall_s) if record.wall_s is not None else "",
        "peak memory": f"{memory / 1e9:.2f} GB" if memory else "",
        "seed": "" if record.seed is None else str(record.seed),
        "command": " ".join(["paperworks", *map(_quoted, arguments)]) if arguments else "",
        "settings": ", ".join(f"{name}={_plain(value)}" for name, value in config.items() if value not in NOT_SET),
        "computer": ", ".join(filter(None, [hardware.get("processor"), f"{hardware['cores']} cores", gpus]))
        if hardware.get("cores")
        else "",
        "versions": versions,
        "revision": info.get("git_revision") or "",
    }
    return [(name, text) for name, text in facts.items() if text]


def _print_claims(record: RunRecord) -> None:
    with contextlib.suppress(*DAMAGE):
        claims = record.results().get("claims", ())
        if claims:
            print()
            rows = [[each["verdict"], each["text"], each["evidence"]] for each in claims]
            table(rows, ["verdict", "claim", "evidence"])


def _open(record: RunRecord) -> int:
    print(record.folder)  # alone on standard output, for `cd "$(paperworks runs open RUN)"`
    if on_terminal():
        open_in_browser(current_report(record)[0])
    return 0


def _delete(store: RunStore, words: Sequence[str], *, is_sure: bool, keeps_files: bool) -> int:
    records = {record.id: record for record in map(store.get, words)}  # all of them are known, or none is deleted
    for record in records.values():
        if record.status == "running":
            raise RunError(
                f"run {record.id} is still going on (process {record.pid}); stop it first, nothing is deleted"
            )
    if not is_sure and not _is_confirmed(list(records.values()), keeps_files):
        print("nothing was deleted", file=sys.stderr)
        return 0
    for record in records.values():
        store.delete(record, files=not keeps_files)
        is_left = record.folder.exists() and not keeps_files
        kept = " (its folder stays: it has no run.json, so it may hold other things)" if is_left else ""
        print(f"deleted {record.id} {short_path(record.folder)}{kept}")
    return 0


def _is_confirmed(records: Sequence[RunRecord], keeps_files: bool) -> bool:
    if not sys.stdin.isatty():
        raise OptionError("runs delete: without a terminal to ask on it needs --yes; nothing was deleted")
    for record in records:
        print(f"  {record.id}  {record.verb} {record.name}  {short_path(record.folder)}", file=sys.stderr)
    amount = "this run" if len(records) == 1 else f"these {len(records)} runs"
    folders = "and keep the files" if keeps_files else "and all files in the folder" + ("s" if len(records) > 1 else "")
    print(f"Delete {amount} {folders}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _quoted(word: Any) -> str:
    import shlex

    return shlex.quote(str(word))


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
