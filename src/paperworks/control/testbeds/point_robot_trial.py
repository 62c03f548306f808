"""The point robot as an experiment: logs, values that all policies of a seed share, policies, and what is measured.

Every seed has a log, nets and starts of its own; seeds stand side by side and share nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from paperworks.control.batches import Draws, Log
from paperworks.control.learner import Learner, Shapes
from paperworks.control.policy import Normaliser
from paperworks.control.safe.diffusion import draw_actions
from paperworks.control.safe.diffusion_actor import best_candidate
from paperworks.control.safe.fisor import FISOR, FISOROptions
from paperworks.control.safe.lagrangian import IQLLagrangian, IQLLagrangianOptions
from paperworks.control.safe.values import Kind
from paperworks.control.testbeds.point_robot import ARENA, PointRobot, avoidable, latent_of, steering
from paperworks.control.testbeds.worlds import Rolled, logged
from paperworks.control.transitions import ARRAYS, Transitions
from paperworks.core.seeding import torch_generator

WORLD = PointRobot(hold=4)
GRID, GRID_SPEED, GRID_HEADING = 60, 2.0, math.pi / 4  # the map of the feasible region
ActAt = Callable[[Tensor, Tensor], Tensor]  # states [seeds, rows, state], and which episodes they are of, to actions
L = TypeVar("L", bound=Learner)


@dataclass(frozen=True)
class Size:
    """How much is logged, learned and rolled out."""

    transitions: int = 60_000
    value_updates: int = 6_000
    policy_updates: int = 3_000
    batch: int = 128
    starts: int = 100  # feasible ones, and as many infeasible ones
    width: int = 64  # of every hidden layer


SHARED: Mapping[str, Any] = {
    "learning_rate": 1e-3, "policy_updates": 1, "policy_blocks": 2, "policy_tau": 0.005,
    "dropout": 0.0, "alpha_h": 2.0, "alpha_r": 5.0, "candidates": 8, "episode_length": WORLD.limit,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------- logs


def make_log(seed: int, transitions: int) -> Transitions:
    """Half by random controls, half by a driver with noise of 0.5. Constraint and cost are of where a row begins."""
    draw = torch_generator(seed, "log")

    def at_random(states: Tensor) -> Tensor:
        return 2 * torch.rand(*states.shape[:-1], WORLD.action, generator=draw) - 1

    def drives(states: Tensor) -> Tensor:
        noise = torch.randn(*states.shape[:-1], WORLD.action, generator=draw)
        return (steering(states) + 0.5 * noise).clamp(-1, 1)

    halves = [logged(WORLD, act, transitions // 2, draw, side_by_side=128) for act in (at_random, drives)]
    columns = [name for name in ARRAYS if name != "constraint"]
    arrays: dict[str, Any] = {name: np.concatenate([getattr(half, name) for half in halves]) for name in columns}
    states, actions = (torch.from_numpy(arrays[name]) for name in ("observations", "actions"))
    h = WORLD.worst(latent_of(states), actions).numpy()
    return Transitions(**{**arrays, "constraint": h, "costs": (h > 0).astype(np.float32)})


def save_log(log: Transitions, file: Path) -> None:
    """As an .npz of its arrays."""
    np.savez(file, **{name: getattr(log, name) for name in ARRAYS})


def load_log(file: Path) -> Transitions:
    """What `save_log` wrote."""
    with np.load(file) as arrays:
        return Transitions(**{name: arrays[name] for name in ARRAYS})


@dataclass(frozen=True)
class Logs:
    """A log a seed, normalised by its own mean and deviation."""

    seeds: Sequence[int]
    log: Log
    mean: Float[Tensor, "seeds one state"]
    deviation: Float[Tensor, "seeds one state"]

    @classmethod
    def of(cls, seeds: Sequence[int], logs: Sequence[Transitions]) -> Logs:
        normalisers = [Normaliser.of(log.observations) for log in logs]
        stacked = Log.stacked(
            [Log(log, n.mean, n.deviation, torch.device("cpu")) for log, n in zip(logs, normalisers, strict=True)]
        )
        mean, deviation = (
            torch.from_numpy(np.stack([getattr(n, name) for n in normalisers]))[:, None]
            for name in ("mean", "deviation")
        )
        return cls(seeds, stacked, mean, deviation)

    def normalised(self, states: Float[Tensor, "seeds rows state"]) -> Float[Tensor, "seeds rows state"]:
        return (states - self.mean) / self.deviation


# ----------------------------------------------------------------------------------------------------------------- learning


class SharedValues(FISOR):
    """FISOR with every kind of value, so that one training serves all policies."""

    def kinds(self) -> tuple[Kind, ...]:
        return ("reward", "hj", "qc")


def fisor(logs: Logs, size: Size, **options: Any) -> SharedValues:
    """A learner of these seeds, untrained."""
    given = {
        "hidden": (size.width, size.width),
        "policy_width": size.width,
        "value_rows": size.batch,
        "policy_decay": size.policy_updates,
    }
    return SharedValues(
        Shapes(WORLD.state, WORLD.action), FISOROptions(**{**SHARED, **given, **options}), logs.seeds, logs.log
    )


def with_values(learner: SharedValues, logs: Logs, size: Size, folder: Path) -> None:
    """Give the learner the values of its seeds: learned now, or by whoever came before."""
    file = folder / f"values-{'-'.join(map(str, logs.seeds))}.safetensors"
    if not file.exists():
        draws = Draws(logs.seeds, size.batch, len(logs.log), logs.log.device)
        for step in range(size.value_updates):
            _cool(learner, step / size.value_updates)
            learner.learn_values(logs.log.batch(draws.rows(step)))
        save_file(learner.values.state_dict(), file)
    learner.values.load_state_dict(load_file(file))


def with_policy(learner: SharedValues, logs: Logs, size: Size, folder: Path, name: str) -> None:
    """Clone the logs by the learner's weights, once for all who act by this policy."""
    file = folder / f"policy-{name}-{'-'.join(map(str, logs.seeds))}.safetensors"
    if not file.exists():
        parts = torch.arange(len(logs.log)).expand(len(logs.seeds), -1).split(10_000, 1)
        weights = torch.cat([learner.weigh(*_pairs(logs, rows)) for rows in parts], 1)
        draws = Draws([seed + 10**6 for seed in logs.seeds], size.batch, len(logs.log), logs.log.device)
        for step in range(size.policy_updates):
            batch = logs.log.batch(draws.rows(step))
            learner.clone(batch, logs.log.pick(weights, batch.rows), draws, step)
        save_file(learner.averaged.state_dict(), file)
    learner.averaged.load_state_dict(load_file(file))


