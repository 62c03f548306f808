"""An unlearning evaluation from names to a folder: read the sets, load each model, measure, keep the evidence.

This is what `paperworks evaluate unlearning` does; from Python it is `evaluate_unlearning_job(UnlearningJob(...))`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paperworks.core.errors import OptionError
from paperworks.core.files import json_value, write_atomic
from paperworks.core.options import build, plain
from paperworks.core.progress import Progress
from paperworks.core.runs import RunStore
from paperworks.language.data.schemas import QuestionAnswer
from paperworks.language.policy import Policy, Precision
from paperworks.language.train_job import DataSource
from paperworks.language.unlearning.logs import (
    FILE_NAME,
    HOW_TO_MAKE_ONE,
    UnlearningLog,
    log_of,
    read_log,
    write_log,
)
from paperworks.language.unlearning.measured_sets import SET_NAMES
from paperworks.language.unlearning.outcome import UnlearningReport
from paperworks.language.unlearning.protocol import UnlearningOptions, UnlearningSets, evaluate_unlearning


@dataclass(frozen=True)
class UnlearningJob:
    """Everything that decides an evaluation; written to its run.yaml."""

    models: tuple[str, ...]
    forget: DataSource
    retain: DataSource | None = None
    real_authors: DataSource | None = None
    world_facts: DataSource | None = None
    retain_log: str | None = None  # a retain-only model's log, or a folder with it
    retain_model: str | None = None  # the retain-only model itself, measured like the others
    require_forget_quality: bool = False  # stop where there is neither of the two
    measure: UnlearningOptions = field(default_factory=UnlearningOptions)
    precision: Precision = "float32"
    device: str = "auto"
    chat_template: str | None = None

    def __post_init__(self) -> None:
        if not self.models:
            raise OptionError("give the model to measure: --model ID, FOLDER, smollm2-135m or tiny")
        twice = [name for name in self.models if self.models.count(name) > 1 or name == self.retain_model]
        if twice:
            raise OptionError(f"model {twice[0]} is named twice; name each once")
        if self.retain_log is not None and self.retain_model is not None:
            raise OptionError("give --retain-log or --retain-model, not both")
        if self.require_forget_quality and self.retain_log is None and self.retain_model is None:
            raise OptionError(f"forget quality needs a retain-only model's log, and none is given; {HOW_TO_MAKE_ONE}")

    def config(self) -> dict[str, Any]:
        """The job as run.yaml has it; `job_from_config` reads it back."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def job_from_config(values: Mapping[str, Any]) -> UnlearningJob:
    """The job that a run.yaml describes. Raises OptionError for unknown or missing names."""
    job: UnlearningJob = build(UnlearningJob, values, what="evaluate unlearning")
    return job


@dataclass(frozen=True)
class UnlearningEvaluation:
    """One report a model, in the order named, and the retain-only model's where its utility is comparable."""

    reports: tuple[UnlearningReport, ...]
    retain_only: UnlearningReport | None  # measured here, or from a log over the same sets
    data: Mapping[str, Any]  # what reading each set gave
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the single questions, as JSON values."""
        return {
            "models": [report.as_dict() for report in self.reports],
            "retain_only": None if self.retain_only is None else self.retain_only.as_dict(),
            "data": dict(self.data),
            "notes": list(self.notes),
        }


def evaluate_unlearning_job(
    job: UnlearningJob,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> UnlearningEvaluation:
    """Measure every model, and where `out` is given keep in that run folder: results.json, report.html, figures, and for
    each model its log and items.jsonl (in a folder of its own where there are several models).

    Raises PaperworksError; what can be said before a model is loaded is said before.
    """
    from paperworks.language.unlearning.report import write_report

    shown = Progress(quiet=True) if progress is None else progress
    if out is None:
        return _evaluate(job, shown)
    name = Path(job.models[0]).name or job.models[0]
    with RunStore().start("evaluate", f"unlearning-{name}", out, job.config(), overwrite=overwrite) as run:
        found = _evaluate(job, shown)
        for folder, report in _folders(found, job).items():
            place = run.folder / folder
            place.mkdir(exist_ok=True)
            write_log(report, place / FILE_NAME)
            write_atomic(place / "items.jsonl", _lines(report))
        run.finish(found.as_dict())
        write_report(found, job.config(), run.folder)
    return found


def _folders(found: UnlearningEvaluation, job: UnlearningJob) -> dict[str, UnlearningReport]:
    """The folder of each measured model's log beside results.json; `.` for a single model."""
    named: dict[str, UnlearningReport] = {}
    for report in found.reports:
        base = re.sub(r"[^\w.+-]+", "-", report.model).strip("-.") or "model"
        name, number = base, 2
        while name in named or name == _RETAIN_ONLY:
            name, number = f"{base}-{number}", number + 1
        named["." if len(found.reports) == 1 else name] = report
    if found.retain_only is not None and job.retain_model is not None:
        named[_RETAIN_ONLY] = found.retain_only
    return named


