"""The cells of HNPG's experiment: each arm with the grid point that does best in locks of its own, then every seed's lock."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.control.hybrid.hac import Cells, TabularLog, evaluate, softmax_step
from paperworks.control.hybrid.hnpg import HNPGOptions, TRPOOptions
from paperworks.control.hybrid.rlpd import RLPDOptions
from paperworks.control.testbeds import comblock_trial
from paperworks.control.testbeds.comblock import Comblock
from paperworks.control.testbeds.comblock_trial import Course
from paperworks.control.testbeds.tabular_lock import TabularLock
from paperworks.experiment.definition import Arm, Budget, Workspace

FIRST_TUNING_SEED = 1_000_000  # locks that only choose grid points; no result comes from them
BLIND = "blind, "  # latent states look alike, so that what bootstraps cannot be right

ETAS = (4.0, 16.0, 64.0)
TABULAR_EPISODES, TABULAR_LOG = 200, 5000
TABULAR_ITERATIONS = {"smoke": 3, "small": 60, "full": 400}

MAX_KLS = (0.01, 0.02, 0.04)
RLPD_RATES = (1e-3, 3e-3, 1e-2)
BC_RATES = (1e-3, 3e-3, 1e-2)
SOLVED = 0.5


@dataclass(frozen=True)
class Size:
    """How much part B does."""

    iterations: dict[int, int]  # by horizon
    log: int  # episodes
    steps: int  # of fresh episodes, an iteration
    updates: int  # of RLPD, an iteration
    clone_updates: int
    tuning_seeds: int
    tuning_iterations: int


SIZES: dict[Budget, Size] = {
    "smoke": Size({3: 2, 5: 2}, 200, 60, 2, 5, 0, 0),
    "small": Size({3: 40, 5: 50}, 20_000, 1000, 100, 1000, 2, 25),
    "full": Size({3: 300, 5: 1500}, 50_000, 1000, 1000, 5000, 5, 300),
}


def settings_horizon(setting: str) -> tuple[int, bool]:
    """(horizon, whether latent states look alike) of a setting's name."""
    return int(setting.rpartition("=")[2]), setting.startswith(BLIND)


def measures(opened: Float[Tensor, "iterations locks"], lock: int, episodes: int, window: int) -> dict[str, float]:
    """Of one lock: mean rate over all iterations, over the last 10, and fresh episodes until a mean of `window` is above 0.5.

    All episodes where it never is.
    """
    rates = opened[:, lock].double()
    window = min(window, len(rates))
    solved = (rates.unfold(0, window, 1).mean(1) > SOLVED).nonzero()
    count = int(solved[0]) + window if len(solved) else len(rates)
    return {
        "auc": float(rates.mean()),
        "final": float(rates[-10:].mean()),
        "episodes": float(count * episodes),
        "is_solved": float(len(solved) > 0),
    }


# --------------------------------------------------------------------------------------------------------------- part A


def tabular_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A: tables, success probabilities exact."""
    torch.set_num_threads(1)
    method = arm.options["method"]
    eta = _tuned_eta(method, setting, budget)
    opened = tabular_course(method, setting, seeds, eta, TABULAR_ITERATIONS[budget])
    return [
        {**measures(opened, place, TABULAR_EPISODES, 1), "eta": eta, "curve": opened[:, place].tolist()}
        for place in range(len(seeds))
    ]


@functools.cache
def _tuned_eta(method: str, setting: str, budget: Budget) -> float:
    if budget == "smoke" or method == "bc":
        return ETAS[0]
    tuning = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + 3)
    reached = [float(tabular_course(method, setting, tuning, eta, TABULAR_ITERATIONS[budget]).mean()) for eta in ETAS]
    return ETAS[reached.index(max(reached))]


def tabular_course(
    method: str, setting: str, seeds: Sequence[int], eta: float, iterations: int
) -> Float[Tensor, "iterations locks"]:
    """Each iteration's probability to open the lock, before its step."""
    horizon, is_blind = settings_horizon(setting)
    world = TabularLock.drawn(horizon, seeds, twin=is_blind)
    groups = torch.arange(world.states) // (3 if is_blind else 1)
    log = world.logged(world.play(world.behaviour(), TABULAR_LOG, "log"))
    policy, opened = world.uniform(), []
    if method == "bc":
        return world.success(imitated(log, groups)).expand(iterations, -1)
    for iteration in range(iterations):
        opened.append(world.success(policy))
        played = world.play(policy, TABULAR_EPISODES, "fresh", iteration)
        nothing = Cells(torch.zeros_like(policy), torch.zeros_like(policy))
        unseen = TabularLog(nothing.share, nothing.target, log.onward)
        of_log, fresh, lam = {
            "hac": (log, world.returned(played), 1.0),
            "npg": (unseen, world.returned(played), 1.0),
            "offline": (log, nothing, 0.0),
            "hybrid-td": (pooled(log, world.logged(played)), nothing, 0.0),
        }[method]
        f = evaluate(policy, of_log, fresh, lam, groups, gamma=1.0, rounds=horizon, discarded=horizon - 1)
        policy = softmax_step(policy, f, eta)
    return torch.stack(opened)


