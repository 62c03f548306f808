"""`paperworks train OBJECTIVE`: train a model on your own data."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paperworks.cli.dry_run import add_dry_run, check_out, show_dry_run
from paperworks.core.errors import OptionError, did_you_mean
from paperworks.core.options import Parser, add_dataclass_arguments, given_options, load_yaml

HELP = "Train a model on your own preferences, feedback, demonstrations, scored answers, or text to forget."


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command's arguments; the objective named decides which options there are."""
    first = Parser(prog="paperworks train", add_help=False)
    first.add_argument("--objective-file")
    first.add_argument("--config")
    first.add_argument("--out")
    first.add_argument("--resume", action="store_true")
    known, _ = first.parse_known_args(list(argv))
    if known.resume and known.out and not known.config:  # a run goes on with its own options
        from paperworks.language.train_job import run_yaml

        known.config = run_yaml(known.out)
    config = _configuration(known.config) if known.config else {}
    from paperworks.cli import train_acting, train_control, train_fronts, train_hybrid, train_online

    for family in (train_acting, train_hybrid, train_fronts, train_control, train_online):
        if family.is_meant(argv, config):
            args = family.parse(argv, config)
            args.family = family
            return args
    if any(word == "--env" or word.startswith("--env=") for word in argv):
        control = (
            *train_control.ALGORITHMS, *train_control.DISCRETE_ALGORITHMS, *train_control.SAFE_ALGORITHMS,
            *train_acting.ALGORITHMS, *train_hybrid.METHODS, *train_fronts.SEARCHES,
        )  # fmt: skip
        raise OptionError(f"train {argv[0]}: no control algorithm of that name{did_you_mean(argv[0], control)}")
    from paperworks.language.objectives import load_objective_file, objective_class, objective_names

    file = known.objective_file or config.get("objective_file")
    if file:
        load_objective_file(file)
    name = argv[0] if argv and not argv[0].startswith("-") else config.get("objective")
    if name is None:
        parser = _parser("OBJECTIVE", None)
        from paperworks.language.online.methods import METHODS

        parser.epilog = (
            f"objectives: {', '.join(objective_names())}; `paperworks train dpo --help` lists its options. On its own "
            f"answers: {', '.join(METHODS)}. Control policies from logs: {', '.join(train_control.ALGORITHMS)}. "
            f"Fronts of policies for several rewards: {', '.join(train_fronts.SEARCHES)}. Policies that act while they "
            f"learn: {', '.join((*train_acting.ALGORITHMS, *train_hybrid.METHODS))}"
        )
        asked = [word for word in argv if word in ("-h", "--help", "--describe")]
        if asked:
            parser.parse_args(asked[:1])
        raise OptionError(
            f"train: name an objective: paperworks train OBJECTIVE (known: {', '.join(objective_names())})"
        )
    cls = objective_class(name)
    args = _parser(cls.name, cls).parse_args(list(argv) if argv and argv[0] == name else [name, *argv])
    args.objective_class, args.config_values = cls, config
    return args


def _configuration(path: str) -> dict[str, Any]:
    config = load_yaml(path)
    for name in ("options", "training", "lora", "degrees", "unlearning", "validation", "online", "rewards", "judging"):
        if not isinstance(config.get(name) or {}, dict):
            raise OptionError(f"{path}: {name}: expected names and values below it, found {config[name]!r}")
    return config


def _parser(name: str, cls: type | None) -> Parser:
    from paperworks.language.training import TrainOptions

    about = HELP if cls is None else (cls.__doc__ or HELP).strip().split("\n")[0]
    parser = Parser(prog=f"paperworks train {name}", description=about)
    parser.add_argument("objective", help="what to optimise")
    add_model_arguments(parser)
    add_data_arguments(parser)
    if cls is not None:
        _add_settings(parser, cls)
    run = add_run_arguments(parser)
    run.add_argument("--objective-file", metavar="FILE", help="a Python file with an objective of your own")
    if cls is not None:
        add_dataclass_arguments(parser, cls, group=f"objective {name}")
    add_dataclass_arguments(parser, TrainOptions, group="training")
    return parser


