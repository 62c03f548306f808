"""The study of data sets: every algorithm learns from every log, and its performance is set against the two measures.

A batch of networks is one per (run, kind of log); a run's networks do not depend on which other runs stand beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from paperworks.control.batches import Draws, Log
from paperworks.control.discrete import DISCRETE
from paperworks.control.discrete.dqn import DQNOptions
from paperworks.control.discrete.learner import DiscreteLearner, sampled
from paperworks.control.learner import Shapes
from paperworks.control.testbeds.data_study import HIDDEN, KINDS, TARGET_EVERY, DataSets, RunSize, make_sets
from paperworks.control.testbeds.discrete_worlds import WORLDS, Scaled
from paperworks.control.testbeds.worlds import World, roll
from paperworks.control.transitions import Transitions
from paperworks.core.seeding import torch_generator
from paperworks.core.statistics import spearman
from paperworks.experiment.definition import Arm, Budget, Workspace

HIGH, MODERATE = 0.8, 0.4  # of a measure
FEWER_HEADS: Mapping[str, Mapping[str, Any]] = {"qr-dqn": {"quantiles": 10}, "rem": {"heads": 10}}


@dataclass(frozen=True)
class StudySize:
    """How much is done. `run` makes the logs, the rest is of the algorithms that learn from them."""

    run: RunSize = field(default_factory=lambda: RunSize(4000, lanes=5, epsilon_steps=2000))
    worlds: tuple[str, ...] = ("cartpole", "key-door")
    updates: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    evaluations: int = 10
    episodes: int = 10


SIZES: Mapping[Budget, StudySize] = {
    "smoke": StudySize(
        RunSize(60, lanes=5, warm_up=20, evaluations=4, episodes=2), updates=10, evaluations=1, episodes=2
    ),
    "small": StudySize(),
    "full": StudySize(
        RunSize(20_000, lanes=5, epsilon_steps=10_000), WORLDS, updates=100_000, learning_rate=1e-4, evaluations=100
    ),
}


def prepare_run(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Once a seed: an online run in each world and its five logs."""
    torch.set_num_threads(1)
    for name in SIZES[budget].worlds:
        make_sets(name, SIZES[budget].run, seed).save(workspace.seed_folder(seed) / name)


def study_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Learn from all logs of every seed; each seed's performance on its logs against their measures."""
    torch.set_num_threads(1)
    size, points = SIZES[budget], [Points() for _ in seeds]
    for name in size.worlds:
        runs = [DataSets.load(workspace.seed_folder(seed) / name) for seed in seeds]
        curves = learned(arm.options["algorithm"], Scaled.named(name), runs, seeds, size)
        for place, run in enumerate(runs):
            for kind, curve in zip(KINDS, curves[:, place].T, strict=True):
                points[place].add(name, kind, run, curve)
    return [each.measured() for each in points]


