"""`paperworks collect ENV`: logs of a gymnasium environment at several levels of quality, as Minari data sets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from paperworks.core.errors import OptionError
from paperworks.core.options import Parser, add_dataclass_arguments, given_options

HELP = "Train a behaviour policy in an environment and log it: random, medium, replay, expert, medium-expert, mixed."


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command's arguments."""
    from paperworks.control.collection import CollectOptions

    parser = Parser(prog="paperworks collect", description=HELP)
    parser.add_argument("env", nargs="?", metavar="ENV", help="a gymnasium environment")
    parser.add_argument(
        "--policy", default="random,medium,expert,mixed", metavar="LEVELS", help="which logs (default: %(default)s)"
    )
    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/collect-ENV-TIME)")
    run.add_argument(
        "--resume", action="store_true", help="go on with the collection in --out; more levels may be asked"
    )
    run.add_argument("--overwrite", action="store_true", help="replace what is in --out")
    run.add_argument("--quiet", action="store_true", help="no progress")
    run.add_argument("--json", action="store_true", help="a JSON object for programs")
    add_dataclass_arguments(parser, CollectOptions, group="behaviour policy and logs")
    return parser.parse_args(list(argv))


def run(args: argparse.Namespace) -> int:
    import json

    from paperworks.cli.train_cmd import relative
    from paperworks.control.collection import CollectOptions, levels_of
    from paperworks.control.collection_job import collection_job
    from paperworks.control.environments import spaces_of
    from paperworks.control.policy import DiscreteActions
    from paperworks.core.progress import Progress

    if args.env is None:
        raise OptionError("collect: name an environment: paperworks collect ENV, as Pendulum-v1")
    if args.resume and args.out is None:
        raise OptionError("--resume needs the folder of the collection: --out DIR")
    options = CollectOptions(**given_options(CollectOptions, args))
    with Progress(quiet=args.quiet) as progress:
        folder, logs = collection_job(
            args.env, levels_of(args.policy), options, args.out, resume=args.resume, overwrite=args.overwrite,
            progress=progress,
        )  # fmt: skip
    if args.json:
        print(json.dumps({"folder": str(folder), "logs": logs}, indent=2))
        return 0
    print()
    for each in logs:
        print(
            f"{each['level']:14} {each['transitions']:>8} transitions, {each['episodes']:>5} episodes, return "
            f"{each['return_mean']:.4g} ({each['return_low']:.4g} to {each['return_high']:.4g})"
        )
    print(f"\nlogs  {relative(folder)}/datasets")
    method = "discrete-cql" if isinstance(spaces_of(args.env).bounds, DiscreteActions) else "td3-bc"
    print(f"next  paperworks train {method} --data {relative(folder)}/datasets/{logs[-1]['level']} --env {args.env}")
    return 0
