"""`paperworks compare OBJECTIVE …`: which objective works best on your own preferences, for your model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from paperworks.cli.dry_run import add_dry_run, show_dry_run
from paperworks.cli.train_cmd import (
    add_data_arguments,
    add_model_arguments,
    add_model_values,
    data_values,
    lora_values,
)
from paperworks.core.options import Parser, add_dataclass_arguments, given_options, load_yaml

HELP = "Find out which objective or method works best on your preferences: equal budget, paired seeds, intervals, a report."
EXIT_INTERRUPTED = 130


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command's arguments; those of algorithms on logs where one of them is named first."""
    from paperworks.cli import compare_control, train_control

    first = Parser(prog="paperworks compare", add_help=False)
    first.add_argument("--config")
    known, _ = first.parse_known_args(list(argv))
    if compare_control.is_meant(argv, load_yaml(known.config) if known.config else {}):
        return compare_control.parse(argv)
    from paperworks.language.comparison.job import FIXED_TRAINING, MeasureOptions
    from paperworks.language.online.methods import trainable_names
    from paperworks.language.rewards.options import RewardOptions
    from paperworks.language.training import TrainOptions

    parser = Parser(
        prog="paperworks compare",
        description=f"{HELP} The untrained model is always compared too. The same command again goes on where it was stopped.",
        epilog=f"objectives: {', '.join(trainable_names())}, and those of --objective-file. Control policies from logs: "
        f"{', '.join(train_control.ALGORITHMS)}; `paperworks compare td3-bc --help`",
    )
    parser.add_argument(
        "objectives", nargs="*", metavar="OBJECTIVE", help="what to compare; one is compared with the start"
    )
    add_model_arguments(parser)
    add_data_arguments(parser)
    group = parser.add_argument_group("settings of the objectives")
    group.add_argument(
        "--sweep", action="append", metavar="NAME=V1,V2",
        help="try these values of an option, for every objective that has it; OBJECTIVE.NAME=V1,V2 for one; repeatable",
    )  # fmt: skip
    group.add_argument(
        "--set", action="append", metavar="NAME=V", help="fix an option, named as in --sweep; repeatable"
    )
    group.add_argument("--objective-file", metavar="FILE", help="a Python file with an objective of your own")
    measuring = "measuring"
    add_dataclass_arguments(parser, MeasureOptions, group=measuring)
    group = parser.add_argument_group("what is measured")
    group.add_argument(
        "--reward", nargs="+", action="extend", metavar="R",
        help="of the models' answers: sentiment, lexicon, length, your own as FILE.py:function, or a reward model's "
        "folder or Hub id; the first decides",
    )  # fmt: skip
    group.add_argument(
        "--train-reward", nargs="+", metavar="R",
        help="what methods that learn from their own answers are trained on (default: the first --reward); the others then "
        "are gold",
    )  # fmt: skip
    add_dataclass_arguments(parser, RewardOptions, group="what is made of the reward trained on")
    group.add_argument("--eval-prompts", metavar="FILE", help="prompts to answer (default: the held-out rows' prompts)")
    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="DIR", help="folder of the run (default ./runs/compare-OBJECTIVES-DIGEST)")
    run.add_argument("--workers", type=int, metavar="N", help="trainings at once (default: up to 4; 1 on a GPU)")
    run.add_argument("--config", metavar="FILE", help="a run.yaml to start from; options given here override it")
    add_dry_run(run)
    run.add_argument("--quiet", action="store_true", help="no progress")
    run.add_argument("--json", action="store_true", help="a JSON object for programs")
    add_dataclass_arguments(parser, TrainOptions, group="training, the same for all", skip=FIXED_TRAINING)
    return parser.parse_args(argv)


def job_values(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration of a job: the command line's options over those of --config."""
    from paperworks.language.comparison.grid import parse_assignments
    from paperworks.language.comparison.job import MeasureOptions
    from paperworks.language.rewards.options import RewardOptions
    from paperworks.language.training import TrainOptions

    values = load_yaml(args.config) if args.config else {}
    if args.objectives:
        values["objectives"] = args.objectives
    source = values.get("data") or {}
    values["data"] = data_values(args, source if isinstance(source, dict) else {"path": source})
    values["training"] = {**(values.get("training") or {}), **given_options(TrainOptions, args)}
    values["measure"] = {**(values.get("measure") or {}), **given_options(MeasureOptions, args)}
    values["lora"] = lora_values(args, values.get("lora"))
    for option in ("sweep", "set"):
        if getattr(args, option):
            given = parse_assignments(getattr(args, option), f"--{option}")
            values[option] = {**(values.get(option) or {}), **given}
    if args.reward:
        values["rewards"] = args.reward
    if args.train_reward:
        values["train_rewards"] = args.train_reward
    values["rewarding"] = {**(values.get("rewarding") or {}), **given_options(RewardOptions, args)}
    add_model_values(values, args, "held_out", "eval_data", "eval_prompts", "objective_file")
    return values


def run(args: argparse.Namespace) -> int:
    if getattr(args, "is_of_control", False):
        from paperworks.cli import compare_control

        return compare_control.run(args)
    from paperworks.core.progress import Progress
    from paperworks.language.comparison.comparison import check_job, compare_job
    from paperworks.language.comparison.job import job_from_config

    job = job_from_config({"objectives": [], **job_values(args)})
    if args.dry_run:
        check_job(job, args.out, workers=args.workers)
        return show_dry_run(job.config(), args)
    try:
        with Progress(quiet=args.quiet) as progress:
            found = compare_job(job, args.out, workers=args.workers, progress=progress)
    except KeyboardInterrupt as stop:
        what = str(stop) or "stopped before the first training; the same command starts again"
        print(f"\npaperworks: {what}", file=sys.stderr)
        return EXIT_INTERRUPTED
    if args.json:
        import json

        from paperworks.core.files import json_value, read_json

        results = read_json(found.folder / "results.json")
        report = found.folder / "report.html"
        print(
            json.dumps(json_value({"run": found.run_id, "folder": found.folder, "report": report, **results}), indent=2)
        )
    else:
        _print_for_reading(found)
    found.raise_failures()
    return 0


def _print_for_reading(found: Any) -> None:
    from paperworks.language.comparison.commands import train_command
    from paperworks.language.comparison.report import terminal_table

    terminal_table(found.findings, found.plan)
    print(f"\nrun     {found.run_id}")
    print(f"report  {found.folder / 'report.html'}")
    commands = [f"paperworks report {found.run_id} --open"]
    if found.findings.best is not None:
        commands.append(train_command(found.findings.best, found.plan.job))
    for number, command in enumerate(commands):
        print(f"{'next' if number == 0 else '':8}{command}")
