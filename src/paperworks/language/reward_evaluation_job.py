"""An evaluation of a reward from names to figures: load it, score the rows, measure, keep the evidence and a report.

This is what `paperworks evaluate reward` does; from Python it is `evaluate_reward_job(RewardEvaluationJob(...))`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from paperworks.core.errors import DataError, OptionError
from paperworks.core.files import json_value, write_atomic
from paperworks.core.options import build, plain
from paperworks.core.progress import Progress
from paperworks.core.runs import RunStore
from paperworks.core.statistics import Interval
from paperworks.language.data import Dataset, Preference, Scored, plain_text
from paperworks.language.data.schemas import Text
from paperworks.language.evaluate_job import Figure
from paperworks.language.objectives.row_rewards import reward_rule, rewards_of
from paperworks.language.reward_evaluation import (
    LengthUnit,
    PairMeasures,
    ScoreMeasures,
    measure_pairs,
    measure_scores,
)
from paperworks.language.rewards import Reward, load_reward
from paperworks.language.train_job import DataSource


@dataclass(frozen=True)
class RewardEvaluationJob:
    """Everything that decides an evaluation of a reward; written to its run.yaml."""

    reward: str  # a folder, a Hub id, a built-in name or FILE.py:function
    data: DataSource
    schema: Literal["auto", "preference", "scored"] = "auto"
    reward_weights: tuple[float, ...] = ()  # factors on several rewards of a scored row; none: 1 each
    device: str = "auto"

    def config(self) -> dict[str, Any]:
        """The job as run.yaml has it; `job_from_config` reads it back."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


def job_from_config(values: Mapping[str, Any]) -> RewardEvaluationJob:
    """The job that a run.yaml describes. Raises OptionError for unknown or missing names."""
    job: RewardEvaluationJob = build(RewardEvaluationJob, values, what="evaluate reward")
    return job


@dataclass(frozen=True)
class RewardEvaluation:
    """What was measured: the figures of the table, all measures, notes for the reader, and one mapping a row."""

    job: RewardEvaluationJob
    figures: tuple[Figure, ...]
    measures: PairMeasures | ScoreMeasures
    notes: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    data: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Everything but the rows, as JSON values."""
        measures = dataclasses.asdict(self.measures)
        measures.pop("margins", None)  # they are in the rows
        return {
            "reward": self.job.reward,
            "figures": [figure.as_dict() for figure in self.figures],
            "measures": measures,
            "notes": list(self.notes),
            "data": dict(self.data),
        }


def evaluate_reward_job(
    job: RewardEvaluationJob,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RewardEvaluation:
    """Measure, and where `out` is given keep results.json, rows.jsonl and report.html in that run folder.

    Raises PaperworksError.
    """
    shown = Progress(quiet=True) if progress is None else progress
    if out is None:
        return _evaluate(job, shown)
    name = f"reward-{Path(job.reward).name}"
    with RunStore().start("evaluate", name, out, job.config(), overwrite=overwrite) as run:
        found = _evaluate(job, shown)
        write_atomic(run.folder / "rows.jsonl", "".join(_line(row) for row in found.rows))
        from paperworks.language.reward_evaluation_report import write_report

        write_report(run.folder, found)
        run.finish(found.as_dict())
    return found


def read_rows(source: DataSource, schema: str = "auto") -> Dataset[Any]:
    """The rows as pairs or as scored responses: with `auto` pairs where the first row has `chosen`. Raises DataError."""
    if schema == "auto" and source.path == "-":
        raise OptionError("standard input is read only once: say what it holds with --schema preference or scored")
    if schema == "auto":
        schema = "preference" if _has_pairs(source) else "scored"
    return source.read(Preference if schema == "preference" else Scored)


def _has_pairs(source: DataSource) -> bool:
    """Whether the first row has `chosen`, be it right or wrong in other ways."""
    try:
        dataclasses.replace(source, limit=1, bad_rows="error").read(Preference)
    except DataError as error:
        return error.field not in ("chosen", "rejected")
    return True


def _evaluate(job: RewardEvaluationJob, shown: Progress) -> RewardEvaluation:
    dataset = read_rows(job.data, job.schema)
    for line in dataset.report.lines():
        shown.say(line)
    rule, scores = None, list[float]()
    if isinstance(dataset.rows[0], Scored):
        rule = reward_rule(dataset.rows, weights=job.reward_weights)
        scores = rewards_of(rule, dataset.rows, check_range=False)
    elif job.reward_weights:
        raise OptionError("--reward-weights goes with scored rows; these are pairs")
    reward = load_reward(job.reward, device=job.device)
    data = {**dataset.report.as_dict(), "fingerprint": dataset.fingerprint}
    if rule is None:
        return _on_pairs(job, reward, dataset, data, shown)
    return _on_scores(job, reward, dataset, scores, {**data, "score": rule.formula}, shown)


def _on_pairs(
    job: RewardEvaluationJob, reward: Reward, dataset: Dataset[Preference], data: Mapping[str, Any], shown: Progress
) -> RewardEvaluation:
    rows = dataset.rows
    prompts = [row.prompt for row in rows] * 2
    judged = judge(reward, prompts, [row.chosen for row in rows] + [row.rejected for row in rows], shown)
    chosen, rejected = judged.rewards[: len(rows)], judged.rewards[len(rows) :]
    lengths = judged.lengths[: len(rows)], judged.lengths[len(rows) :]
    found = measure_pairs(chosen, rejected, *lengths, [_key(row.prompt) for row in rows], unit=judged.unit)
    kept = [
        {
            "where": str(row.where) if row.where.file else f"row {number}",
            "reward_chosen": chosen[number - 1],
            "reward_rejected": rejected[number - 1],
            f"{judged.unit}_chosen": lengths[0][number - 1],
            f"{judged.unit}_rejected": lengths[1][number - 1],
        }
        for number, row in enumerate(rows, start=1)
    ]
    return RewardEvaluation(job, _pair_figures(found), found, judged.notes, tuple(kept), data)


def _on_scores(
    job: RewardEvaluationJob,
    reward: Reward,
    dataset: Dataset[Scored],
    scores: Sequence[float],
    data: Mapping[str, Any],
    shown: Progress,
) -> RewardEvaluation:
    rows = dataset.rows
    judged = judge(reward, [row.prompt for row in rows], [row.response for row in rows], shown)
    clusters = [_key(row.prompt) for row in rows]
    found = measure_scores(judged.rewards, scores, judged.lengths, clusters, unit=judged.unit)
    kept = [
        {
            "where": str(row.where) if row.where.file else f"row {number}",
            "reward": judged.rewards[number - 1],
            "score": scores[number - 1],
            judged.unit: judged.lengths[number - 1],
        }
        for number, row in enumerate(rows, start=1)
    ]
    return RewardEvaluation(job, _score_figures(found, len(rows)), found, judged.notes, tuple(kept), data)


# ---------------------------------------------------------------------------------------------------------------- judging


@dataclass(frozen=True)
class Judged:
    """The reward and length of every response; lengths in the reward model's tokens, for other rewards in words."""

    rewards: tuple[float, ...]
    lengths: tuple[int, ...]
    unit: LengthUnit
    notes: tuple[str, ...]


