"""`paperworks compare ALGORITHM … --data LOG --env ID`: which algorithm learns best from your logs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from paperworks.cli.dry_run import add_dry_run, show_dry_run
from paperworks.cli.train_control import ALGORITHMS, DISCRETE_ALGORITHMS, SAFE_ALGORITHMS
from paperworks.core.options import Parser, add_dataclass_arguments, given_options, load_yaml

HELP = "Find out which algorithm learns best from your logs: equal steps, several seeds, intervals, a report."
EXIT_INTERRUPTED = 130


def is_meant(argv: Sequence[str], config: Mapping[str, Any]) -> bool:
    """Whether a comparison is of algorithms on logs: the first name is one of theirs."""
    first = argv[0] if argv and not argv[0].startswith("-") else next(iter(config.get("methods") or ()), None)
    return first is not None and str(first).lower().replace("_", "-") in (
        *ALGORITHMS,
        *DISCRETE_ALGORITHMS,
        *SAFE_ALGORITHMS,
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command's arguments."""
    from paperworks.control.comparison_job import FIXED_TRAINING, CompareOptions
    from paperworks.control.training import ControlOptions

    parser = Parser(
        prog="paperworks compare",
        description=f"{HELP} The same command again goes on where it was stopped.",
        epilog=f"algorithms: {', '.join((*ALGORITHMS, *DISCRETE_ALGORITHMS, *SAFE_ALGORITHMS))}",
    )
    parser.add_argument("methods", nargs="*", metavar="ALGORITHM", help="what to compare")
    logs = parser.add_argument_group("logs")
    logs.add_argument(
        "--data", action="append", metavar="LOG", help="a log to learn from; each one more is a task more"
    )
    logs.add_argument(
        "--env", action="append", metavar="ID", help="where policies are judged: one for all logs, or one a log"
    )
    logs.add_argument("--device", help="auto, cpu, cuda, mps (default auto)")
    scale = parser.add_argument_group("normalised scores", "0 is a random policy, 100 a good one; D4RL's for its tasks")
    for end, at in (("random", 0), ("best", 100)):
        scale.add_argument(
            f"--{end}-return",
            type=float,
            action="append",
            metavar="R",
            help=f"the return that is {at}: once, or once a log",
        )
    settings = parser.add_argument_group("settings of the algorithms")
    settings.add_argument(
        "--set", action="append", metavar="NAME=V",
        help="an option of every algorithm that has it, or ALGORITHM.NAME=V of one; repeatable",
    )  # fmt: skip
    add_dataclass_arguments(parser, CompareOptions, group="judging")
    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="DIR", help="folder of the run (default ./runs/compare-control-DIGEST)")
    run.add_argument("--config", metavar="FILE", help="a run.yaml to start from; options given here override it")
    add_dry_run(run)
    run.add_argument("--quiet", action="store_true", help="no progress")
    run.add_argument("--json", action="store_true", help="a JSON object for programs")
    add_dataclass_arguments(
        parser,
        ControlOptions,
        group="training, the same for all (here 20000 steps, 5 seeds by default)",
        skip=FIXED_TRAINING,
    )
    args = parser.parse_args(list(argv))
    args.is_of_control = True
    return args


def job_values(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration of a job: the command line's options over those of --config."""
    from paperworks.control.comparison_job import CompareOptions
    from paperworks.control.training import ControlOptions
    from paperworks.core.errors import OptionError

    values = load_yaml(args.config) if args.config else {}
    for name, given in (
        ("methods", [each.lower().replace("_", "-") for each in args.methods]), ("data", args.data), ("envs", args.env),
        ("random_returns", args.random_return), ("best_returns", args.best_return), ("device", args.device),
    ):  # fmt: skip
        if given:
            values[name] = given
    settings = dict(values.get("settings") or {})
    for word in args.set or ():
        name, equals, text = word.partition("=")
        if not (name.strip() and equals and text.strip()):
            raise OptionError(f"--set {word}: expected NAME=VALUE or ALGORITHM.NAME=VALUE")
        settings[name.strip()] = text.strip()
    values["settings"] = settings
    for name, options in (("training", ControlOptions), ("judging", CompareOptions)):
        values[name] = {**(values.get(name) or {}), **given_options(options, args)}
    return values


def run(args: argparse.Namespace) -> int:
    from paperworks.cli.train_cmd import relative
    from paperworks.control.comparison import check_job, compare_job
    from paperworks.control.comparison_job import job_from_config
    from paperworks.control.comparison_report import results, terminal_table
    from paperworks.core.progress import Progress

    job = job_from_config(job_values(args))
    if args.dry_run:
        check_job(job, args.out)
        return show_dry_run(job.config(), args)
    try:
        with Progress(quiet=args.quiet) as progress:
            found = compare_job(job, args.out, progress=progress)
    except KeyboardInterrupt as stop:
        print(f"\npaperworks: {str(stop) or 'stopped'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    if args.json:
        import json

        from paperworks.core.files import json_value

        print(json.dumps(json_value({"run": found.run_id, "folder": found.folder, **results(found)}), indent=2))
    else:
        terminal_table(found)
        shown = relative(found.folder)
        print(f"\npolicies  {shown}/policies\nreport    {shown}/report.html")
    found.raise_failures()
    return 0