def imitated(log: TabularLog, groups: Tensor) -> Float[Tensor, "locks states actions"]:
    """The log's share of each action in a group of states; all the same where it has none."""
    count = log.share.new_zeros(len(log.share), int(groups.max()) + 1, log.share.shape[-1])
    count = count.index_add(1, groups, log.share)
    total = count.sum(-1, keepdim=True)
    return torch.where(total > 0, count / total, 1 / count.shape[-1])[:, groups]


def pooled(log: TabularLog, fresh: TabularLog) -> TabularLog:
    """Half of each: all of it for temporal differences."""
    total = log.share + fresh.share
    of_log = torch.where(total > 0, log.share / total.clamp(min=1e-30), 0.0)
    reward = of_log * log.reward + (1 - of_log) * fresh.reward
    onward = of_log[..., None] * log.onward + (1 - of_log[..., None]) * fresh.onward
    return TabularLog(total / 2, reward, onward)


# --------------------------------------------------------------------------------------------------------------- part B


def comblock_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part B: networks on the continuous lock, rates among fresh episodes."""
    torch.set_num_threads(1)
    method = arm.options["method"]
    point = _tuned_point(method, budget)
    horizon = settings_horizon(setting)[0]
    course = comblock_course(method, setting, seeds, point, budget, SIZES[budget].iterations[horizon])
    opened, episodes = torch.stack(course.opened), -(-SIZES[budget].steps // horizon)
    cells = []
    for place in range(len(seeds)):
        curves = {name: [float(values[place]) for values in found] for name, found in course.numbers.items()}
        cells.append(
            {
                **measures(opened, place, episodes, 10),
                "online_loss": curves.get("online_loss", [math.nan])[-1],
                "offline_loss": curves.get("offline_loss", [math.nan])[-1],
                "offline_loss_most": max(curves.get("offline_loss", [math.nan])),
                "kl": _mean(curves.get("kl")),
                "accepted": _mean(curves.get("accepted")),
                "point": point,
                "curve": opened[:, place].tolist(),
                **{f"{name}_curve": values for name, values in curves.items()},
            }
        )
    return cells


@functools.cache
def _tuned_point(method: str, budget: Budget) -> float:
    """The point of the arm's grid that does best in locks of horizon 3 of its own."""
    grid = {"rlpd": RLPD_RATES, "bc": BC_RATES, "bc-mean": BC_RATES}.get(method, MAX_KLS)
    size = SIZES[budget]
    tuning = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + size.tuning_seeds)
    if not tuning:
        return grid[1]
    courses = [comblock_course(method, "H=3", tuning, point, budget, size.tuning_iterations) for point in grid]
    reached = [float(torch.stack(course.opened).mean()) for course in courses]
    return grid[reached.index(max(reached))]


def comblock_course(
    method: str, setting: str, seeds: Sequence[int], point: float, budget: Budget, iterations: int
) -> Course:
    """An arm on its locks: `point` is the KL a step of HNPG and TRPO, the learning rate of RLPD and BC."""
    size, (horizon, is_blind) = SIZES[budget], settings_horizon(setting)
    lock = Comblock.drawn(horizon, seeds, twin=is_blind, blind=is_blind)
    episodes = -(-size.steps // horizon)
    log = comblock_trial.logged(lock, seeds, size.log)
    if method in ("bc", "bc-mean"):
        found = comblock_trial.cloned(lock, seeds, log, point, updates=size.clone_updates, episodes=1000)
        return Course([found[method == "bc-mean"]] * iterations)  # no iteration changes it
    if method == "rlpd":
        options = RLPDOptions(hidden=(64, 64), learning_rate=point)
        return comblock_trial.rlpd(lock, seeds, options, log, iterations, episodes, updates=size.updates)
    if method == "trpo":
        trpo = TRPOOptions(max_kl=point, precision="float32")
        return comblock_trial.natural_gradient(lock, seeds, trpo, None, iterations, episodes)
    hnpg = HNPGOptions(max_kl=point, precision="float32")
    return comblock_trial.natural_gradient(lock, seeds, hnpg, log, iterations, episodes)


def _mean(values: Sequence[float] | None) -> float:
    return sum(values) / len(values) if values else math.nan
