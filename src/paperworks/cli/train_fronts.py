"""`paperworks train c-morl --env ID --reference-point X,Y`: a front of policies for an environment with several rewards."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from paperworks.cli.control_runs import folder_of, job_values, named, with_name
from paperworks.cli.dry_run import check_out, show_dry_run
from paperworks.core.options import Parser, add_dataclass_arguments

SEARCHES = ("c-morl", "weighted-sum")
"""The names of `control.multi_objective.front_job.SEARCHES`, known here without torch."""


def is_meant(argv: Sequence[str], config: Mapping[str, Any]) -> bool:
    """Whether a training command is of a search for a front."""
    return named(argv, config, "search") in SEARCHES


def parse(argv: Sequence[str], config: Mapping[str, Any]) -> argparse.Namespace:
    """The command's arguments; the search named decides which options there are."""
    from paperworks.control.multi_objective.front_job import front_search

    search = front_search(named(argv, config, "search") or "")
    args = _parser(search).parse_args(with_negative_numbers(with_name(argv, search.name), "--reference-point"))
    args.search, args.config_values = search.name, dict(config)
    return args


def with_negative_numbers(words: Sequence[str], option: str) -> list[str]:
    """The words with the option's value joined to it, so that -100,-100 is not taken for an option."""
    out: list[str] = []
    for word in words:
        if out and out[-1] == option and word[:1] == "-" and word[1:2] in tuple("0123456789."):
            out[-1] = f"{option}={word}"
        else:
            out.append(word)
    return out


def _parser(search: Any) -> Parser:
    from paperworks.cli.train_cmd import add_run_arguments
    from paperworks.control.multi_objective.front_job import FrontOptions

    parser = Parser(prog=f"paperworks train {search.name}", description=(search.__doc__ or "").strip().split("\n")[0])
    parser.add_argument("objective", metavar="SEARCH", help="how the front is sought")
    parser.add_argument("--env", metavar="ID", help="an environment that pays a vector, as mo-gymnasium's")
    add_run_arguments(parser)
    add_dataclass_arguments(parser, FrontOptions, group="front")
    add_dataclass_arguments(parser, search.options_class, group=f"search {search.name}")
    return parser


def run(args: argparse.Namespace) -> int:
    import json

    from paperworks.cli.train_cmd import relative
    from paperworks.control.multi_objective.front_job import (
        FrontOptions,
        front_job,
        front_job_from_config,
        front_search,
        prepared,
    )
    from paperworks.control.multi_objective.pareto import even_preference
    from paperworks.core.files import json_value
    from paperworks.core.progress import Progress

    groups = {"options": front_search(args.search).options_class, "front": FrontOptions}
    job, out = front_job_from_config(job_values(args, "search", groups, ("env",))), folder_of(args)
    if args.dry_run:
        check_out(args, out)
        environments, _ = prepared(job, out, resume=args.resume)
        environments.close()
        return show_dry_run(job.config(), args)
    with Progress(quiet=args.quiet) as progress:
        front, folder = front_job(job, out, resume=args.resume, overwrite=args.overwrite, progress=progress)
    if args.json:
        members = [vars(member) for member in front.members]
        print(json.dumps(json_value({"folder": str(folder), "objectives": front.names, "front": members}), indent=2))
        return 0
    shown = relative(folder)
    print(f"\nfront   {shown}/archive/archive.csv ({len(front.members)} policies)\nreport  {shown}/report.html")
    even = even_preference(len(front.names))
    print(f"next    paperworks act --model {shown} --preference {even} --env {job.env}")
    return 0
