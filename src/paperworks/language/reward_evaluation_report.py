"""report.html of an evaluation of a reward: the answer, calibration, length, margins or agreement with scores."""

from __future__ import annotations

import math
from pathlib import Path

from paperworks.core import plots
from paperworks.core.report import Page
from paperworks.core.statistics import Interval
from paperworks.language.reward_agreement import Agreement
from paperworks.language.reward_evaluation import PairMeasures, ReliabilityBin, ScoreMeasures
from paperworks.language.reward_evaluation_job import RewardEvaluation

_COLOURS = {
    "chosen": plots.PALETTE[2],
    "rejected": plots.PALETTE[1],
    "this reward": plots.PALETTE[0],
    "mean score": plots.PALETTE[0],
    "calibrated": plots.PALETTE[-1],
    "equal": plots.PALETTE[-1],
}


def write_report(folder: str | Path, found: RewardEvaluation) -> Path:
    """Write `folder/report.html` with its figures beside it; returns the path."""
    folder = Path(folder)
    (folder / "figures").mkdir(exist_ok=True)
    page = Page(
        f"Reward {' '.join(Path(name).name for name in found.job.rewards)}",
        f"on {found.job.data.path}",
    )
    is_pairs = isinstance(found.measures, PairMeasures)
    lines = pair_answer(found.measures) if is_pairs else score_answer(found.measures)  # type: ignore[arg-type]
    page.callout("Answer", [*lines, *([] if found.agreement is None else agreement_answer(found.agreement))])
    for note in found.notes:
        page.note(note)
    page.section("Result")
    rows = [
        [each.label, _number(each.interval.mean), _bounds(each.interval), each.unit, each.of] for each in found.figures
    ]
    columns = ["measure", "value", "95% interval", "unit", "of"]
    page.table(columns, rows, right=columns[1:3], caption="Intervals resample prompts.")
    if isinstance(found.measures, PairMeasures):
        _pair_sections(page, found.measures, folder)
    else:
        _score_sections(page, found.measures, folder)
    if found.agreement is not None:
        _agreement_sections(page, found.agreement, folder)
    page.section("What was measured")
    facts = {
        "reward": ", ".join(found.job.rewards),
        "data": found.job.data.path,
        "rows": found.data["read"],
    }
    page.facts({**facts, "score": found.data["score"]} if "score" in found.data else facts)
    return page.save(folder / "report.html")


def pair_answer(found: PairMeasures) -> list[str]:
    """What pairs show of a reward, a sentence a question."""
    accuracy, calibration, length = found.accuracy, found.calibration, found.length
    verdict = (
        "no better than a coin" if accuracy.low <= 0.5 <= accuracy.high else "better than a coin"
        if accuracy.mean > 0.5 else "worse than a coin"
    )  # fmt: skip
    lines = [f"It ranks {_share(accuracy)} of {len(found.margins)} pairs as they are labelled: {verdict}."]
    if calibration.temperature is None and accuracy.mean == 1:
        lines.append("It is right about every pair, so how sure it may be cannot be told: more pairs would show.")
    elif calibration.temperature is None:
        lines.append(
            f"Its probabilities are off by {calibration.error:.1%} on average, and no temperature would calibrate them."
        )
    else:
        how = "too sure" if calibration.temperature > 1 else "not sure enough"
        lines.append(
            f"Its probabilities are off by {calibration.error:.1%} on average ({how}: divide rewards by "
            f"{calibration.temperature:.3g}, which leaves {calibration.error_at_temperature:.1%})."
        )
    preferred, chosen = length.longer_preferred, length.longer_chosen
    if math.isnan(preferred.mean):
        lines.append("All pairs are of equal length, so nothing is known about length.")
    else:
        if preferred.low > chosen.mean:
            judgement = ": it likes length more than the labels do"
        elif preferred.high < chosen.mean:
            judgement = ": it likes length less than the labels do"
        else:
            judgement = ""
        lines.append(
            f"It prefers the longer response in {_share(preferred)} of pairs; the labels do in {chosen.mean:.1%}{judgement}."
        )
    return lines


def score_answer(found: ScoreMeasures) -> list[str]:
    """What scored rows show of a reward."""
    fit = f"Mean squared error {found.squared_error.format('.4g')}; "
    fit += (
        "it is not on the scale of the scores (a reward trained on pairs has no scale of its own): look at correlations."
        if found.r_squared < 0
        else f"it explains {_percent(found.r_squared)} of the scores' variance."
    )
    return [
        fit,
        f"Rank correlation with the scores {_number(found.rank_correlation)}, with length in {found.unit} "
        f"{_number(found.length_correlation)} (the scores' own: {_number(found.score_length_correlation)}).",
    ]


