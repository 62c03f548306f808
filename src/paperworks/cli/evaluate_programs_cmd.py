"""`paperworks evaluate programs`: how many programming problems a model solves, by running what it writes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from paperworks.cli.train_cmd import add_data_arguments, add_model_arguments, data_values
from paperworks.core.errors import OptionError
from paperworks.core.options import Parser, add_dataclass_arguments, given_options, load_yaml

HELP = "Measure a model on programming problems (HumanEval, MBPP, your own): pass@k by running programs in a sandbox."


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command's arguments."""
    from paperworks.core.sandbox import Limits
    from paperworks.language.program_evaluation import ProgramOptions

    parser = Parser(prog="paperworks evaluate programs", description=HELP)
    add_model_arguments(parser, lora=False)
    add_data_arguments(parser, held_out=False)
    parser.add_argument(
        "--chat", action=argparse.BooleanOptionalAction, default=None,
        help="a problem is a user's message, laid out by the model's chat template; --no-chat: the model continues it as code "
        "(default: --chat where the model has a template, except for tiny models and models trained here on plain text)",
    )  # fmt: skip
    add_dataclass_arguments(parser, ProgramOptions, group="programs")
    add_dataclass_arguments(parser, Limits, group="limits of a program")
    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="DIR", help="keep the figures, every program and report.html in this run folder")
    run.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    run.add_argument("--config", metavar="FILE", help="a run.yaml to start from; options given here override it")
    run.add_argument("--quiet", action="store_true", help="no progress")
    run.add_argument("--json", action="store_true", help="a JSON object for programs")
    return parser.parse_args(argv)


def job_values(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration of a job: the command line's options over those of --config."""
    from paperworks.core.sandbox import Limits
    from paperworks.language.program_evaluation import ProgramOptions

    values = load_yaml(args.config) if args.config else {}
    source = values.get("data") or {}
    values["data"] = data_values(args, source if isinstance(source, dict) else {"path": source})
    values["options"] = {**(values.get("options") or {}), **given_options(ProgramOptions, args)}
    values["limits"] = {**(values.get("limits") or {}), **given_options(Limits, args)}
    for name in ("model", "chat"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    if not values.get("model") and not values["options"].get("canonical"):
        raise OptionError("give the model to measure: --model ID, FOLDER, smollm2-135m or tiny; or --canonical")
    return values


def run(args: argparse.Namespace) -> int:
    from paperworks.core.progress import Progress, table
    from paperworks.language.program_evaluation import evaluate_programs, job_from_config

    values = job_values(args)
    job = job_from_config(values)
    policy = None
    if not job.options.canonical:
        import dataclasses

        from paperworks.language.chat_default import texts_are_messages
        from paperworks.language.policy import Policy

        policy = Policy.load(
            job.model,
            precision=args.precision or "float32",
            device=args.device or "auto",
            chat_template=args.chat_template,
        )
        if "chat" not in values:
            job = dataclasses.replace(job, chat=texts_are_messages(job.model, policy.tokenizer))
            if not args.quiet and policy.tokenizer.chat_template:
                ways = "user messages (--no-chat: continued)", "code to continue (--chat: asked in a message)"
                print(f"note: problems are taken as {ways[not job.chat]}", file=sys.stderr)
    with Progress(quiet=args.quiet) as progress:
        found = evaluate_programs(job, policy, args.out, overwrite=args.overwrite, progress=progress)
    if args.json:
        import json

        from paperworks.core.files import json_value

        print(json.dumps(json_value(found.as_dict()), indent=2, ensure_ascii=False))
        return 0
    rows = [
        (each.label, f"{each.interval.mean:.3f}", f"[{each.interval.low:.3f}, {each.interval.high:.3f}]", each.of)
        for each in found.figures
    ]
    columns = ("measure", "mean", "95% interval", "of")
    who = "canonical solutions" if job.options.canonical else job.model
    table(rows, columns, f"{who} on {job.data.path}", right=columns[1:3])
    print("programs: " + ", ".join(f"{status} {count}" for status, count in found.endings.items() if count))
    print(f"ran in: {found.ran_in}")
    for note in found.notes:
        print(f"note: {note}")
    if args.out:
        print(f"kept in {args.out}: results.json, attempts.jsonl, report.html")
    return 0
