"""`paperworks train ALGORITHM --data LOG`: learn a control policy from logged transitions."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paperworks.cli.control_runs import job_values, named, train_policies, with_name
from paperworks.core.errors import OptionError
from paperworks.core.options import Parser, add_dataclass_arguments

if TYPE_CHECKING:
    from paperworks.control.job import ControlJob
    from paperworks.core.progress import Progress

ALGORITHMS = ("bc", "td3-bc", "cql", "iql", "awac", "prdc", "a2pr", "bcq", "famo2o")
"""The names of `control.offline.OFFLINE`, known here without torch."""

DISCRETE_ALGORITHMS = ("discrete-bc", "dqn", "qr-dqn", "rem", "bve", "mce", "discrete-bcq", "discrete-cql", "crr")
"""Those of `control.discrete.DISCRETE`, for actions that are whole numbers."""

SAFE_ALGORITHMS = ("fisor", "cql-lagrangian", "iql-lagrangian", "bcq-lagrangian")
"""Those of `control.safe.SAFE`, for logs with costs or a constraint."""


def is_meant(argv: Sequence[str], config: Mapping[str, Any]) -> bool:
    """Whether a training command is of an algorithm for logs."""
    return named(argv, config, "algorithm") in (*ALGORITHMS, *DISCRETE_ALGORITHMS, *SAFE_ALGORITHMS)


def parse(argv: Sequence[str], config: Mapping[str, Any]) -> argparse.Namespace:
    """The command's arguments; the algorithm named decides which options there are."""
    from paperworks.control.offline import offline_learner

    learner = offline_learner(named(argv, config, "algorithm") or "")
    args = _parser(learner).parse_args(with_name(argv, learner.name))
    args.algorithm, args.config_values = learner.name, dict(config)
    return args


def _parser(learner: Any) -> Parser:
    from paperworks.cli.train_cmd import add_run_arguments
    from paperworks.control.training import ControlOptions

    parser = Parser(prog=f"paperworks train {learner.name}", description=(learner.__doc__ or "").strip().split("\n")[0])
    parser.add_argument("objective", metavar="ALGORITHM", help="how to learn")
    data = parser.add_argument_group("log")
    data.add_argument(
        "--data",
        metavar="LOG",
        help="an .npz, .hdf5 or .parquet file with observations, actions, rewards, terminations, truncations (D4RL's names "
        "too), or a Minari data set by id or folder",
    )
    data.add_argument(
        "--collect", metavar="ENV", help="in place of --data: train a behaviour policy in ENV here, once, and log it"
    )
    data.add_argument(
        "--policy", metavar="LEVEL", help="of the log collected: random, medium, replay, expert, medium-expert, mixed"
    )
    data.add_argument("--collect-steps", type=int, metavar="N", help="of the behaviour policy (default 100000)")
    data.add_argument("--collect-transitions", type=int, metavar="N", help="of the log collected (default 100000)")
    data.add_argument("--limit", type=int, metavar="N", help="only the first N transitions")
    data.add_argument(
        "--env", metavar="ID", help="a gymnasium environment: its bounds are checked, policies are rolled out"
    )
    data.add_argument("--device", help="auto, cpu, cuda, mps (default auto)")
    add_run_arguments(parser)
    add_dataclass_arguments(parser, learner.options_class, group=f"algorithm {learner.name}")
    add_dataclass_arguments(parser, ControlOptions, group="training")
    return parser


def run(args: argparse.Namespace) -> int:
    from paperworks.control.environments import spaces_of
    from paperworks.control.job import check_job, control_job, control_job_from_config, read_log
    from paperworks.control.offline import offline_learner
    from paperworks.control.training import ControlOptions

    groups = {"options": offline_learner(args.algorithm).options_class, "training": ControlOptions}
    values = job_values(args, "algorithm", groups, ("data", "limit", "env", "device"))
    if args.collect is not None:
        if values.get("data"):
            raise OptionError("--collect stands in place of --data: give one of them")
        values |= {"data": "collected", "env": values.get("env") or args.collect}
    job = control_job_from_config(values)

    def work(out: str | None, progress: Progress) -> tuple[Any, Any]:
        whole = job if args.collect is None else _on_collected(job, args, progress)
        return control_job(whole, out, resume=args.resume, overwrite=args.overwrite, progress=progress)

    def check(out: str | None) -> None:
        check_job(job, out, resume=args.resume)
        if args.collect is None:
            read_log(job)
        else:  # the log is not there yet, and collecting one is work
            spaces_of(args.collect)

    return train_policies(args, job, work, check)


def _on_collected(job: ControlJob, args: argparse.Namespace, progress: Progress) -> ControlJob:
    """The job on a log that is collected first, if it is not there yet."""
    from paperworks.control.collection import CollectOptions
    from paperworks.control.collection_job import log_for

    asked = {"steps": args.collect_steps, "transitions": args.collect_transitions}
    options = CollectOptions(**{name: value for name, value in asked.items() if value is not None})
    return dataclasses.replace(job, data=log_for(args.collect, args.policy or "medium", options, progress))
