"""The data of the study of data sets (arXiv 2111.04714): an online run of double DQN, and the five logs made from it.

`random` actions, the `replay` of all that the run saw, its best policy as `expert`, the same with a fifth of its actions random
as `noisy`, and four fifths of `random` with a fifth of `expert` as `mixed`. All are of one length. Quality is measured between
the random log's and the best online return, coverage against the replay.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from paperworks.control import measures
from paperworks.control.batches import Batch, Draws
from paperworks.control.learner import Shapes
from paperworks.control.measures import Grid
from paperworks.control.online.dqn import OnlineDQN, OnlineDQNOptions
from paperworks.control.online.replay import Replay
from paperworks.control.testbeds.discrete_worlds import Scaled
from paperworks.control.testbeds.worlds import Act, World, logged, roll
from paperworks.control.transitions import ARRAYS, Transitions
from paperworks.core.files import read_json, write_json_atomic
from paperworks.core.seeding import torch_generator

KINDS = ("random", "replay", "expert", "noisy", "mixed")
HIDDEN = (64, 64)  # widths of all networks here
TARGET_EVERY = 25  # updates between copies to target networks: a value looks one step further with each
NOISE = 0.2  # share of random actions in `noisy`
RANDOM_SHARE = 0.8  # of `mixed`


@dataclass(frozen=True)
class RunSize:
    """How long a run is, and how it learns. `lanes` episodes go on side by side; each step of all is a step."""

    steps: int
    lanes: int = 4
    updates: int = 1  # gradient steps a step
    batch_size: int = 64
    warm_up: int = 250  # steps before the first gradient step
    evaluations: int = 10
    episodes: int = 10  # an evaluation
    epsilon_steps: int = 2500  # in which the share of random actions falls from 1 to 0.01
    learning_rate: float = 1e-3

    @property
    def transitions(self) -> int:
        """In the replay, and in every other log."""
        return self.steps * self.lanes


@dataclass(frozen=True)
class DataSet:
    """A log with its measures."""

    log: Transitions
    quality: float
    coverage: float


@dataclass(frozen=True)
class DataSets:
    """The logs of a run by kind, and the returns between which performance is scaled."""

    sets: Mapping[str, DataSet]
    random_return: float
    best_return: float

    def scaled(self, mean_return: float) -> float:
        """0 for the random policy, 100 for the best of the online run; NaN where that was not better."""
        if self.best_return <= self.random_return:
            return math.nan
        return 100 * (mean_return - self.random_return) / (self.best_return - self.random_return)

    def save(self, folder: Path) -> None:
        """Write the logs and their measures."""
        folder.mkdir(parents=True, exist_ok=True)
        for kind, each in self.sets.items():
            np.savez(folder / f"{kind}.npz", **_arrays(each.log))  # type: ignore[arg-type]
        measured = {kind: [each.quality, each.coverage] for kind, each in self.sets.items()}
        returns = {"random_return": self.random_return, "best_return": self.best_return}
        write_json_atomic(folder / "measured.json", {"sets": measured, **returns})

    @classmethod
    def load(cls, folder: Path) -> DataSets:
        """What `save` wrote."""
        described, sets = read_json(folder / "measured.json"), {}
        for kind, (quality, coverage) in described["sets"].items():
            with np.load(folder / f"{kind}.npz", allow_pickle=False) as arrays:
                log = Transitions(**{name: arrays[name] for name in arrays.files})
            sets[kind] = DataSet(log, math.nan if quality is None else quality, coverage)
        return cls(sets, described["random_return"], described["best_return"])


def make_sets(name: str, size: RunSize, seed: int) -> DataSets:
    """Run online in the world of that name and make the five logs."""
    world = Scaled.named(name)
    learner, replay, best_return = run_online(world, size, seed)
    count = size.transitions
    logs = {
        "random": logged(world, _mixed_with_random(None, world, 1.0, seed), count, torch_generator(seed, "random")),
        "replay": replay,
        "expert": logged(world, _greedy(learner), count, torch_generator(seed, "expert")),
        "noisy": logged(
            world, _mixed_with_random(_greedy(learner), world, NOISE, seed), count, torch_generator(seed, "noisy")
        ),
    }
    logs = {kind: dataclasses.replace(log, costs=None) for kind, log in logs.items()}
    logs["mixed"] = joined(logs["random"], logs["expert"], round(RANDOM_SHARE * count))
    random_return = mean_return(logs["random"], world.limit)
    grid = Grid.of(replay)
    reference, scale = grid.keys(replay), DataSets({}, random_return, best_return)
    sets = {}
    for kind in KINDS:
        covered = measures.coverage(grid.keys(logs[kind]), reference)
        sets[kind] = DataSet(logs[kind], scale.scaled(mean_return(logs[kind], world.limit)) / 100, covered)
    return dataclasses.replace(scale, sets=sets)


def run_online(world: World, size: RunSize, seed: int) -> tuple[OnlineDQN, Transitions, float]:
    """(the learner where its greedy policy was best, all that it saw, that best mean return)."""
    shapes = Shapes(world.state, world.action)
    replay = Replay(shapes, size.lanes, size.steps, torch.device("cpu"), discrete=True)
    options = OnlineDQNOptions(
        hidden=HIDDEN, learning_rate=size.learning_rate, epsilon_steps=size.epsilon_steps, target_every=TARGET_EVERY
    )
    learner = OnlineDQN(shapes, options, [seed], replay)
    draws = Draws([seed], size.batch_size, size.transitions, replay.device)
    starts = torch_generator(seed, "starts")
    latent, age = world.start((size.lanes,), starts), torch.zeros(size.lanes)
    best, kept = -np.inf, copy.deepcopy(learner)
    for step in range(size.steps):
        states = world.seen(latent)
        actions = learner.explore(states[None], draws, step)[0]
        following, rewards, over, _ = world.step(latent, actions)
        age += 1
        ended = over | (age >= world.limit)
        replay.append(states, actions, rewards, world.seen(following), (~over).float(), ended)
        latent = torch.where(ended[:, None], world.start((size.lanes,), starts), following)
        age[ended] = 0
        if step >= size.warm_up:
            for number in range(step * size.updates, (step + 1) * size.updates):
                learner.update(_lived(replay, draws, number, size), draws, number)
        if (step + 1) % max(1, size.steps // size.evaluations) == 0:
            begun = world.start((1, size.episodes), torch_generator(seed, "evaluation", step))
            found = float(roll(world, learner.act, begun).returns.mean())
            if found > best:
                best, kept = found, copy.deepcopy(learner)
    return kept, _in_order(replay), best


def mean_return(log: Transitions, limit: int) -> float:
    """Of the episodes that came to their end, or to the time limit; of all where none did."""
    lengths, over = measures.run_lengths(log), log.terminations[log.ends]
    whole = over | (lengths >= limit)
    returns = log.returns()
    return float(returns[whole].mean() if whole.any() else returns.mean())


def joined(first: Transitions, second: Transitions, count: int) -> Transitions:
    """The first `count` transitions of one log and as many of the other as fill it up; the seams are cuts."""
    parts = [first.take(slice(count)), second.take(slice(len(first) - count))]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _arrays(first)}
    for last in (count - 1, len(first) - 1):
        arrays["truncations"][last] |= not arrays["terminations"][last]
    return Transitions(**arrays)  # type: ignore[arg-type]


def _lived(replay: Replay, draws: Draws, number: int, size: RunSize) -> Batch:
    """A batch of all lanes' rows, as one seed's: [1, rows, ...]."""
    uniform = draws.uniform("lived", number, size.lanes, size.batch_size // size.lanes)[0]
    found = replay.batch((uniform * len(replay)).long().clamp(max=len(replay) - 1))
    columns: Sequence[Tensor] = (
        found.rows, found.states, found.actions, found.rewards, found.next_states, found.goes_on,
    )  # fmt: skip
    return Batch(*(column.flatten(0, 1)[None] for column in columns))


def _in_order(replay: Replay) -> Transitions:
    """Lane after lane; where a lane stops its episode is cut."""
    replay.ends[:, -1] = True
    terminations = replay.goes_on == 0
    columns = {
        "observations": replay.states, "actions": replay.actions, "rewards": replay.rewards,
        "next_observations": replay.next_states, "terminations": terminations,
        "truncations": replay.ends & ~terminations,
    }  # fmt: skip
    return Transitions(**{name: column.flatten(0, 1).numpy() for name, column in columns.items()})  # type: ignore[arg-type]


def _greedy(learner: OnlineDQN) -> Act:
    return lambda states: learner.act(states[None])[0]


def _mixed_with_random(act: Act | None, world: World, share: float, seed: int) -> Act:
    draw = torch_generator(seed, "random actions", str(share))

    def mixed(states: Tensor) -> Int[Tensor, "*shape"]:
        at_random = torch.randint(world.action, states.shape[:-1], generator=draw)
        if act is None:
            return at_random
        return torch.where(torch.rand(states.shape[:-1], generator=draw) < share, at_random, act(states))

    return mixed


def _arrays(log: Transitions) -> dict[str, np.ndarray]:
    return {name: getattr(log, name) for name in ARRAYS if getattr(log, name) is not None}
