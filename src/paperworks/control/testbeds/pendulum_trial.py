"""Arms of A2PR's experiment on the pendulum's logs: tuned on seeds of their own, learned for all logs at once, rolled out."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paperworks.control.learner import Learner
from paperworks.control.offline.a2pr import A2PR
from paperworks.control.offline.bc import BC
from paperworks.control.offline.iql import IQL
from paperworks.control.offline.prdc import PRDC
from paperworks.control.offline.td3_bc import TD3BC
from paperworks.control.testbeds.many_logs import Nets, Trained, best_point
from paperworks.control.testbeds.pendulum import Pendulum
from paperworks.control.testbeds.pendulum_logs import (
    GAMMA,
    MIXED,
    REWARD_SCALE,
    REWARD_SHIFT,
    SETS,
    Collectors,
    collectors,
    kept_log,
)
from paperworks.control.testbeds.worlds import roll
from paperworks.core.files import write_json_atomic
from paperworks.core.seeding import torch_generator
from paperworks.experiment.definition import Arm, Budget, Workspace

FIRST_TUNING_SEED = 1_000_000  # logs that choose a setting; no result comes from them
LAST = (0.8, 0.9, 1.0)  # parts of the run after which policies are rolled out
GUIDES = ("guide_generated", "guide_logged", "guide_none", "positive")

Point = Mapping[str, float]


@dataclass(frozen=True)
class Size:
    """How much is learned."""

    steps: int
    hidden: tuple[int, ...]
    batch_size: int
    log_episodes: int
    expert_steps: tuple[int, int]  # of the expert, and of the medium policy on its way
    tuning_seeds: int
    points: int  # of each grid
    episodes: int = 10  # of an evaluation
    evaluations: int = 3
    learning_rate: float = 1e-3
    tau: float = 0.02


SIZES: Mapping[Budget, Size] = {
    "smoke": Size(10, (8, 8), 16, 20, (20, 10), tuning_seeds=1, points=2, episodes=2, evaluations=1),
    "small": Size(2000, (32, 32), 64, 100, (2500, 1350), tuning_seeds=1, points=4),
    "full": Size(20_000, (128, 128), 256, 200, (2500, 1300), tuning_seeds=5, points=4, tau=0.005, learning_rate=3e-4),
}

ALPHAS: Sequence[Point] = tuple({"alpha": alpha} for alpha in (1.0, 2.5, 10.0, 40.0))


@dataclass(frozen=True)
class Recipe:
    """What an arm is: an algorithm, options that stay, and the grid of those that are tried."""

    kind: type[Learner]
    grid: Sequence[Point] = ({},)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)


RECIPES: Mapping[str, Recipe] = {
    "a2pr": Recipe(A2PR),
    "td3-bc": Recipe(TD3BC),
    "a2pr-tuned": Recipe(A2PR, ALPHAS),
    "td3-bc-tuned": Recipe(TD3BC, ALPHAS),
    "prdc": Recipe(PRDC, ALPHAS),
    "iql": Recipe(
        IQL, tuple({"expectile": e, "beta": b} for e, b in ((0.7, 3.0), (0.7, 10.0), (0.9, 10.0), (0.9, 30.0)))
    ),
    "bc": Recipe(BC),
    "best-bc": Recipe(BC, fixed={"best": 0.1}),
    "no-gate": Recipe(A2PR, fixed={"gate": False}),
    "no-candidate": Recipe(A2PR, fixed={"candidate": "none"}),
    "all-rows": Recipe(A2PR, fixed={"adv_threshold": -math.inf}),
    "detached": Recipe(A2PR, fixed={"detach_guide": True}),
}


def pendulum_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Tune the arm on logs of their own, learn from every seed's four logs side by side, swing."""
    torch.set_num_threads(1)
    return pendulum_trial(arm.name, seeds, SIZES[budget], workspace.folder)


