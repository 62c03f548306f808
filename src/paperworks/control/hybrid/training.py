"""Training online with or without a log: iterations for all seeds at once, checkpoints that resume to the same result."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from paperworks.control.environments import Spaces, roll_out
from paperworks.control.hybrid.acting import Arena
from paperworks.control.hybrid.actor import StepActor
from paperworks.control.hybrid.episodes import Episodes, StepLog, Streams
from paperworks.control.hybrid.hnpg import HNPG, TRPOOptions
from paperworks.control.policy import ControlPolicy, DiscreteActions, Normaliser
from paperworks.control.training import ControlResult, OnMetrics, check_log
from paperworks.control.transitions import Transitions
from paperworks.core import checkpoints
from paperworks.core.errors import DataError, OptionError, TrainingDiverged
from paperworks.core.interrupts import deferred_interrupt
from paperworks.core.options import check_ranges, option


@dataclass(frozen=True)
class HybridOptions:
    """How long is learned, and what is looked at meanwhile."""

    iterations: int = option(100, "fits of the critics, each with a step of the actors", low=1)
    steps_per_iteration: int = option(1000, "steps of fresh episodes, at least; episodes are whole", low=1)
    horizon: int | None = option(None, "steps of an episode; none: the environment's own limit", low=1)
    seeds: int = option(1, "policies trained side by side, with seeds seed, seed + 1, ...", low=1)
    seed: int = option(0, "first seed")
    normalise: bool = option(True, "with a log: subtract its mean from states, divide by its deviation + 0.001")
    reward_scale: float = option(1.0, "rewards are multiplied by it, so that returns are of the order of 1", above=0)
    reward_range: tuple[float, ...] = option((), "lowest,highest reward; others are refused, in log and environment")
    eval_every: int | None = option(None, "iterations between evaluations; none: a tenth of all", low=1)
    eval_episodes: int = option(10, "episodes of an evaluation, each policy", low=1)
    save_every: int = option(10, "iterations between checkpoints", low=1)

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.reward_range and (len(self.reward_range) != 2 or self.reward_range[0] > self.reward_range[1]):
            raise OptionError(f"reward_range={self.reward_range}: expected two numbers, lowest,highest")

    @property
    def rewards(self) -> tuple[float, float]:
        """The range, unbounded where none is given."""
        return (self.reward_range[0], self.reward_range[1]) if self.reward_range else (-math.inf, math.inf)


def train_hybrid(
    method: str,
    options: TRPOOptions,
    log: Transitions | None,
    spaces: Spaces,
    horizon: int,
    control: HybridOptions,
    *,
    folder: Path | None = None,
    resume: bool = False,
    device: torch.device | str = "cpu",
    on_metrics: OnMetrics | None = None,
) -> ControlResult:
    """HNPG in the environment of `spaces`; TRPO without a `log`. `folder` keeps checkpoints.

    Raises DataError for a log that does not fit, TrainingDiverged, KeyboardInterrupt on Ctrl-C (saved first).
    """
    run = _Hybrid(method, options, log, spaces, horizon, control, folder, torch.device(device), on_metrics)
    try:
        return run.go(resume)
    finally:
        run.arena.close()


def check_rewards(log: Transitions, control: HybridOptions) -> None:
    """Raises DataError for the first logged reward out of the range that was said."""
    low, high = control.rewards
    rows = np.flatnonzero((log.rewards < low) | (log.rewards > high))
    if len(rows):
        raise DataError(
            f"rewards: {len(rows)} outside {low:g} to {high:g} (--reward-range), the first is row {rows[0]}: "
            f"{log.rewards[rows[0]]:g}",
            file=log.source or None,
            field="rewards",
        )


class _Hybrid:
    def __init__(
        self,
        method: str,
        options: TRPOOptions,
        log: Transitions | None,
        spaces: Spaces,
        horizon: int,
        control: HybridOptions,
        folder: Path | None,
        device: torch.device,
        on_metrics: OnMetrics | None,
    ) -> None:
        self.method, self.spaces, self.control, self.folder = method, spaces, control, folder
        self.on_metrics = on_metrics
        self.seeds = [control.seed + number for number in range(control.seeds)]
        discrete = isinstance(spaces.bounds, DiscreteActions)
        self.learner = HNPG(spaces.state, spaces.bounds.width, horizon, options, self.seeds, is_discrete=discrete).to(
            device
        )
        self.normaliser, self.log = Normaliser.none(spaces.state), None
        self.logged_rows = -(-control.steps_per_iteration // horizon)
        if log is not None:
            check_log(log, spaces.bounds, 1, discrete=discrete, method=method)
            check_rewards(log, control)
            if control.normalise:
                self.normaliser = Normaliser.of(log.observations)
            self.log = StepLog(
                _inward(log, spaces, control.reward_scale), horizon, self.normaliser, self.learner.actor.dtype, device
            )
        self.arena = Arena(
            spaces.environment, self.seeds, horizon, control.steps_per_iteration, self.normaliser, spaces.bounds,
            control.rewards,
        )  # fmt: skip
        self.optimiser = torch.optim.SGD(self.learner.parameters())  # checkpoints want one; critics' Adam is made anew
        self.evaluations: list[tuple[int, list[float]]] = []
        self.final: dict[str, list[float]] = {}

    def go(self, resume: bool) -> ControlResult:
        control = self.control
        every = control.eval_every or max(1, control.iterations // 10)
        with deferred_interrupt() as interrupted:
            for iteration in range(self._start(resume), control.iterations):
                self._iterate(iteration)
                done = iteration + 1
                stop, is_last = interrupted(), done == control.iterations
                if done % every == 0 or is_last:
                    self._evaluate(done)
                if done % control.save_every == 0 or is_last or stop:
                    self._save(done)
                if stop and not is_last:
                    kept = f"saved at iteration {done} of {control.iterations}; go on with --resume"
                    raise KeyboardInterrupt(f"interrupted: {kept if self.folder else 'not saved'}")
        return ControlResult(self.policies(), self.evaluations, self.final)

    def policies(self) -> list[ControlPolicy]:
        """The actors as they are, one a seed."""
        learner, width = self.learner, self.spaces.bounds.width
        rows = learner.actor.detach().cpu().view(len(self.seeds), learner.copies, -1)
        return [
            ControlPolicy(
                StepActor(
                    each, state=self.spaces.state, action=width, hidden=learner.options.hidden, horizon=learner.horizon,
                    is_discrete=learner.policies.is_discrete, is_told_step=not learner.has_net_a_step,
                ),
                self.normaliser, self.spaces.bounds, self.method,
            )
            for each in rows
        ]  # fmt: skip

    def _iterate(self, iteration: int) -> None:
        streams = Streams(self.seeds, iteration, self.learner.actor)
        fresh = self.arena.play(self.learner, iteration)
        log = None if self.log is None else self.log.draw(self.logged_rows, streams)
        scaled = dataclasses.replace(fresh, rewards=fresh.rewards * self.control.reward_scale)
        told = self.learner.improve(scaled, log, streams)
        self.final = {name: values.tolist() for name, values in {**told, **_lived(fresh)}.items()}
        for name, values in self.final.items():
            for seed, value in zip(self.seeds, values, strict=True):
                if not math.isfinite(value):
                    raise TrainingDiverged(
                        f"{self.method}: {name} is {value:g} in iteration {iteration + 1}, seed {seed}: it has diverged; "
                        "the last checkpoint is kept: lower --critic-rate or --max-kl"
                    )
        if self.on_metrics is not None:
            self.on_metrics(iteration + 1, self.final)

    def _evaluate(self, done: int) -> None:
        means = []
        for seed, policy in zip(self.seeds, self.policies(), strict=True):
            acting = policy.acting(seed)
            episodes = roll_out(self.spaces.environment, acting, self.control.eval_episodes, seed=seed)
            means.append(float(episodes.returns.mean()))
        self.evaluations.append((done, means))
        if self.on_metrics is not None:
            self.on_metrics(done, {"return": means})

    def _start(self, resume: bool) -> int:
        if not resume or self.folder is None:
            return 0
        state = checkpoints.load_checkpoint(self.folder / "checkpoints", self.learner, self.optimiser)
        if state is None:
            return 0
        self.evaluations = [(int(step), list(values)) for step, values in state["evaluations"]]
        self.final = dict(state["final"])
        return int(state["step"])

    def _save(self, done: int) -> None:
        if self.folder is not None:
            state = {"step": done, "evaluations": self.evaluations, "final": self.final}
            checkpoints.save_checkpoint(self.folder / "checkpoints", self.learner, self.optimiser, state)


def _inward(log: Transitions, spaces: Spaces, reward_scale: float) -> Transitions:
    """The log with actions and rewards as the learner knows them."""
    bounds, rewards = spaces.bounds, (log.rewards * reward_scale).astype(np.float32)
    actions = log.actions if isinstance(bounds, DiscreteActions) else bounds.inward(log.actions)
    return dataclasses.replace(log, actions=actions, rewards=rewards)


def _lived(fresh: Episodes) -> dict[str, Tensor]:
    """Mean return and length of fresh episodes."""
    return {"fresh_return": fresh.rewards.sum(1).mean(1), "fresh_length": fresh.alive.sum(1).mean(1)}
