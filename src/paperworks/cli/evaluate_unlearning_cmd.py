"""`paperworks evaluate unlearning`: TOFU's protocol on one model or several: forget quality, utility, set by set."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from paperworks.core.errors import OptionError
from paperworks.core.options import Parser, add_dataclass_arguments, given_options, load_yaml

HELP = "Measure unlearning: forget quality against a retain-only model, and what is left of the model's use."
_SETS = {
    "forget": "questions the model is to have forgotten",
    "retain": "questions it is to answer as before",
    "real_authors": "questions about real authors",
    "world_facts": "questions about the world",
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command's arguments."""
    from paperworks.language.unlearning.protocol import UnlearningOptions

    parser = Parser(prog="paperworks evaluate unlearning", description=HELP)
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        nargs="+",
        action="extend",
        metavar="M",
        help="Hub ids, folders, smollm2-135m or tiny; one or several",
    )
    model.add_argument("--precision", choices=("float32", "bfloat16", "float16"), help="of the weights")
    model.add_argument("--device", help="auto, cpu, cuda, mps (default auto)")
    model.add_argument("--chat-template", metavar="FILE", help="a Jinja template file, for tokenizers without one")
    data = parser.add_argument_group(
        "data", "rows with question (or prompt), answer, paraphrased_answer and a list perturbed_answer"
    )
    for name, text in _SETS.items():
        data.add_argument(f"--{name.replace('_', '-')}", metavar="FILE", help=text)
    data.add_argument("--format", help="auto, plain, chat, hh or lol (default auto)")
    data.add_argument("--map", action="append", metavar="FIELD=COLUMN", help="where a field is found, repeatable")
    data.add_argument("--split", help="which split of a folder or Hub data set")
    data.add_argument("--bad-rows", choices=("error", "skip"), help="stop at a bad row, or skip and count")
    against = parser.add_argument_group("retain-only model (for forget quality)")
    only = against.add_mutually_exclusive_group()
    only.add_argument("--retain-log", metavar="LOG", help="its log: a file, or the --out folder of its evaluation")
    only.add_argument("--retain-model", metavar="M", help="the model itself, measured like the others")
    against.add_argument(
        "--require-forget-quality", action="store_true", default=None, help="stop where neither of them is given"
    )
    add_dataclass_arguments(parser, UnlearningOptions, group="measuring")
    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="DIR", help="keep the log, every question and the report in this run folder")
    run.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    run.add_argument("--config", metavar="FILE", help="a run.yaml to start from; options given here override it")
    run.add_argument("--quiet", action="store_true", help="no progress")
    run.add_argument("--json", action="store_true", help="a JSON object for programs")
    return parser.parse_args(argv)


def job_values(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration of a job: the command line's options over those of --config."""
    from paperworks.language.unlearning.protocol import UnlearningOptions

    values = load_yaml(args.config) if args.config else {}
    values["measure"] = {**(values.get("measure") or {}), **given_options(UnlearningOptions, args)}
    for name in _SETS:
        source = _source(args, getattr(args, name), values.get(name))
        if source is not None:
            values[name] = source
    for name in ("precision", "device", "chat_template", "retain_log", "retain_model", "require_forget_quality"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    if args.retain_log is not None:
        values.pop("retain_model", None)
    if args.retain_model is not None:
        values.pop("retain_log", None)
    if args.model:
        values["models"] = args.model
    if not values.get("models"):
        raise OptionError("give the model to measure: --model ID, FOLDER, smollm2-135m or tiny")
    if "forget" not in values:
        raise OptionError("give the questions to have been forgotten: --forget FILE")
    return values


def _source(args: argparse.Namespace, path: str | None, below: Any) -> Mapping[str, Any] | None:
    """The options of one set's DataSource: how rows are read is common to all sets."""
    from paperworks.language.data import parse_mapping

    source = dict(below) if isinstance(below, Mapping) else {} if below is None else {"path": below}
    if path is not None:
        source["path"] = path
    if not source:
        return None
    for name in ("format", "split", "bad_rows"):
        if getattr(args, name) is not None:
            source[name] = getattr(args, name)
    if args.map:
        source["mapping"] = parse_mapping(args.map)
    return source


def run(args: argparse.Namespace) -> int:
    from paperworks.core.progress import Progress, table
    from paperworks.language.unlearning import report as reports
    from paperworks.language.unlearning.unlearning_job import evaluate_unlearning_job, job_from_config

    job = job_from_config(job_values(args))
    with Progress(quiet=args.quiet) as progress:
        found = evaluate_unlearning_job(job, args.out, overwrite=args.overwrite, progress=progress)
    if args.json:
        import json

        from paperworks.core.files import json_value

        print(json.dumps(json_value(found.as_dict()), indent=2, ensure_ascii=False))
        return 0
    measured = [*found.reports, *([found.retain_only] if found.retain_only else [])]
    rows = [reports.summary_row(report) for report in found.reports]
    if found.retain_only is not None:
        rows.append(reports.summary_row(found.retain_only, f"{found.retain_only.model} (retain-only)"))
    table(rows, reports.SUMMARY_COLUMNS, right=reports.SUMMARY_COLUMNS[1:])
    print()
    for report in measured:
        table(reports.set_rows(report), reports.SET_COLUMNS, report.model, right=reports.SET_COLUMNS[1:])
        print()
    for line in reports.sentences(found):
        print(line)
    for note in found.notes:
        print(f"note: {note}")
    if args.out:
        print(f"kept in {args.out}: report.html, results.json, unlearning-log.json, items.jsonl")
    return 0