def _pair_sections(page: Page, found: PairMeasures, folder: Path) -> None:
    calibration, length = found.calibration, found.length
    page.section(
        "Calibration",
        "Pairs by how sure the reward is, `sigmoid(|margin|)`: of those it is 80% sure of, 80% should be ranked as labelled. "
        "The band is the 95% interval of each bin.",
    )
    _figure(
        page, folder, "calibration", calibration_figure(calibration.bins), "Share ranked as labelled by confidence."
    )
    rows = [
        [f"{each.low:.2f}–{each.high:.2f}", each.pairs, f"{each.confidence:.3f}", each.accuracy.format()]
        for each in calibration.bins
    ]
    columns = ["confidence", "pairs", "mean confidence", "ranked as labelled"]
    page.table(columns, rows, right=columns[1:])
    page.section(
        "Length",
        "Many rewards, and many judges, like long answers. The lines are mean rewards of responses of like length.",
    )
    curves = {
        name: plots.Curve(
            [each.length for each in bins],
            [each.reward.mean for each in bins],
            [each.reward.low for each in bins],
            [each.reward.high for each in bins],
        )
        for name, bins in (("chosen", length.chosen), ("rejected", length.rejected))
    }
    _figure(
        page,
        folder,
        "length",
        plots.lines(curves, f"length in {length.unit}", "reward", colours_by_name=_COLOURS),
        "Reward against length.",
    )
    shares = [
        ("all pairs", found.accuracy),
        ("chosen is longer", length.accuracy_longer),
        ("chosen is shorter", length.accuracy_shorter),
    ]
    rows_of = [plots.IntervalRow(name, interval) for name, interval in shares if not math.isnan(interval.mean)]
    _figure(page, folder, "accuracy-by-length", plots.intervals(rows_of, "accuracy"), "Accuracy by which is longer.")
    page.section(
        "Margins", "Reward of the chosen response minus that of the rejected one; left of 0 it is ranked last."
    )
    svg = plots.histogram({"pairs": found.margins}, "margin: chosen - rejected")
    _figure(page, folder, "margins", svg, "Margins of all pairs.")


def _score_sections(page: Page, found: ScoreMeasures, folder: Path) -> None:
    page.section(
        "Agreement with the scores",
        "Responses in tenths by rising reward: their mean score, with its 95% interval. On the line of equality the "
        "reward is on the scale of the scores.",
    )
    rewards, scores = [reward for reward, _ in found.bins], [score for _, score in found.bins]
    ends = [min(rewards), max(rewards)]
    curves = {
        "mean score": plots.Curve(rewards, *_columns(scores)),
        "equal": plots.Curve(ends, ends),
    }
    _figure(
        page,
        folder,
        "scores",
        plots.lines(curves, "reward", "score", colours_by_name=_COLOURS),
        "Score against reward.",
    )


def agreement_answer(found: Agreement) -> list[str]:
    """What the members of an ensemble show, a sentence a question."""
    count = len(found.members)
    line = f"Its {count} members correlate {_number(found.mean_correlation)} on average"
    if found.differ is not None:
        line += f" and rank {_share(found.differ)} of pairs differently among themselves"
    trust = found.error_correlation
    if math.isnan(trust):
        judgement = "whether they disagree where it is wrong cannot be told from these rows"
    elif trust > 0.1:
        judgement = f"they disagree more where it is wrong (rank correlation {trust:.2f}): variance is a warning sign"
    else:
        judgement = f"they do not disagree more where it is wrong (rank correlation {trust:.2f})"
    return [f"{line}; {judgement}."]


def _agreement_sections(page: Page, found: Agreement, folder: Path) -> None:
    page.section(
        "Agreement of the members",
        "Correlation of the members' standardised scores. Members that agree everywhere protect from nothing.",
    )
    names = [f"{number}" for number in range(1, len(found.members) + 1)]
    svg = plots.heatmap(names, names, found.correlation, row_title="member", column_title="member")
    _figure(page, folder, "member-correlation", svg, "Correlation of members.")
    if found.member_accuracy:
        rows = [
            [number, name, _share(accuracy)]
            for number, name, accuracy in zip(names, found.members, found.member_accuracy, strict=True)
        ]
        page.table(["member", "name", "accuracy alone"], rows, right=["accuracy alone"])
    page.section(
        "Variance against error",
        "Rows in fifths by how much the members disagree: a useful ensemble errs more where it disagrees more.",
    )
    curve = plots.Curve([each.variance for each in found.bins], *_columns([each.error for each in found.bins]))
    label = "share ranked wrongly" if found.differ is not None else "squared error"
    svg = plots.lines({"combined reward": curve}, "variance over members", label)
    _figure(page, folder, "variance-error", svg, "Error of the combined reward against the members' variance.")


def calibration_figure(bins: tuple[ReliabilityBin, ...]) -> str:
    """Accuracy against confidence, with the line of perfect calibration."""
    curves = {
        "this reward": plots.Curve([each.confidence for each in bins], *_columns([each.accuracy for each in bins])),
        "calibrated": plots.Curve([0.5, 1.0], [0.5, 1.0]),
    }
    return plots.lines(curves, "confidence: sigmoid(|margin|)", "ranked as labelled", colours_by_name=_COLOURS)


def _columns(intervals: list[Interval]) -> tuple[list[float], list[float], list[float]]:
    return [each.mean for each in intervals], [each.low for each in intervals], [each.high for each in intervals]


def _figure(page: Page, folder: Path, name: str, svg: str, caption: str) -> None:
    plots.save(svg, folder / "figures" / f"{name}.svg")
    page.figure(svg, caption)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}"


def _share(interval: Interval) -> str:
    return f"{interval.mean:.1%}" if math.isnan(interval.low) else interval.format(".1%")


def _bounds(interval: Interval) -> str:
    return "" if math.isnan(interval.low) else f"[{interval.low:.3f}, {interval.high:.3f}]"
