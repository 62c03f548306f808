"""The trial of C-MORL: searches for known fronts at equal steps, each arm's options chosen on searches of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from paperworks.control.multi_objective.c_morl import CMORL
from paperworks.control.multi_objective.environments import VectorWorld, WorldEnvironments
from paperworks.control.multi_objective.pareto import (
    SampledVolume,
    expected_utility,
    hypervolume,
    simplex_grid,
    sparsity,
)
from paperworks.control.multi_objective.search import FrontSearch, Trainer
from paperworks.control.multi_objective.weighted_sum import WeightedSum
from paperworks.control.testbeds.vector_worlds import CircleBandit, DeepSea, FruitTree
from paperworks.experiment.definition import Arm, Budget, Workspace

FIRST_TUNING_SEED = 1_000_000
TUNING_SEEDS: Mapping[Budget, int] = {"smoke": 0, "small": 2, "full": 5}
CURVE_POINTS = 20
NEAR = 1e-3  # of a true point, in every objective

METHODS: Mapping[str, type[FrontSearch]] = {each.name: each for each in (CMORL, WeightedSum)}
Grid = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Task:
    """A world whose front is known, and what searches have in common there."""

    make: Callable[[], Any]
    reference: tuple[float, ...]
    steps: Mapping[Budget, int]
    init_share: float  # of the steps, of stage 1
    utility_parts: int  # of the grid of preferences
    learning_rates: Sequence[float]
    options: Mapping[str, Any]
    own: Mapping[str, Grid]  # an arm's own grid, by its name

    @property
    def world(self) -> VectorWorld:
        made: VectorWorld = self.make()
        return made

    def grid(self, arm: str) -> Grid:
        """The settings that an arm is tuned over: six each."""
        return [{"learning_rate": rate, **own} for rate in self.learning_rates for own in self.own[arm]]


SHARED: Mapping[str, Any] = {"eval_episodes": 1, "evaluate_every": 1, "epochs": 4, "gamma": 0.99, "weight_step": 1.0}


def _grid(name: str, values: Sequence[float]) -> Grid:
    return tuple({name: value} for value in values)


def _extended(legs: Sequence[int]) -> dict[str, Grid]:
    plain = dict.fromkeys(("c-morl", "random", "unconstrained", "official"), _grid("updates_a_leg", legs))
    return {**plain, "cpo": tuple({"max_kl": each, "updates_a_leg": legs[1]} for each in (0.03, 0.1, 0.3))}


CIRCLE = Task(
    CircleBandit, (-0.01, -0.01), {"smoke": 2000, "small": 10_000, "full": 10_000}, 0.2, 20, (3e-3, 1e-2),
    {**SHARED, "hidden": (16,), "rollout_steps": 1, "copies": 64, "minibatches": 2, "normalise_states": False},
    {**_extended((5, 10, 20)), "ends": _grid("entropy", (0.0, 0.01, 0.03)),
     "weighted-sum": _grid("policies", (5, 10, 20))},
)  # fmt: skip


def _sea(map: Any) -> Task:
    return Task(
        lambda: DeepSea(map), (0.0, -25.0), {"smoke": 2000, "small": 12_000, "full": 50_000}, 0.4, 20, (3e-3, 1e-2),
        {**SHARED, "hidden": (32, 32), "rollout_steps": 32, "copies": 4, "minibatches": 4},
        {**_extended((3, 5, 10)), "ends": _grid("entropy", (0.0, 0.01, 0.03)),
         "weighted-sum": _grid("policies", (3, 5, 10))},
    )  # fmt: skip


SEAS = {"convex": _sea("convex"), "concave": _sea("concave")}
TREE = Task(
    FruitTree, (-1.0,) * 6, {"smoke": 3000, "small": 60_000, "full": 200_000}, 0.25, 4, (1e-2, 3e-2),
    {**SHARED, "hidden": (32, 32), "rollout_steps": 6, "copies": 8, "minibatches": 2},
    {**_extended((3, 5, 10)), "stage-1": _grid("weight_step", (1 / 2, 1 / 3, 1 / 4)),
     "weighted-sum": _grid("policies", (40, 80, 160))},
)  # fmt: skip


def circle_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A."""
    if arm.name == "four":
        names = ("hypervolume", "utility", "found", "sparsity", "steps", "learning_rate", "chosen")
        return [{"interior": 4.0, **dict.fromkeys(names, math.nan)} for _ in seeds]
    found = _searched(CIRCLE, arm, seeds, budget)
    return [{**each, "interior": each["found"] - each["ends"]} for each in found]


