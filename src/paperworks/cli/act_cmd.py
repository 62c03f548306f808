"""`paperworks act --model DIR --preference 0.7,0.3`: the policy of a front that suits a preference, and what it does."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from paperworks.core.errors import OptionError
from paperworks.core.options import Parser

HELP = "Choose a policy of a front by a preference over its objectives; act on an observation, or roll it out."


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command's arguments."""
    from paperworks.cli.train_fronts import with_negative_numbers

    parser = Parser(prog="paperworks act", description=HELP)
    parser.add_argument("--model", metavar="DIR", help="a run's folder, its archive, or a policy's")
    parser.add_argument(
        "--preference", type=_numbers, metavar="W,…", help="a weight of at least 0 an objective; they sum to 1"
    )
    parser.add_argument("--observation", type=_numbers, metavar="X,…", help="what is seen: prints the action")
    parser.add_argument("--env", metavar="ID", help="an environment to act in: prints the returns")
    parser.add_argument("--episodes", type=int, default=10, metavar="N", help="whole episodes there (default: 10)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the episodes' starts (default: 0)")
    parser.add_argument("--json", action="store_true", help="a JSON object for programs")
    words = list(argv)
    for option in ("--preference", "--observation"):
        words = with_negative_numbers(words, option)
    return parser.parse_args(words)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers, comma-separated") from None


def run(args: argparse.Namespace) -> int:
    import json

    from paperworks.core.files import json_value

    if args.model is None:
        raise OptionError("give the front, or the policy: --model DIR")
    if args.episodes < 1:
        raise OptionError(f"--episodes {args.episodes}: expected at least 1")
    policy, chosen = _chosen(args)
    found: dict[str, Any] = dict(chosen)
    if args.observation is not None:
        import numpy as np

        found["action"] = policy.act(np.asarray(args.observation, dtype=np.float32)).tolist()
    if args.env is not None:
        found |= _rolled(args, policy, tuple(found.get("returns", {})))
    if args.json:
        print(json.dumps(json_value(found), indent=2))
        return 0
    for name, value in found.items():
        print(f"{name:14}{_text(value)}")
    return 0


def _chosen(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The policy, and what is known of it."""
    from pathlib import Path

    from paperworks.control.multi_objective.fronts import DESCRIPTION, FOLDER, Front
    from paperworks.control.multi_objective.pareto import check_preference
    from paperworks.control.policy import ControlPolicy

    place = Path(args.model)
    if not any((folder / DESCRIPTION).is_file() for folder in (place, place / FOLDER)):
        if args.preference is not None:
            raise OptionError(f"--model {args.model}: no archive of policies there for a preference to choose from")
        return ControlPolicy.load(place), {"policy": str(place)}
    front = Front.load(place)
    if args.preference is None:
        even = ",".join(["…"] * len(front.names))
        raise OptionError(f"give a preference, --preference {even}: a weight for each of {', '.join(front.names)}")
    check_preference(args.preference, len(front.names))
    member = front.member_for(args.preference)
    utility = sum(weight * value for weight, value in zip(args.preference, member.returns, strict=True))
    known = {"policy": str(front.folder / member.name), "returns": dict(zip(front.names, member.returns, strict=True))}
    return front.policy_for(args.preference), {**known, "utility": utility}


def _rolled(args: argparse.Namespace, policy: Any, names: Sequence[str]) -> dict[str, Any]:
    """Mean returns, undiscounted, and their intervals."""
    from paperworks.control.multi_objective.environments import GymnasiumEnvironments, roll_out_vectors
    from paperworks.core.statistics import bootstrap_mean

    environments = GymnasiumEnvironments(args.env, names)
    found = roll_out_vectors(policy, environments, args.episodes, seed=args.seed)
    environments.close()
    named = zip(environments.spaces.names, found.returns.T, strict=True)
    return {
        "episodes": args.episodes,
        "rolled out": {name: vars(bootstrap_mean(values)) for name, values in named},
        "length": vars(bootstrap_mean(found.lengths)),
    }


def _text(value: Any) -> str:
    if isinstance(value, dict) and "mean" in value:
        return f"{value['mean']:.4g} [{value['low']:.4g}, {value['high']:.4g}]"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