def pendulum_trial(name: str, seeds: Sequence[int], size: Size, folder: Path) -> list[dict[str, Any]]:
    """What an arm reaches for every seed: the score on each set, what it believes, which guides it had."""
    known, point = collectors(folder, *size.expert_steps), tuned(name, size, folder)
    nets = _nets(RECIPES[name], known, seeds, [point], size, folder)
    trained, score, told = _learned(RECIPES[name], nets, known, size)
    error = value_error(trained, nets)
    found = []
    for number in range(len(seeds)):
        of_set = {each: place * len(seeds) + number for place, each in enumerate(SETS)}
        mixed = [of_set[each] for each in MIXED]
        found.append(
            {
                "score": float(score[mixed].mean()),
                **{f"score {each}": float(score[net]) for each, net in of_set.items()},
                "value_error": None if error is None else float(error[mixed].mean()),
                "point": dict(point),
                **{guide: [float(told[guide][net]) for net in of_set.values()] for guide in GUIDES if guide in told},
            }
        )
    return found


def tuned(name: str, size: Size, folder: Path) -> Point:
    """The point of the arm's grid with the highest mean score over all sets, on seeds of its own; kept in the folder."""
    recipe = RECIPES[name]
    points = recipe.grid[: size.points]
    if len(points) == 1:
        return points[0]
    file = folder / f"tuned-{name}-{size.steps}.json"
    if not file.is_file():
        known = collectors(folder, *size.expert_steps)
        seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + size.tuning_seeds)
        scores = _learned(recipe, _nets(recipe, known, seeds, points, size, folder), known, size)[1]
        tried = [[dict(point), float(mean)] for point, mean in zip(points, scores.view(len(points), -1).mean(1))]
        write_json_atomic(file, {"best": dict(best_point(points, scores)), "tried": tried})
    found: Point = json.loads(file.read_text(encoding="utf-8"))["best"]
    return found


def value_error(trained: Trained, nets: Nets) -> Tensor | None:
    """Mean over starts of Q_1(s, pi(s)) minus the discounted return that follows, in the world's units, [nets]."""
    critics = getattr(trained.learner, "critics", None)
    if critics is None:
        return None
    start = _starts(nets, 32, "value")
    states = trained.normalised(Pendulum().seen(start))
    with torch.no_grad():
        believed = critics.first(states, trained.learner.act(states))
    believed = (believed - REWARD_SHIFT / (1 - GAMMA)) / REWARD_SCALE
    return (believed - roll(Pendulum(), trained.acting(), start, gamma=GAMMA).returns).mean(1)


def _nets(
    recipe: Recipe, known: Collectors, seeds: Sequence[int], points: Sequence[Point], size: Size, folder: Path
) -> Nets:
    """Set by set, seed by seed, at every point."""
    logs = [kept_log(folder, known, name, seed, size.log_episodes) for name in SETS for seed in seeds]
    logs = [log.best_episodes(recipe.fixed.get("best", 1.0)) for log in logs]
    return Nets.grid(logs, list(seeds) * len(SETS), points)


def _learned(recipe: Recipe, nets: Nets, known: Collectors, size: Size) -> tuple[Trained, Tensor, dict[str, Tensor]]:
    """(the nets, their mean score over the last evaluations, what the last actor step told)."""
    fields = {field.name for field in dataclasses.fields(recipe.kind.options_class)}
    given: dict[str, Any] = {"learning_rate": size.learning_rate, "gamma": GAMMA, "tau": size.tau, **recipe.fixed}
    given |= dict.fromkeys(("hidden", "critic_hidden", "vae_hidden"), size.hidden)
    options = recipe.kind.options_class(**{name: value for name, value in given.items() if name in fields})
    trained = Trained(recipe.kind, options, nets, size.batch_size)
    scores, done, told = [], 0, dict[str, Tensor]()
    for number, part in enumerate(LAST[-size.evaluations :]):
        told, done = trained.learn(round(part * size.steps) - done), round(part * size.steps)
        returns = roll(Pendulum(), trained.acting(), _starts(nets, size.episodes, number)).returns
        scores.append(known.score(returns).mean(1))
    return trained, torch.stack(scores).mean(0), told


def _starts(nets: Nets, episodes: int, which: int | str) -> Tensor:
    """Where each net's episodes begin: its seed's, whichever its log or setting."""
    by_seed = {
        seed: Pendulum().start((episodes,), torch_generator(seed, "starts", which))
        for seed in dict.fromkeys(nets.seeds)
    }
    return torch.stack([by_seed[seed] for seed in nets.seeds])
