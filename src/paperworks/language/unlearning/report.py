"""The report of an unlearning evaluation as one HTML page: who forgot, at what cost, and what the models now say."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperworks.core import plots
from paperworks.core.options import to_mapping
from paperworks.core.report import Page
from paperworks.language.unlearning import figures
from paperworks.language.unlearning.figures import RETAIN_ONLY
from paperworks.language.unlearning.measured_sets import LABELS, MEASURES, SET_NAMES, MeasuredItem
from paperworks.language.unlearning.measures import FORGOTTEN
from paperworks.language.unlearning.outcome import UnlearningReport, best_first, direction
from paperworks.language.unlearning.protocol import UnlearningOptions

if TYPE_CHECKING:
    from paperworks.language.unlearning.unlearning_job import UnlearningEvaluation

SAMPLES = 8  # questions of each set whose answers are shown
_CHARACTERS = 240

SUMMARY_COLUMNS = (
    "model",
    "forget quality (p)",
    "log10 p",
    "model utility",
    "forget probability",
    "forget ROUGE-L",
    "forget truth ratio",
)


def summary_row(report: UnlearningReport, name: str = "") -> list[str]:
    """A model's line under SUMMARY_COLUMNS."""
    quality = report.forget_quality
    return [
        name or report.model,
        "–" if quality is None else f"{quality.p:.3g}",
        "–" if quality is None else f"{quality.log10:.2f}",
        _number(report.utility),
        *(_number(report.forget.mean(measure)) if measure in report.forget.available else "–" for measure in MEASURES),
    ]


SET_COLUMNS = ("set", "questions", *(LABELS[measure] for measure in MEASURES), "loss")


def set_rows(report: UnlearningReport) -> list[list[str]]:
    """A line a set under SET_COLUMNS, means with 95% intervals; the loss is in nats an answer token."""
    return [
        [
            LABELS[name],
            str(len(measured)),
            *(measured.interval(measure).format() if measure in measured.available else "–" for measure in MEASURES),
            f"{measured.nll.mean():.3f}",
        ]
        for name in SET_NAMES
        if (measured := report.sets.get(name)) is not None
    ]


def sentences(found: UnlearningEvaluation) -> list[str]:
    """What came out, a line a model, best first."""
    lines = []
    for report in best_first(found.reports):
        quality, utility = report.forget_quality, report.utility
        said = f"{report.model}: "
        if quality is not None:
            said += f"forget quality {quality.p:.3g}, {direction(report)}; "
        said += "utility not measured" if utility is None else f"model utility {utility:.3f}"
        zeros = [name for name, value in report.utility_parts.items() if value == 0]
        if zeros:
            said += f", because {', '.join(zeros)} {'is' if len(zeros) == 1 else 'are'} 0"
        lines.append(said)
    return lines


def write_report(found: UnlearningEvaluation, config: Mapping[str, Any], folder: Path) -> Path:
    """Writes report.html and the figures beside it; `config` is `UnlearningJob.config()`. Returns the path."""
    models = ", ".join(report.model for report in found.reports)
    page = Page("Unlearning", f"{models} on {config['forget']['path']}")
    page.callout("Result", sentences(found))
    if found.notes:
        page.callout("Before you rely on it", found.notes, kind="warning")
    palette = plots.colours([*(report.model for report in found.reports), RETAIN_ONLY])
    (folder / "figures").mkdir(exist_ok=True)
    _summary(page, found, folder, palette)
    _sets(page, found)
    _statistic(page, found, folder, palette)
    _answers(page, found)
    _what_was_run(page, found, config)
    return page.save(folder / "report.html")


