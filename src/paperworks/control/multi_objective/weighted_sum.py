"""Weighted sums: a policy for each of several weight vectors, nothing more; the baseline, and C-MORL's first stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from paperworks.control.multi_objective.environments import VectorSpaces
from paperworks.control.multi_objective.pareto import training_weights
from paperworks.control.multi_objective.policies import Policies
from paperworks.control.multi_objective.ppo import Goals
from paperworks.control.multi_objective.search import FrontSearch, Jobs, SearchOptions
from paperworks.core.options import option
from paperworks.core.seeding import derive_seed


@dataclass(frozen=True)
class WeightedSumOptions(SearchOptions):
    """Which weight vectors."""

    policies: int = option(0, "random weight vectors, uniform over the simplex; 0: a grid", low=0)
    weight_step: float = option(0.2, "step of the grid of weights", above=0, high=1)


class WeightedSum(FrontSearch):
    """PPO on each weighted sum of rewards, all weights in parallel, an equal share of the steps each.

    The learning rate falls to 0 in a straight line. Snapshots go to the archive.
    """

    name: ClassVar[str] = "weighted-sum"
    options_class: ClassVar[type[SearchOptions]] = WeightedSumOptions

    def __init__(
        self, options: WeightedSumOptions, spaces: VectorSpaces, reference: Sequence[float], seed: int
    ) -> None:
        super().__init__(options, spaces, reference, seed)
        if options.policies:
            draw = np.random.default_rng(derive_seed(seed, "random weights"))
            self.weights = draw.dirichlet(np.ones(spaces.objectives), options.policies)
        else:
            self.weights = training_weights(spaces.objectives, options.weight_step)

    @property
    def until(self) -> int:
        """The steps at which training with fixed weights ends."""
        return int(self.options.steps)

    def rate(self) -> float:
        return max(0.0, 1 - self.steps / self.until)

    def jobs(self) -> Jobs | None:
        return self.weighted(self.weights) if self.steps < self.until else None

    def weighted(self, weights: Float[ndarray, "nets objectives"]) -> Jobs:
        """All weight vectors, from where they are."""
        if self.current is None:
            seeds = [derive_seed(self.seed, "weights", number) for number in range(len(weights))]
            self.current = Policies.fresh(self.shape, seeds)
        origins = [f"weights {' '.join(f'{value:.3g}' for value in row)}" for row in weights]
        goals = Goals.weighted(torch.from_numpy(weights).float())
        return Jobs(self.current, goals, origins, self.options.evaluate_every, self.until, True)
