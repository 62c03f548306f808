"""Arms of PRDC's experiment in LineWorld: tuned on seeds of their own, learned for all logs at once, walked from 21 starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from paperworks.control.learner import Learner
from paperworks.control.offline.bc import BC
from paperworks.control.offline.iql import IQL
from paperworks.control.offline.prdc import PRDC
from paperworks.control.offline.td3 import TD3
from paperworks.control.offline.td3_bc import TD3BC
from paperworks.control.testbeds.line_world import LENGTH, LineWorld, line_log, starts
from paperworks.control.testbeds.many_logs import Nets, Trained, best_point
from paperworks.control.testbeds.worlds import roll
from paperworks.core.plots import Curve, lines
from paperworks.core.statistics import bootstrap_mean
from paperworks.experiment.definition import Arm, Budget, Workspace
from paperworks.experiment.results import Results

GOOD = (0.8, 0.5, 0.3, 0.2, 0.1)  # shares of the line in which the right way was logged
GAMMA = 0.97
SHOWN = "0.3"  # the share whose policies are drawn
FIRST_TUNING_SEED = 1_000_000  # logs that choose a setting; no result comes from them

Point = Mapping[str, float]


@dataclass(frozen=True)
class Size:
    """How much is learned."""

    steps: int
    hidden: tuple[int, ...]
    learning_rate: float
    tau: float
    batch_size: int
    tuning_seeds: int
    points: int  # of each grid


SIZES: Mapping[Budget, Size] = {
    "smoke": Size(30, (16, 16), 2e-3, 0.05, 32, tuning_seeds=1, points=2),
    "small": Size(3000, (32, 32), 2e-3, 0.05, 64, tuning_seeds=2, points=4),
    "full": Size(20_000, (64, 64), 5e-4, 0.01, 256, tuning_seeds=5, points=4),
}

KINDS: Mapping[str, type[Learner]] = {"bc": BC, "td3": TD3, "td3-bc": TD3BC, "iql": IQL, "prdc": PRDC}
ALPHAS: Sequence[Point] = tuple({"alpha": alpha} for alpha in (0.5, 1.0, 2.5, 5.0))
GRIDS: Mapping[str, Sequence[Point]] = {
    "td3-bc": ALPHAS,
    "prdc": ALPHAS,
    "iql": tuple({"expectile": e, "beta": b} for e, b in ((0.7, 3.0), (0.9, 10.0), (0.9, 30.0), (0.95, 100.0))),
}
"""What each arm tries; plain TD3 and BC have nothing to try."""


def line_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Tune the arm on logs of their own, learn from every seed's five logs side by side, walk."""
    torch.set_num_threads(1)
    return line_trial(arm.name, seeds, SIZES[budget])


def line_trial(name: str, seeds: Sequence[int], size: Size) -> list[dict[str, Any]]:
    """What an arm reaches for every seed: success at each share of good places and over all, what it believes, and why."""
    point = _tuned(name, size)
    nets = Nets.grid(*_logs(seeds), [point])
    trained = _trained(name, nets, size)
    success, error = success_of(trained, len(nets)), value_error(trained, len(nets))
    places = torch.linspace(0, LENGTH, 101)[:, None]
    ahead = trained.acting()(places.expand(len(nets), -1, -1))[..., 0]
    found = []
    for number in range(len(seeds)):
        mine = [at * len(seeds) + number for at in range(len(GOOD))]
        by_share = {f"success_{good:g}": float(success[net]) for good, net in zip(GOOD, mine, strict=True)}
        found.append(
            {
                **by_share,
                "success": float(success[mine].mean()),
                "value_error": None if error is None else float(error[mine].mean()),
                "point": dict(point),
                "ahead": {f"{good:g}": ahead[net].tolist() for good, net in zip(GOOD, mine, strict=True)},
            }
        )
    return found


def success_of(trained: Trained, nets: int) -> Tensor:
    """Share of 21 starts from which each net arrives, [nets]."""
    return roll(LineWorld(), trained.acting(), starts().expand(nets, -1, -1)).terminated.float().mean(1)


def value_error(trained: Trained, nets: int) -> Tensor | None:
    """Mean over starts of Q_1(s, pi(s)) minus the discounted return that follows, [nets]; None without critics."""
    critics = getattr(trained.learner, "critics", None)
    if critics is None:
        return None
    begin = starts().expand(nets, -1, -1)
    states = trained.normalised(begin)
    with torch.no_grad():
        believed = critics.first(states, trained.learner.act(states))
    return (believed - roll(LineWorld(), trained.acting(), begin, gamma=GAMMA).returns).mean(1)


def _tuned(name: str, size: Size) -> Point:
    """The point of the arm's grid with the highest success, over all shares, in logs of their own."""
    points = GRIDS.get(name, ({},))[: size.points]
    if len(points) == 1:
        return points[0]
    seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + size.tuning_seeds)
    nets = Nets.grid(*_logs(seeds), points)
    return best_point(points, success_of(_trained(name, nets, size), len(nets)))


def _logs(seeds: Sequence[int]) -> tuple[list[Any], list[int]]:
    """Logs and their seeds: share by share, seed by seed."""
    return [line_log(good, seed) for good in GOOD for seed in seeds], list(seeds) * len(GOOD)


def _trained(name: str, nets: Nets, size: Size) -> Trained:
    kind = KINDS[name]
    tau = {} if kind is BC else {"tau": size.tau}
    options = kind.options_class(hidden=size.hidden, learning_rate=size.learning_rate, gamma=GAMMA, **tau)
    trained = Trained(kind, options, nets, size.batch_size)
    trained.learn(size.steps)
    return trained


def line_figures(results: Results, labels: Mapping[str, str]) -> list[tuple[str, str]]:
    """Success against the share of good places, and what each arm does along the line for one seed."""
    curves, ahead = {}, {}
    for arm, label in labels.items():
        cells = results.cells_of("A", arm)
        if not cells:
            continue
        found = [bootstrap_mean([cell.value(f"success_{good:g}") for cell in cells]) for good in GOOD]
        curves[label] = Curve(GOOD, *([getattr(each, name) for each in found] for name in ("mean", "low", "high")))
        ahead[label] = Curve([LENGTH * at / 100 for at in range(101)], cells[0].metrics["ahead"][SHOWN])
    if not curves:
        return []
    success = lines(curves, "share of the line where the right way was logged", "success", x_ticks=sorted(GOOD))
    along = lines(ahead, "place", "action ahead", markers=False)
    return [
        (success, "share of 21 starts from which the policy arrives; bands are 95% intervals over seeds"),
        (along, f"what the first seed's policies do along the line; right way logged in a share of {SHOWN}"),
    ]
