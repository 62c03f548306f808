"""C-MORL (arXiv 2410.02236): a few policies with fixed weights, then extensions from the sparsest parts of their front.

    stage 1   PPO on weighted sums, weights on a grid                                 weighted_sum.py
    archive   returns that none dominates, at most 200                                pareto.py, Archive
    select    the N archived policies of largest crowding distance, each once         pareto.py, select
    stage 2   from each, for each objective i: improve G_i, hold the others           barrier.py (IPO), cpo.py

Stage 2 keeps Adam's moments and goes back to the full learning rate, which has fallen to 0 over stage 1. What is held is
measured as what is expected is: by roll-outs with exploring actions, discounted by `gamma`, the first of the extension
deciding the thresholds. Where every archived policy was selected once, selection begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from paperworks.control.multi_objective.environments import VectorSpaces
from paperworks.control.multi_objective.pareto import Vector, select, vector
from paperworks.control.multi_objective.policies import Policies
from paperworks.control.multi_objective.ppo import BarrierForm, Goals, Hold
from paperworks.control.multi_objective.search import Jobs, SearchOptions
from paperworks.control.multi_objective.weighted_sum import WeightedSum, WeightedSumOptions
from paperworks.core.options import option
from paperworks.core.seeding import derive_seed


@dataclass(frozen=True)
class CMORLOptions(WeightedSumOptions):
    """The two stages. Published: weight_step 0.2 to 1, select 5 (two objectives) or 6, beta 0.9, t 20."""

    init_steps: int | None = option(None, "of the steps, those of stage 1; none: two fifths", low=1)
    select: int | None = option(None, "policies extended at a time; none: 5 for two objectives, 6 for more", low=1)
    beta: float = option(0.9, "share of its return that a held objective keeps", below=1)
    t: float = option(20.0, "sharpness of the barrier", above=0)
    ipo_variant: BarrierForm = option("formula", "the barrier of the paper's formula, or the released code's other one")
    optimiser: Literal["ipo", "cpo"] = option("ipo", "by the barrier, or by constrained steps in a trust region")
    max_kl: float = option(0.01, "of a constrained step (cpo), nats", above=0)
    selection: Literal["crowding", "random"] = option("crowding", "which archived policies are extended")


class CMORL(WeightedSum):
    """Two stages: fixed weights, then extensions along each objective from where the front is sparse."""

    name: ClassVar[str] = "c-morl"
    options_class: ClassVar[type[SearchOptions]] = CMORLOptions
    options: CMORLOptions

    def __init__(self, options: CMORLOptions, spaces: VectorSpaces, reference: Sequence[float], seed: int) -> None:
        super().__init__(options, spaces, reference, seed)
        self.hold = Hold(options.beta, options.t, options.ipo_variant, options.optimiser, options.max_kl)
        self.chosen: set[Vector] = set()
        self.selections: list[tuple[int, list[Vector]]] = []  # (steps, vectors) of each round

    @property
    def until(self) -> int:
        given = self.options.init_steps
        return min(self.options.steps, self.options.steps * 2 // 5 if given is None else given)

    def rate(self) -> float:
        return super().rate() if self.steps < self.until else 1.0

    def jobs(self) -> Jobs | None:
        if self.steps < self.until:
            return self.weighted(self.weights)
        self.check_reference()
        return self._extensions() if self.steps < self.options.steps else None

    def _extensions(self) -> Jobs:
        assert self.policies is not None
        objectives, picked = self.spaces.objectives, self._selected()
        points = [vector(self.archive.points[place]) for place in picked]
        self.chosen |= set(points)
        self.selections.append((self.steps, points))
        policies = self.policies.take([place for place in picked for _ in range(objectives)])
        shown = [" ".join(f"{value:.4g}" for value in point) for point in points]
        origins = [f"objective {i + 1} from ({point})" for point in shown for i in range(objectives)]
        goals = Goals.join([Goals.one_each(objectives) for _ in picked])
        return Jobs(policies, goals, origins, 1, self.options.steps, False)

    def _selected(self) -> list[int]:
        count = self.options.select or (5 if self.spaces.objectives == 2 else 6)
        points = self.archive.points
        if all(vector(point) in self.chosen for point in points):
            self.chosen = set()
        if self.options.selection == "crowding":
            return select(points, count, self.chosen)
        fresh = [place for place in range(len(points)) if vector(points[place]) not in self.chosen]
        draw = np.random.default_rng(derive_seed(self.seed, "selection", self.legs))
        return sorted(draw.permutation(fresh)[:count].tolist())

    def state(self) -> dict[str, Any]:
        rounds = [[steps, [list(point) for point in points]] for steps, points in self.selections]
        return {**super().state(), "chosen": sorted(list(point) for point in self.chosen), "selections": rounds}

    def restore(self, state: Mapping[str, Any], policies: Policies | None, current: Policies | None) -> None:
        super().restore(state, policies, current)
        self.chosen = {tuple(point) for point in state["chosen"]}
        self.selections = [(steps, [tuple(point) for point in points]) for steps, points in state["selections"]]
