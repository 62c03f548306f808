"""One algorithm on many logs at once: each net has a log, a seed and, in a grid, a setting of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paperworks.control.batches import Draws, Log
from paperworks.control.learner import Learner, LearnerOptions, Shapes
from paperworks.control.policy import Normaliser
from paperworks.control.testbeds.worlds import Act
from paperworks.control.transitions import Transitions


@dataclass(frozen=True)
class Nets:
    """What learns: a log and a seed each, in the same order, and options that differ between nets."""

    logs: Sequence[Transitions]
    seeds: Sequence[int]
    varied: Mapping[str, Sequence[float]]

    def __len__(self) -> int:
        return len(self.logs)

    @classmethod
    def grid(cls, logs: Sequence[Transitions], seeds: Sequence[int], points: Sequence[Mapping[str, float]]) -> Nets:
        """Every log at every point of a grid: net `p * len(logs) + l` has point p and log l."""
        names = list(points[0])
        varied = {name: [point[name] for point in points for _ in logs] for name in names}
        return cls(list(logs) * len(points), list(seeds) * len(points), varied)


class Trained:
    """A learner whose nets see the states of their own logs, normalised by them."""

    def __init__(self, kind: type[Learner], options: LearnerOptions, nets: Nets, batch_size: int) -> None:
        first = nets.logs[0]
        device = torch.device("cpu")
        scales = [Normaliser.of(log.observations) for log in nets.logs]
        logs = [Log(log, scale.mean, scale.deviation, device) for log, scale in zip(nets.logs, scales, strict=True)]
        self.log = Log.stacked(logs)
        self._mean, self._deviation = (
            torch.from_numpy(np.stack([getattr(scale, name) for scale in scales]))[:, None]
            for name in ("mean", "deviation")
        )
        shapes = Shapes(first.observations.shape[1], first.actions.shape[1])
        self.learner = kind(shapes, options, nets.seeds, self.log)
        for name, values in nets.varied.items():
            self.learner.vary(name, values)
        self._draws = Draws(nets.seeds, batch_size, len(self.log), device)
        self._done = 0

    def learn(self, steps: int) -> dict[str, Tensor]:
        """Take so many more steps; returns what the last one told."""
        told: Mapping[str, Tensor] = {}
        for step in range(self._done, self._done + steps):
            told = self.learner.update(self.log.batch(self._draws.rows(step)), self._draws, step)
        self._done += steps
        return dict(told)

    def normalised(self, states: Tensor) -> Tensor:
        """States [nets, rows, state] as the nets know them."""
        found: Tensor = (states - self._mean) / self._deviation
        return found

    def acting(self) -> Act:
        """Every net's policy, for states [nets, rows, state] of the world."""
        return lambda states: self.learner.act(self.normalised(states))


def best_point(points: Sequence[Mapping[str, float]], scores: Tensor) -> Mapping[str, float]:
    """The point of a grid with the highest mean score; `scores` are [points * logs], as `Nets.grid` orders nets."""
    return points[int(scores.view(len(points), -1).mean(1).argmax())]
