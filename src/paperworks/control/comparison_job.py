"""What a comparison of algorithms on logs is: the options that decide it, as run.yaml has them, and its tasks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paperworks.control.learner import LearnerOptions
from paperworks.control.minari_sets import reference_returns
from paperworks.control.offline import offline_learner
from paperworks.control.scores import Reference, reference_of
from paperworks.control.training import ControlOptions
from paperworks.core.errors import OptionError
from paperworks.core.options import build, check_ranges, option, plain, to_mapping

FIXED_TRAINING = ("seed", "then_online")  # the same in every comparison


@dataclass(frozen=True)
class CompareOptions:
    """How policies are judged."""

    episodes: int = option(20, "whole episodes of the policy of the last step, each seed", low=1)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class CompareJob:
    """Everything that decides a comparison: a task is a log with its environment and, where known, its scale."""

    methods: tuple[str, ...]
    data: tuple[str, ...]
    envs: tuple[str, ...]
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    random_returns: tuple[float, ...] = ()
    best_returns: tuple[float, ...] = ()
    training: ControlOptions = ControlOptions(steps=20_000, seeds=5)
    judging: CompareOptions = CompareOptions()
    device: str = "auto"

    def config(self) -> dict[str, Any]:
        """The job as run.yaml has it; `job_from_config` reads it back."""
        values: dict[str, Any] = plain({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        return {**values, "training": to_mapping(self.training), "judging": to_mapping(self.judging)}

    def digest(self) -> str:
        """Of what all cells share: the logs, the training but for the number of seeds, how policies are judged."""
        shared = self.config()
        for name in ("methods", "settings", "random_returns", "best_returns", "device"):
            shared.pop(name)
        shared["training"].pop("seeds")
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:8]


def job_from_config(values: Mapping[str, Any]) -> CompareJob:
    """The comparison that a run.yaml describes. Raises OptionError for names or numbers that do not fit."""
    rest = {name: value for name, value in values.items() if value is not None}
    training = build(ControlOptions, {"steps": 20_000, "seeds": 5, **rest.pop("training", {})}, what="training")
    judging = build(CompareOptions, rest.pop("judging", {}), what="judging")
    unknown = sorted(set(rest) - {field.name for field in dataclasses.fields(CompareJob)})
    if unknown:
        raise OptionError(f"compare: unknown option {unknown[0]!r}")
    for name in ("methods", "data", "envs", "random_returns", "best_returns"):
        rest[name] = tuple(rest.get(name) or ())
    job = CompareJob(**rest, training=training, judging=judging)
    if not job.methods:
        raise OptionError("compare: name the algorithms")
    if not job.data:
        raise OptionError("compare: give the logs to learn from, --data LOG, once or more")
    for doubled, what in ((job.methods, "an algorithm"), (job.data, "a log")):
        if len(set(doubled)) < len(doubled):
            raise OptionError(f"compare: {what} is named twice")
    for name, count in (("--env", len(job.envs)), *((f"--{n}-return", len(v)) for n, v in _ends(job))):
        if count not in (1, len(job.data)) and not (count == 0 and name != "--env"):
            raise OptionError(f"{name} is given {count} times: expected once, or once a log ({len(job.data)})")
    for method in job.methods:
        options_of(job, method)
    return job


def options_of(job: CompareJob, method: str) -> LearnerOptions:
    """An algorithm's options: defaults, `NAME=V` for all that have it, `METHOD.NAME=V` for one. Raises OptionError."""
    cls = offline_learner(method).options_class
    common, own = dict[str, str](), dict[str, str]()
    for name, value in job.settings.items():
        scope, _, plain_name = name.replace("-", "_").rpartition(".")
        if not scope and plain_name in _option_names(method):
            common[plain_name] = value
        elif scope == method.replace("-", "_"):
            own[plain_name] = value
    return build(cls, {**common, **own}, what=method)


def task_names(job: CompareJob) -> tuple[str, ...]:
    """A name a log: as much of the end of its path as tells it from the others; of a Minari id all of it."""
    parts = []
    for data in job.data:
        place = Path(data)
        own = place.with_suffix("").parts if place.is_file() else place.parts
        parts.append([each for each in own if each != place.anchor] if place.exists() else [data.replace("/", "-")])
    names = [part[-1] for part in parts]
    for length in range(2, max(map(len, parts)) + 1):
        if len(set(names)) == len(names):
            break
        names = ["-".join(part[-length:]) for part in parts]
    return tuple(name if names.count(name) == 1 else f"{name}-{at + 1}" for at, name in enumerate(names))


def scale_of(job: CompareJob, at: int) -> Reference | None:
    """The scale of a task: given, D4RL's, or what a Minari data set says. Raises OptionError where one end is missing."""
    random, best = (entry(values, at) if values else None for _, values in _ends(job))
    found = reference_of(entry(job.envs, at), random, best)
    said = None if found is not None else reference_returns(job.data[at])
    return found if said is None else Reference(*said, "the data set's own")


def check_settings(job: CompareJob) -> None:
    """Raises OptionError for a setting that no algorithm has, or of one that is not compared."""
    for name in job.settings:
        method, dot, own = name.rpartition(".")
        if dot and method not in job.methods:
            raise OptionError(f"--set {name}: {method} is not compared here ({', '.join(job.methods)})")
        if not dot and not any(own.replace("-", "_") in _option_names(each) for each in job.methods):
            raise OptionError(f"--set {name}: none of {', '.join(job.methods)} has an option of that name")


def _option_names(method: str) -> set[str]:
    return {field.name for field in dataclasses.fields(offline_learner(method).options_class)}


def _ends(job: CompareJob) -> tuple[tuple[str, tuple[float, ...]], tuple[str, tuple[float, ...]]]:
    return ("random", job.random_returns), ("best", job.best_returns)


def entry(values: Sequence[Any], at: int) -> Any:
    """That of a task, where there is one for all or one for each."""
    return values[at] if len(values) > 1 else values[0]
