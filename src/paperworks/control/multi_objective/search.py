"""The search for a front: policies trained in legs, evaluated, offered to an archive, until the steps are used up.

Independent searches (seeds) stand side by side in one batch of nets. Between two legs a search is rows of policies and a few
plain values, which is what a checkpoint holds: environments begin anew with every leg.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from paperworks.control.multi_objective.barrier import Limits
from paperworks.control.multi_objective.environments import Environments, VectorSpaces
from paperworks.control.multi_objective.pareto import Archive, Vector, vector
from paperworks.control.multi_objective.policies import NetShape, Policies
from paperworks.control.multi_objective.ppo import (
    Chance,
    Goals,
    Hold,
    PPOOptions,
    Workers,
    evaluate,
    learn,
    prepare,
)  # fmt: skip
from paperworks.core.errors import DataError, OptionError, TrainingDiverged
from paperworks.core.options import option
from paperworks.core.seeding import derive_seed, torch_generator


@dataclass(frozen=True)
class SearchOptions(PPOOptions):
    """What every search for a front has."""

    steps: int = option(500_000, "steps of the environment: of all policies together, evaluation included", low=1)
    updates_a_leg: int = option(20, "updates between two checkpoints, and of an extension along an objective", low=1)
    evaluate_every: int = option(10, "updates between two snapshots of policies with fixed weights", low=1)
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
    evaluate_every: int
    until: int  # the search's steps at which the leg ends in any case
    goes_on: bool  # whether the next leg needs the policies; else they are only offered to the archive


class FrontSearch(ABC):
    """One search (a seed): what it trains next, what it found."""

    name: ClassVar[str]
    options_class: ClassVar[type[SearchOptions]]
    hold: Hold = Hold()

    def __init__(self, options: Any, spaces: VectorSpaces, reference: Sequence[float], seed: int) -> None:
        if len(reference) != spaces.objectives:
            raise OptionError(
                f"a reference point of {len(reference)} numbers; {spaces.environment} has {spaces.objectives} objectives"
            )
        self.options, self.spaces, self.seed = options, spaces, seed
        width, objectives = spaces.bounds.width, spaces.objectives
        self.shape = NetShape(spaces.state, width, objectives, tuple(options.hidden), spaces.is_discrete)
        self.archive = Archive(reference, options.capacity)
        self.policies: Policies | None = None  # of the archive
        self.current: Policies | None = None  # that go on being trained
        self.entries: list[Entry] = []
        self.best = np.full(objectives, -math.inf)  # of anything evaluated
        self.steps, self.legs = 0, 0
        self.curve: list[tuple[int, list[Vector]]] = []  # the front after each leg

    @abstractmethod
    def jobs(self) -> Jobs | None:
        """What to train in the next leg; None when the steps are used up. Raises DataError where nothing can go on."""

    def rate(self) -> float:
        """The share of the learning rate that is used now."""
        return 1.0

    def offer(self, points: Float[ndarray, "some objectives"], policies: Policies, origins: Sequence[str]) -> None:
        """Give evaluated policies to the archive. Raises TrainingDiverged for returns that are not finite."""
        if not np.isfinite(points).all():
            place = int(np.flatnonzero(~np.isfinite(points).all(1))[0])
            raise TrainingDiverged(f"{origins[place]}: returns {points[place].tolist()} after {self.steps} steps")
        self.best = np.maximum(self.best, points.max(0))
        kept = self.archive.offer(points).tolist()
        self.policies = Policies.join([each for each in (self.policies, policies) if each is not None]).take(kept)
        entries = [*self.entries, *(Entry(origin, self.steps) for origin in origins)]
        self.entries = [entries[place] for place in kept]

    def check_reference(self) -> None:
        """Raises DataError where nothing is in the archive; it says which objectives never reached the reference point."""
        if len(self.archive):
            return
        reference = self.archive.reference
        short = [
            f"{self.spaces.names[number] if self.spaces.names else f'objective {number + 1}'}: best "
            f"{self.best[number]:.4g}, reference {reference[number]:.4g}"
            for number in np.flatnonzero(self.best < reference)
        ]
        told = "; ".join(short) or "each objective does in some policy, none in all at once"
        raise DataError(f"no policy reaches the reference point after {self.steps} steps ({told}); lower it")

    def state(self) -> dict[str, Any]:
        """The plain values of a checkpoint."""
        return {
            "steps": self.steps, "legs": self.legs, "points": self.archive.points.tolist(),
            "entries": [[each.origin, each.steps] for each in self.entries], "best": self.best.tolist(),
            "curve": [[steps, [list(point) for point in points]] for steps, points in self.curve],
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any], policies: Policies | None, current: Policies | None) -> None:
        """Go on from a checkpoint."""
        self.steps, self.legs, self.policies, self.current = state["steps"], state["legs"], policies, current
        self.archive.points = np.asarray(state["points"], dtype=np.float64).reshape(-1, self.spaces.objectives)
        self.entries = [Entry(origin, steps) for origin, steps in state["entries"]]
        self.best = np.asarray([-math.inf if value is None else value for value in state["best"]])
        self.curve = [(steps, [tuple(point) for point in points]) for steps, points in state["curve"]]


class Trainer:
    """Trains searches side by side, leg by leg; all have the same options."""

    def __init__(self, searches: Sequence[FrontSearch], environments: Environments, evaluation: Environments) -> None:
        self.searches, self.evaluation = searches, evaluation
        self.workers = Workers(environments, searches[0].options.copies)

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

    def evaluated(
        self, policies: Policies, seeds: Sequence[int], episodes: int
    ) -> tuple[Float[ndarray, "n objectives"], Float[ndarray, " n"]]:
        """(mean returns, steps) of each policy over episodes that a seed decides, one a policy."""
        starts = [[derive_seed(seed, "evaluation", n) % 2**31 for n in range(episodes)] for seed in seeds]
        returns, steps = evaluate(policies, self.evaluation, starts, self.searches[0].options.eval_gamma)
        return returns.numpy(), steps.numpy()


class _Leg:
    """Updates of all policies of all searches at once."""

    def __init__(self, trainer: Trainer, at_work: Sequence[tuple[FrontSearch, Jobs]]) -> None:
        self._trainer, self._at_work, self._options = trainer, at_work, at_work[0][0].options
        self._policies = Policies.join([jobs.policies for _, jobs in at_work])
        self._goals = Goals.join([jobs.goals for _, jobs in at_work])
        ends = np.cumsum([len(jobs.policies) for _, jobs in at_work])
        self._spans = [slice(int(end) - len(jobs.policies), int(end)) for end, (_, jobs) in zip(ends, at_work)]

    def run(self) -> None:
        options, workers = self._options, self._trainer.workers
        workers.restart(
            [
                derive_seed(search.seed, "leg", search.legs, net, copy) % 2**31
                for search, jobs in self._at_work
                for net in range(len(jobs.policies))
                for copy in range(options.copies)
            ]
        )
        limits: Limits | None = None
        for update in range(options.updates_a_leg):
            open_now = [search.steps < jobs.until for search, jobs in self._at_work]
            if not any(open_now):
                break
            chance = self._chance(update)
            rollout = workers.collect(self._policies, options.rollout_steps, options.gamma, chance)
            batch = prepare(self._policies, rollout, workers.starts, options)
            hold = self._at_work[0][0].hold
            if limits is None and self._goals.held.any():
                limits = Limits.at(batch.returns, self._goals.held, hold.beta, self._policies.reward_deviation)
            learn(self._policies, batch, self._goals, options, self._rates(), chance, limits, hold)
            self._account(open_now, rollout.size, update + 1)
        for (search, jobs), span in zip(self._at_work, self._spans):
            search.current = self._policies.take(span) if jobs.goes_on else None

    def _account(self, open_now: Sequence[bool], size: int, updates: int) -> None:
        """Count the steps of the searches that go on, evaluate where it is due, offer."""
        due = []
        for place, (search, jobs) in enumerate(self._at_work):
            if not open_now[place]:
                continue
            search.steps += size * len(jobs.policies)
            if (
                updates % jobs.evaluate_every == 0
                or search.steps >= jobs.until
                or updates == self._options.updates_a_leg
            ):
                due.append(place)
        if not due:
            return
        policies = Policies.join([self._policies.take(self._spans[place]) for place in due])
        seeds = [self._at_work[place][0].seed for place in due for _ in self._at_work[place][1].origins]
        points, steps = self._trainer.evaluated(policies, seeds, self._options.eval_episodes)
        begin = 0
        for place in due:
            search, jobs = self._at_work[place]
            own = slice(begin, begin + len(jobs.policies))
            search.steps += int(steps[own].sum())
            search.offer(points[own], policies.take(own), jobs.origins)
            begin = own.stop

    def _chance(self, update: int) -> Chance:
        return Chance(
            [
                (torch_generator(search.seed, "leg", search.legs, "update", update), len(jobs.policies))
                for search, jobs in self._at_work
            ]
        )

    def _rates(self) -> torch.Tensor:
        rates = [search.rate() for search, jobs in self._at_work for _ in range(len(jobs.policies))]
        return self._options.learning_rate * torch.tensor(rates)
