"""The search for a front: policies trained in legs, evaluated, offered to an archive, until the steps are used up.

Independent searches (seeds) stand side by side in one batch of nets. Between two legs a search is rows of policies and a few
plain values, which is what a checkpoint holds: environments begin anew with every leg.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from paperworks.control.multi_objective.barrier import Limits
from paperworks.control.multi_objective.environments import Environments
from paperworks.control.multi_objective.pareto import Archive, Vector, select, training_weights, vector
from paperworks.control.multi_objective.policies import NetShape, Policies
from paperworks.control.multi_objective.ppo import (
    Barrier, Chance, Goals, PPOOptions, Workers, evaluate, learn, prepare,
)  # fmt: skip
from paperworks.core.errors import DataError, TrainingDiverged
from paperworks.core.options import option
from paperworks.core.seeding import derive_seed, torch_generator


@dataclass(frozen=True)
class SearchOptions(PPOOptions):
    """What every search for a front has."""

    steps: int = option(500_000, "steps of the environment, of all policies, evaluation included", low=1)
    updates_a_leg: int = option(20, "updates between two checkpoints", low=1)
    evaluate_every: int = option(10, "updates between two snapshots while weights are trained", low=1)
    eval_episodes: int = option(5, "episodes of an evaluation", low=1)
    eval_gamma: float = option(0.99, "discount of the returns that the front is made of", above=0, high=1)
    capacity: int = option(200, "most policies in the archive", low=2)


@dataclass(frozen=True)
class Entry:
    """Where a policy of the archive comes from."""

    origin: str
    steps: int  # that the search had used


@dataclass(frozen=True)
class Jobs:
    """What a search wants trained in a leg."""

    policies: Policies
    goals: Goals
    origins: Sequence[str]
    is_last_stage: bool  # whether what is trained is only offered to the archive, and else dropped


class FrontSearch(ABC):
    """One search (a seed): what it trains next, what it found."""

    def __init__(self, options: SearchOptions, shape: NetShape, reference: Sequence[float], seed: int) -> None:
        self.options, self.shape, self.seed = options, shape, seed
        self.archive = Archive(reference, options.capacity)
        self.policies: Policies | None = None  # of the archive
        self.current: Policies | None = None  # that go on being trained
        self.entries: list[Entry] = []
        self.best = np.full(shape.objectives, -math.inf)  # of anything evaluated
        self.steps, self.legs = 0, 0
        self.curve: list[tuple[int, list[Vector]]] = []  # the front after each leg

    @abstractmethod
    def jobs(self) -> Jobs | None:
        """What to train in the next leg; None when there is nothing more."""

    @property
    def limit(self) -> int:
        """The steps at which the leg in progress is to end."""
        return self.options.steps

    def rate(self) -> float:
        """The share of the learning rate that is used now."""
        return 1.0

    def offer(self, points: Float[ndarray, "some objectives"], policies: Policies, origins: Sequence[str]) -> None:
        """Give evaluated policies to the archive. Raises TrainingDiverged for returns that are not finite."""
        if not np.isfinite(points).all():
            place = int(np.flatnonzero(~np.isfinite(points).all(1))[0])
            raise TrainingDiverged(f"{origins[place]}: returns {points[place].tolist()} after {self.steps} steps")
        self.best = np.maximum(self.best, points.max(0))
        count, kept = len(self.archive), self.archive.offer(points)
        new = Policies.join([each for each in (self.policies, policies) if each is not None])
        self.policies = new.take(kept.tolist())
        entries = [*self.entries, *(Entry(origin, self.steps) for origin in origins)]
        assert count + len(origins) == len(entries)
        self.entries = [entries[place] for place in kept]

    def check_reference(self) -> None:
        """Raises DataError where nothing is in the archive; it says which objectives never reached the reference point."""
        if len(self.archive):
            return
        reference = self.archive.reference
        short = [
            f"objective {number + 1}: best {self.best[number]:.4g}, reference {reference[number]:.4g}"
            for number in np.flatnonzero(self.best < reference)
        ]
        told = "; ".join(short) or "each objective does in some policy, none in all at once"
        raise DataError(f"no policy reaches the reference point after {self.steps} steps ({told}); lower it")

    def state(self) -> dict[str, Any]:
        """The plain values of a checkpoint."""
        return {
            "seed": self.seed, "steps": self.steps, "legs": self.legs, "points": self.archive.points.tolist(),
            "entries": [[each.origin, each.steps] for each in self.entries], "best": self.best.tolist(),
            "curve": [[steps, [list(point) for point in points]] for steps, points in self.curve],
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any], policies: Policies | None, current: Policies | None) -> None:
        """Go on from a checkpoint."""
        self.steps, self.legs, self.policies, self.current = state["steps"], state["legs"], policies, current
        self.archive.points = np.asarray(state["points"], dtype=np.float64).reshape(-1, self.shape.objectives)
        self.entries = [Entry(origin, steps) for origin, steps in state["entries"]]
        self.best = np.asarray([-math.inf if value is None else value for value in state["best"]])
        self.curve = [(steps, [tuple(point) for point in points]) for steps, points in state["curve"]]


class WeightedSums(FrontSearch):
    """One policy a weight vector, each trained by PPO on its weighted sum of rewards; snapshots go to the archive."""

    def __init__(
        self,
        options: SearchOptions,
        shape: NetShape,
        reference: Sequence[float],
        seed: int,
        weights: Float[ndarray, "nets objectives"],
    ) -> None:
        super().__init__(options, shape, reference, seed)
        self.weights = weights

    @property
    def limit(self) -> int:
        return self.options.steps

    def rate(self) -> float:
        return max(0.0, 1 - self.steps / self.limit)

    def jobs(self) -> Jobs | None:
        return self.weighted_jobs() if self.steps < self.limit else None

    def weighted_jobs(self) -> Jobs:
        """All weight vectors."""
        if self.current is None:
            seeds = [derive_seed(self.seed, "weights", number) for number in range(len(self.weights))]
            self.current = Policies.fresh(self.shape, seeds)
        goals = Goals.weighted(torch.from_numpy(self.weights).float())
        origins = [f"weights {' '.join(f'{value:.3g}' for value in row)}" for row in self.weights]
        return Jobs(self.current, goals, origins, False)


class Trainer:
    """Trains searches side by side, leg by leg."""

    def __init__(
        self,
        searches: Sequence[FrontSearch],
        environments: Environments,
        evaluation: Environments,
        after_leg: Callable[[], None] = lambda: None,
    ) -> None:
        self.searches, self._evaluation, self._after_leg = searches, evaluation, after_leg
        self.options = searches[0].options
        self._workers = Workers(environments, self.options.copies)

    def go(self) -> None:
        """Train until every search has used its steps."""
        while self.leg():
            self._after_leg()

    def leg(self) -> bool:
        """A leg of every search that has something to train; whether there was one."""
        at_work = [(search, jobs) for search in self.searches if (jobs := search.jobs()) is not None]
        if not at_work:
            return False
        _Leg(self, at_work).run()
        for search, _ in at_work:
            search.legs += 1
            search.curve.append((search.steps, [vector(point) for point in search.archive.points]))
        return True

    def evaluated(self, policies: Policies, episodes: int, seed: int) -> tuple[ndarray, ndarray]:
        """(mean returns [n, objectives], steps [n]) over episodes that are the same for every policy."""
        seeds = [derive_seed(seed, "evaluation", number) % 2**31 for number in range(episodes)]
        returns, steps = evaluate(policies, self._evaluation, seeds, self.options.eval_gamma)
        return returns.numpy(), steps.numpy()


class _Leg:
    def __init__(self, trainer: Trainer, at_work: Sequence[tuple[FrontSearch, Jobs]]) -> None:
        self._trainer, self._options, self._at_work = trainer, trainer.options, at_work
        self._policies = Policies.join([jobs.policies for _, jobs in at_work])
        self._goals = Goals.join([jobs.goals for _, jobs in at_work])
        ends = np.cumsum([len(jobs.policies) for _, jobs in at_work])
        self._spans = [slice(int(end - len(jobs.policies)), int(end)) for end, (_, jobs) in zip(ends, at_work)]

    def run(self) -> None:
        options, workers = self._options, self._trainer._workers
        workers.restart([
            derive_seed(search.seed, "leg", search.legs, net, copy)
            for search, jobs in self._at_work for net in range(len(jobs.policies)) for copy in range(options.copies)
        ])  # fmt: skip
        limits: Limits | None = None
        for update in range(options.updates_a_leg):
            chance = Chance([
                (torch_generator(search.seed, "leg", search.legs, "update", update), len(jobs.policies))
                for search, jobs in self._at_work
            ])  # fmt: skip
            rollout = workers.collect(self._policies, options.rollout_steps, options.gamma, chance)
            batch = prepare(self._policies, rollout, workers.starts, options)
            if limits is None:
                limits = Limits.at(batch.returns, self._goals.held, self._beta, self._policies.reward_deviation)
            learn(self._policies, batch, self._goals, options, self._rates(), chance, self._barrier(limits))
            for search, jobs in self._at_work:
                search.steps += 0 if search.steps >= search.limit else rollout.size * len(jobs.policies)
            if not self._evaluate_where_due(update + 1):
                break
        for (search, jobs), span in zip(self._at_work, self._spans):
            search.current = None if jobs.is_last_stage else self._policies.take(span)

    @property
    def _beta(self) -> float:
        return float(getattr(self._options, "beta", 1.0))

    def _barrier(self, limits: Limits) -> Barrier | None:
        if not self._goals.held.any():
            return None
        options: Any = self._options
        return Barrier(limits, options.t, options.barrier, options.beta)

    def _rates(self) -> torch.Tensor:
        rates = [search.rate() for search, jobs in self._at_work for _ in range(len(jobs.policies))]
        return self._options.learning_rate * torch.tensor(rates)
