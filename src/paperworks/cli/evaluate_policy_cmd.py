"""`paperworks evaluate policy --model DIR --env ID`: roll a control policy out and say what it earns."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

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
    parser.add_argument("--render", metavar="FILE.gif", help="also write one episode as a moving picture")
    logged = parser.add_argument_group("support", "which logged transition is nearest to each decision, and how near")
    logged.add_argument("--support", metavar="LOG", help="a log, as `train` takes it")
    logged.add_argument("--support-out", default="support.csv", metavar="FILE", help="a line a decision (support.csv)")
    scale = parser.add_argument_group("normalised score", "0 is a random policy, 100 a good one; D4RL's for its tasks")
    scale.add_argument("--random-return", type=float, metavar="R", help="the return that is 0")
    scale.add_argument("--best-return", type=float, metavar="R", help="the return that is 100")
    parser.add_argument("--json", action="store_true", help="a JSON object for programs")
    return parser.parse_args(list(argv))


def run(args: argparse.Namespace) -> int:
    import json

    from paperworks.control.environments import check_fits, roll_out, spaces_of
    from paperworks.control.multi_objective.environments import GymnasiumEnvironments, pays_a_vector, roll_out_vectors
    from paperworks.control.policy import ControlPolicy
    from paperworks.control.scores import reference_of
    from paperworks.control.support import Recorded
    from paperworks.core.statistics import bootstrap_mean

    for name, what in (("model", "the policy to roll out: --model DIR"), ("env", "where: --env ID")):
        if getattr(args, name) is None:
            raise OptionError(f"give {what}")
    if args.episodes < 1:
        raise OptionError(f"--episodes {args.episodes}: expected at least 1")
    scale = reference_of(args.env, args.random_return, args.best_return)
    policy = ControlPolicy.load(args.model)
    if pays_a_vector(args.env):
        if args.support is not None:
            raise OptionError(f"--support: not in {args.env}, which pays a vector of rewards")
        environments = GymnasiumEnvironments(args.env)
        vectors = roll_out_vectors(policy, environments, args.episodes, seed=args.seed)
        figures = {**dict(zip(environments.spaces.names, vectors.returns.T)), "length": vectors.lengths}
    else:
        check_fits(policy, spaces_of(args.env))
        act = Recorded(policy.acting(args.seed))
        found = roll_out(args.env, act, args.episodes, seed=args.seed)
        figures = {"return": found.returns, "length": found.lengths}
        figures |= {} if found.costs is None else {"cost": found.costs}
        figures |= {} if args.support is None else {"distance": supported(args, policy, act, found.lengths)}
        figures |= {} if scale is None else {"score": scale.score(found.returns)}
    intervals = {name: bootstrap_mean(values) for name, values in figures.items()}
    if args.render is not None:
        from paperworks.control.rendering import render

        render(args.env, policy.acting(args.seed), args.render, seed=args.seed)
    if args.json:
        shown = {name: vars(each) for name, each in intervals.items()}
        more = {"scale": vars(scale)} if "score" in shown and scale is not None else {}
        print(json.dumps({"environment": args.env, "episodes": args.episodes, **shown, **more}, indent=2))
        return 0
    width = 2 + max(map(len, [*intervals, "length"]))
    for name, each in intervals.items():
        print(f"{name:{width}}{each.mean:.4g} [{each.low:.4g}, {each.high:.4g}]  ({args.episodes} episodes)")
    if "score" in intervals and scale is not None:
        print(f"score: 0 is a return of {scale.random:g}, 100 one of {scale.best:g} ({scale.source})")
    if args.render is not None:
        print(f"episode {args.render}")
    if "distance" in intervals:
        print(f"support {args.support_out} (distance: of each episode's decisions to their nearest logged pairs, mean)")
    return 0


def supported(args: argparse.Namespace, policy: Any, act: Any, lengths: Any) -> Any:
    """Write which logged row supports each decision; returns the mean distance of every episode."""
    import numpy as np

    from paperworks.control.datasets import read_transitions
    from paperworks.control.support import support, write_support

    log = read_transitions(args.support)
    episodes, steps, states, actions = act.decisions(lengths)
    found = support(policy, log, states, actions=actions)
    write_support(args.support_out, episodes, steps, found)
    return np.bincount(episodes, found.distances) / np.bincount(episodes)