def learned(
    algorithm: str, world: World, runs: Sequence[DataSets], seeds: Sequence[int], size: StudySize
) -> Float[ndarray, "evaluations runs kinds"]:
    """Mean returns of the policies that the algorithm learns from each log, now and then on the way."""
    names = [(seed, kind) for seed in seeds for kind in KINDS]
    net_seeds = [len(KINDS) * seed + KINDS.index(kind) for seed, kind in names]
    log = Log.stacked([_as_log(run.sets[kind].log) for run in runs for kind in KINDS])
    learner_class = DISCRETE[algorithm]
    own = {**FEWER_HEADS.get(algorithm, {})}
    if issubclass(learner_class.options_class, DQNOptions):
        own["target_every"] = TARGET_EVERY
    options = learner_class.options_class(hidden=HIDDEN, learning_rate=size.learning_rate, gamma=0.95, **own)
    learner = learner_class(Shapes(world.state, world.action), options, net_seeds, log)
    draws, found = Draws(net_seeds, size.batch_size, len(log), log.device), []
    for step in range(size.updates):
        learner.update(log.batch(draws.rows(step)), draws, step)
        if (step + 1) % (size.updates // size.evaluations) == 0:
            starts = [world.start((size.episodes,), torch_generator(seed, "judged", step)) for seed, _ in names]
            rolled = roll(world, _Acting(learner, net_seeds, step, world.limit, size.episodes), torch.stack(starts))
            found.append(rolled.returns.mean(1).view(len(seeds), len(KINDS)).numpy())
    return np.stack(found)


class _Acting:
    """The policies in an evaluation; those that sample draw from a stream of the network's own."""

    def __init__(self, learner: DiscreteLearner, seeds: Sequence[int], step: int, limit: int, episodes: int) -> None:
        self._learner, self._time = learner, 0
        self._uniform: Tensor | None = None
        if learner.samples:
            drawn = [torch.rand(limit, episodes, 1, generator=torch_generator(seed, "acts", step)) for seed in seeds]
            self._uniform = torch.stack(drawn, 1)

    def __call__(self, states: Tensor) -> Tensor:
        if self._uniform is None:
            return self._learner.act(states)
        self._time += 1
        return sampled(self._learner.scores(states).softmax(-1), self._uniform[self._time - 1]).squeeze(-1)


@dataclass
class Points:
    """A run's logs: their measures, and how well an algorithm did on each, scaled between random and best online."""

    names: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    coverage: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)

    def add(self, world: str, kind: str, run: DataSets, curve: Float[ndarray, " evaluations"]) -> None:
        """What came of one log; the performance is the best evaluation, as in the study."""
        self.names.append(f"{world} {kind}")
        self.kinds.append(kind)
        self.quality.append(run.sets[kind].quality)
        self.coverage.append(run.sets[kind].coverage)
        self.best.append(run.scaled(float(curve.max())))
        self.last.append(run.scaled(float(curve[-1])))

    def measured(self) -> dict[str, Any]:
        """The cell's metrics."""
        every = np.array([self.quality, self.coverage, self.best, self.last])
        known = np.isfinite(every).all(0)  # a run that never did better than random has no scale
        quality, coverage, best, last = every[:, known]
        of_quality, of_coverage = standardised_weights(best, quality, coverage)
        high = quality > HIGH
        either = high | (coverage > HIGH) | ((quality > MODERATE) & (coverage > MODERATE))
        kinds = np.array(self.kinds)[known]
        return {
            "quality_pearson": pearson(quality, best),
            "coverage_pearson": pearson(coverage, best),
            "quality_spearman": spearman(quality, best),
            "coverage_spearman": spearman(coverage, best),
            "quality_weight": of_quality,
            "coverage_weight": of_coverage,
            "quality_pearson_last": pearson(quality, last),
            "coverage_pearson_last": pearson(coverage, last),
            "at_high_quality": _mean(best[high]),
            "at_either": _mean(best[either]),
            "performance": _mean(best),
            "last_performance": _mean(last),
            **{f"on_{kind}": _mean(best[kinds == kind]) for kind in KINDS},
            "logs": float(known.sum()),
            "names": self.names,
            "quality": self.quality,
            "coverage": self.coverage,
            "best": self.best,
        }


def pearson(first: Float[ndarray, " n"], second: Float[ndarray, " n"]) -> float:
    """Pearson's correlation; NaN where a side is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def standardised_weights(
    performance: Float[ndarray, " n"], quality: Float[ndarray, " n"], coverage: Float[ndarray, " n"]
) -> tuple[float, float]:
    """Least squares of performance on both measures, all scaled to deviation 1; NaN where one is constant."""
    if len(performance) < 3 or any(np.ptp(values) == 0 for values in (performance, quality, coverage)):
        return math.nan, math.nan
    y, *x = ((values - values.mean()) / values.std() for values in (performance, quality, coverage))
    found = np.linalg.lstsq(np.stack(x, 1), y, rcond=None)[0]
    return float(found[0]), float(found[1])


def _mean(values: Float[ndarray, " n"]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _as_log(log: Transitions) -> Log:
    width = log.observations.shape[1]
    return Log(log, np.zeros(width, np.float32), np.ones(width, np.float32), torch.device("cpu"))
