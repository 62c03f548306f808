"""`paperworks train hnpg --data LOG --env ID`: learn a policy by acting, with a log's help; `train trpo` without one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paperworks.core.errors import OptionError
from paperworks.core.options import Parser, add_dataclass_arguments, given_options

METHODS = ("hnpg", "trpo")
"""The names of `control.hybrid.job.METHODS`, known here without torch."""


def is_meant(argv: Sequence[str], config: Mapping[str, Any]) -> bool:
    """Whether a training command is of such a method."""
    name = argv[0] if argv and not argv[0].startswith("-") else config.get("hybrid")
    return name is not None and str(name).lower() in METHODS


def parse(argv: Sequence[str], config: Mapping[str, Any]) -> argparse.Namespace:
    """The command's arguments; the method named decides which options there are."""
    given = argv[0] if argv and not argv[0].startswith("-") else None
    method = str(given or config["hybrid"]).lower()
    args = _parser(method).parse_args(list(argv) if given else [method, *argv])
    args.hybrid, args.config_values = method, dict(config)
    return args


def _parser(method: str) -> Parser:
    from paperworks.cli.train_cmd import add_run_arguments
    from paperworks.control.hybrid.job import options_of
    from paperworks.control.hybrid.training import HybridOptions

    options = options_of(method)
    parser = Parser(prog=f"paperworks train {method}", description=(options.__doc__ or "").strip().split("\n")[0])
    parser.add_argument("objective", metavar="METHOD", help="how to learn")
    where = parser.add_argument_group("environment and log")
    where.add_argument("--env", metavar="ID", help="a gymnasium environment whose episodes end")
    if method == "hnpg":
        where.add_argument("--data", metavar="LOG", help="an .npz, .hdf5 or .parquet file, or a Minari data set")
        where.add_argument("--limit", type=int, metavar="N", help="only the first N transitions")
    where.add_argument("--device", help="auto, cpu, cuda, mps (default auto)")
    add_run_arguments(parser)
    add_dataclass_arguments(parser, options, group=f"method {method}")
    add_dataclass_arguments(parser, HybridOptions, group="training")
    return parser


def job_values(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration of a job: the command line's options over those of --config."""
    from paperworks.control.hybrid.job import options_of
    from paperworks.control.hybrid.training import HybridOptions

    values = dict(args.config_values)
    if values.get("hybrid") not in (None, args.hybrid):
        raise OptionError(f"the configuration is of {values['hybrid']}, the command of {args.hybrid}")
    values["hybrid"] = args.hybrid
    for name, options in (("options", options_of(args.hybrid)), ("training", HybridOptions)):
        values[name] = {**(values.get(name) or {}), **given_options(options, args)}
    for name in ("data", "limit", "env", "device"):
        if getattr(args, name, None) is not None:
            values[name] = getattr(args, name)
    return values


def run(args: argparse.Namespace) -> int:
    import json

    from paperworks.cli.train_cmd import relative
    from paperworks.control.hybrid.job import hybrid_job, hybrid_job_from_config
    from paperworks.core.files import json_value
    from paperworks.core.progress import Progress

    job = hybrid_job_from_config(job_values(args))
    out = args.out or (str(Path(args.config).parent) if args.resume and args.config else None)
    if args.resume and out is None:
        raise OptionError("--resume needs the folder of the run: --out DIR")
    with Progress(quiet=args.quiet) as progress:
        result, folder = hybrid_job(job, out, resume=args.resume, overwrite=args.overwrite, progress=progress)
    if args.json:
        found = {"folder": str(folder), "evaluations": result.evaluations, "final": result.final}
        print(json.dumps(json_value(found), indent=2))
        return 0
    shown = relative(folder)
    policy = "policy" if len(result.policies) == 1 else f"policy-{job.training.seed} …"
    print(f"\npolicy  {shown}/{policy}\nreport  {shown}/report.html")
    print(f"next    paperworks evaluate policy --model {shown}/{policy.split()[0]} --env {job.env}")
    return 0