def judge(reward: Reward, prompts: Sequence[Text], responses: Sequence[Text], shown: Progress) -> Judged:
    """Score the responses to the prompts beside them. Raises RewardError, ModelError."""
    from paperworks.language.rewards.model_reward import ModelReward
    from paperworks.language.rewards.reward import checked

    if not isinstance(reward, ModelReward):
        words = tuple(len(plain_text(response).split()) for response in responses)
        return Judged(tuple(reward(prompts, responses)), words, "words", ())
    bar = shown.bar("scoring", len(responses))
    encoded = reward.model.encode([reward.laid_out(prompt) for prompt in prompts], responses)
    values = reward.model.score_encoded(encoded, on_progress=lambda share: bar.update(round(share * len(responses))))
    bar.finish()
    notes = [note for note in (reward.model.method_note(),) if note]
    cut = sum(each.is_cut for each in encoded)
    if cut:
        notes.append(
            f"{cut / len(encoded):.1%} of prompts with responses were longer than the {reward.model.context_length} tokens "
            "that the reward model reads, and were cut"
        )
    rewards = checked(reward.name, values, [plain_text(response) for response in responses])
    return Judged(tuple(rewards), tuple(len(each.response) for each in encoded), "tokens", tuple(notes))


# ---------------------------------------------------------------------------------------------------------------- figures


def _pair_figures(found: PairMeasures) -> tuple[Figure, ...]:
    calibration, length = found.calibration, found.length
    pairs = f"{len(found.margins)} pairs"

    def figure(name: str, label: str, unit: str, interval: Interval | float, of: str = pairs) -> Figure:
        return Figure(name, label, unit, of, interval if isinstance(interval, Interval) else _point(interval))

    return (
        figure("accuracy", "accuracy: chosen above rejected", "share", found.accuracy),
        figure("margin", "margin, chosen - rejected", "", found.margin),
        figure("log_loss", "log-loss of sigmoid(margin)", "nats", calibration.log_loss),
        figure("brier", "Brier score", "", calibration.brier),
        figure("calibration_error", "expected calibration error", "share", calibration.error),
        figure("temperature", "calibrating temperature", "", calibration.temperature or math.nan),
        figure("accuracy_longer", "accuracy where chosen is longer", "share", length.accuracy_longer, "those pairs"),
        figure("accuracy_shorter", "accuracy where chosen is shorter", "share", length.accuracy_shorter, "those pairs"),
        figure(
            "longer_preferred", "reward prefers the longer", "share", length.longer_preferred, "pairs of unequal length"
        ),
        figure("longer_chosen", "the longer was chosen", "share", length.longer_chosen, "pairs of unequal length"),
        figure("length_slope", f"reward for 10 {length.unit} more", "", length.slope),
        figure(
            "length_correlation",
            f"rank correlation with {length.unit}",
            "",
            length.correlation,
            f"{2 * len(found.margins)} responses",
        ),
    )


def _score_figures(found: ScoreMeasures, rows: int) -> tuple[Figure, ...]:
    of = f"{rows} responses"
    return (
        Figure("squared_error", "mean squared error", "", of, found.squared_error),
        Figure("r_squared", "R²", "", of, _point(found.r_squared)),
        Figure("rank_correlation", "rank correlation with scores", "", of, _point(found.rank_correlation)),
        Figure("correlation", "correlation with scores", "", of, _point(found.correlation)),
        Figure("length_correlation", f"rank correlation with {found.unit}", "", of, _point(found.length_correlation)),
        Figure(
            "score_length_correlation",
            f"rank correlation of scores with {found.unit}",
            "",
            of,
            _point(found.score_length_correlation),
        ),
    )


def _point(value: float) -> Interval:
    return Interval(value, math.nan, math.nan, 1)


def _key(prompt: Text) -> str:
    return json.dumps(prompt, sort_keys=True)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(json_value(row), ensure_ascii=False, allow_nan=False) + "\n"
