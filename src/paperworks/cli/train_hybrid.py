"""`paperworks train hnpg --data LOG --env ID`: learn a policy by acting, with a log's help; `train trpo` without one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paperworks.cli.control_runs import job_values, named, train_policies, with_name
from paperworks.core.options import Parser, add_dataclass_arguments

if TYPE_CHECKING:
    from paperworks.core.progress import Progress

METHODS = ("hnpg", "trpo")
"""The names of `control.hybrid.job.METHODS`, known here without torch."""


def is_meant(argv: Sequence[str], config: Mapping[str, Any]) -> bool:
    """Whether a training command is of such a method."""
    return named(argv, config, "hybrid") in METHODS


def parse(argv: Sequence[str], config: Mapping[str, Any]) -> argparse.Namespace:
    """The command's arguments; the method named decides which options there are."""
    method = named(argv, config, "hybrid") or ""
    args = _parser(method).parse_args(with_name(argv, method))
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


def run(args: argparse.Namespace) -> int:
    from paperworks.control.hybrid.job import check_job, hybrid_job, hybrid_job_from_config, options_of
    from paperworks.control.hybrid.training import HybridOptions

    groups = {"options": options_of(args.hybrid), "training": HybridOptions}
    job = hybrid_job_from_config(job_values(args, "hybrid", groups, ("data", "limit", "env", "device")))

    def work(out: str | None, progress: Progress) -> tuple[Any, Any]:
        return hybrid_job(job, out, resume=args.resume, overwrite=args.overwrite, progress=progress)

    return train_policies(args, job, work, lambda out: check_job(job, out, resume=args.resume))
