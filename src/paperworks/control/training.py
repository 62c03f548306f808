"""Learning from a log: steps for all seeds at once, evaluation now and then, checkpoints that resume to the same result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from paperworks.control.batches import Draws, Log
from paperworks.control.environments import roll_out
from paperworks.control.learner import Learner, LearnerOptions, Shapes
from paperworks.control.policy import ActionBounds, ControlPolicy, DiscreteActions, Normaliser
from paperworks.control.transitions import Transitions
from paperworks.core import checkpoints
from paperworks.core.devices import keep_freed_memory
from paperworks.core.errors import DataError, OptionError, TrainingDiverged
from paperworks.core.interrupts import deferred_interrupt
from paperworks.core.options import check_ranges, option

if TYPE_CHECKING:
    from paperworks.control.report import ReportSection

LOGGED_EVERY = 500  # steps


@dataclass(frozen=True)
class ControlOptions:
    """How long a log is learned from, and what is looked at meanwhile."""

    steps: int = option(100_000, "gradient steps", low=1)
    batch_size: int = option(256, "transitions a step, drawn with replacement", low=1)
    seeds: int = option(1, "policies trained side by side, with seeds seed, seed + 1, ...", low=1)
    seed: int = option(0, "first seed")
    normalise: bool = option(True, "subtract the log's mean from states, divide by its deviation + 0.001")
    reward_scale: float = option(1.0, "rewards are multiplied by it", above=0)
    reward_shift: float = option(0.0, "and this is added")
    then_online: int = option(
        0, "steps in --env behind those on the log, each with a gradient step on all there is", low=0
    )
    eval_every: int | None = option(None, "steps between evaluations; none: a tenth of all", low=1)
    eval_episodes: int = option(10, "episodes of an evaluation, each policy", low=1)
    save_every: int = option(10_000, "steps between checkpoints", low=1)
    most_q: float = option(1e6, "stop where |Q| is above this: it has diverged", above=0)

    def __post_init__(self) -> None:
        check_ranges(self)


Bounds = ActionBounds | DiscreteActions
OnMetrics = Callable[[int, Mapping[str, Sequence[float]]], None]  # steps done, numbers of every seed


@dataclass(frozen=True)
class ControlResult:
    """The policies, one a seed, and how they did: `evaluations` are (steps, mean return of every seed)."""

    policies: Sequence[ControlPolicy]
    evaluations: Sequence[tuple[int, Sequence[float]]]
    final: Mapping[str, Sequence[float]]
    sections: Sequence[ReportSection] = ()  # what the learner says of the log


def train_offline(
    learner: type[Learner],
    options: LearnerOptions,
    log: Transitions,
    bounds: Bounds,
    control: ControlOptions = ControlOptions(),
    *,
    environment: str | None = None,
    folder: Path | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    on_metrics: OnMetrics | None = None,
) -> ControlResult:
    """Learn policies from a log. With an `environment` they are rolled out now and then; `folder` keeps checkpoints.

    Raises DataError for a log that does not fit, TrainingDiverged, KeyboardInterrupt on Ctrl-C (saved first).
    """
    keep_freed_memory()
    return _Run(
        learner, options, log, bounds, control, environment, folder, resume, torch.device(device), on_metrics
    ).go()


class _Run:
    def __init__(
        self,
        learner: type[Learner],
        options: LearnerOptions,
        log: Transitions,
        bounds: Bounds,
        control: ControlOptions,
        environment: str | None,
        folder: Path | None,
        resume: bool,
        device: torch.device,
        on_metrics: OnMetrics | None,
    ) -> None:
        check_online(learner, control, environment)
        discrete = learner.is_discrete
        check_log(log, bounds, control.batch_size, discrete=discrete, method=learner.name)
        learner.check(log, options)
        log = log.best_episodes(getattr(options, "best", 1.0))
        width = log.observations.shape[1]
        self.normaliser = Normaliser.of(log.observations) if control.normalise else Normaliser.none(width)
        self.bounds, self.control, self.environment, self.folder = bounds, control, environment, folder
        self.resume, self.on_metrics, self.method = resume, on_metrics, learner.name
        self.seeds = [control.seed + number for number in range(control.seeds)]
        inward = Transitions(
            log.observations, inward_actions(log, bounds),
            log.rewards * control.reward_scale + control.reward_shift,
            log.next_observations, log.terminations, log.truncations, log.costs, constraint=log.constraint,
        )  # fmt: skip
        self.log = Log(inward, self.normaliser.mean, self.normaliser.deviation, device)
        shapes = Shapes(width, bounds.width)
        self.learner = learner(shapes, options, self.seeds, self.log).to(device)
        self.draws = Draws(self.seeds, control.batch_size, len(self.log), device)
        self.evaluations: list[tuple[int, list[float]]] = []
        self.final: dict[str, list[float]] = {}

    def go(self) -> ControlResult:
        control, means = self.control, Means()
        every = control.eval_every or max(1, control.steps // 10)
        with deferred_interrupt() as interrupted:
            for step in range(self._start(), control.steps):
                means.add(self.learner.update(self.log.batch(self.draws.rows(step)), self.draws, step))
                done = step + 1
                stop = interrupted()
                saves = done % control.save_every == 0 or done == control.steps or stop
                if done % LOGGED_EVERY == 0 or saves:
                    self.final = means.taken()
                    check_finite(self.final, self.learner, done, control.most_q)
                    if self.on_metrics is not None:
                        self.on_metrics(done, self.final)
                if self.environment is not None and (done % every == 0 or done == control.steps):
                    self._evaluate(done)
                if saves:
                    self._save(done)
                if stop and done < control.steps:
                    kept = (
                        f"saved at step {done} of {control.steps}; go on with --resume" if self.folder else "not saved"
                    )
                    raise KeyboardInterrupt(f"interrupted: {kept}")
        if control.then_online:
            self._go_online()
        return ControlResult(self.policies(), self.evaluations, self.final, self.learner.judged(self.log))

    def policies(self) -> list[ControlPolicy]:
        """The actors as they are, one a seed."""
        return [
            ControlPolicy(self.learner.actor_of(place), self.normaliser, self.bounds, self.method)
            for place in range(len(self.seeds))
        ]

    def _go_online(self) -> None:
        from paperworks.control.online.continuation import go_online  # both are built on this module
        from paperworks.control.online.loop import Around

        assert self.environment is not None
        control = self.control
        around = Around(self.environment, self.normaliser, self.bounds, control.reward_scale, control.reward_shift)
        found = go_online(
            self.learner, self.log, around, control, folder=self.folder, resume=self.resume, on_metrics=self.on_metrics
        )
        self.evaluations += [(at, list(means)) for at, means in found]

    def _evaluate(self, done: int) -> None:
        assert self.environment is not None
        means, costs = list[float](), list[float]()
        for seed, policy in zip(self.seeds, self.policies(), strict=True):
            episodes = roll_out(self.environment, policy.acting(seed), self.control.eval_episodes, seed=seed)
            means.append(float(episodes.returns.mean()))
            if episodes.costs is not None:
                costs.append(float(episodes.costs.mean()))
        self.evaluations.append((done, means))
        if self.on_metrics is not None:
            self.on_metrics(done, {"return": means, **({"cost": costs} if costs else {})})

    def _start(self) -> int:
        if not self.resume or self.folder is None:
            return 0
        state = checkpoints.load_checkpoint(self.folder / "checkpoints", self.learner, self.learner.optimiser)
        if state is None:
            return 0
        self.evaluations = [(int(step), list(values)) for step, values in state["evaluations"]]
        self.final = dict(state["final"])
        return int(state["step"])

    def _save(self, done: int) -> None:
        if self.folder is None:
            return
        state = {"step": done, "evaluations": self.evaluations, "final": self.final}
        checkpoints.save_checkpoint(self.folder / "checkpoints", self.learner, self.learner.optimiser, state)


class Means:
    """Means over steps of what learners tell."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, told: Mapping[str, Tensor]) -> None:
        """What one step told, one number a seed."""
        for name, value in told.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def taken(self) -> dict[str, list[float]]:
        """The means since they were last taken."""
        found = {name: [float(each) for each in total / self._counts[name]] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return found


def check_finite(final: Mapping[str, Sequence[float]], learner: Learner, done: int, most_q: float) -> None:
    """Raises TrainingDiverged for a number that is not finite, or a Q beyond the bound; it names the seed."""
    for name, values in final.items():
        for seed, value in zip(learner.seeds, values, strict=True):
            if not math.isfinite(value) or (name == "q" and abs(value) > most_q):
                raise TrainingDiverged(
                    f"{learner.name}: {name} is {value:g} at step {done}, seed {seed}: it has diverged; the last "
                    "checkpoint is kept: lower --learning-rate, or hold closer to the log"
                )


def inward_actions(log: Transitions, bounds: Bounds) -> np.ndarray:
    """The log's actions as learners know them: in [-1, 1], or as they are where they are discrete."""
    if isinstance(bounds, DiscreteActions):
        return log.actions
    return bounds.inward(log.actions).clip(-1, 1)


def check_online(learner: type[Learner], control: ControlOptions, environment: str | None) -> None:
    """Raises OptionError where an online phase is asked for that cannot be: no environment, or of no use to the method."""
    if not control.then_online:
        return
    if not learner.goes_online:
        from paperworks.control.offline import OFFLINE

        others = ", ".join(name for name, each in OFFLINE.items() if each.goes_online)
        raise OptionError(f"--then-online: {learner.name} learns from a log alone; {others} go on")
    if environment is None:
        raise OptionError("--then-online needs an environment to act in: --env ID")


def check_log(log: Transitions, bounds: Bounds, batch_size: int, *, discrete: bool = False, method: str = "") -> None:
    """Raises DataError for actions of the other kind, another width, or out of bounds, and for too few transitions."""
    where = log.source or None
    if log.is_discrete != discrete:
        found, expected = ("whole numbers (discrete)", "continuous") if log.is_discrete else ("continuous", "discrete")
        from paperworks.control.discrete import DISCRETE
        from paperworks.control.offline import OFFLINE

        fitting = ", ".join(DISCRETE if log.is_discrete else OFFLINE)
        raise DataError(
            f"actions are {found}; {method or 'this method'} takes {expected} ones; for these there are {fitting}",
            file=where,
            field="actions",
        )
    if isinstance(bounds, DiscreteActions) != discrete:
        kinds = ("continuous", "discrete") if discrete else ("discrete", "continuous")
        raise DataError(
            f"the environment takes {kinds[0]} actions, the log has {kinds[1]} ones", file=where, field="actions"
        )
    if not discrete and log.actions.shape[1] != bounds.width:
        raise DataError(
            f"actions of {log.actions.shape[1]} numbers; the environment takes {bounds.width}",
            file=where,
            field="actions",
        )
    bounds.check(log.actions, log.source)
    if len(log) < batch_size:
        raise DataError(f"{len(log)} transitions, fewer than a batch of {batch_size}: lower --batch-size", file=where)


def bounds_of(log: Transitions) -> Bounds:
    """The box of a log's actions where no environment says it: [-1, 1], or the largest number of each dimension.

    With discrete actions, as many as the largest number says.
    """
    if log.is_discrete:
        return DiscreteActions(int(log.actions.max()) + 1)
    most = np.abs(log.actions).max(0).clip(min=1.0)
    return ActionBounds(-most.astype(np.float32), most.astype(np.float32))
