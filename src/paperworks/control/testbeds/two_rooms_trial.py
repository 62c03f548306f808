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
from paperworks.experiment.definition import Arm, Budget, Workspace

MEAN, DEVIATION = np.array([1.0, 0.5], np.float32), np.array([0.5, 0.25], np.float32)  # of what the nets see
Kind = Literal["iql", "family", "state-blind", "no balance model"]
PHASES = ("offline", "online")


GRID = (1.0, 3.0, 10.0)  # IQL's fixed balances
FIRST_TUNING_SEED = 1_000_000


@dataclass(frozen=True)
class Sizes:
    """How much is learned from, and for how long."""

    log: int
    offline: int
    online: int
    batch: int = 64
    hidden: tuple[int, ...] = (32, 32)
    evaluations: int = 10  # of the online phase
    episodes: int = 20  # of an evaluation
    tuning_seeds: int = 4
    learning_rate: float = 1e-3
    tau: float = 0.01
    expectile: float = 0.8
    beta_range: tuple[float, float] = (1.0, 5.0)


SIZES: Mapping[Budget, Sizes] = {
    "smoke": Sizes(log=200, offline=10, online=10, batch=16, hidden=(8,), evaluations=2, episodes=2, tuning_seeds=1),
    "small": Sizes(log=3000, offline=2000, online=1500),
    "full": Sizes(log=20_000, offline=8000, online=6000, batch=256, hidden=(64, 64), tuning_seeds=10),
}


@dataclass
class Course:
    """What became of every seed: returns and successes by evaluation (the first is behind the offline phase)."""

    steps: list[int] = field(default_factory=list)  # online
    returns: list[Tensor] = field(default_factory=list)  # [seeds] each
    success: list[Tensor] = field(default_factory=list)
    balances: Mapping[str, Tensor] = field(default_factory=dict)  # by room and phase, [seeds]

    def read(self, place: int, setting: str, beta: float) -> dict[str, Any]:
        """One seed's figures; `beta` is what an arm without a family has in every state."""
        returns, success = ([float(each[place]) for each in values] for values in (self.returns, self.success))
        poor, good = ("near", "far") if setting == "poor near room" else ("far", "near")
        by_room = {name: float(values[place]) for name, values in self.balances.items()}
        gap = {phase: by_room.get(f"{poor}_{phase}", beta) - by_room.get(f"{good}_{phase}", beta) for phase in PHASES}
        return {
            "area": sum(returns[1:]) / len(returns[1:]),
            "success_area": sum(success[1:]) / len(success[1:]),
            "offline_return": returns[0],
            "offline_success": success[0],
            "final_return": returns[-1],
            "final_success": success[-1],
            "balance_poor": by_room.get(f"{poor}_online", beta),
            "balance_good": by_room.get(f"{good}_online", beta),
            "balance_gap": gap["online"],
            "offline_gap": gap["offline"],
            "step_curve": self.steps,
            "return_curve": returns,
        }


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


def cell(arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace) -> list[dict[str, Any]]:
    """Every seed of an arm: its returns and successes, and its balances by room."""
    torch.set_num_threads(1)
    sizes, kind = SIZES[budget], arm.options["kind"]
    beta = float(arm.options.get("beta", 0.0))
    if arm.options.get("tuned"):
        beta = best_balance(setting, sizes)
    course = train(kind, setting, seeds, sizes, [beta] * len(seeds))
    return [course.read(place, setting, beta) for place in range(len(seeds))]


def best_balance(setting: str, sizes: Sizes) -> float:
    """IQL's balance of the largest area under the online returns, over seeds of their own."""
    seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + sizes.tuning_seeds)
    every, betas = [seed for _ in GRID for seed in seeds], [beta for beta in GRID for _ in seeds]
    areas = torch.stack(train("iql", setting, every, sizes, betas).returns[1:]).mean(0).view(len(GRID), -1).mean(1)
    return GRID[int(areas.argmax())]


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
