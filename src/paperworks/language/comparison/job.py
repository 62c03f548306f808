"""What a comparison is: the options that decide it, as run.yaml has them, and the rows that all arms share."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paperworks.core.errors import DataError, OptionError
from paperworks.core.options import build, check_ranges, option, plain
from paperworks.language.comparison.grid import Point, grid
from paperworks.language.data import Dataset, Preference, PromptRow
from paperworks.language.data.schemas import Text
from paperworks.language.objectives import load_objective_file
from paperworks.language.policy import LoraOptions, Precision
from paperworks.language.rewards.options import RewardOptions
from paperworks.language.train_job import DataSource
from paperworks.language.training import TrainOptions

SPLIT_SEED = 0  # the held-out rows are the same for every arm and seed
NOT_SHARED = ("objectives", "sweep", "set", "seeds")  # what does not change the result of a cell that is there already
FIXED_TRAINING = ("seed", "select", "eval_every", "save_every", "tracker")  # the same in every comparison


@dataclass(frozen=True)
class MeasureOptions:
    """How much is measured."""

    seeds: int = option(3, "trainings of every configuration; a seed is shared by all of them", low=1)
    samples: int = option(1, "responses drawn for each evaluation prompt", low=1)
    max_new_tokens: int = option(128, "most tokens of a drawn response", low=1)
    eval_rows: int = option(200, "at most so many held-out rows, and so many prompts, are evaluated", low=1)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class CompareJob:
    """Everything that decides a comparison; written to its run.yaml."""

    objectives: tuple[str, ...]
    model: str
    data: DataSource
    rewards: tuple[str, ...] = ()  # names or FILE.py:function; the first one decides
    train_rewards: tuple[str, ...] = ()  # what online methods learn from; none: the first of `rewards`
    rewarding: RewardOptions = RewardOptions()  # what is made of `train_rewards`
    sweep: Mapping[str, Any] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)
    measure: MeasureOptions = MeasureOptions()
    training: TrainOptions = TrainOptions()
    lora: LoraOptions | None = None
    held_out: float = 0.1  # share of rows, or a number of rows
    eval_data: str | None = None  # rows to evaluate on instead
    eval_prompts: str | None = None  # prompts to answer instead of the held-out rows' own
    objective_file: str | None = None
    precision: Precision = "float32"
    device: str = "auto"
    gradient_checkpointing: bool = False
    chat_template: str | None = None

    def points(self) -> tuple[Point, ...]:
        """The configurations compared. Loads the user's objectives first. Raises OptionError."""
        self.load_objectives()
        return grid(self.objectives, self.sweep, self.set)

    def load_objectives(self) -> None:
        """Makes the user's own objectives known; every process has to."""
        if self.objective_file:
            load_objective_file(self.objective_file)

    def config(self) -> dict[str, Any]:
        """The job as run.yaml has it; `job_from_config` reads it back."""
        values = {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        values["training"] = {k: v for k, v in values["training"].items() if k not in FIXED_TRAINING}
        return values

    def shared(self) -> dict[str, Any]:
        """The part of `config` that decides a cell, whichever other cells there are."""
        values = {name: value for name, value in self.config().items() if name not in NOT_SHARED}
        values["measure"] = {name: value for name, value in values["measure"].items() if name != "seeds"}
        return values

    def digest(self) -> str:
        """Eight hex digits that differ between commands, but not with the number of seeds."""
        values = {**self.config(), "measure": self.shared()["measure"]}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def job_from_config(values: Mapping[str, Any]) -> CompareJob:
    """The job that a run.yaml describes. Raises OptionError for unknown or missing names."""
    values = dict(values)
    values["data"] = values["data"] if isinstance(values.get("data"), Mapping) else {"path": values.get("data")}
    for name in ("rewards", "train_rewards", "objectives"):
        if isinstance(values.get(name), str):
            values[name] = [values[name]]
    values = {name: value for name, value in values.items() if not (name in ("sweep", "set") and not value)}
    job: CompareJob = build(CompareJob, values, what="compare")
    for name in FIXED_TRAINING:
        if name in (values.get("training") or {}):
            raise OptionError(
                f"compare: training.{name} cannot be chosen: every arm is trained alike and kept at its last step"
            )
    return job


# ----------------------------------------------------------------------------------------------------------- shared rows


@dataclass(frozen=True)
class SharedRows:
    """The rows of a comparison, the same for every arm and seed."""

    source: Dataset[Preference]
    training: Dataset[Preference]
    held_out: Dataset[Preference]
    prompts: tuple[Text, ...]
    records: tuple[PromptRow, ...]  # of all files, for rewards that compare an answer with a field of its row

    def fingerprint(self) -> str:
        """Of all rows and prompts that decide a result."""
        rest = json.dumps([self.training.fingerprint, self.held_out.fingerprint, plain(self.prompts)])
        return hashlib.sha256(rest.encode()).hexdigest()[:16]


def read_rows(job: CompareJob) -> SharedRows:
    """Reads and splits the job's rows. Raises DataError where they are too few."""
    if "-" in (job.data.path, job.eval_data, job.eval_prompts):
        raise OptionError("compare reads its rows in several processes, so standard input does not do: give a file")
    source: Dataset[Preference] = job.data.read(Preference)
    if job.eval_data is not None:
        training = source
        held_out: Dataset[Preference] = dataclasses.replace(job.data, path=job.eval_data, limit=None).read(Preference)
    else:
        if job.held_out <= 0:
            raise OptionError("compare needs rows to evaluate on: give --held-out above 0, or --eval-data FILE")
        training, held_out = source.split(int(job.held_out) if job.held_out >= 1 else job.held_out, SPLIT_SEED)
    has_rewards = bool(job.rewards or job.train_rewards)
    records = list(job.data.prompt_rows()) if has_rewards else []
    if has_rewards and job.eval_data is not None:
        records += dataclasses.replace(job.data, path=job.eval_data, limit=None).prompt_rows()
    held_out = held_out.take(job.measure.eval_rows)
    if job.eval_prompts is not None:
        rows = dataclasses.replace(job.data, path=job.eval_prompts, mapping={}, split=None, limit=None, format="auto")
        asked = rows.prompt_rows()
        texts, records = [row.prompt for row in asked], [*records, *asked]
    else:
        texts = [row.prompt for row in held_out]
    prompts = tuple({prompt_key(text): text for text in texts}.values())[: job.measure.eval_rows]
    return SharedRows(source, training, held_out, prompts, tuple(records))


def prompt_key(prompt: Text) -> str:
    """What tells a prompt from another."""
    return json.dumps(prompt, sort_keys=True)


def halves(keys: Sequence[Hashable]) -> list[bool]:
    """For every prompt key whether its results choose options (True) or are reported (False).

    Equal keys fall on the same side; of the distinct ones half (rounded down) choose, by their hash, whatever their order.
    Raises DataError where there are fewer than four distinct ones.
    """
    distinct = sorted(set(keys), key=lambda key: hashlib.sha256(str(key).encode()).digest())
    if len(distinct) < 4:
        raise DataError(
            f"{len(distinct)} different prompts to evaluate on are too few to choose swept options on one half and report "
            "the other; expected at least 4: raise --held-out, or give more with --eval-data or --eval-prompts"
        )
    to_choose = set(distinct[1::2])
    return [key in to_choose for key in keys]


def file_digest(path: str) -> str:
    """Of a user's Python file, or of a reward model's folder: what cells were computed with. Empty where there is none."""
    place = Path(path)
    files = sorted(place.rglob("*.safetensors")) if place.is_dir() else [place] if place.is_file() else []
    if not files:
        return ""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]