def add_run_arguments(parser: argparse.ArgumentParser) -> Any:
    """Where a training run goes, and whether it goes on; returns the group."""
    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="DIR", help="folder of the run (default ./runs/train-NAME-TIME)")
    run.add_argument("--config", metavar="FILE", help="a run.yaml to start from; options given here override it")
    mode = run.add_mutually_exclusive_group()
    mode.add_argument(
        "--resume", action="store_true", help="go on with the run in --out, with the options it was given"
    )
    mode.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    add_dry_run(run)
    run.add_argument("--quiet", action="store_true", help="no progress")
    run.add_argument("--json", action="store_true", help="print the result as JSON")
    return run


def _settings(cls: type[Any]) -> dict[str, tuple[type, str, str]]:
    """The job's settings that go with an objective: by name the options' class, their prefix, and the help's heading."""
    from paperworks.language.data.schemas import Feedback, Forget, Preference
    from paperworks.language.degrees.options import DegreeOptions
    from paperworks.language.train_job import ValidationOptions
    from paperworks.language.unlearning.setup import UnlearningSetup

    if cls.trains == "reward-model":
        return {}
    if cls.schema is Forget:
        return {"unlearning": (UnlearningSetup, "", "unlearning")}
    found: dict[str, tuple[type, str, str]] = {
        "validation": (ValidationOptions, "validation_", "choosing the weights to keep by a reward")
    }
    if cls.schema in (Preference, Feedback):
        found["degrees"] = (DegreeOptions, "degree_", "degree awareness (SPO), on with --degree-weight")
    return found


def _add_settings(parser: Parser, cls: type[Any]) -> None:
    for options, prefix, heading in _settings(cls).values():
        add_dataclass_arguments(parser, options, group=heading, prefix=prefix)
        if heading == "unlearning":
            parser.add_argument("--forget", metavar="FILE", help="the rows to forget (the same as --data)")


def add_model_arguments(parser: argparse.ArgumentParser, *, lora: bool = True) -> None:
    """--model and how it is loaded."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", help="a Hub id, a folder, smollm2-135m or tiny")
    group.add_argument(
        "--precision", choices=("float32", "bfloat16", "float16"), help="of the weights (default float32)"
    )
    group.add_argument("--device", help="auto, cpu, cuda, mps (default auto)")
    group.add_argument("--chat-template", metavar="FILE", help="a Jinja template file, for tokenizers without one")
    if lora:
        group.add_argument("--gradient-checkpointing", action="store_true", default=None, help="less memory, more time")
        group.add_argument("--lora", action="store_true", default=None, help="train low-rank adapters, not the weights")
        group.add_argument("--lora-rank", type=int, help="rank of the adapters (default 16)")
        group.add_argument("--lora-alpha", type=float, help="scale alpha/rank (default 32)")
        group.add_argument("--lora-dropout", type=float, help="dropout on the adapters' input (default 0)")
        group.add_argument("--lora-targets", help="module names, comma separated (default all-linear)")


def add_data_arguments(parser: argparse.ArgumentParser, *, held_out: bool = True) -> None:
    """--data and how it is read."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        metavar="FILE",
        help="a .jsonl/.json/.csv/.tsv/.parquet file (also .gz), - for stdin, a folder or Hub id",
    )
    group.add_argument("--format", help="auto, plain, chat, hh or lol (default auto)")
    group.add_argument("--map", action="append", metavar="FIELD=COLUMN", help="where a field is found, repeatable")
    group.add_argument("--split", help="which split of a folder or Hub data set")
    group.add_argument(
        "--bad-rows", choices=("error", "skip"), help="stop at a bad row, or skip and count (default error)"
    )
    group.add_argument("--limit", type=int, help="read at most so many rows")
    if held_out:
        group.add_argument("--held-out", type=float, help="share (or number) of rows kept for evaluation (default 0.1)")
        group.add_argument("--eval-data", metavar="FILE", help="rows to evaluate on, in place of --held-out")


def data_values(args: argparse.Namespace, below: dict[str, Any]) -> dict[str, Any]:
    """The options of a DataSource: the command line's over those of a configuration."""
    from paperworks.language.data import parse_mapping

    values = dict(below)
    for option, name in (
        ("data", "path"),
        ("format", "format"),
        ("split", "split"),
        ("bad_rows", "bad_rows"),
        ("limit", "limit"),
    ):
        if getattr(args, option) is not None:
            values[name] = getattr(args, option)
    if args.map:
        values["mapping"] = parse_mapping(args.map)
    if "path" not in values:
        raise OptionError("give the training rows: --data FILE")
    return values


