"""From a log into an environment: a learner that has learned offline goes on, the whole log being the start of its replay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paperworks.control.batches import Log
from paperworks.control.learner import Learner
from paperworks.control.online.loop import Around, OnlineOptions, train_online
from paperworks.control.online.replay import Replay
from paperworks.control.training import ControlOptions, OnMetrics

FOLDER = "online"  # of a run's folder: the checkpoints and the replay of this phase


def go_online(
    learner: Learner,
    log: Log,
    around: Around,
    control: ControlOptions,
    *,
    folder: Path | None = None,
    resume: bool = False,
    on_metrics: OnMetrics | None = None,
) -> Sequence[tuple[int, Sequence[float]]]:
    """`control.then_online` steps of each seed; returns (steps, mean return of every seed) of each evaluation.

    Steps are counted on from those on the log. Raises TrainingDiverged; KeyboardInterrupt on Ctrl-C.
    """
    before, seeds, capacity = control.steps, len(learner.seeds), len(log) + control.then_online
    replay = Replay(learner.shapes, seeds, capacity, log.device, start=log, discrete=learner.is_discrete)
    options = OnlineOptions(
        steps=control.then_online, batch_size=control.batch_size, warm_up=0, eval_every=control.eval_every,
        eval_episodes=control.eval_episodes, save_every=control.save_every, most_q=control.most_q,
    )  # fmt: skip
    learner.is_online = True
    evaluations = train_online(
        learner, around, replay, options,
        folder=None if folder is None else folder / FOLDER, resume=resume, steps_before=before,
        on_metrics=None if on_metrics is None else lambda done, values: on_metrics(before + done, values),
    )  # fmt: skip
    return [(before + done, returns) for done, returns in evaluations]
