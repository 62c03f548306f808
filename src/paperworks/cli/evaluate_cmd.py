"""`paperworks evaluate`: measure a model on rows and on its own samples, with 95% intervals.

`evaluate unlearning`, `reward`, `programs` and `policy` have options of their own, in modules of their own.
"""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Sequence
from typing import Any

from paperworks.cli.train_cmd import add_data_arguments, add_model_arguments, data_values
from paperworks.core.errors import OptionError, did_you_mean
from paperworks.core.options import Parser, add_dataclass_arguments, given_options, load_yaml

KINDS = {
    "unlearning": "paperworks.cli.evaluate_unlearning_cmd",
    "reward": "paperworks.cli.evaluate_reward_cmd",
    "programs": "paperworks.cli.evaluate_programs_cmd",
    "policy": "paperworks.cli.evaluate_policy_cmd",
}
HELP = "Measure a model: preference accuracy, perplexity, KL to a reference, reward and length of its samples."


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command's arguments, or those of the kind of evaluation named first."""
    if argv and argv[0] in KINDS:
        args: argparse.Namespace = importlib.import_module(KINDS[argv[0]]).parse(argv[1:])
        args.kind = argv[0]
        return args
    if argv and not argv[0].startswith("-"):
        raise OptionError(f"unknown kind of evaluation {argv[0]!r}{did_you_mean(argv[0], KINDS)}")
    from paperworks.language.evaluate_job import MeasureOptions
    from paperworks.language.rewards import RewardOptions

    parser = Parser(prog="paperworks evaluate", description=HELP)
    parser.epilog = f"others: {', '.join(f'paperworks evaluate {kind} --help' for kind in KINDS)}"
    add_model_arguments(parser, lora=False)
    add_data_arguments(parser, held_out=False)
    group = parser.add_argument_group("against what")
    group.add_argument("--schema", help="auto, preference, feedback, demonstration or prompt (default auto)")
    group.add_argument(
        "--reference",
        metavar="MODEL",
        help="for accuracy by log-ratio and for KL, or none (default: for adapters the model beneath them, else none)",
    )
    group.add_argument(
        "--reward", nargs="+", action="extend", metavar="R",
        help="of its samples: sentiment, lexicon, length, your own as FILE.py:function, or a reward model's folder or Hub id",
    )  # fmt: skip
    add_dataclass_arguments(parser, MeasureOptions, group="measuring")
    add_dataclass_arguments(parser, RewardOptions, group="what is made of the rewards")
    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="DIR", help="keep the figures, every row and every sample in this run folder")
    run.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    run.add_argument("--config", metavar="FILE", help="a run.yaml to start from; options given here override it")
    run.add_argument("--quiet", action="store_true", help="no progress")
    run.add_argument("--json", action="store_true", help="a JSON object for programs")
    return parser.parse_args(argv)


def job_values(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration of a job: the command line's options over those of --config."""
    from paperworks.language.evaluate_job import MeasureOptions
    from paperworks.language.rewards import RewardOptions

    values = load_yaml(args.config) if args.config else {}
    source = values.get("data") or {}
    values["data"] = data_values(args, source if isinstance(source, dict) else {"path": source})
    values["measure"] = {**(values.get("measure") or {}), **given_options(MeasureOptions, args)}
    for name in ("model", "precision", "device", "chat_template", "schema", "reference"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    if args.reward:
        values["rewards"] = args.reward
    values["rewarding"] = {**(values.get("rewarding") or {}), **given_options(RewardOptions, args)}
    if "model" not in values:
        raise OptionError("give the model to measure: --model ID, FOLDER, smollm2-135m or tiny")
    return values


def run(args: argparse.Namespace) -> int:
    if getattr(args, "kind", None):
        return int(importlib.import_module(KINDS[args.kind]).run(args))
    from paperworks.core.progress import Progress, table
    from paperworks.language.evaluate_job import Figure, evaluate_job, job_from_config

    job = job_from_config(job_values(args))
    with Progress(quiet=args.quiet) as progress:
        found = evaluate_job(job, args.out, overwrite=args.overwrite, progress=progress)
    if args.json:
        import json

        from paperworks.core.files import json_value

        print(json.dumps(json_value({"model": job.model, **found.as_dict()}), indent=2, ensure_ascii=False))
        return 0

    def cells(figure: Figure) -> tuple[str, ...]:
        spec = ".1f" if figure.name == "tokens" else ".3f"
        interval = figure.interval
        bounds = "" if math.isnan(interval.low) else f"[{interval.low:{spec}}, {interval.high:{spec}}]"
        return figure.label, f"{interval.mean:{spec}}", bounds, figure.unit, figure.of

    columns = ("measure", "mean", "95% interval", "unit", "of")
    table([cells(figure) for figure in found.figures], columns, f"{job.model} on {job.data.path}", right=columns[1:3])
    for note in found.notes:
        print(f"note: {note}")
    if args.out:
        print(f"kept in {args.out}: results.json, rows.jsonl, samples.jsonl")
    return 0
