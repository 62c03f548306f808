"""Learning while acting: a step in the environment and a gradient step, for every seed at once.

A run that was killed goes on from its last checkpoint to the same result: episodes in progress are cut where a checkpoint
is written, for an environment's inner state cannot be saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from paperworks.control.batches import Draws
from paperworks.control.environments import roll_out
from paperworks.control.learner import Learner
from paperworks.control.online.lanes import Lanes
from paperworks.control.online.replay import Replay
from paperworks.control.policy import ActionBounds, ControlPolicy, DiscreteActions, Normaliser
from paperworks.control.training import Means, OnMetrics, check_finite
from paperworks.core import checkpoints
from paperworks.core.errors import RunError
from paperworks.core.files import atomic_folder
from paperworks.core.interrupts import deferred_interrupt
from paperworks.core.options import check_ranges, option

LOGGED_EVERY = 500  # steps

OnEvaluation = Callable[[int, Sequence[ControlPolicy], Sequence[float]], None]  # steps, policies, mean returns


@dataclass(frozen=True)
class OnlineOptions:
    """How long, and what is looked at meanwhile."""

    steps: int = option(100_000, "environment steps of each seed; a gradient step behind each", low=1)
    batch_size: int = option(256, "transitions a gradient step, from all that was lived through", low=1)
    warm_up: int = option(1000, "first steps, in which actions are random and nothing is learned", low=0)
    eval_every: int | None = option(None, "steps between evaluations; none: a tenth of all", low=1)
    eval_episodes: int = option(10, "episodes of an evaluation, each policy", low=1)
    save_every: int = option(5000, "steps between checkpoints; episodes in progress are cut there", low=1)
    most_q: float = option(1e6, "stop where |Q| is above this: it has diverged", above=0)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Around:
    """What stands between learner and environment."""

    environment: str
    normaliser: Normaliser
    bounds: ActionBounds | DiscreteActions
    reward_scale: float = 1.0
    reward_shift: float = 0.0


def train_online(
    learner: Learner,
    around: Around,
    replay: Replay,
    options: OnlineOptions = OnlineOptions(),
    *,
    folder: Path | None = None,
    resume: bool = False,
    steps_before: int = 0,
    on_metrics: OnMetrics | None = None,
    on_evaluation: OnEvaluation | None = None,
) -> list[tuple[int, list[float]]]:
    """Let `learner` act and learn; returns (steps, mean return of every seed) of each evaluation.

    `replay` holds what is known before and takes what is lived through. `steps_before` are gradient steps of an earlier
    phase. Raises TrainingDiverged; KeyboardInterrupt on Ctrl-C, the last checkpoint being kept.
    """
    return _Online(learner, around, replay, options, folder, steps_before, on_metrics, on_evaluation).go(resume)


class _Online:
    def __init__(
        self,
        learner: Learner,
        around: Around,
        replay: Replay,
        options: OnlineOptions,
        folder: Path | None,
        steps_before: int,
        on_metrics: OnMetrics | None,
        on_evaluation: OnEvaluation | None,
    ) -> None:
        self.learner, self.around, self.replay, self.options = learner, around, replay, options
        self.folder, self.before, self.known = folder, steps_before, len(replay)
        self.on_metrics, self.on_evaluation = on_metrics, on_evaluation
        self.draws = Draws(learner.seeds, options.batch_size, 1, replay.device)
        self.evaluations: list[tuple[int, list[float]]] = []
        self.means = Means()

    def go(self, resume: bool) -> list[tuple[int, list[float]]]:
        options = self.options
        done, begun = self._restored() if resume else (0, None)
        lanes = Lanes(self.around.environment, self.learner.seeds, begun)
        every = options.eval_every or max(1, options.steps // 10)
        try:
            with deferred_interrupt() as interrupted:
                while done < options.steps:
                    self._live(lanes, done)
                    if done >= options.warm_up:
                        self._learn(done)
                    done += 1
                    last = done == options.steps
                    if done % LOGGED_EVERY == 0 or last:
                        self._tell(done, lanes)
                    if done % every == 0 or last:
                        self._evaluate(done)
                    if done % options.save_every == 0 or last:
                        self._save(done, lanes)
                    if interrupted() and not last:
                        raise KeyboardInterrupt(self._kept())
        finally:
            lanes.close()
        return self.evaluations

    def _live(self, lanes: Lanes, step: int) -> None:
        """One step in every environment, into the replay."""
        around, seen = self.around, lanes.seen.copy()
        states = self._inward(seen)
        discrete = isinstance(around.bounds, DiscreteActions)
        if step < self.options.warm_up:
            taken = lanes.random_actions()
            known = taken if discrete else around.bounds.inward(taken.reshape(len(taken), -1))  # type: ignore[union-attr]
            actions = torch.as_tensor(known, device=self.replay.device)
        else:
            actions = self.learner.explore(states[:, None], self.draws, self.before + step)[:, 0]
            out = actions.cpu().numpy()
            taken = out if discrete else around.bounds.outward(out)  # type: ignore[union-attr]
        found = lanes.step(taken)
        over = torch.from_numpy(found.terminated)
        ended = torch.from_numpy(found.terminated | found.truncated)
        rewards = torch.from_numpy(found.rewards * around.reward_scale + around.reward_shift)
        self.replay.append(states, actions, rewards, self._inward(found.seen), (~over).float(), ended)

    def _learn(self, step: int) -> None:
        count, at = len(self.replay), self.before + step
        places = (self.draws.uniform("lived", at, self.options.batch_size) * count).long().clamp(max=count - 1)
        self.means.add(self.learner.update(self.replay.batch(places), self.draws, at))

    def _tell(self, done: int, lanes: Lanes) -> None:
        final = self.means.taken()
        check_finite(final, self.learner, done, self.options.most_q)
        if lanes.returns:
            final["episode_return"] = [float(np.mean(lanes.returns))]
            lanes.returns.clear()
        if self.on_metrics is not None and final:
            self.on_metrics(done, final)

    def _evaluate(self, done: int) -> None:
        around, means = self.around, []
        policies = [
            ControlPolicy(self.learner.actor_of(place), around.normaliser, around.bounds, self.learner.name)
            for place in range(len(self.learner.seeds))
        ]
        for seed, policy in zip(self.learner.seeds, policies, strict=True):
            episodes = roll_out(around.environment, policy.acting(seed), self.options.eval_episodes, seed=seed)
            means.append(float(episodes.returns.mean()))
        self.evaluations.append((done, means))
        if self.on_metrics is not None:
            self.on_metrics(done, {"return": means})
        if self.on_evaluation is not None:
            self.on_evaluation(done, policies, means)

    def _save(self, done: int, lanes: Lanes) -> None:
        self.replay.ends[:, len(self.replay) - 1] = True
        lanes.restart()
        if self.folder is None:
            return
        part = self.folder / "replay" / f"rows-{done:08d}"
        since = self._saved_rows(done)
        with atomic_folder(part) as partial:
            tensors = {name: value.cpu().contiguous() for name, value in self.replay.tensors(since).items()}
            save_file(tensors, partial / "rows.safetensors")
        state = {"step": done, "evaluations": self.evaluations, "begun": [number - 1 for number in lanes.begun]}
        checkpoints.save_checkpoint(self.folder / "checkpoints", self.learner, self.learner.optimiser, state)

    def _saved_rows(self, done: int) -> int:
        """The first row that no part holds yet."""
        return self.known + (done - 1) // self.options.save_every * self.options.save_every

    def _restored(self) -> tuple[int, list[int] | None]:
        if self.folder is None:
            return 0, None
        state: dict[str, Any] | None = checkpoints.load_checkpoint(
            self.folder / "checkpoints", self.learner, self.learner.optimiser
        )
        if state is None:
            return 0, None
        done, since = int(state["step"]), self.known
        for part in sorted((self.folder / "replay").glob("rows-*")):
            if int(part.name.removeprefix("rows-")) <= done:
                self.replay.restore(load_file(part / "rows.safetensors"), since)
                since = len(self.replay)
        if len(self.replay) != self.known + done:
            raise RunError(f"{self.folder}: the replay's parts are missing; start again with --overwrite")
        self.evaluations = [(int(step), list(values)) for step, values in state["evaluations"]]
        return done, list(state["begun"])

    def _inward(self, seen: np.ndarray) -> Tensor:
        normaliser = self.around.normaliser
        return torch.from_numpy((seen - normaliser.mean) / normaliser.deviation).to(self.replay.device)

    def _kept(self) -> str:
        return (
            "interrupted: the last checkpoint is kept; go on with --resume" if self.folder else "interrupted: not saved"
        )
