"""A run without a log, from names to a folder: what `paperworks train sac --env ID` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paperworks.control.environments import Spaces, spaces_of
from paperworks.control.learner import Learner, LearnerOptions, Shapes
from paperworks.control.offline.td3 import TD3
from paperworks.control.online.dqn import OnlineDQN
from paperworks.control.online.loop import Around, OnlineOptions, train_online
from paperworks.control.online.replay import Replay
from paperworks.control.online.sac import SAC
from paperworks.control.policy import ControlPolicy, DiscreteActions, Normaliser
from paperworks.control.report import write_report
from paperworks.control.run_progress import Told, check_is_run, check_same, save_policies
from paperworks.control.training import ControlResult
from paperworks.core.devices import pick_device
from paperworks.core.errors import OptionError, did_you_mean
from paperworks.core.options import build, load_yaml, option, to_mapping
from paperworks.core.progress import Progress
from paperworks.core.runs import RunStore

ACTING: dict[str, type[Learner]] = {each.name: each for each in (SAC, TD3, OnlineDQN)}
SHOWN = ("episode_return", "q")  # beside the progress


@dataclass(frozen=True)
class ActingOptions(OnlineOptions):
    """How long is acted and learned, by how many."""

    seeds: int = option(1, "policies trained side by side, with seeds seed, seed + 1, ...", low=1)
    seed: int = option(0, "first seed")
    reward_scale: float = option(1.0, "rewards are multiplied by it", above=0)


@dataclass(frozen=True)
class ActingJob:
    """Everything that decides a run; written to its run.yaml."""

    acting: str
    options: LearnerOptions
    env: str
    training: ActingOptions = field(default_factory=ActingOptions)
    device: str = "auto"

    def config(self) -> dict[str, Any]:
        """The job as run.yaml has it; `acting_job_from_config` reads it back."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {**values, "options": to_mapping(self.options), "training": to_mapping(self.training)}


def acting_learner(name: str) -> type[Learner]:
    """The algorithm of that name. Raises OptionError."""
    if name not in ACTING:
        raise OptionError(f"unknown algorithm {name!r}{did_you_mean(name, ACTING)}")
    return ACTING[name]


def acting_job_from_config(values: Mapping[str, Any]) -> ActingJob:
    """The job that a run.yaml describes. Raises OptionError for unknown or missing names."""
    rest = {name: value for name, value in values.items() if value is not None}
    learner = acting_learner(str(rest.pop("acting", "")))
    if "env" not in rest:
        raise OptionError(f"train {learner.name}: give the environment to act in, --env ID")
    options = build(learner.options_class, rest.pop("options", {}), what=learner.name)
    training = build(ActingOptions, rest.pop("training", {}), what="training")
    unknown = sorted(set(rest) - {"env", "device"})
    if unknown:
        raise OptionError(f"train {learner.name}: unknown option {unknown[0]!r}")
    return ActingJob(learner.name, options, training=training, **rest)


def acting_job(
    job: ActingJob,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[ControlResult, Path]:
    """Run the job in the folder `out` (default ./runs/train-ALGORITHM-TIME): policy/, report.html, checkpoints.

    With several seeds there is a folder policy-SEED for each. Raises PaperworksError; KeyboardInterrupt, the last checkpoint
    being kept.
    """
    shown = progress if progress is not None else Progress(quiet=True)
    training, kind = job.training, acting_learner(job.acting)
    spaces = check_job(job, out, resume=resume)
    device, shapes = pick_device(job.device), Shapes(spaces.state, spaces.bounds.width)
    seeds = range(training.seed, training.seed + training.seeds)
    replay = Replay(shapes, len(seeds), training.steps, device, discrete=kind.is_discrete)
    learner = kind(shapes, job.options, seeds, replay).to(device)
    learner.is_online = True
    around = Around(job.env, Normaliser.none(spaces.state), spaces.bounds, training.reward_scale)
    final: dict[str, list[float]] = {}
    with RunStore().start("train", job.acting, out, job.config(), training.seed, resume, overwrite=overwrite) as run:
        told = Told(run, shown.bar(f"train {job.acting}", training.steps), training.steps, SHOWN)

        def on_metrics(done: int, values: Mapping[str, Any]) -> None:
            final.update({name: list(each) for name, each in values.items()})
            told(done, values)

        evaluations = train_online(
            learner, around, replay, training, folder=run.folder, resume=resume, on_metrics=on_metrics
        )
        policies = [
            ControlPolicy(learner.actor_of(place), around.normaliser, spaces.bounds, job.acting)
            for place in range(len(seeds))
        ]
        save_policies(policies, training.seed, run.folder)
        run.finish({"algorithm": job.acting, "evaluations": evaluations, "final": final, "data": None})
    write_report(run.folder)
    return ControlResult(policies, evaluations, final), run.folder


def check_job(job: ActingJob, out: str | Path | None = None, *, resume: bool = False) -> Spaces:
    """The environment's spaces, after all that is checked before acting.

    Raises RunError where the folder's run is another, OptionError for an environment that does not fit.
    """
    if resume and out is not None:
        check_is_run(Path(out))
        check_same(acting_job_from_config(load_yaml(Path(out) / "run.yaml")).config(), job.config(), Path(out))
    spaces = spaces_of(job.env)
    check_actions(acting_learner(job.acting), spaces)
    return spaces


def check_actions(kind: type[Learner], spaces: Spaces) -> None:
    """Raises OptionError where an algorithm is for the other kind of actions."""
    discrete = isinstance(spaces.bounds, DiscreteActions)
    if discrete != kind.is_discrete:
        fitting = ", ".join(name for name, each in ACTING.items() if each.is_discrete == discrete)
        taken = "discrete" if discrete else "continuous"
        raise OptionError(f"--env {spaces.environment}: takes {taken} actions; for these there is {fitting}")