def _summary(page: Page, found: UnlearningEvaluation, folder: Path, palette: Mapping[str, str]) -> None:
    page.section(
        "Forget quality and utility",
        "Forget quality is the p-value of a Kolmogorov-Smirnov test between the truth-ratio statistics of the model and of "
        f"a model that never saw the forget set: above {FORGOTTEN:g} the two cannot be told apart. Forgetting too much "
        "lowers it like forgetting too little. Model utility is the harmonic mean of probability, ROUGE-L recall and truth "
        "ratio over the sets that are to be kept; a single 0 makes it 0.",
    )
    rows = [summary_row(report) for report in found.reports]
    if found.retain_only is not None:
        rows.append(summary_row(found.retain_only, f"{found.retain_only.model} ({RETAIN_ONLY})"))
    page.table(SUMMARY_COLUMNS, rows, right=SUMMARY_COLUMNS[1:])
    points = {report.model: figures.plane_point(report.values) for report in found.reports}
    placed = {name: [point] for name, point in points.items() if point is not None}
    retain_only = None if found.retain_only is None else figures.plane_point(found.retain_only.values)
    if placed and (len(placed) > 1 or retain_only is not None):
        svg = figures.plane(placed, retain_only=retain_only, colours_by_name=palette)
        plots.save(svg, folder / "figures" / "plane.svg")
        where = "" if retain_only is None else " The retain-only model stands at p = 1."
        page.figure(svg, f"Up and right is better.{where}")


def _sets(page: Page, found: UnlearningEvaluation) -> None:
    page.section(
        "Set by set",
        "Means with 95% intervals over questions; the loss is in nats an answer token. The truth ratio of the forget set is "
        "min(s, 1/s), which is 1 where true and wrong answers are equally likely; of the others it is max(0, 1 - 1/s), "
        "which grows with what the model knows.",
    )
    reports = [*found.reports, *([found.retain_only] if found.retain_only else [])]
    for report in reports:
        page.table(SET_COLUMNS, set_rows(report), caption=report.model, right=SET_COLUMNS[1:])


def _statistic(page: Page, found: UnlearningEvaluation, folder: Path, palette: Mapping[str, str]) -> None:
    page.section(
        "The statistic s on the forget set",
        "s says how much likelier the paraphrased true answer is than the wrong ones. A model that never saw the forget set "
        "has some distribution of s too, from what it guesses; an unlearned one should have the same.",
    )
    for number, report in enumerate(found.reports, start=1):
        svg = figures.report_histograms(report, palette)
        plots.save(svg, folder / "figures" / f"statistic-{number}.svg")
        page.figure(svg, report.model)


def _answers(page: Page, found: UnlearningEvaluation) -> None:
    if not all("rouge" in report.forget.available for report in found.reports):
        return
    page.section("What the models say", "Greedy answers to the first questions of each set.")
    first = found.reports[0]
    for name, measured in first.sets.items():
        shown = range(min(SAMPLES, len(measured)))
        columns = ["question", "true answer", *(report.model for report in found.reports)]
        rows = [
            [
                _short(measured.items[i].question),
                _short(measured.items[i].answer),
                *(_answer(report.sets[name].items[i]) for report in found.reports),
            ]
            for i in shown
        ]
        page.table(columns, rows, caption=LABELS[name])


def _what_was_run(page: Page, found: UnlearningEvaluation, config: Mapping[str, Any]) -> None:
    page.section("What was run")
    page.facts({**config["measure"], "precision": config["precision"]})
    page.facts(
        {LABELS[of]: f"{each['used']} of {each['read']} from {each['source']}" for of, each in found.data.items()}
    )
    page.commands([command(config)])


def command(config: Mapping[str, Any]) -> str:
    """The command line that repeats the evaluation, but for how rows are read."""
    words = ["paperworks", "evaluate", "unlearning", "--model", *config["models"]]
    for name in SET_NAMES:
        if config[name] is not None:
            words += [f"--{name.replace('_', '-')}", config[name]["path"]]
    for against in ("retain_log", "retain_model"):
        if config[against] is not None:
            words += [f"--{against.replace('_', '-')}", config[against]]
    defaults = to_mapping(UnlearningOptions())
    for option, value in config["measure"].items():
        if value != defaults[option]:
            flag = option.replace("_", "-")
            words += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    for column in (config["forget"]["mapping"] or {}).items():
        words += ["--map", "=".join(column)]
    return " ".join(shlex.quote(word) for word in words)


def _answer(item: MeasuredItem) -> str:
    return f"{_short(item.generated or '(nothing)')} [{item.rouge:.2f}]" if item.rouge is not None else "–"


def _short(text: str) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= _CHARACTERS else one_line[: _CHARACTERS - 1] + "…"


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"