_RETAIN_ONLY = "retain-only"


def _evaluate(job: UnlearningJob, shown: Progress) -> UnlearningEvaluation:
    retain_log = None if job.retain_log is None else read_log(job.retain_log)
    sources = {name: source for name in SET_NAMES if (source := getattr(job, name)) is not None}
    read = {name: source.read(QuestionAnswer) for name, source in sources.items()}
    for rows in read.values():
        for line in rows.report.lines():
            shown.say(line)
    sets = UnlearningSets(**read)
    sets.check()
    notes: list[str] = []
    retain_only = None
    if job.retain_model is not None:
        retain_log = log_of(_measure(job, job.retain_model, sets, None, shown, notes))
        retain_only = retain_log.report(retain_log)  # against itself: p = 1
    elif retain_log is not None:
        sets.retain_only(retain_log, job.measure)  # raises here, before a model is loaded
        if set(retain_log.sets) == set(read):  # else its utility is over other sets and has no place among the others
            logged = retain_log.under(job.measure.averaging)
            retain_only = logged.report(logged)
    reports = [_measure(job, model, sets, retain_log, shown, notes) for model in job.models]
    if retain_log is None:
        notes.append(f"no forget quality without a retain-only model's log; {HOW_TO_MAKE_ONE}")
    for report in reports:
        notes += [note for note in report.notes if note not in notes]
    data: dict[str, Any] = {
        str(name): {**rows.report.as_dict(), "fingerprint": rows.fingerprint, "used": min(len(rows), job.measure.limit)}
        for name, rows in read.items()
    }
    return UnlearningEvaluation(tuple(reports), retain_only, data, tuple(notes))


def _measure(
    job: UnlearningJob,
    model: str,
    sets: UnlearningSets,
    retain_log: UnlearningLog | None,
    shown: Progress,
    notes: list[str],
) -> UnlearningReport:
    policy = Policy.load(model, precision=job.precision, device=job.device, chat_template=job.chat_template)
    notes += [note for note in (policy.method_note(),) if note]
    questions = sum(min(len(rows), job.measure.limit) for rows in sets.named().values())
    bar = shown.bar(f"evaluating {Path(model).name or model}", questions)
    report = evaluate_unlearning(
        policy,
        sets,
        job.measure,
        retain_log=retain_log,
        on_progress=lambda share: bar.update(round(share * questions)),
    )
    bar.finish()
    return report


def _lines(report: UnlearningReport) -> str:
    rows: Sequence[Mapping[str, Any]] = [
        {
            "set": name,
            **vars(item),
            "log_s": float(log_s),
            "truth_ratio": float(ratio),
            "probability": float(probability),
        }
        for name, measured in report.sets.items()
        for item, log_s, ratio, probability in zip(
            measured.items,
            measured.log_s,
            measured.values("truth_ratio"),
            measured.values("probability"),
            strict=True,
        )
    ]
    return "".join(json.dumps(json_value(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
