"""`paperworks evaluate reward`: how good a reward is on pairs or on scored rows, with 95% intervals and a report."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

from paperworks.cli.train_cmd import add_data_arguments, data_values
from paperworks.core.errors import OptionError
from paperworks.core.options import Parser, add_dataclass_arguments, given_options, load_yaml

HELP = (
    "Measure a reward: accuracy and calibration on pairs, agreement with scores, how it goes with length, and how far the "
    "members of an ensemble agree."
)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command's arguments."""
    from paperworks.language.rewards import RewardOptions

    parser = Parser(prog="paperworks evaluate reward", description=HELP)
    group = parser.add_argument_group("reward")
    group.add_argument(
        "--reward",
        nargs="+",
        action="extend",
        metavar="R",
        help="a reward model's folder or Hub id, sentiment, lexicon, length, or FILE.py:function; several are the members of "
        "an ensemble (--combine)",
    )
    group.add_argument("--device", help="auto, cpu, cuda, mps (default auto)")
    add_data_arguments(parser, held_out=False)
    group = parser.add_argument_group("rows")
    group.add_argument("--schema", choices=("auto", "preference", "scored"), help="what the rows are (default auto)")
    group.add_argument(
        "--reward-weights",
        metavar="X,…",
        help="factors on several rewards of a scored row, in their order (default 1 each)",
    )
    add_dataclass_arguments(parser, RewardOptions, group="what is made of the rewards")
    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="DIR", help="keep the figures, every row and report.html in this run folder")
    run.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    run.add_argument("--config", metavar="FILE", help="a run.yaml to start from; options given here override it")
    run.add_argument("--quiet", action="store_true", help="no progress")
    run.add_argument("--json", action="store_true", help="a JSON object for programs")
    return parser.parse_args(argv)


def job_values(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration of a job: the command line's options over those of --config."""
    from paperworks.language.rewards import RewardOptions

    values = load_yaml(args.config) if args.config else {}
    for name in ("device", "schema", "reward_weights"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    if args.reward:
        values["reward"], values["more_rewards"] = args.reward[0], args.reward[1:]
    values["rewarding"] = {**(values.get("rewarding") or {}), **given_options(RewardOptions, args)}
    if "reward" not in values:
        raise OptionError("give the reward to measure: --reward FOLDER, a Hub id, a built-in name or FILE.py:function")
    source = values.get("data") or {}
    source = source if isinstance(source, dict) else {"path": source}
    if not args.data and "path" not in source:
        raise OptionError("give rows to measure it on: --data FILE with prompt, chosen, rejected or with reward")
    values["data"] = data_values(args, source)
    return values


def run(args: argparse.Namespace) -> int:
    from paperworks.core.progress import Progress, table
    from paperworks.language.evaluate_job import Figure
    from paperworks.language.reward_evaluation_job import evaluate_reward_job, job_from_config

    job = job_from_config(job_values(args))
    with Progress(quiet=args.quiet) as progress:
        found = evaluate_reward_job(job, args.out, overwrite=args.overwrite, progress=progress)
    if args.json:
        import json

        from paperworks.core.files import json_value

        print(json.dumps(json_value(found.as_dict()), indent=2, ensure_ascii=False))
        return 0

    def cells(figure: Figure) -> tuple[str, ...]:
        interval = figure.interval
        mean = "–" if math.isnan(interval.mean) else f"{interval.mean:.3f}"
        bounds = "" if math.isnan(interval.low) else f"[{interval.low:.3f}, {interval.high:.3f}]"
        return figure.label, mean, bounds, figure.unit, figure.of

    columns = ("measure", "value", "95% interval", "unit", "of")
    table(
        [cells(figure) for figure in found.figures],
        columns,
        f"{' '.join(job.rewards)} on {job.data.path}",
        right=columns[1:3],
    )
    for note in found.notes:
        print(f"note: {note}")
    if args.out:
        print(f"report  {args.out}/report.html")
    return 0
