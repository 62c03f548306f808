"""An evaluation from names to figures: load the model, read the rows, measure what they allow, keep the evidence.

This is what `paperworks evaluate` does; from Python it is `evaluate_job(EvaluateJob(...))`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paperworks.core.errors import DataError, OptionError, did_you_mean
from paperworks.core.files import json_value, write_atomic
from paperworks.core.options import build, check_ranges, option, plain
from paperworks.core.progress import Progress
from paperworks.core.runs import RunStore
from paperworks.core.statistics import Interval
from paperworks.language.data import Dataset, Demonstration
from paperworks.language.data.schemas import SCHEMAS, Text
from paperworks.language.evaluation import Measured, OnProgress, SampleReport, ScoredRows, sample_report, score_rows
from paperworks.language.items import LongPrompts
from paperworks.language.policy import Policy, Precision
from paperworks.language.rewards import Reward, RewardOptions, rewards_from_options
from paperworks.language.train_job import DataSource

METRICS = ("accuracy", "perplexity", "kl", "reward", "length")
_TELLING = {"preference": ("chosen",), "feedback": ("response", "desirable"), "demonstration": ("response",)}
"""The fields without which a row is not of that kind; asked for in this order, and a row of none of them is a prompt."""


@dataclass(frozen=True)
class MeasureOptions:
    """What to measure, and how."""

    metrics: tuple[str, ...] = option(
        (), f"some of {', '.join(METRICS)} (default: all that the data and options allow)"
    )
    normalise: bool = option(False, "compare log-probabilities a token rather than a response")
    samples: int = option(1, "responses drawn for each prompt", low=1)
    max_new_tokens: int = option(128, "most tokens of a drawn response", low=1)
    temperature: float = option(1.0, "of the drawn responses; KL is measured at 1 only", above=0)
    sample_rows: int = option(128, "rows whose prompts are sampled from: the first ones", low=1)
    max_length: int | None = option(None, "most tokens of prompt and response (default: the model's context)", low=2)
    long_prompts: LongPrompts = option("error", "prompts that leave no room: stop, cut their front, or skip the row")
    seed: int = option(0, "of the drawn responses")

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in self.metrics:
            if name not in METRICS:
                raise OptionError(f"unknown metric {name!r}{did_you_mean(name, METRICS)}")


@dataclass(frozen=True)
class EvaluateJob:
    """Everything that decides an evaluation; written to its run.yaml."""

    model: str
    data: DataSource
    schema: str = "auto"
    reference: str = "auto"  # a model, or "none"; "auto": the model beneath adapters where there are some, else none
    rewards: tuple[str, ...] = ()
    rewarding: RewardOptions = RewardOptions()  # noqa: RUF009 - frozen; each reward is reported unless combined
    measure: MeasureOptions = MeasureOptions()
    precision: Precision = "float32"
    device: str = "auto"
    chat_template: str | None = None

    def config(self) -> dict[str, Any]:
        """The job as run.yaml has it; `job_from_config` reads it back."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def job_from_config(values: Mapping[str, Any]) -> EvaluateJob:
    """The job that a run.yaml describes. Raises OptionError for unknown or missing names."""
    job: EvaluateJob = build(EvaluateJob, values, what="evaluate")
    return job


@dataclass(frozen=True)
class Figure:
    """One line of the result: what was measured, in which unit, on what, and the mean with its interval."""

    name: str
    label: str
    unit: str
    of: str
    interval: Interval

    def as_dict(self) -> dict[str, Any]:
        """The figure as JSON values."""
        return {"name": self.name, "label": self.label, "unit": self.unit, "of": self.of, **vars(self.interval)}


@dataclass(frozen=True)
class Evaluation:
    """The figures, notes for the reader, and one mapping a row (log-probabilities) and a drawn response (`samples`)."""

    figures: tuple[Figure, ...]
    notes: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    samples: tuple[Mapping[str, Any], ...]
    data: Mapping[str, Any]
    reference: str | None

    def as_dict(self) -> dict[str, Any]:
        """Everything but rows and samples, as JSON values."""
        figures = [figure.as_dict() for figure in self.figures]
        return {"figures": figures, "reference": self.reference, "notes": list(self.notes), "data": dict(self.data)}


