"""A run of HNPG or TRPO, from names to a folder: what `paperworks train hnpg --data LOG --env ID` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paperworks.control.datasets import read_transitions
from paperworks.control.environments import Spaces, spaces_of
from paperworks.control.hybrid.acting import horizon_of
from paperworks.control.hybrid.hnpg import HNPGOptions, TRPOOptions
from paperworks.control.hybrid.report import write_report
from paperworks.control.hybrid.training import HybridOptions, train_hybrid
from paperworks.control.job import described, facts
from paperworks.control.run_progress import Told, check_is_run, check_same, check_width, save_policies
from paperworks.control.training import ControlResult
from paperworks.control.transitions import Transitions
from paperworks.core.devices import pick_device
from paperworks.core.errors import OptionError, did_you_mean
from paperworks.core.options import build, load_yaml, to_mapping
from paperworks.core.progress import Progress
from paperworks.core.runs import RunStore

SHOWN = ("fresh_return", "online_loss", "kl")  # beside the progress
METHODS: dict[str, type[TRPOOptions]] = {"hnpg": HNPGOptions, "trpo": TRPOOptions}


@dataclass(frozen=True)
class HybridJob:
    """Everything that decides a run; written to its run.yaml."""

    hybrid: str
    options: TRPOOptions
    env: str
    data: str | None = None
    limit: int | None = None
    training: HybridOptions = field(default_factory=HybridOptions)
    device: str = "auto"

    def config(self) -> dict[str, Any]:
        """The job as run.yaml has it; `hybrid_job_from_config` reads it back."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {**values, "options": to_mapping(self.options), "training": to_mapping(self.training)}


def options_of(method: str) -> type[TRPOOptions]:
    """The options of the method of that name. Raises OptionError."""
    if method not in METHODS:
        raise OptionError(f"unknown method {method!r}{did_you_mean(method, METHODS)}")
    return METHODS[method]


def hybrid_job_from_config(values: Mapping[str, Any]) -> HybridJob:
    """The job that a run.yaml describes. Raises OptionError for unknown or missing names."""
    rest = {name: value for name, value in values.items() if value is not None}
    if "hybrid" not in rest:
        raise OptionError("train: no method: hnpg or trpo")
    name = str(rest.pop("hybrid"))
    if "env" not in rest:
        raise OptionError(f"train {name}: give the environment to act in, --env ID")
    if name == "hnpg" and "data" not in rest:
        raise OptionError("train hnpg: give the log, --data LOG; without one there is `train trpo`")
    if name == "trpo" and ("data" in rest or "limit" in rest):
        raise OptionError("train trpo: learns from fresh episodes alone; with a log there is `train hnpg`")
    options = build(options_of(name), rest.pop("options", {}), what=name)
    training = build(HybridOptions, rest.pop("training", {}), what="training")
    known = {each.name for each in dataclasses.fields(HybridJob)}
    unknown = sorted(set(rest) - known)
    if unknown:
        raise OptionError(f"train {name}: unknown option {unknown[0]!r}")
    return HybridJob(name, options, training=training, **rest)


def hybrid_job(
    job: HybridJob,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[ControlResult, Path]:
    """Run the job in the folder `out` (default ./runs/train-METHOD-TIME): policy/, report.html, checkpoints.

    With several seeds there is a folder policy-SEED for each. Raises PaperworksError; KeyboardInterrupt after saving.
    """
    shown = progress if progress is not None else Progress(quiet=True)
    spaces, horizon, log = check_job(job, out, resume=resume)
    if log is not None:
        shown.say(described(log))
    store = RunStore()
    started = store.start("train", job.hybrid, out, job.config(), job.training.seed, resume, overwrite=overwrite)
    with started as run:
        bar = shown.bar(f"train {job.hybrid}", job.training.iterations)
        told = Told(run, bar, job.training.iterations, SHOWN)
        result = train_hybrid(
            job.hybrid, job.options, log, spaces, horizon, job.training,
            folder=run.folder, resume=resume, device=pick_device(job.device), on_metrics=told,
        )  # fmt: skip
        save_policies(result.policies, job.training.seed, run.folder)
        results = {"method": job.hybrid, "evaluations": result.evaluations, "final": result.final, "horizon": horizon}
        run.finish({**results, "data": None if log is None else facts(log)})
    write_report(run.folder)
    return result, run.folder


def check_job(
    job: HybridJob, out: str | Path | None = None, *, resume: bool = False
) -> tuple[Spaces, int, Transitions | None]:
    """The environment's spaces, an episode's most steps and the log, after all that is checked before acting.

    Raises RunError where the folder's run is another, OptionError, DataError.
    """
    if resume and out is not None:
        folder = Path(out)
        check_is_run(folder)
        check_same(hybrid_job_from_config(load_yaml(folder / "run.yaml")).config(), job.config(), folder)
    spaces = spaces_of(job.env)
    horizon = horizon_of(job.env, job.training.horizon)
    log = None if job.data is None else read_transitions(job.data, limit=job.limit)
    if log is not None:
        check_width(log, spaces)
    return spaces, horizon, log
