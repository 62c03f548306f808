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
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

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
from paperworks.language.reward_agreement import Agreement, agreement_on_pairs, agreement_on_scores
from paperworks.language.reward_evaluation import (
    LengthUnit,
    PairMeasures,
    ScoreMeasures,
    measure_pairs,
    measure_scores,
)
from paperworks.language.rewards import EnsembleReward, Reward, RewardOptions, reward_from_options
from paperworks.language.rewards.ensemble import Scores, combine, standardised
from paperworks.language.rewards.reward import checked
from paperworks.language.train_job import DataSource

if TYPE_CHECKING:
    from paperworks.language.rewards.model_reward import ModelReward


@dataclass(frozen=True)
class RewardEvaluationJob:
    """Everything that decides an evaluation of a reward; written to its run.yaml."""

    reward: str  # a folder, a Hub id, a built-in name or FILE.py:function
    data: DataSource
    more_rewards: tuple[str, ...] = ()  # with the first one the members of an ensemble
    rewarding: RewardOptions = RewardOptions()  # noqa: RUF009 - frozen; how several become one, and what is made of it
    schema: Literal["auto", "preference", "scored"] = "auto"
    reward_weights: tuple[float, ...] = ()  # factors on several rewards of a scored row; none: 1 each
    device: str = "auto"

    @property
    def rewards(self) -> tuple[str, ...]:
        """All rewards named."""
        return (self.reward, *self.more_rewards)

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
    agreement: Agreement | None = None  # of an ensemble's members

    def as_dict(self) -> dict[str, Any]:
        """Everything but the rows, as JSON values."""
        measures = dataclasses.asdict(self.measures)
        measures.pop("margins", None)  # they are in the rows
        return {
            "reward": self.job.reward,
            "figures": [figure.as_dict() for figure in self.figures],
            "measures": measures,
            **({} if self.agreement is None else {"agreement": dataclasses.asdict(self.agreement)}),
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
    notes: list[str] = []
    reward = reward_from_options(job.rewards, job.rewarding, device=job.device, on_note=notes.append)
    for line in notes:
        shown.say(line)
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
    clusters = [_key(row.prompt) for row in rows]
    found = measure_pairs(chosen, rejected, *lengths, clusters, unit=judged.unit)
    agreement = None
    if judged.members is not None:
        first, second = np.split(judged.members, 2, axis=1)
        agreement = agreement_on_pairs(first, second, found.margins, clusters, judged.names)
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
    figures = (*_pair_figures(found), *_agreement_figures(agreement))
    return RewardEvaluation(job, figures, found, judged.notes, tuple(kept), data, agreement)


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
    agreement = None
    if judged.members is not None:
        squared = (np.asarray(judged.rewards) - np.asarray(scores)) ** 2
        agreement = agreement_on_scores(judged.members, squared, clusters, judged.names)
    kept = [
        {
            "where": str(row.where) if row.where.file else f"row {number}",
            "reward": judged.rewards[number - 1],
            "score": scores[number - 1],
            judged.unit: judged.lengths[number - 1],
        }
        for number, row in enumerate(rows, start=1)
    ]
    figures = (*_score_figures(found, len(rows)), *_agreement_figures(agreement))
    return RewardEvaluation(job, figures, found, judged.notes, tuple(kept), data, agreement)


# ---------------------------------------------------------------------------------------------------------------- judging


@dataclass(frozen=True)
class Judged:
    """The reward and length of every response; lengths in the reward model's tokens, for other rewards in words.

    `members` are standardised scores [members, responses] of an ensemble, None where there is none to look into.
    """

    rewards: tuple[float, ...]
    lengths: tuple[int, ...]
    unit: LengthUnit
    notes: tuple[str, ...]
    members: Scores | None = None
    names: tuple[str, ...] = ()  # of the members


def judge(reward: Reward, prompts: Sequence[Text], responses: Sequence[Text], shown: Progress) -> Judged:
    """Score the responses to the prompts beside them. Raises RewardError, ModelError."""
    from paperworks.language.rewards.model_reward import ModelMembers, ModelReward

    if isinstance(reward, ModelReward):
        raw, lengths, notes = _scored_by_model(reward, prompts, responses, shown)
        rewards = checked(reward.name, raw[0], [plain_text(response) for response in responses])
        return Judged(tuple(rewards), lengths, "tokens", notes)
    words = tuple(len(plain_text(response).split()) for response in responses)
    if not isinstance(reward, EnsembleReward):
        return Judged(tuple(reward(prompts, responses)), words, "words", ())
    if isinstance(reward.members, ModelMembers):
        raw, lengths, notes = _scored_by_model(reward.members.judge, prompts, responses, shown)
        scores, unit = standardised(raw, reward.scales), "tokens"
    else:
        scores, lengths, unit, notes = reward.member_scores(prompts, responses), words, "words", ()
    combined = combine(scores, reward.rule, reward.uwo_lambda)
    several = len(reward.members.names) > 1
    return Judged(
        tuple(combined.tolist()),
        lengths,
        cast(LengthUnit, unit),
        (*notes, _ensemble_note(reward)),
        scores if several else None,
        reward.members.names if several else (),
    )


def _scored_by_model(
    reward: ModelReward, prompts: Sequence[Text], responses: Sequence[Text], shown: Progress
) -> tuple[Scores, tuple[int, ...], tuple[str, ...]]:
    """Raw scores [members, responses] of a reward model, lengths in its tokens, notes."""
    bar = shown.bar("scoring", len(responses))
    encoded = reward.model.encode([reward.laid_out(prompt) for prompt in prompts], responses)
    values = reward.model.member_scores(encoded, on_progress=lambda share: bar.update(round(share * len(responses))))
    bar.finish()
    notes = [note for note in (reward.model.method_note(),) if note]
    cut = sum(each.is_cut for each in encoded)
    if cut:
        notes.append(
            f"{cut / len(encoded):.1%} of prompts with responses were longer than the {reward.model.context_length} tokens "
            "that the reward model reads, and were cut"
        )
    return values.T.numpy(), tuple(len(each.response) for each in encoded), tuple(notes)


def _ensemble_note(reward: EnsembleReward) -> str:
    rule = f"uwo with lambda {reward.uwo_lambda:g}" if reward.rule == "uwo" else reward.rule
    scaled = "raw" if reward.scales is None else "standardised"
    return f"{len(reward.members.names)} members, {scaled}, combined by {rule}"


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


def _agreement_figures(found: Agreement | None) -> tuple[Figure, ...]:
    if found is None:
        return ()
    of = f"{len(found.members)} members"
    figures = [Figure("member_correlation", "members' correlation", "", of, _point(found.mean_correlation))]
    if found.differ is not None:
        figures.append(Figure("members_differ", "pairs that members rank differently", "share", of, found.differ))
    figures.append(Figure("member_variance", "members' variance", "", of, found.variance))
    figures.append(
        Figure("variance_error", "rank correlation of variance with error", "", of, _point(found.error_correlation))
    )
    return tuple(figures)


def _point(value: float) -> Interval:
    return Interval(value, math.nan, math.nan, 1)


def _key(prompt: Text) -> str:
    return json.dumps(prompt, sort_keys=True)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(json_value(row), ensure_ascii=False, allow_nan=False) + "\n"
