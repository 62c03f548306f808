"""`paperworks run SLUG`: a paper's experiment, from the command line to verdicts, a report and what to do next.

The same command goes on where an earlier one was stopped: the folder is named by paper and budget, not by time.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paperworks.cli.dry_run import add_dry_run, show_dry_run
from paperworks.core.errors import OptionError, RunError, did_you_mean
from paperworks.core.options import add_dataclass_arguments, from_namespace, load_yaml, option, to_mapping

if TYPE_CHECKING:
    from paperworks.core.runs import Run
    from paperworks.experiment import Experiment, Results

HELP = "Run a paper's experiment: every claim tested against its baselines, with a verdict and a report."
EXIT_INTERRUPTED = 130
SMOKE_NOTE = "the smoke budget only shows that everything runs; its verdicts are no evidence"
MANY_SEEDS = 10  # with fewer, more are the next thing to do


@dataclass(frozen=True)
class RunOptions:
    """What decides the numbers of an experiment's run; written to its run.yaml."""

    budget: Literal["smoke", "small", "full"] = option("small", "smoke: seconds; small: minutes; full: as the paper")
    seeds: int | None = option(None, "seeds in every part; none: as many as the budget has", low=1)
    arms: tuple[str, ...] = option((), "only these arms; none: all of them")
    parts: tuple[str, ...] = option((), "only these parts; none: all of them")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("slug", nargs="?", metavar="SLUG", help="the paper's short name (paperworks list)")
    parser.add_argument("--config", metavar="FILE", help="a run.yaml to repeat; options given here override it")
    add_dataclass_arguments(parser, RunOptions, group="what is computed")
    group = parser.add_argument_group("how")
    group.add_argument("--out", metavar="DIR", help="folder of the run (default: ./runs/SLUG-BUDGET)")
    group.add_argument("--workers", type=int, metavar="N", help="processes at once (default: one a core)")
    group.add_argument("--fresh", action="store_true", help="compute every cell anew instead of keeping finished ones")
    group.add_argument("--record", action="store_true", help="write the evidence to results/SLUG.json")
    add_dry_run(group)
    group.add_argument("--quiet", action="store_true", help="no progress")
    group.add_argument("--json", action="store_true", help="the results as a JSON object for programs")


def run(args: argparse.Namespace) -> int:
    from paperworks.papers import experiment_of

    below = load_yaml(args.config) if args.config else {}
    slug = args.slug or below.get("slug")
    if not slug:
        raise OptionError("run: name a paper: paperworks run SLUG (`paperworks list` has them), or --config run.yaml")
    options = from_namespace(
        RunOptions, args, below={name: value for name, value in below.items() if name != "slug"}, what="run"
    )
    if args.workers is not None and args.workers < 1:
        raise OptionError(f"--workers: expected a whole number of at least 1, got {args.workers}")
    experiment = experiment_of(str(slug))
    _check_names(experiment, options)
    if args.record:
        _check_recordable(experiment, options)
    folder = Path(args.out) if args.out else Path("runs") / f"{experiment.slug}-{options.budget}"
    _check_folder(folder, experiment.slug, options.budget)
    if args.dry_run:
        return show_dry_run(_config(experiment, options), args)
    try:
        return _run(experiment, options, folder, args)
    except KeyboardInterrupt as stop:
        what = str(stop) or f"stopped; what is finished is kept in {folder}; the same command goes on"
        print(f"\npaperworks: {what}{' when --fresh is left out' if args.fresh else ''}", file=sys.stderr)
        return EXIT_INTERRUPTED


def summary(results: Results) -> dict[str, Any]:
    """The results as plain values: results.json, and what `--json` prints. Every arm, seed, claim and failure."""
    from paperworks.experiment.verdict import judge

    return {
        "slug": results.experiment.slug,
        "title": results.experiment.title,
        "budget": results.budget,
        "seeds": {part.name: results.seeds(part.name) for part in results.parts()},
        "claims": [
            {
                **vars(each.claim),
                "text": each.sentence(),
                "verdict": each.verdict if each.was_tested else "not tested",
                "difference": vars(each.difference),  # better - than
                "differences": each.differences,
                "evidence": each.evidence(),
            }
            for each in judge(results)
        ],
        "arms": [
            {
                "part": part.name,
                "setting": setting,
                "arm": arm.name,
                "role": arm.role,
                "metrics": {
                    metric.name: {
                        **vars(results.interval(part.name, arm.name, metric.name, setting)),
                        "values": results.values(part.name, arm.name, metric.name, setting),
                    }
                    for metric in part.metrics
                },
            }
            for part in results.parts()
            for setting in part.settings
            for arm in part.arms_in(setting)
            if results.cells_of(part.name, arm.name, setting)
        ],
        "cells": len(results.cells),
        "failures": [vars(failure) for failure in results.failures],
        "compute_s": results.compute_s(),
        "wall_s": results.wall_s,
    }


