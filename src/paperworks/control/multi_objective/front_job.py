"""A search for a front, from names to a folder: what `paperworks train c-morl --env ID --reference-point ...` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from paperworks.control.multi_objective.c_morl import CMORL
from paperworks.control.multi_objective.environments import GymnasiumEnvironments
from paperworks.control.multi_objective.front_report import write_report
from paperworks.control.multi_objective.fronts import FOLDER, Front, save_front
from paperworks.control.multi_objective.pareto import hypervolume
from paperworks.control.multi_objective.policies import Policies
from paperworks.control.multi_objective.search import FrontSearch, SearchOptions, Trainer
from paperworks.control.multi_objective.weighted_sum import WeightedSum
from paperworks.control.run_progress import check_is_run
from paperworks.core.errors import OptionError, RunError, did_you_mean
from paperworks.core.files import atomic_folder, read_json, write_json_atomic
from paperworks.core.interrupts import deferred_interrupt
from paperworks.core.options import build, check_ranges, load_yaml, option, to_mapping
from paperworks.core.progress import Progress
from paperworks.core.runs import Run, RunStore
from paperworks.core.seeding import derive_seed

SEARCHES: dict[str, type[FrontSearch]] = {each.name: each for each in (CMORL, WeightedSum)}
CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class FrontOptions:
    """Where a front is sought, and how it is measured at the end."""

    reference_point: tuple[float, ...] = option(
        help="the worst return of each objective that is of use, comma-separated"
    )
    objectives: tuple[str, ...] = option((), "names of the objectives")
    seed: int = option(0, "of the policies, episodes and weights")
    final_episodes: int = option(20, "fresh episodes that each archived policy is measured by at the end", low=1)

    def __post_init__(self) -> None:
        check_ranges(self)
        if not np.isfinite(self.reference_point).all():
            raise OptionError(f"--reference-point {self.reference_point}: expected numbers")


@dataclass(frozen=True)
class FrontJob:
    """Everything that decides a run; written to its run.yaml."""

    search: str
    env: str
    options: SearchOptions
    front: FrontOptions

    def config(self) -> dict[str, Any]:
        """The job as run.yaml has it; `front_job_from_config` reads it back."""
        return {
            "search": self.search, "env": self.env, "options": to_mapping(self.options), "front": to_mapping(self.front)
        }  # fmt: skip


def front_search(name: str) -> type[FrontSearch]:
    """The search of that name. Raises OptionError."""
    if name not in SEARCHES:
        raise OptionError(f"unknown search {name!r}{did_you_mean(name, SEARCHES)}")
    return SEARCHES[name]


def front_job_from_config(values: Mapping[str, Any]) -> FrontJob:
    """The job that a run.yaml describes. Raises OptionError for unknown or missing names."""
    rest = {name: value for name, value in values.items() if value is not None}
    if "search" not in rest:
        raise OptionError("train: no search: c-morl or weighted-sum")
    search = front_search(str(rest.pop("search")))
    if "env" not in rest:
        raise OptionError(
            f"train {search.name}: give the environment, --env ID (mo-gymnasium's, as deep-sea-treasure-v0)"
        )
    env = str(rest.pop("env"))
    options = build(search.options_class, rest.pop("options", {}), what=search.name)
    given = dict(rest.pop("front", {}))
    if "reference_point" not in given:
        raise OptionError(
            f"train {search.name}: give the reference point, --reference-point X,Y (a number an objective)"
        )
    front = build(FrontOptions, given, what=search.name)
    if rest:
        raise OptionError(f"train {search.name}: unknown option {min(rest)!r}")
    return FrontJob(search.name, env, options, front)


def front_job(
    job: FrontJob,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Front, Path]:
    """Run the job in the folder `out` (default ./runs/train-SEARCH-TIME): archive/, report.html, a checkpoint a leg.

    A run that was killed goes on from its last leg to the same front. Raises PaperworksError; KeyboardInterrupt after saving.
    """
    shown = progress if progress is not None else Progress(quiet=True)
    environments, search = prepared(job, out, resume=resume)
    evaluation = GymnasiumEnvironments(job.env, job.front.objectives)
    trainer = Trainer([search], environments, evaluation)
    store = RunStore()
    with store.start("train", job.search, out, job.config(), job.front.seed, resume, overwrite=overwrite) as run:
        if resume:
            load_checkpoint(run.folder, search)
            run.truncate_metrics(search.steps)
        _train(job, trainer, search, run, shown)
        front, measured = _archived(job, trainer, search, run.folder)
        run.finish(
            {
                "search": job.search,
                "environment": job.env,
                "steps": search.steps,
                "legs": search.legs,
                "front": [vars(member) for member in front.members],
                "curve": search.curve,
                "selections": getattr(search, "selections", []),
                "searched_returns": search.archive.points,
                "fresh_returns": measured,
                "names": list(front.names),
                "reference": list(job.front.reference_point),
            }
        )
    environments.close()
    evaluation.close()
    write_report(run.folder)
    return front, run.folder


def prepared(
    job: FrontJob, out: str | Path | None = None, *, resume: bool = False
) -> tuple[GymnasiumEnvironments, FrontSearch]:
    """The environments, which the caller closes, and the search at its beginning.

    Raises RunError where the folder's run is another, OptionError for an environment that does not fit.
    """
    if resume and out is not None:
        _same_job(job, Path(out))
    environments = GymnasiumEnvironments(job.env, job.front.objectives)
    search = SEARCHES[job.search](job.options, environments.spaces, job.front.reference_point, job.front.seed)
    return environments, search


def _train(job: FrontJob, trainer: Trainer, search: FrontSearch, run: Run, shown: Progress) -> None:
    bar = shown.bar(f"train {job.search}", job.options.steps)
    with deferred_interrupt() as interrupted:
        while trainer.leg():
            save_checkpoint(run.folder, search)
            points = search.archive.points
            worth = {}
            if points.shape[1] <= 3:
                worth = {"hypervolume": hypervolume(points, search.archive.reference)}
            run.log(step=search.steps, front=len(points), **worth)
            note = ", ".join([f"{len(points)} policies", *(f"{name} {value:.4g}" for name, value in worth.items())])
            bar.update(min(search.steps, job.options.steps), note)
            if interrupted():
                raise KeyboardInterrupt(f"interrupted: saved after {search.steps} steps; go on with --resume")
    search.check_reference()
    bar.finish()


def _archived(job: FrontJob, trainer: Trainer, search: FrontSearch, folder: Path) -> tuple[Front, np.ndarray]:
    """Measure the archive in fresh episodes and save what is a front by those."""
    assert search.policies is not None
    fresh = [derive_seed(job.front.seed, "fresh")] * len(search.policies)
    returns, _ = trainer.evaluated(search.policies, fresh, job.front.final_episodes)
    origins = [(entry.origin, entry.steps) for entry in search.entries]
    front = save_front(
        folder / FOLDER, search.spaces, job.front.reference_point, job.options.eval_gamma, search.policies, returns,
        origins, job.search,
    )  # fmt: skip
    return front, returns


def save_checkpoint(folder: Path, search: FrontSearch) -> None:
    """Write what a search is between two legs, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    for name, policies in (("archive", search.policies), ("current", search.current)):
        if policies is not None:
            tensors |= {f"{name}.{part}": values.contiguous() for part, values in policies.rows.items()}
    with atomic_folder(folder / CHECKPOINT) as partial:
        save_file(tensors, partial / "policies.safetensors")
        write_json_atomic(partial / "state.json", search.state())


def load_checkpoint(folder: Path, search: FrontSearch) -> None:
    """Put a search where `save_checkpoint` found it; at its beginning where there is none. Raises RunError if damaged."""
    place = folder / CHECKPOINT
    if not place.is_dir():
        return
    try:
        tensors = load_file(place / "policies.safetensors")
    except (SafetensorError, OSError) as error:
        raise RunError(f"{place}: damaged ({error}); start again with --overwrite") from None
    rows: dict[str, dict[str, Tensor]] = {"archive": {}, "current": {}}
    for name, values in tensors.items():
        kind, part = name.split(".", 1)
        rows[kind][part] = values
    archive, current = (Policies(search.shape, rows[kind]) if rows[kind] else None for kind in ("archive", "current"))
    search.restore(read_json(place / "state.json"), archive, current)


def _same_job(job: FrontJob, folder: Path) -> None:
    """Raises RunError where the folder is of another job."""
    check_is_run(folder)
    before, now = front_job_from_config(load_yaml(folder / "run.yaml")), job
    for field in dataclasses.fields(now):
        if getattr(before, field.name) != getattr(now, field.name):
            raise RunError(
                f"{folder}: was started with other {field.name} ({getattr(before, field.name)!r}); give the same, or "
                "--overwrite"
            )
