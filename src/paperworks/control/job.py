"""A training run on a log, from names to a folder: what `paperworks train td3-bc --data LOG` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paperworks.control.datasets import read_transitions
from paperworks.control.environments import spaces_of
from paperworks.control.learner import LearnerOptions
from paperworks.control.offline import offline_learner
from paperworks.control.report import write_report
from paperworks.control.run_progress import Told, check_is_run, check_same, check_width, save_policies
from paperworks.control.training import (
    Bounds,
    ControlOptions,
    ControlResult,
    bounds_of,
    check_log,
    check_online,
    train_offline,
)
from paperworks.control.transitions import Transitions
from paperworks.core.devices import pick_device
from paperworks.core.errors import OptionError
from paperworks.core.options import build, load_yaml, to_mapping
from paperworks.core.progress import Progress
from paperworks.core.runs import RunStore

SHOWN = ("critic", "q", "pull", "imitation", "log_loss")  # beside the progress


@dataclass(frozen=True)
class ControlJob:
    """Everything that decides a run; written to its run.yaml."""

    algorithm: str
    options: LearnerOptions
    data: str
    env: str | None = None
    limit: int | None = None
    training: ControlOptions = ControlOptions()
    device: str = "auto"

    def config(self) -> dict[str, Any]:
        """The job as run.yaml has it; `control_job_from_config` reads it back."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**values, "options": to_mapping(self.options), "training": to_mapping(self.training)}


def control_job_from_config(values: Mapping[str, Any]) -> ControlJob:
    """The job that a run.yaml describes. Raises OptionError for unknown or missing names."""
    rest = {name: value for name, value in values.items() if value is not None}
    for name in ("algorithm", "data"):
        if name not in rest:
            raise OptionError(
                f"train: no {name}" + (": give the log, --data LOG, or --collect ENV" if name == "data" else "")
            )
    name = str(rest.pop("algorithm"))
    options = build(offline_learner(name).options_class, rest.pop("options", {}), what=name)
    training = build(ControlOptions, rest.pop("training", {}), what="training")
    known = {field.name for field in dataclasses.fields(ControlJob)}
    unknown = sorted(set(rest) - known)
    if unknown:
        raise OptionError(f"train {name}: unknown option {unknown[0]!r}")
    return ControlJob(name, options, training=training, **rest)


def control_job(
    job: ControlJob,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[ControlResult, Path]:
    """Run the job in the folder `out` (default ./runs/train-ALGORITHM-TIME): policy/, report.html, checkpoints.

    With several seeds there is a folder policy-SEED for each. Raises PaperworksError; KeyboardInterrupt after saving.
    """
    shown = progress if progress is not None else Progress(quiet=True)
    check_job(job, out, resume=resume)
    log, bounds, warnings = read_log(job)
    shown.say(described(log))
    for warning in warnings:
        shown.say(f"warning: {warning}")
    store = RunStore()
    started = store.start("train", job.algorithm, out, job.config(), job.training.seed, resume, overwrite=overwrite)
    with started as run:
        total = job.training.steps + job.training.then_online
        bar = shown.bar(f"train {job.algorithm}", total)
        result = train_offline(
            offline_learner(job.algorithm), job.options, log, bounds, job.training,
            environment=job.env, folder=run.folder, resume=resume, device=pick_device(job.device),
            on_metrics=Told(run, bar, total, SHOWN),
        )  # fmt: skip
        save_policies(result.policies, job.training.seed, run.folder)
        explained = offline_learner(job.algorithm).explain(result.policies, log, job.options, run.folder)
        sections = [*result.sections, *explained]
        results = {
            "algorithm": job.algorithm, "evaluations": result.evaluations, "final": result.final, "data": facts(log)
        }  # fmt: skip
        run.finish({**results, "sections": [section.saved(run.folder) for section in sections]})
    write_report(run.folder)
    return result, run.folder


def check_job(job: ControlJob, out: str | Path | None = None, *, resume: bool = False) -> None:
    """What is checked before the log is read. Raises RunError where the folder's run is another, OptionError."""
    if resume and out is not None:
        folder = Path(out)
        check_is_run(folder)
        check_same(control_job_from_config(load_yaml(folder / "run.yaml")).config(), job.config(), folder)
    check_online(offline_learner(job.algorithm), job.training, job.env)


def read_log(job: ControlJob) -> tuple[Transitions, Bounds, Sequence[str]]:
    """The job's log, the actions that may be taken, and what a user should know of the log.

    Raises DataError for a log that the algorithm, or the environment, cannot be used with; OptionError.
    """
    log = read_transitions(job.data, limit=job.limit)
    spaces = None if job.env is None else spaces_of(job.env)
    if spaces is not None:
        check_width(log, spaces)
    learner, bounds = offline_learner(job.algorithm), bounds_of(log) if spaces is None else spaces.bounds
    warnings = learner.check(log, job.options)
    check_log(log, bounds, job.training.batch_size, discrete=learner.is_discrete, method=learner.name)
    return log, bounds, warnings


def facts(log: Transitions) -> dict[str, Any]:
    """What a log is, in numbers."""
    returns = log.returns()
    return {
        "source": log.source,
        "transitions": len(log),
        "episodes": len(returns),
        "return_mean": float(returns.mean()),
        "return_low": float(returns.min()),
        "return_high": float(returns.max()),
        "terminated": int(log.terminations.sum()),
    }


def described(log: Transitions) -> str:
    """The same in a line."""
    known = facts(log)
    return (
        f"{known['source']}: {known['transitions']} transitions, {known['episodes']} episodes "
        f"({known['terminated']} terminated), returns {known['return_low']:.4g} to {known['return_high']:.4g}, mean "
        f"{known['return_mean']:.4g}"
    )