def evaluate_job(
    job: EvaluateJob,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure, and where `out` is given keep results.json, rows.jsonl and samples.jsonl in that run folder.

    Raises PaperworksError: for a metric that the data or options do not allow it says what is missing.
    """
    shown = Progress(quiet=True) if progress is None else progress
    if out is None:
        return _evaluate(job, shown)
    name = Path(job.model).name or job.model
    store = RunStore()
    with store.start("evaluate", name, out, job.config(), job.measure.seed, overwrite=overwrite) as run:
        found = _evaluate(job, shown)
        write_atomic(run.folder / "rows.jsonl", _lines(found.rows))
        write_atomic(run.folder / "samples.jsonl", _lines(found.samples))
        run.finish(found.as_dict())
    return found


def _evaluate(job: EvaluateJob, shown: Progress) -> Evaluation:
    loaded: list[Policy] = []  # a length penalty counts the tokens of the model that is measured

    def count_tokens(responses: Sequence[Text]) -> list[int]:
        return [len(ids) for ids in loaded[0].encode_responses(responses)]

    schema, dataset = read_rows(job.data, job.schema)
    asked = job.data.prompt_rows() if job.rewards and job.data.path != "-" else None
    rewards = rewards_from_options(
        job.rewards, job.rewarding, device=job.device, count_tokens=count_tokens, on_note=shown.say, rows=asked
    )
    for line in dataset.report.lines():
        shown.say(line)
    if job.reference != "auto":  # a metric that is impossible is said before a model is loaded
        chosen_metrics(job.measure.metrics, schema, job.reference != "none", bool(rewards), job.data.path)
    policy = _load(job, job.model)
    loaded.append(policy)
    reference = _reference(job, policy)
    metrics = chosen_metrics(job.measure.metrics, schema, reference is not None, bool(rewards), job.data.path)
    figures: list[Figure] = []
    notes = [note for note in (policy.method_note(),) if note]
    rows: tuple[Mapping[str, Any], ...] = ()
    samples: tuple[Mapping[str, Any], ...] = ()
    if {"accuracy", "perplexity"} & set(metrics):
        found, rows, more = _given_rows(job, metrics, schema, dataset, policy, reference, shown)
        figures, notes = [*figures, *found], [*notes, *more]
    if {"kl", "reward", "length"} & set(metrics):
        found, samples, more = _own_samples(job, metrics, dataset, policy, reference, rewards, shown)
        figures, notes = [*figures, *found], [*notes, *more]
    data = {**dataset.report.as_dict(), "fingerprint": dataset.fingerprint}
    name = None if reference is None else reference.name
    return Evaluation(tuple(figures), tuple(notes), rows, samples, data, name)


def read_rows(source: DataSource, schema: str = "auto") -> tuple[str, Dataset[Any]]:
    """The rows of a source, and the schema they were read as: with `auto` the fullest that the first row fills.

    Raises DataError, and OptionError for an unknown schema.
    """
    if schema == "auto" and source.path == "-":
        names = ", ".join([*_TELLING, "prompt"])
        raise OptionError(f"standard input is read only once: say what it holds with --schema (one of {names})")
    if schema == "auto":
        schema = next((name for name in _TELLING if _is_of(source, name)), "prompt")
    if schema not in SCHEMAS:
        raise OptionError(f"unknown schema {schema!r}{did_you_mean(schema, [*_TELLING, 'prompt', 'auto'])}")
    return schema, source.read(SCHEMAS[schema])


def _is_of(source: DataSource, schema: str) -> bool:
    """Whether the first row has the fields that tell this schema, be it right or wrong in other ways."""
    try:
        dataclasses.replace(source, limit=1).read(SCHEMAS[schema])
    except DataError as error:
        is_absent = error.field in _TELLING[schema] and ("missing;" in str(error) or "no such column" in str(error))
        return not is_absent and source.bad_rows == "error"
    return True


def chosen_metrics(
    wanted: Sequence[str], schema: str, has_reference: bool, has_rewards: bool, data: str = "the data"
) -> tuple[str, ...]:
    """The metrics to measure, in the order of METRICS: those wanted, or all that are possible.

    Without being asked, length is measured where responses are drawn anyway or nothing else can be measured.
    Raises OptionError for a wanted one that is not possible, with what it needs.
    """
    needs = {
        "accuracy": (schema == "preference", f"rows with prompt, chosen and rejected; {data} has {schema} rows"),
        "perplexity": (schema != "prompt", f"rows with responses; {data} has {schema} rows"),
        "kl": (has_reference, "a reference: --reference MODEL"),
        "reward": (has_rewards, "a reward: --reward NAME or --reward FILE.py:function"),
        "length": (True, ""),
    }
    for name in wanted:
        if not needs[name][0]:
            raise OptionError(f"metric {name} needs {needs[name][1]}")
    if wanted:
        return tuple(name for name in METRICS if name in wanted)
    possible = [name for name in METRICS if needs[name][0] and name != "length"]
    draws = has_reference or has_rewards or not possible
    return (*possible, "length") if draws else tuple(possible)


def _load(job: EvaluateJob, name: str) -> Policy:
    return Policy.load(name, precision=job.precision, device=job.device, chat_template=job.chat_template)


def _reference(job: EvaluateJob, policy: Policy) -> Policy | None:
    if job.reference == "auto":
        return policy.reference() if policy.has_adapters else None
    return None if job.reference == "none" else _load(job, job.reference)


def _given_rows(
    job: EvaluateJob,
    metrics: Sequence[str],
    schema: str,
    dataset: Dataset[Any],
    policy: Policy,
    reference: Policy | None,
    shown: Progress,
) -> tuple[list[Figure], tuple[Mapping[str, Any], ...], list[str]]:
    measure, of, notes = job.measure, "responses", list[str]()
    roles: tuple[str, ...] = ("response",)
    if schema == "preference":
        roles, of = ("chosen", "rejected") if "accuracy" in metrics else ("chosen",), "chosen responses"
    if schema == "feedback":
        kept = [Demonstration(row.prompt, row.response, row.weight, row.where) for row in dataset if row.desirable]
        if not kept:
            raise DataError("no desirable responses, whose perplexity could be measured", file=job.data.path)
        dataset, of = Dataset(tuple(kept), dataset.report), "desirable responses"
    scored = score_rows(
        policy,
        dataset,
        roles,
        reference=reference,
        max_length=measure.max_length,
        long_prompts=measure.long_prompts,
        on_progress=_bar(shown, "scoring rows", len(dataset)),
    )
    notes += scored.items.notes()
    figures = []
    if "accuracy" in metrics:
        by = "log-probability" if reference is None else f"log-ratio to {reference.name}"
        unit = "nats a token" if measure.normalise else "nats"
        by = f"{by} a token" if measure.normalise else by
        pairs = f"{len(scored.items)} pairs"
        accuracy, margins = scored.accuracy(normalise=measure.normalise), scored.margins(normalise=measure.normalise)
        figures.append(Figure("accuracy", f"preference accuracy by {by}", "share", pairs, accuracy.interval))
        figures.append(Figure("margin", "margin, chosen - rejected", unit, pairs, margins.interval))
    if "perplexity" in metrics:
        found = scored.perplexity(roles[0])
        figures.append(Figure("perplexity", "perplexity", "", f"{len(scored.items)} {of}", found.interval))
    return figures, tuple(_row(scored, at) for at in range(len(scored.items))), notes


def _row(scored: ScoredRows, at: int) -> dict[str, Any]:
    row: dict[str, Any] = {"where": scored.items.items[at].where}
    for column, role in enumerate(scored.items.roles):
        row[f"{role}_logp"] = float(scored.logps[at, column])
        row[f"{role}_tokens"] = int(scored.counts[at, column])
        if scored.reference_logps is not None:
            row[f"{role}_reference_logp"] = float(scored.reference_logps[at, column])
    return row


def _own_samples(
    job: EvaluateJob,
    metrics: Sequence[str],
    dataset: Dataset[Any],
    policy: Policy,
    reference: Policy | None,
    rewards: Sequence[Reward],
    shown: Progress,
) -> tuple[list[Figure], tuple[Mapping[str, Any], ...], list[str]]:
    measure, notes = job.measure, list[str]()
    prompts = _distinct(dataset)
    if len(prompts) > measure.sample_rows:
        notes.append(f"sampled from the first {measure.sample_rows} of {len(prompts)} prompts; more with --sample-rows")
        prompts = prompts[: measure.sample_rows]
    report = sample_report(
        policy,
        reference if "kl" in metrics else None,
        prompts,
        rewards if "reward" in metrics else (),
        measure.samples,
        measure.seed,
        measure.max_new_tokens,
        temperature=measure.temperature,
        on_progress=_bar(shown, "sampling", len(prompts)),
    )
    of = f"{len(report.rows)} samples of {len(prompts)} prompts"
    figures = []

    def add(name: str, label: str, unit: str, found: Measured) -> None:
        figures.append(Figure(name, label, unit, of, found.interval))

    if "kl" in metrics:
        assert reference is not None
        add("kl", f"KL to {reference.name}", "nats a response", report.kl())
        add("kl_per_token", "KL a token", "nats a token", report.kl_per_token())
    if "reward" in metrics:
        for reward in rewards:
            add(f"reward {reward.name}", f"reward {reward.name}", "", report.reward(reward.name))
    if "length" in metrics:
        add("tokens", "length", "tokens a response", report.tokens())
        add("at_cap", f"cut at {measure.max_new_tokens} tokens", "share", report.at_cap())
    return figures, tuple(_sample_row(report, at) for at in range(len(report.rows))), notes


def _sample_row(report: SampleReport, at: int) -> dict[str, Any]:
    row = dataclasses.asdict(report.rows[at])
    return {name: value for name, value in row.items() if value is not None}


def _distinct(dataset: Dataset[Any]) -> list[Any]:
    """The rows' prompts, each once, in order."""
    prompts: dict[str, Any] = {}
    for row in dataset:
        prompts.setdefault(json.dumps(row.prompt), row.prompt)
    return list(prompts.values())


def _bar(shown: Progress, label: str, total: int) -> OnProgress:
    bar = shown.bar(label, total)

    def on_progress(share: float) -> None:
        bar.update(round(share * total))
        if share >= 1 - 1e-9:
            bar.finish()

    return on_progress


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(json_value(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