def lora_values(args: argparse.Namespace, below: dict[str, Any] | None) -> dict[str, Any] | None:
    """The options of the adapters, None for full weights."""
    given = {
        name: getattr(args, f"lora_{name}")
        for name in ("rank", "alpha", "dropout", "targets")
        if getattr(args, f"lora_{name}") is not None
    }
    if not args.lora and not below:
        if given:
            raise OptionError(f"--lora-{next(iter(given))} goes with --lora")
        return None
    return {"rank": 16, **(below or {}), **given}


def add_model_values(values: dict[str, Any], args: argparse.Namespace, *more: str) -> None:
    """Put the command line's options of the model, and those named, over what `values` has. Raises without a model."""
    for name in ("model", "precision", "device", "chat_template", "gradient_checkpointing", *more):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    if "model" not in values:
        raise OptionError("give the model to train: --model ID, FOLDER, smollm2-135m or tiny")


def job_values(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration of a job: the command line's options over those of --config."""
    from paperworks.language.training import TrainOptions

    values = dict(args.config_values)
    values["objective"] = args.objective_class.name
    same = args.config_values.get("objective") in (None, args.objective_class.name)
    below = dict(args.config_values.get("options") or {}) if same else {}
    values["options"] = {**below, **given_options(args.objective_class, args)}
    values["training"] = {**(values.get("training") or {}), **given_options(TrainOptions, args)}
    source = values.get("data") or {}
    if getattr(args, "forget", None) is not None:
        if args.data is not None:
            raise OptionError("--forget and --data name the same thing, the rows to forget; give one of them")
        args.data = args.forget
    elif hasattr(args, "forget") and args.data is None and not source:
        raise OptionError("give the rows to forget: --forget FILE")
    values["data"] = data_values(args, source if isinstance(source, dict) else {"path": source})
    values["lora"] = lora_values(args, values.get("lora"))
    for name, (options, prefix, _) in _settings(args.objective_class).items():
        given = {**(values.get(name) or {}), **given_options(options, args, prefix)}
        values[name] = given or None
    add_model_values(values, args, "held_out", "eval_data", "objective_file")
    return values


def run(args: argparse.Namespace) -> int:
    family = getattr(args, "family", None)
    if family is not None:
        code: int = family.run(args)
        return code
    from paperworks.core.progress import Progress
    from paperworks.language.train_job import check_job, job_from_config, train_job

    job = job_from_config(job_values(args))
    out = args.out or (str(Path(args.config).parent) if args.resume and args.config else None)
    if args.resume and out is None:
        raise OptionError("--resume needs the folder of the run: --out DIR")
    if args.dry_run:
        check_out(args, out)
        check_job(job, out, resume=args.resume)
        return show_dry_run(job.config(), args)
    with Progress(quiet=args.quiet) as progress:
        result, folder = train_job(job, out, resume=args.resume, overwrite=args.overwrite, progress=progress)
    if _is_other_rank():
        return 0
    return show_result(args, result, folder, _next_commands(args.objective_class, relative(folder)))


def show_result(args: argparse.Namespace, result: Any, folder: Path, next_commands: Sequence[str]) -> int:
    """Say where the model and the report are and what comes next, or print the result as JSON."""
    import json

    if args.json:
        from paperworks.core.files import json_value

        summary = {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name != "held_out_values"}
        print(json.dumps(json_value({"folder": str(folder), **summary}), indent=2))
        return 0
    shown = relative(folder)
    print(f"\nmodel   {shown}/model")
    print(f"report  {shown}/report.html")
    for head, line in zip(("next", "", ""), next_commands, strict=False):
        print(f"{head:7} {line}")
    return 0


def _next_commands(cls: type[Any], folder: str) -> list[str]:
    """What users do with such a model."""
    from paperworks.language.data.schemas import Forget

    if cls.trains == "reward-model":
        return [
            f"paperworks evaluate reward --reward {folder} --data FILE",
            f'paperworks generate --model M --best-of 8 --reward {folder} --prompt "..."',
        ]
    if cls.schema is Forget:
        return [f"paperworks evaluate unlearning --model {folder} --forget FILE --retain FILE"]
    return [
        f'paperworks generate --model {folder} --prompt "..."',
        f"paperworks evaluate --model {folder} --data FILE",
    ]


def _is_other_rank() -> bool:
    import os

    return int(os.environ.get("RANK", "0")) != 0


def relative(folder: Path) -> str:
    """A folder as users would write it from here."""
    try:
        return str(folder.relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