def _run(experiment: Experiment, options: RunOptions, folder: Path, args: argparse.Namespace) -> int:
    from paperworks.core.files import write_json_atomic
    from paperworks.core.progress import Progress
    from paperworks.core.runs import RunStore
    from paperworks.experiment import run_experiment
    from paperworks.experiment.report import record, write_report

    with RunStore().start("run", experiment.slug, folder, _config(experiment, options), resume=True) as run:
        (folder / "results.json").unlink(missing_ok=True)  # an earlier command's, until this one has its own
        if args.fresh:  # what the arms share is part of "everything"
            shutil.rmtree(folder / "work", ignore_errors=True)
        with Progress(quiet=args.quiet) as progress:
            results = run_experiment(
                experiment,
                budget=options.budget,
                seeds=options.seeds,
                arms=options.arms or None,
                parts=options.parts or None,
                folder=folder,
                workers=args.workers,
                progress=progress,
                fresh=args.fresh,
            )
        report = write_report(results, folder)
        found = summary(results)
        write_json_atomic(folder / "results.json", found)
        failure = _failure_line(results)
        if failure:
            run.end("failed", failure)
    recorded = None
    if args.record and not failure:
        recorded = _record_path(experiment.slug)
        recorded.parent.mkdir(parents=True, exist_ok=True)
        record(results, recorded)
    if args.json:
        _print_json({"run": run.id, "folder": folder, "report": report, "record": recorded, **found})
    else:
        _print_for_reading(results, options, run, report, recorded, args.out)
    if failure:
        raise RunError(failure)
    return 0


def _config(experiment: Experiment, options: RunOptions) -> dict[str, Any]:
    """The run as its run.yaml has it."""
    return {"slug": experiment.slug, **to_mapping(options)}


def _check_names(experiment: Experiment, options: RunOptions) -> None:
    """Refuses a misspelt part or arm before anything is written: a run's folder keeps the command that made it."""
    parts = [experiment.part(name) for name in options.parts] or experiment.parts
    known = {arm.name for part in parts for arm in part.arms}
    for name in options.arms:
        if name not in known:
            raise OptionError(f"{experiment.slug}: unknown arm {name!r}{did_you_mean(name, known)}")


def _check_recordable(experiment: Experiment, options: RunOptions) -> None:
    """Refuses before the hours of computing what could not be recorded after them."""
    if options.budget == "smoke":
        raise OptionError("--record: the smoke budget is no evidence and is not recorded; use --budget small or full")
    for name in ("arms", "parts"):
        if getattr(options, name):
            raise OptionError(f"--record: a record needs every part, arm and seed of its budget; leave out --{name}")
    needed = max(part.seeds[options.budget] for part in experiment.parts)
    if options.seeds is not None and options.seeds < needed:
        raise OptionError(
            f"--record: the budget {options.budget!r} has {needed} seeds, --seeds {options.seeds} is fewer; "
            f"leave out --seeds or give at least {needed}"
        )


def _check_folder(folder: Path, slug: str, budget: str) -> None:
    """Refuses a folder of other things: cells of another paper or budget would take the place of those there."""
    from paperworks.core.files import read_json

    if not folder.is_dir():
        return
    if (folder / "run.json").is_file():
        info = read_json(folder / "run.json")
        verb, name = (info.get("verb"), info.get("name")) if isinstance(info, Mapping) else (None, None)
        if (verb, name) != ("run", slug):
            raise RunError(f"{folder}: holds another run ({verb} {name}); give --out another folder")
    visible = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if visible and not {"run.yaml", "cells"} & set(visible):
        raise RunError(f"{folder}: has something in it that is no run of an experiment; give --out another folder")
    before = load_yaml(folder / "run.yaml").get("budget", budget) if (folder / "run.yaml").is_file() else budget
    if before != budget:
        raise RunError(f"{folder}: holds a run of the budget {before!r}; give --out another folder for {budget!r}")


def _failure_line(results: Results) -> str | None:
    try:
        results.raise_failures()
    except RunError as error:
        return str(error)
    return None


def _record_path(slug: str) -> Path:
    """results/SLUG.json of the checkout, or of the working folder where the package was installed without one."""
    from paperworks.catalog.evidence import PACKAGE, results_folder

    folder = results_folder()
    return (Path("results") if folder.is_relative_to(PACKAGE) else folder) / f"{slug}.json"


def _print_json(values: Mapping[str, Any]) -> None:
    import json

    from paperworks.core.files import json_value

    print(json.dumps(json_value(values), indent=2, ensure_ascii=False))


def _print_for_reading(
    results: Results, options: RunOptions, run: Run, report: Path, recorded: Path | None, out: str | None
) -> None:
    from paperworks.core.progress import duration
    from paperworks.experiment.report import terminal_summary

    terminal_summary(results)
    failed = f", {len(results.failures)} failed" if results.failures else ""
    lines = [("note", SMOKE_NOTE)] if options.budget == "smoke" else []
    lines += [
        ("run", f"{run.id}: {len(results.cells)} cells{failed}, {duration(results.wall_s)}"),
        ("report", str(report)),
    ]
    if recorded is not None:
        lines.append(("record", str(recorded)))
    commands = next_commands(results, options, run.id, out)
    lines += [("next" if number == 0 else "", command) for number, command in enumerate(commands)]
    print()
    for name, text in lines:
        print(f"{name:8}{text}")


def next_commands(results: Results, options: RunOptions, run_id: str, out: str | None) -> list[str]:
    """What a reader of the results does next: look at the report, run more seeds, use the method."""
    from paperworks.catalog import Catalog
    from paperworks.catalog.commands import commands

    slug = results.experiment.slug
    found = [f"paperworks report {run_id} --open"]
    if options.budget == "smoke":
        found.append(f"paperworks run {slug}")
    elif not results.failures and any(len(results.seeds(part.name)) < MANY_SEEDS for part in results.parts()):
        budget = "" if options.budget == "small" else f" --budget {options.budget}"
        place = f" --out {shlex.quote(out)}" if out else ""
        found.append(f"paperworks run {slug}{budget}{place} --seeds {MANY_SEEDS}")
    try:
        card = Catalog.open().card(slug)
    except OptionError:  # an experiment of the user's own has no card
        return found
    uses = tuple(f"paperworks {verb} " for verb in ("train", "compare"))
    return found + [line for line in commands(card) if line.startswith(uses)]
