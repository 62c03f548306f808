"""`paperworks train sac --env ID`: learn a control policy by acting alone, without a log."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paperworks.cli.control_runs import job_values, named, train_policies, with_name
from paperworks.core.options import Parser, add_dataclass_arguments

if TYPE_CHECKING:
    from paperworks.core.progress import Progress

ALGORITHMS = ("sac", "td3", "online-dqn")
"""The names of `control.online.job.ACTING`, known here without torch."""


def is_meant(argv: Sequence[str], config: Mapping[str, Any]) -> bool:
    """Whether a training command is of such an algorithm."""
    return named(argv, config, "acting") in ALGORITHMS


def parse(argv: Sequence[str], config: Mapping[str, Any]) -> argparse.Namespace:
    """The command's arguments; the algorithm named decides which options there are."""
    name = named(argv, config, "acting") or ""
    args = _parser(name).parse_args(with_name(argv, name))
    args.acting, args.config_values = name, dict(config)
    return args


def _parser(name: str) -> Parser:
    from paperworks.cli.train_cmd import add_run_arguments
    from paperworks.control.online.job import ActingOptions, acting_learner

    learner = acting_learner(name)
    parser = Parser(prog=f"paperworks train {name}", description=(learner.__doc__ or "").strip().split("\n")[0])
    parser.add_argument("objective", metavar="ALGORITHM", help="how to learn")
    parser.add_argument("--env", metavar="ID", help="a gymnasium environment to act in")
    parser.add_argument("--device", help="auto, cpu, cuda, mps (default auto)")
    add_run_arguments(parser)
    add_dataclass_arguments(parser, learner.options_class, group=f"algorithm {name}")
    add_dataclass_arguments(parser, ActingOptions, group="training")
    return parser


def run(args: argparse.Namespace) -> int:
    from paperworks.control.online.job import (
        ActingOptions,
        acting_job,
        acting_job_from_config,
        acting_learner,
        check_job,
    )

    groups = {"options": acting_learner(args.acting).options_class, "training": ActingOptions}
    job = acting_job_from_config(job_values(args, "acting", groups, ("env", "device")))

    def work(out: str | None, progress: Progress) -> tuple[Any, Any]:
        return acting_job(job, out, resume=args.resume, overwrite=args.overwrite, progress=progress)

    return train_policies(args, job, work, lambda out: check_job(job, out, resume=args.resume))