def _cool(learner: Learner, share: float) -> None:
    """Learning rates after this share of a training: along a cosine down to 0, as the policy's own."""
    for group in learner.optimiser.param_groups:
        group["lr"] = SHARED["learning_rate"] * 0.5 * (1 + math.cos(math.pi * share))


def _pairs(logs: Logs, rows: Int[Tensor, "seeds rows"]) -> tuple[Tensor, Tensor]:
    return logs.log.pick(logs.log.states, rows), logs.log.pick(logs.log.actions, rows)


def iql_lagrangian(logs: Logs, size: Size, **options: Any) -> IQLLagrangian:
    """IQL with a multiplier, trained for as many steps as values are."""
    given = {"hidden": (size.width, size.width), "learning_rate": SHARED["learning_rate"], "expectile": 0.9}
    chosen = IQLLagrangianOptions(**{**given, "episode_length": WORLD.limit, **options})
    learner = IQLLagrangian(Shapes(WORLD.state, WORLD.action), chosen, logs.seeds, logs.log)
    draws = Draws(logs.seeds, size.batch, len(logs.log), logs.log.device)
    for step in range(size.value_updates):
        _cool(learner, step / size.value_updates)
        learner.update(logs.log.batch(draws.rows(step)), draws, step)
    return learner


# ---------------------------------------------------------------------------------------------------------------- measuring


def starts(seed: int, count: int) -> Float[Tensor, "starts latent"]:
    """`count` starts from which violations can be avoided, then as many from which they cannot."""
    latent = WORLD.start((40 * count,), torch_generator(seed, "starts"))
    can_be_kept = avoidable(latent, WORLD)
    return torch.cat([latent[can_be_kept][:count], latent[~can_be_kept][:count]])


