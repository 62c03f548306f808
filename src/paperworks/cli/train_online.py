"""`paperworks train METHOD --prompts FILE --reward R`: train a model on its own answers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paperworks.cli.dry_run import check_out, show_dry_run
from paperworks.core.errors import OptionError
from paperworks.core.options import Parser, add_dataclass_arguments, given_options


def is_meant(argv: Sequence[str], config: Mapping[str, Any]) -> bool:
    """Whether a training command is of an online method: by its name, unless --data or its configuration says otherwise."""
    name = argv[0] if argv and not argv[0].startswith("-") else None
    if name is None:
        return "method" in config
    from paperworks.language.objectives import objective_names
    from paperworks.language.online.methods import METHODS

    spelling = name.lower().replace("_", "-")
    asks = any(word == "--prompts" or word.startswith("--prompts=") for word in argv)
    if spelling not in METHODS:
        if asks and spelling in objective_names():
            raise OptionError(
                f"train {spelling}: learns from rows, give --data FILE; on its own answers learn: {', '.join(METHODS)}"
            )
        return asks
    from_rows = any(word == "--data" or word.startswith("--data=") for word in argv) or "objective" in config
    return asks or not from_rows or spelling not in objective_names()


def parse(argv: Sequence[str], config: Mapping[str, Any]) -> argparse.Namespace:
    """The command's arguments; the method named decides which options there are."""
    from paperworks.language.online.methods import online_method

    given = argv[0] if argv and not argv[0].startswith("-") else None
    method = online_method(str(given or config["method"]).lower().replace("_", "-"))
    rest = list(argv) if given else [method.name, *argv]
    args = _parser(method).parse_args(rest)
    args.method, args.config_values = method.name, dict(config)
    return args


def _parser(method: Any) -> Parser:
    from paperworks.cli.train_cmd import add_model_arguments, add_run_arguments
    from paperworks.language.online.job import TRAINING, JudgeOptions
    from paperworks.language.online.options import OnlineOptions
    from paperworks.language.rewards.options import RewardOptions
    from paperworks.language.rewards.specs import DESCRIBED
    from paperworks.language.train_job import ValidationOptions
    from paperworks.language.train_options import TrainOptions

    about = (method.objective.__doc__ or "").strip().split("\n")[0]
    parser = Parser(prog=f"paperworks train {method.name}", description=about)
    parser.add_argument("objective", metavar="METHOD", help="how to learn")
    add_model_arguments(parser)
    data = parser.add_argument_group("prompts")
    what = "preference pairs, whose prompts are answered" if method.takes_pairs else "prompts to answer, field `prompt`"
    data.add_argument("--prompts", metavar="FILE", help=f"a .jsonl/.json/.csv/.parquet file, folder or Hub id: {what}")
    data.add_argument("--format", help="auto, plain, chat, hh or another known shape (default auto)")
    data.add_argument("--map", action="append", metavar="FIELD=COLUMN", help="where a field is found, repeatable")
    data.add_argument("--split", help="which split of a folder or Hub data set")
    data.add_argument("--bad-rows", choices=("error", "skip"), help="stop at a bad row, or skip and count")
    data.add_argument("--limit", type=int, help="read at most so many rows")
    data.add_argument(
        "--chat", action=argparse.BooleanOptionalAction, default=None,
        help="take bare prompts as a user's message (default: where the model has a chat template)",
    )  # fmt: skip
    data.add_argument(
        "--vllm-url", metavar="URL", help="let a vLLM server at http://HOST:PORT sample, started with --enable-lora"
    )
    data.add_argument(
        "--vllm", action="store_true", default=None, help="let vLLM sample in this process, on a GPU (extra vllm)"
    )
    worth = parser.add_argument_group("reward")
    worth.add_argument(
        "--reward",
        nargs="+",
        help=f"sentiment, lexicon, length, FILE.py:function, {DESCRIBED}, or a reward model; several with --combine",
    )
    worth.add_argument("--gold-reward", nargs="+", help="measured beside it, never trained on")
    add_dataclass_arguments(parser, RewardOptions, group="what is made of the reward")
    if method.judges:
        add_dataclass_arguments(parser, JudgeOptions, group="comparing answers")
    add_run_arguments(parser)
    add_dataclass_arguments(parser, method.objective, group=f"method {method.name}")
    add_dataclass_arguments(parser, OnlineOptions, group="sampling and the hold on the reference")
    skipped = [name for name in TrainOptions.__dataclass_fields__ if name not in TRAINING]
    add_dataclass_arguments(parser, TrainOptions, group="training (micro-batches are of prompts)", skip=skipped)
    add_dataclass_arguments(parser, ValidationOptions, group="held-out prompts", prefix="validation_")
    return parser


def job_values(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration of a job: the command line's options over those of --config."""
    from paperworks.cli.train_cmd import add_model_values, data_values, lora_values
    from paperworks.language.online.job import JudgeOptions
    from paperworks.language.online.methods import METHODS
    from paperworks.language.online.options import OnlineOptions
    from paperworks.language.rewards.options import RewardOptions
    from paperworks.language.train_job import ValidationOptions
    from paperworks.language.train_options import TrainOptions

    values = dict(args.config_values)
    if values.get("method") not in (None, args.method):
        raise OptionError(f"the configuration is of {values['method']}, the command of {args.method}; give one of them")
    values["method"] = args.method
    for name, options, prefix in (
        ("options", METHODS[args.method].objective, ""),
        ("rewards", RewardOptions, ""),
        ("judging", JudgeOptions, ""),
        ("online", OnlineOptions, ""),
        ("training", TrainOptions, ""),
        ("validation", ValidationOptions, "validation_"),
    ):
        values[name] = {**(values.get(name) or {}), **given_options(options, args, prefix)}
    values["validation"] = values["validation"] or None
    below = values.get("prompts") or {}
    below = below if isinstance(below, dict) else {"path": below}
    if args.prompts is None and not below:
        raise OptionError(f"train {args.method}: give the prompts to answer: --prompts FILE")
    args.data = args.prompts
    values["prompts"] = data_values(args, below)
    for name in ("reward", "gold_reward"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    values["lora"] = lora_values(args, values.get("lora"))
    add_model_values(values, args, "chat", "vllm_url", "vllm")
    return values


def run(args: argparse.Namespace) -> int:
    from paperworks.cli.train_cmd import relative, show_result
    from paperworks.core.progress import Progress
    from paperworks.language.online.job import check_job, online_job, online_job_from_config

    job = online_job_from_config(job_values(args))
    out = args.out or (str(Path(args.config).parent) if args.resume and args.config else None)
    if args.resume and out is None:
        raise OptionError("--resume needs the folder of the run: --out DIR")
    if args.dry_run:
        check_out(args, out)
        check_job(job, out, resume=args.resume)
        return show_dry_run(job.config(), args)
    with Progress(quiet=args.quiet) as progress:
        result, folder = online_job(job, out, resume=args.resume, overwrite=args.overwrite, progress=progress)
    shown = relative(folder)
    next_commands = [
        f'paperworks generate --model {shown} --prompt "..."',
        f"paperworks evaluate --model {shown} --data FILE --reward R",
    ]
    return show_result(args, result, folder, next_commands)
