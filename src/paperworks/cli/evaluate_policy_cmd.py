"""`paperworks evaluate policy --model DIR --env ID`: roll a control policy out and say what it earns."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from paperworks.core.errors import OptionError
from paperworks.core.options import Parser

HELP = "Roll a control policy out in an environment: returns, lengths and costs, with 95% intervals."


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command's arguments."""
    parser = Parser(prog="paperworks evaluate policy", description=HELP)
    parser.add_argument("--model", metavar="DIR", help="a policy's folder, or the run's that trained it")
    parser.add_argument("--env", metavar="ID", help="a gymnasium environment")
    parser.add_argument("--episodes", type=int, default=20, metavar="N", help="whole episodes (default: 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the starts (default: 0)")
    parser.add_argument("--json", action="store_true", help="a JSON object for programs")
    return parser.parse_args(list(argv))


def run(args: argparse.Namespace) -> int:
    import json

    from paperworks.control.environments import check_fits, roll_out, spaces_of
    from paperworks.control.policy import ControlPolicy
    from paperworks.core.statistics import bootstrap_mean

    for name, what in (("model", "the policy to roll out: --model DIR"), ("env", "where: --env ID")):
        if getattr(args, name) is None:
            raise OptionError(f"give {what}")
    if args.episodes < 1:
        raise OptionError(f"--episodes {args.episodes}: expected at least 1")
    policy, spaces = ControlPolicy.load(args.model), spaces_of(args.env)
    check_fits(policy, spaces)
    found = roll_out(args.env, policy.acting(args.seed), args.episodes, seed=args.seed)
    figures = {"return": found.returns, "length": found.lengths}
    figures |= {} if found.costs is None else {"cost": found.costs}
    intervals = {name: bootstrap_mean(values) for name, values in figures.items()}
    if args.json:
        shown = {name: vars(each) for name, each in intervals.items()}
        print(json.dumps({"environment": args.env, "episodes": args.episodes, **shown}, indent=2))
        return 0
    for name, each in intervals.items():
        print(f"{name:8}{each.mean:.4g} [{each.low:.4g}, {each.high:.4g}]  ({args.episodes} episodes)")
    return 0