def acting(learner: SharedValues, logs: Logs, episodes: int) -> ActAt:
    """The learner's policies: noise is of the seed, the step and the episode alone."""
    options, draws = learner.options, [torch_generator(seed, "acting") for seed in logs.seeds]

    def act(states: Tensor, of: Tensor) -> Tensor:
        at = of[..., None, None].expand(-1, -1, options.candidates, WORLD.action)

        def normal(*size: int) -> Tensor:
            every = (episodes, options.candidates, WORLD.action)
            drawn = torch.stack([torch.randn(every, generator=draw) for draw in draws])
            return drawn.gather(1, at).flatten(1, 2)

        inner = logs.normalised(states)
        found = draw_actions(learner.averaged, learner.schedule, inner, options.candidates, normal)
        return best_candidate(learner.values, inner, found, learner.violation, options.extract)

    return act


@torch.no_grad()
def roll_alive(act: ActAt, latent: Float[Tensor, "seeds episodes latent"]) -> Rolled:
    """`worlds.roll` that computes episodes still under way alone, as many a seed as the seed that has most."""
    returns, lengths, costs = (torch.zeros(latent.shape[:2]) for _ in range(3))
    alive = torch.ones(latent.shape[:2], dtype=torch.bool)
    for _ in range(WORLD.limit):
        if not alive.any():
            break
        order = alive.int().argsort(dim=1, descending=True, stable=True)[:, : int(alive.sum(1).max())]
        at = order[..., None].expand(-1, -1, latent.shape[-1])
        now = latent.gather(1, at)
        following, reward, over, cost = WORLD.step(now, act(WORLD.seen(now), order))
        going = alive.gather(1, order)
        for total, each in ((returns, reward), (costs, cost), (lengths, torch.ones_like(cost))):
            total.scatter_add_(1, order, torch.where(going, each, 0.0))
        latent = latent.scatter(1, at, following)
        alive = alive.scatter(1, order, going & ~over)
    return Rolled(returns, lengths, costs, ~alive)


def outcomes(rolled: Rolled, place: int) -> dict[str, float]:
    """One seed's figures, from feasible starts (the first half) and from infeasible ones."""
    found = dict[str, float]()
    halves = zip(rolled.returns[place].chunk(2), rolled.costs[place].chunk(2), strict=True)
    for name, (returns, costs) in zip(("feasible", "infeasible"), halves, strict=True):
        found |= {
            f"violations_{name}": float(costs.mean()),
            f"broken_{name}": float((costs > 0).float().mean()),
            f"return_{name}": float(returns.mean()),
        }
    return found


def grid() -> Float[Tensor, "points latent"]:
    """The states of the map: x and y over the arena, one speed and heading."""
    line = torch.linspace(-ARENA, ARENA, GRID)
    x, y = torch.meshgrid(line, line, indexing="xy")
    return torch.stack([x, y, torch.full_like(x, GRID_SPEED), torch.full_like(x, GRID_HEADING)], -1).flatten(0, 1)


@functools.cache
def true_region() -> Bool[Tensor, " points"]:
    """From which states of the map a violation can be avoided."""
    return avoidable(grid(), WORLD)


def map_values(learner: SharedValues, logs: Logs, kind: Kind) -> Float[Tensor, "seeds points"]:
    """V of every state of the map."""
    states = WORLD.seen(grid()).expand(len(logs.seeds), -1, -1)
    with torch.no_grad():
        return learner.values.value(logs.normalised(states))[:, learner.values.place(kind)]


def region(called_safe: Bool[Tensor, " points"], truth: Bool[Tensor, " points"]) -> dict[str, float]:
    """How an estimated region fits the true one: overlap, lost states called safe, safe states called lost."""
    return {
        "iou": float((called_safe & truth).sum() / (called_safe | truth).sum()),
        "false_safe": float((called_safe & ~truth).sum() / (~truth).sum()),
        "false_unsafe": float((~called_safe & truth).sum() / truth.sum()),
    }