def sea_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part B."""
    return _searched(SEAS[setting], arm, seeds, budget)


def tree_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part C."""
    return _searched(TREE, arm, seeds, budget)


def _searched(task: Task, arm: Arm, seeds: Sequence[int], budget: Budget) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    chosen = _chosen(task, arm, budget)
    searches = search(task, arm, task.grid(arm.name)[chosen], seeds, budget)
    learning_rate = float(task.grid(arm.name)[chosen]["learning_rate"])
    return [
        {**measured(task, each, budget), "chosen": float(chosen), "learning_rate": learning_rate} for each in searches
    ]


def _chosen(task: Task, arm: Arm, budget: Budget) -> int:
    """Which settings of the arm's grid reach the highest mean hypervolume on the tuning seeds."""
    seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS[budget])
    if not seeds:
        return 0
    volume, reached = volume_of(task), []
    for settings in task.grid(arm.name):
        found = search(task, arm, settings, seeds, budget)
        reached.append(float(np.mean([volume(each.archive.points) for each in found])))
    return int(np.argmax(reached))


def search(task: Task, arm: Arm, options: Mapping[str, Any], seeds: Sequence[int], budget: Budget) -> list[FrontSearch]:
    """Searches of an arm, a seed each, to their end."""
    method, world, steps = METHODS[arm.options["method"]], task.world, task.steps[budget]
    given = {**task.options, "steps": steps, **arm.options.get("given", {}), **options}
    if method is CMORL:
        given["init_steps"] = int(task.init_share * steps)
    made = method.options_class(**given)
    searches = [method(made, world.spaces, task.reference, seed) for seed in seeds]
    trainer = Trainer(searches, WorldEnvironments(world), WorldEnvironments(world))
    while trainer.leg():
        pass
    return searches


def volume_of(task: Task) -> Callable[[ndarray], float]:
    """The hypervolume as a share of the true front's; beyond three objectives on fixed points below its best ones."""
    front = true_front(task)
    reference = np.asarray(task.reference)
    if front.shape[1] <= 3:
        return lambda points: hypervolume(points, reference) / hypervolume(front, reference)
    sampled = SampledVolume(task.reference, front.max(0).tolist(), samples=50_000)
    whole = sampled(front)
    return lambda points: sampled(points) / whole


def true_front(task: Task) -> Float[ndarray, "points objectives"]:
    """What there is to find."""
    world: Any = task.world
    found: ndarray = world.front(0.99)
    return found


def measured(task: Task, found: FrontSearch, budget: Budget) -> dict[str, Any]:
    """The figures of a finished search, and its way there."""
    front, points, volume = true_front(task), found.archive.points, volume_of(task)
    weights = simplex_grid(front.shape[1], task.utility_parts)
    is_found = _is_found(front, points)
    extremes = np.unique(front.argmax(0))
    grid = np.linspace(0, task.steps[budget], CURVE_POINTS + 1)[1:]
    return {
        "hypervolume": volume(points),
        "utility": expected_utility(points, weights) / expected_utility(front, weights),
        "found": float(is_found.sum()),
        "ends": float(is_found[extremes].sum()),
        "sparsity": sparsity(points),
        "steps": float(found.steps),
        "curve_steps": grid.tolist(),
        "curve_hypervolume": [volume(_front_at(found, steps)) for steps in grid],
        "points": points.tolist() if front.shape[1] == 2 else [],
        "selections": [[list(each) for each in chosen] for _, chosen in getattr(found, "selections", [])],
    }


def _is_found(front: ndarray, points: ndarray) -> ndarray:
    apart = np.abs(front[:, None] - points[None]).max(-1)
    found: ndarray = apart.min(1, initial=np.inf) < NEAR
    return found


def _front_at(found: FrontSearch, steps: float) -> ndarray:
    """The archive after the last leg that had ended by then."""
    earlier = [points for used, points in found.curve if used <= steps]
    return np.asarray(earlier[-1] if earlier else [], dtype=np.float64).reshape(-1, found.spaces.objectives)
