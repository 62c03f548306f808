"""`paperworks train ALGORITHM --data LOG`: learn a control policy from logged transitions."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperworks.core.errors import OptionError, did_you_mean
from paperworks.core.options import Parser, add_dataclass_arguments, given_options

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
    """Whether a training command is of an algorithm for logs. Raises OptionError for an unknown one with --env."""
    name = argv[0] if argv and not argv[0].startswith("-") else config.get("algorithm")
    known = (*ALGORITHMS, *DISCRETE_ALGORITHMS, *SAFE_ALGORITHMS)
    is_known = name is not None and str(name).lower().replace("_", "-") in known
    if not is_known and any(word == "--env" or word.startswith("--env=") for word in argv):
        from paperworks.cli.train_fronts import SEARCHES

        hint = did_you_mean(str(name), (*known, *SEARCHES))
        raise OptionError(f"train {name}: no algorithm for logs of that name{hint}")
    return is_known


def parse(argv: Sequence[str], config: Mapping[str, Any]) -> argparse.Namespace:
    """The command's arguments; the algorithm named decides which options there are."""
    from paperworks.control.offline import offline_learner

    given = argv[0] if argv and not argv[0].startswith("-") else None
    learner = offline_learner(str(given or config["algorithm"]).lower().replace("_", "-"))
    args = _parser(learner).parse_args(list(argv) if given else [learner.name, *argv])
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


def job_values(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration of a job: the command line's options over those of --config."""
    from paperworks.control.offline import offline_learner
    from paperworks.control.training import ControlOptions

    values = dict(args.config_values)
    if values.get("algorithm") not in (None, args.algorithm):
        raise OptionError(f"the configuration is of {values['algorithm']}, the command of {args.algorithm}")
    values["algorithm"] = args.algorithm
    for name, options in (("options", offline_learner(args.algorithm).options_class), ("training", ControlOptions)):
        values[name] = {**(values.get(name) or {}), **given_options(options, args)}
    for name in ("data", "limit", "env", "device"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    return values


def run(args: argparse.Namespace) -> int:
    import json

    from paperworks.cli.train_cmd import relative
    from paperworks.control.job import control_job, control_job_from_config
    from paperworks.core.files import json_value
    from paperworks.core.progress import Progress

    values = job_values(args)
    if args.collect is not None:
        if values.get("data"):
            raise OptionError("--collect stands in place of --data: give one of them")
        values |= {"data": "collected", "env": values.get("env") or args.collect}
    job = control_job_from_config(values)
    out = args.out or (str(Path(args.config).parent) if args.resume and args.config else None)
    if args.resume and out is None:
        raise OptionError("--resume needs the folder of the run: --out DIR")
    with Progress(quiet=args.quiet) as progress:
        if args.collect is not None:
            job = _on_collected(job, args, progress)
        result, folder = control_job(job, out, resume=args.resume, overwrite=args.overwrite, progress=progress)
    if args.json:
        found = {"folder": str(folder), "evaluations": result.evaluations, "final": result.final}
        print(json.dumps(json_value(found), indent=2))
        return 0
    shown = relative(folder)
    policy = "policy" if len(result.policies) == 1 else f"policy-{job.training.seed} …"
    print(f"\npolicy  {shown}/{policy}\nreport  {shown}/report.html")
    print(f"next    paperworks evaluate policy --model {shown}/{policy.split()[0]} --env {job.env or 'ID'}")
    return 0


def _on_collected(job: ControlJob, args: argparse.Namespace, progress: Progress) -> ControlJob:
    """The job on a log that is collected first, if it is not there yet."""
    from paperworks.control.collection import CollectOptions
    from paperworks.control.collection_job import log_for

    asked = {"steps": args.collect_steps, "transitions": args.collect_transitions}
    options = CollectOptions(**{name: value for name, value in asked.items() if value is not None})
    return dataclasses.replace(job, data=log_for(args.collect, args.policy or "medium", options, progress))
