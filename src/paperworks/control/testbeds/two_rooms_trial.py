"""Offline, then online in the two rooms: every seed of an arm at once, each with a log and a life of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.control.batches import Draws, Log
from paperworks.control.learner import Learner, Shapes
from paperworks.control.offline.famo2o import FamilyIQL, FamO2OOptions
from paperworks.control.offline.iql import IQL, IQLOptions
from paperworks.control.online.replay import Replay
from paperworks.control.testbeds.two_rooms import LOGS, TwoRooms, is_near, make_log
from paperworks.control.testbeds.worlds import roll
from paperworks.core.seeding import torch_generator

MEAN, DEVIATION = np.array([1.0, 0.5], np.float32), np.array([0.5, 0.25], np.float32)  # of what the nets see
Kind = Literal["iql", "family", "state-blind", "no balance model"]


@dataclass(frozen=True)
class Sizes:
    """How much is learned from, and for how long."""

    log: int = 20_000
    offline: int = 4000
    online: int = 3000
    batch: int = 64
    hidden: tuple[int, ...] = (32, 32)
    evaluations: int = 10  # of the online phase
    episodes: int = 20  # of an evaluation
    learning_rate: float = 1e-3
    tau: float = 0.01
    expectile: float = 0.8
    beta_range: tuple[float, float] = (1.0, 10.0)


@dataclass
class Course:
    """What became of every seed: returns and successes by evaluation (the first is behind the offline phase)."""

    steps: list[int] = field(default_factory=list)  # online
    returns: list[Tensor] = field(default_factory=list)  # [seeds] each
    success: list[Tensor] = field(default_factory=list)
    balances: Mapping[str, Tensor] = field(default_factory=dict)  # by room and phase, [seeds]

    def curve(self, values: Sequence[Tensor], seed: int) -> list[float]:
        """One seed's, evaluation by evaluation."""
        return [float(each[seed]) for each in values]


class NoBalanceModel(FamilyIQL):
    """A family whose members are all trained alike, in both phases, and which acts at the middle of its range."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        for parameter in self.family.balance.parameters():
            parameter.data.zero_()

    def betas(self, batch: Any, draws: Draws, step: int) -> Tensor:
        return self.family.betas.of(2 * draws.uniform("uniform beta", step, batch.rewards.shape[1]) - 1)

    def fit_balance(self, batch: Any, draws: Draws, step: int) -> dict[str, Tensor]:
        return {}


def make_learner(kind: Kind, betas: Sequence[float], seeds: Sequence[int], log: Log, sizes: Sizes) -> Learner:
    """The arm's learner; `betas` are IQL's, one a seed."""
    shared: dict[str, Any] = {
        "hidden": sizes.hidden, "learning_rate": sizes.learning_rate, "expectile": sizes.expectile, "tau": sizes.tau
    }  # fmt: skip
    if kind == "iql":
        iql = IQL(Shapes(2, 2), IQLOptions(**shared), seeds, log)
        iql.vary("beta", betas)
        return iql
    options = FamO2OOptions(beta_range=sizes.beta_range, **shared)
    made = (NoBalanceModel if kind == "no balance model" else FamilyIQL)(Shapes(2, 2), options, seeds, log)
    if kind == "state-blind":
        made.family.balance.register_forward_pre_hook(lambda module, given: (torch.zeros_like(given[0]),))
    return made


def train(kind: Kind, setting: str, seeds: Sequence[int], sizes: Sizes, betas: Sequence[float] = ()) -> Course:
    """Learn from each seed's log, then in the maze with a gradient step behind each of its steps."""
    logs = {seed: Log(make_log(LOGS[setting], sizes.log, seed), MEAN, DEVIATION, torch.device("cpu")) for seed in seeds}
    log = Log.stacked([logs[seed] for seed in seeds])
    learner = make_learner(kind, betas, seeds, log, sizes)
    draws = Draws(seeds, sizes.batch, len(log), log.device)
    for step in range(sizes.offline):
        learner.update(log.batch(draws.rows(step)), draws, step)
    course = Course()
    _evaluate(learner, course, 0, sizes)
    balances = _balances(learner, log, "offline")
    _live(learner, log, draws, course, sizes)
    course.balances = {**balances, **_balances(learner, log, "online")}
    return course


def _live(learner: Learner, log: Log, draws: Draws, course: Course, sizes: Sizes) -> None:
    world, seeds = TwoRooms(), learner.seeds
    replay = Replay(Shapes(2, 2), len(seeds), len(log) + sizes.online, log.device, start=log)
    starts = torch.stack([world.start((sizes.online,), torch_generator(seed, "two rooms", "lives")) for seed in seeds])
    places, at = starts[:, 0], torch.arange(len(seeds))
    begun, age = torch.ones(len(seeds), dtype=torch.long), torch.zeros(len(seeds), dtype=torch.long)
    learner.is_online = True
    for done in range(sizes.online):
        step = sizes.offline + done
        action = learner.explore(_seen(places)[:, None], draws, step)[:, 0]
        after, rewards, over, _ = world.step(places, action)
        age += 1
        ended = over | (age == world.limit)
        replay.append(_seen(places), action, rewards, _seen(after), (~over).float(), ended)
        places = torch.where(ended[:, None], starts[at, begun], after)
        begun, age = begun + ended, torch.where(ended, 0, age)
        rows = (draws.uniform("lived", step, sizes.batch) * len(replay)).long().clamp(max=len(replay) - 1)
        learner.update(replay.batch(rows), draws, step)
        if (done + 1) % (sizes.online // sizes.evaluations) == 0:
            _evaluate(learner, course, done + 1, sizes)


def _evaluate(learner: Learner, course: Course, done: int, sizes: Sizes) -> None:
    world = TwoRooms()
    starts = [world.start((sizes.episodes,), torch_generator(seed, "two rooms", "judged")) for seed in learner.seeds]
    found = roll(world, lambda places: learner.act(_seen(places)), torch.stack(starts))
    course.steps.append(done)
    course.returns.append(found.returns.mean(1))
    course.success.append(found.terminated.float().mean(1))


@torch.no_grad()
def _balances(learner: Learner, log: Log, phase: str) -> dict[str, Tensor]:
    """The mean balance over the logged states of each room."""
    if not isinstance(learner, FamilyIQL):
        return {}
    states = log.states[:, :2000]
    chosen, near = learner.family.chosen(states), is_near(states * torch.from_numpy(DEVIATION) + torch.from_numpy(MEAN))
    rooms = {"near": near, "far": ~near}
    return {f"{room}_{phase}": (chosen * here).sum(1) / here.sum(1) for room, here in rooms.items()}


def _seen(places: Float[Tensor, "*shape place"]) -> Float[Tensor, "*shape place"]:
    return (places - torch.from_numpy(MEAN)) / torch.from_numpy(DEVIATION)
