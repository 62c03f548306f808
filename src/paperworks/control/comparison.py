"""Which algorithm learns best from your logs: what `paperworks compare td3-bc iql --data LOG --env ID` does.

Every algorithm takes the same number of gradient steps on every log, with the same batches' size and seeds; what is judged is
the policy of the last step. Seeds of an algorithm train side by side. A cell is an algorithm's seed on a log: finished ones
are kept, so that the same command goes on where it was stopped, and more seeds train only those that are missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from paperworks.control.comparison_job import (
    CompareJob,
    check_settings,
    entry,
    options_of,
    scale_of,
    task_names,
)
from paperworks.control.datasets import read_transitions
from paperworks.control.environments import roll_out, spaces_of
from paperworks.control.offline import offline_learner
from paperworks.control.scores import Reference
from paperworks.control.training import ControlOptions, check_log, train_offline
from paperworks.core.devices import pick_device
from paperworks.core.errors import DataError, OptionError, RunError
from paperworks.core.files import read_json, write_json_atomic
from paperworks.core.options import build, plain, to_mapping
from paperworks.core.progress import Progress
from paperworks.core.runs import RunStore
from paperworks.experiment import Arm, Experiment, Metric, Part, run_experiment
from paperworks.experiment.definition import BUDGETS, Budget, Workspace
from paperworks.experiment.results import Failure, Results

PLAN = "comparison.json"


@dataclass(frozen=True)
class Comparison:
    """What a comparison found: returns [tasks, seeds] of every method that has all its cells, and the scale of each task."""

    job: CompareJob
    tasks: tuple[str, ...]
    scales: tuple[Reference | None, ...]
    returns: Mapping[str, Float[ndarray, "tasks seeds"]]
    curves: Mapping[
        tuple[str, str], Sequence[tuple[int, Sequence[float]]]
    ]  # of (method, task): steps, each seed's return
    failures: tuple[Failure, ...]
    folder: Path
    run_id: str = ""

    @property
    def is_normalised(self) -> bool:
        return all(scale is not None for scale in self.scales)

    def scores(self) -> dict[str, Float[ndarray, "tasks seeds"]]:
        """Normalised scores of every method; returns where a task has no scale (one task alone)."""
        return {
            method: np.stack([row if scale is None else scale.score(row) for row, scale in zip(found, self.scales)])
            for method, found in self.returns.items()
        }

    def raise_failures(self) -> None:
        """Raises RunError in one line where a cell failed."""
        if self.failures:
            first = self.failures[0]
            more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            raise RunError(
                f"{first.arm} on {first.setting}, seed {first.seed}, failed{more}: {first.error}; see {first.log}; the same "
                "command tries again"
            )


def compare_job(job: CompareJob, out: str | Path | None = None, *, progress: Progress | None = None) -> Comparison:
    """Train and judge every algorithm on every log; write report.html and results.json into `out`.

    The default folder is named by what is shared, so that the same command, also with more algorithms or seeds, goes on
    with the cells that are missing. A training that fails is in `failures`, and the others go on. Raises PaperworksError
    before training for whatever can be known then.
    """
    from paperworks.control.comparison_report import write_results

    shown = progress if progress is not None else Progress(quiet=True)
    tasks, scales, folder = check_job(job, out)
    with RunStore().start("compare", "-".join(job.methods), folder, job.config(), resume=True) as run:
        write_json_atomic(run.folder / PLAN, {"digest": job.digest()})
        results = run_experiment(experiment_of(job, tasks), folder=run.folder, workers=1, progress=shown)
        found = _found(job, tasks, scales, results, run.folder, run.id)
        if not found.returns:
            found.raise_failures()
            raise RunError("no training of this comparison finished")
        write_results(found)
        if found.failures:
            run.end("failed", found.failures[0].error)
    return found


def check_job(
    job: CompareJob, out: str | Path | None = None
) -> tuple[tuple[str, ...], tuple[Reference | None, ...], Path]:
    """The tasks, their scales and the folder, after all that is checked before training. Raises PaperworksError."""
    check_settings(job)
    tasks = task_names(job)
    scales = tuple(scale_of(job, at) for at in range(len(tasks)))
    if len(tasks) > 1 and None in scales:
        unknown = job.envs[scales.index(None) if len(job.envs) > 1 else 0]
        raise OptionError(
            f"returns of several tasks are compared as normalised scores, and {unknown} has no known scale: give "
            "--random-return and --best-return once a log"
        )
    _check_logs(job)
    folder = Path(out) if out is not None else Path("runs") / f"compare-control-{job.digest()}"
    _check_folder(folder, job)
    return tasks, scales, folder


def experiment_of(job: CompareJob, tasks: Sequence[str]) -> Experiment:
    """The comparison as an experiment: an arm an algorithm, a setting a task; seeds are cells of one training."""
    training = {name: value for name, value in to_mapping(job.training).items() if name not in ("seeds", "seed")}
    where = {
        task: {"data": data, "env": entry(job.envs, at), "log": _stamp(data)}
        for at, (task, data) in enumerate(zip(tasks, job.data, strict=True))
    }
    arms = tuple(
        Arm(
            method,
            options={
                "options": to_mapping(options_of(job, method)), "training": training, "where": where,
                "judging": to_mapping(job.judging), "device": job.device,
            },
        )
        for method in job.methods
    )  # fmt: skip
    part = Part(
        name="A", title=f"{len(arms)} algorithms on {len(tasks)} logs", arms=arms, settings=tuple(tasks),
        seeds=dict.fromkeys(BUDGETS, job.training.seeds), cell=compare_cell, metrics=(Metric("return", format=".4g"),),
        batched=True,
    )  # fmt: skip
    return Experiment("compare", "Comparison of algorithms on logs", (part,))


def compare_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> Sequence[Mapping[str, Any]]:
    """Train the missing seeds of an algorithm on a log side by side, go on where they were stopped, and judge them."""
    values, where = arm.options, arm.options["where"][setting]
    learner = offline_learner(arm.name)
    options = build(learner.options_class, values["options"], what=arm.name)
    found: list[dict[str, Any]] = []
    for first, count in _stretches(seeds):
        control = build(ControlOptions, {**values["training"], "seed": first, "seeds": count}, what="training")
        # what was stopped goes on where it was, unless it was another training
        key = hashlib.sha256(json.dumps([arm.name, setting, first, count, plain(values)]).encode()).hexdigest()[:16]
        result = train_offline(
            learner, options, read_transitions(where["data"]), spaces_of(where["env"]).bounds, control,
            environment=where["env"], folder=workspace.folder / key, resume=True, device=pick_device(values["device"]),
        )  # fmt: skip
        for place, policy in enumerate(result.policies):
            seed = first + place
            episodes = roll_out(where["env"], policy.acting(seed), values["judging"]["episodes"], seed=seed)
            policy.save(workspace.folder.parent.parent / "policies" / setting / f"{arm.name}-{seed}")
            found.append(
                {
                    "return": float(episodes.returns.mean()), "length": float(episodes.lengths.mean()),
                    **({} if episodes.costs is None else {"cost": float(episodes.costs.mean())}),
                    "curve": [[step, float(means[place])] for step, means in result.evaluations],
                }
            )  # fmt: skip
        shutil.rmtree(workspace.folder / key, ignore_errors=True)
    return found


def _check_logs(job: CompareJob) -> None:
    """Every log against every algorithm, before hours of training."""
    for at, data in enumerate(job.data):
        log, spaces = read_transitions(data), spaces_of(entry(job.envs, at))
        if log.observations.shape[1] != spaces.state:
            raise DataError(
                f"observations of {log.observations.shape[1]} numbers; {spaces.environment} shows {spaces.state}",
                file=data,
            )
        for method in job.methods:
            learner = offline_learner(method)
            check_log(log, spaces.bounds, job.training.batch_size, discrete=learner.is_discrete, method=method)
            learner.check(log, options_of(job, method))


def _found(
    job: CompareJob,
    tasks: tuple[str, ...],
    scales: tuple[Reference | None, ...],
    results: Results,
    folder: Path,
    run_id: str,
) -> Comparison:
    returns, curves = {}, {}
    for method in job.methods:
        cells = [results.cells_of("A", method, task) for task in tasks]
        for task, own in zip(tasks, cells, strict=True):
            if own:
                steps = [step for step, _ in own[0].metrics["curve"]]
                curves[method, task] = [
                    (step, [cell.metrics["curve"][at][1] for cell in own]) for at, step in enumerate(steps)
                ]
        if all(len(own) == job.training.seeds for own in cells):
            returns[method] = np.array([[cell.value("return") for cell in own] for own in cells])
    return Comparison(job, tasks, scales, returns, curves, results.failures, folder, run_id)


def _check_folder(folder: Path, job: CompareJob) -> None:
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / PLAN).is_file():
        raise RunError(f"{folder}: has something in it that is no comparison of these; give --out another folder")
    if read_json(folder / PLAN).get("digest") != job.digest():
        raise RunError(f"{folder}: holds a comparison on other logs or with other training; give --out another folder")


def _stretches(seeds: Sequence[int]) -> list[tuple[int, int]]:
    """Seeds as (first, count) of those that follow one another."""
    found: list[tuple[int, int]] = []
    for seed in sorted(seeds):
        if found and seed == sum(found[-1]):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((seed, 1))
    return found


def _stamp(data: str) -> list[Any]:
    """What tells a changed log from the one before: size and time of its file, or of a data set's description."""
    place = Path(data)
    place = place / "data" / "metadata.json" if place.is_dir() else place
    return [place.stat().st_size, place.stat().st_mtime_ns] if place.is_file() else []
