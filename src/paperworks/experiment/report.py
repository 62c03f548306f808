"""An experiment's results for readers: an HTML report, a summary on the terminal, a record for the repository.

All three show every arm, every seed and every claim, whatever came out.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from paperworks.core import plots
from paperworks.core.errors import RunError
from paperworks.core.files import write_json_atomic
from paperworks.core.plots import IntervalRow
from paperworks.core.progress import duration, table
from paperworks.core.report import Finding, Page
from paperworks.core.surroundings import git_revision, hardware, versions
from paperworks.experiment.definition import Metric, Part, Published
from paperworks.experiment.figures import (
    ARMS_CAPTION,
    arms_figure,
    difference_name,
    differences_caption,
    differences_figure,
)
from paperworks.experiment.results import Results
from paperworks.experiment.verdict import FEW_SEEDS, ClaimVerdict, judge

_ROLES = {"method": "the paper's method", "baseline": "baseline", "control": "control"}


def write_report(results: Results, folder: str | Path | None = None) -> Path:
    """Writes report.html, and its figures one by one in figures/, to `folder` (default: the results' own).

    Returns the path of report.html.
    """
    place = Path(folder) if folder is not None else results.folder
    place.mkdir(parents=True, exist_ok=True)
    writer = _ReportWriter(results, place)
    return writer.page().save(place / "report.html")


def terminal_summary(results: Results, stream: TextIO | None = None) -> None:
    """Prints a table for each part and setting, and a line for each claim."""
    for part in results.parts():
        for setting in part.settings:
            rows = _table_rows(results, part, setting)
            if rows:
                columns = ["arm", *(_metric_title(metric) for metric in part.metrics), "seeds"]
                table(rows, columns, _setting_title(part, setting), right=columns[1:], stream=stream)
    judged = judge(results)
    if judged:
        rows = [[_word(each), each.sentence(), each.evidence()] for each in judged]
        table(rows, ["verdict", "claim", "evidence"], "Claims", stream=stream)


def record(results: Results, path: str | Path) -> None:
    """Writes the evidence of a full run as JSON: every seed of every arm, every claim, versions, hardware.

    Raises RunError for a run that is no evidence: the smoke budget, failures, or a cell of the budget missing.
    """
    _refuse_partial(results)
    experiment = results.experiment
    write_json_atomic(
        path,
        {
            "slug": experiment.slug,
            "title": experiment.title,
            "date": datetime.date.today().isoformat(),
            "budget": results.budget,
            "seeds": {part.name: results.seeds(part.name) for part in results.parts()},
            "parts": [_part_record(results, part) for part in results.parts()],
            "claims": [_claim_record(each) for each in judge(results)],
            "published": [vars(each) for each in experiment.published],
            "differences": experiment.differences,
            "notes": experiment.notes,
            "compute_s": round(results.compute_s(), 1),
            "wall_s": round(results.wall_s, 1),
            "versions": versions(),
            "hardware": hardware(),
            "git_revision": git_revision(),
            "code": _code_digests(results),
        },
    )


class _ReportWriter:
    def __init__(self, results: Results, folder: Path) -> None:
        self._results, self._folder = results, folder
        self._judged = judge(results)
        self._colours = plots.colours(arm.label for part in results.parts() for arm in part.arms)

    def page(self) -> Page:
        results, experiment = self._results, self._results.experiment
        page = Page(experiment.title, f"{experiment.slug} · budget {results.budget} · {_seed_text(results)}")
        self._add_warnings(page)
        if self._judged:
            page.section("Claims", _CLAIMS_TEXT)
            page.verdicts([_finding(each) for each in self._judged])
        for part in results.parts():
            self._add_part(page, part)
        if experiment.published:
            page.section("The paper's figures beside ours")
            page.table(_PUBLISHED_COLUMNS, [self._published_row(each) for each in experiment.published])
        if experiment.differences:
            page.section("What differs from the paper", experiment.differences)
        if experiment.notes:
            page.section("Notes", experiment.notes)
        self._add_circumstances(page)
        return page

    def _add_warnings(self, page: Page) -> None:
        results = self._results
        if results.budget == "smoke":
            page.note("The smoke budget only shows that everything runs; its numbers are no evidence.")
        for failure in results.failures:
            who = " ".join(filter(None, [f"part {failure.part}", failure.setting, failure.arm or "preparation"]))
            page.note(f"{who}, seed {failure.seed} failed and is missing below: {failure.error}")
        if len(_code_digests(results)) > 1:
            page.note("These cells were computed by different versions of the program; `--fresh` computes all anew.")

    def _add_part(self, page: Page, part: Part) -> None:
        page.section(f"{part.name}. {part.title}", part.text)
        claimed = {each.metric.name for each in self._judged if each.claim.part == part.name}
        shown = [metric for metric in part.metrics if metric.name in claimed] or list(part.metrics[:1])
        if self._results.budget == "smoke":  # one figure of each kind shows that they are drawn
            shown = shown[:1]
        for setting in part.settings:
            rows = _table_rows(self._results, part, setting)
            if not rows:
                continue
            columns = ["arm", *(_metric_title(metric) for metric in part.metrics), "seeds"]
            best = _best_cells(self._results, part, setting)
            caption = (
                f"{setting or part.title}: mean over seeds with its 95% interval; bold is best of method and baselines."
            )
            page.table(columns, rows, caption=caption, right=columns[1:], highlight=best)
            for metric in shown:
                if setting in self._settings_drawn(part, metric):
                    svg = self._interval_figure(part, setting, metric)
                    self._add_figure(page, f"{part.name}-{setting}-{metric.name}", svg, ARMS_CAPTION)
        for metric in shown:
            self._add_differences(page, part, metric)
        self._add_own_figures(page, part)

    def _settings_drawn(self, part: Part, metric: Metric) -> Sequence[str]:
        """The settings whose figure of the metric says something: where it is claimed (smoke: the first of those)."""
        keys = (part.name, metric.name)
        claimed = {each.claim.where for each in self._judged if (each.claim.part, each.metric.name) == keys}
        drawn = [setting for setting in part.settings if not claimed or setting in claimed]
        return drawn[:1] if self._results.budget == "smoke" else drawn

    def _interval_figure(self, part: Part, setting: str, metric: Metric) -> str:
        rows = []
        for arm in part.arms_in(setting):
            values = list(self._results.values(part.name, arm.name, metric.name, setting).values())
            if values:
                interval = self._results.interval(part.name, arm.name, metric.name, setting)
                rows.append(IntervalRow(arm.label, interval, values))
        return arms_figure(metric, setting, rows, self._colours)

    def _add_differences(self, page: Page, part: Part, metric: Metric) -> None:
        rows, palette = [], {}
        for each in self._judged:
            if (each.claim.part, each.metric.name) == (part.name, metric.name) and each.was_tested:
                name = difference_name(each.better_label, each.than_label, each.claim.where)
                rows.append(IntervalRow(name, each.difference, list(each.differences.values())))
                palette[name] = self._colours[each.better_label]
        if rows:
            svg = differences_figure(metric, rows, palette)
            self._add_figure(page, f"{part.name}-differences-{metric.name}", svg, differences_caption(metric))

    def _add_own_figures(self, page: Page, part: Part) -> None:
        try:
            figures = part.figures(self._results) if part.figures else ()
        except Exception as error:  # drawn for all arms, and this run may have few; the numbers still make a report
            page.note(f"A figure of part {part.name} could not be drawn: {type(error).__name__}: {error}")
            return
        for number, (svg, caption) in enumerate(figures, start=1):
            self._add_figure(page, f"{part.name}-figure-{number}", svg, caption)

    def _add_figure(self, page: Page, name: str, svg: str, caption: str) -> None:
        plain = "".join(letter if letter.isalnum() or letter in "-_=.," else "_" for letter in name).lstrip(".")
        (self._folder / "figures").mkdir(exist_ok=True)
        plots.save(svg, self._folder / "figures" / f"{plain}.svg")
        page.figure(svg, caption)

    def _published_row(self, figure: Published) -> list[str]:
        ours, where = "–", "–"
        parts = [part for part in self._results.parts() if part.name == figure.part]
        if parts and figure.arm in {arm.name for arm in parts[0].arms}:
            part = parts[0]
            metrics = [metric for metric in part.metrics if metric.name == figure.metric]
            interval = self._results.interval(part.name, figure.arm, figure.metric, figure.where)
            if metrics and interval.n:
                ours, where = _interval_text(metrics[0], interval), _setting_title(part, figure.where)
        value = f"{figure.value:g}" if isinstance(figure.value, (int, float)) else figure.value
        return [figure.arm, figure.metric, value, figure.setting, figure.source, ours, where]

    def _add_circumstances(self, page: Page) -> None:
        results = self._results
        machine, installed = hardware(), versions()
        page.section("How it was computed")
        page.facts(
            {
                "Budget": results.budget,
                "Seeds": _seed_text(results),
                "Cells": f"{len(results.cells)} finished, {len(results.failures)} failed",
                "Computing time": duration(results.compute_s()),
                "This run": duration(results.wall_s),
                "Processor": f"{machine['processor']}, {machine['cores']} cores",
                "GPU": ", ".join(machine.get("gpus", [])) or "none",
                "Versions": ", ".join(f"{name} {number}" for name, number in installed.items()),
                "Revision": git_revision() or "not a repository",
            }
        )
        slug, most = (
            results.experiment.slug,
            max((len(results.seeds(part.name)) for part in results.parts()), default=1),
        )
        page.text("To repeat it, to add seeds to these, and to run the paper's own setting:").commands(
            [
                f"paperworks run {slug} --budget {results.budget}",
                f"paperworks run {slug} --budget {results.budget} --seeds {max(10, 2 * most)}",
                f"paperworks run {slug} --budget full",
            ]
        )


_CLAIMS_TEXT = (
    "A claim *holds* when the 95% bootstrap interval of the difference, paired by seed, excludes 0 in the claimed "
    "direction; it is *reversed* when the interval excludes 0 in the other, and *not shown* otherwise."
).replace("*", "")
_PUBLISHED_COLUMNS = ["arm", "metric", "paper", "paper's setting", "source", "ours", "our setting"]


def _finding(each: ClaimVerdict) -> Finding:
    note = ""
    if each.was_tested and not each.is_as_expected:
        note = f"Expected: {each.claim.expected}."
    return Finding(each.sentence(), each.verdict if each.was_tested else "not tested", each.evidence(), note)


def _word(each: ClaimVerdict) -> str:
    marks = {"holds": "✓ holds", "reversed": "✗ reversed", "not shown": "○ not shown"}
    return marks[each.verdict] if each.was_tested else "– not tested"


def _table_rows(results: Results, part: Part, setting: str) -> list[list[str]]:
    rows = []
    for arm in part.arms_in(setting):
        count = len(results.cells_of(part.name, arm.name, setting))
        if count:
            numbers = [
                _interval_text(metric, results.interval(part.name, arm.name, metric.name, setting))
                for metric in part.metrics
            ]
            role = "" if arm.role == "baseline" else f" ({_ROLES[arm.role]})"
            rows.append([arm.label + role, *numbers, str(count)])
    return rows


def _best_cells(results: Results, part: Part, setting: str) -> list[tuple[int, int]]:
    """(row, column) of the best mean of every metric among the arms that compete: controls are no competitors."""
    arms = [arm for arm in part.arms_in(setting) if results.cells_of(part.name, arm.name, setting)]
    best = []
    for column, metric in enumerate(part.metrics, start=1):
        sign = 1 if metric.higher_is_better else -1
        means = [
            (sign * results.interval(part.name, arm.name, metric.name, setting).mean, row)
            for row, arm in enumerate(arms)
            if arm.role != "control"
        ]
        means = [(mean, row) for mean, row in means if math.isfinite(mean)]
        if len(means) > 1:
            top = max(means)[0]
            best += [(row, column) for mean, row in means if mean == top]
    return best


def _interval_text(metric: Metric, interval: Any) -> str:
    return interval.format(metric.format) if math.isfinite(interval.mean) else "–"


def _metric_title(metric: Metric) -> str:
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.label}{unit} {'↑' if metric.higher_is_better else '↓'}"


def _setting_title(part: Part, setting: str) -> str:
    return f"{part.name}. {part.title}" + (f", {setting}" if setting else "")


def _seed_text(results: Results) -> str:
    counts = {part.name: len(results.seeds(part.name)) for part in results.parts()}
    if len(set(counts.values())) == 1:
        count = next(iter(counts.values()))
        return f"{count} seed{'s' if count != 1 else ''}" + (" (too few to show anything)" if count < FEW_SEEDS else "")
    return ", ".join(f"part {name}: {count} seeds" for name, count in counts.items()) or "no seeds"


def _code_digests(results: Results) -> list[str]:
    return sorted({cell.code for cell in results.cells if cell.code})


def _refuse_partial(results: Results) -> None:
    if results.budget == "smoke":
        raise RunError("the smoke budget is no evidence and is not recorded; use --budget small or full")
    results.raise_failures()
    for part in results.experiment.parts:
        for setting in part.settings:
            for arm in part.arms_in(setting):
                there = (
                    set(results.values(part.name, arm.name, part.metrics[0].name, setting)) if part.metrics else set()
                )
                if not set(range(part.seeds[results.budget])) <= there:
                    where = " ".join(filter(None, [f"part {part.name}", setting, arm.name]))
                    raise RunError(
                        f"not recorded: {where} has {len(there)} of {part.seeds[results.budget]} seeds; "
                        "a record needs every part, arm and seed of its budget"
                    )


def _part_record(results: Results, part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "title": part.title,
        "seeds": results.seeds(part.name),
        "metrics": [vars(metric) for metric in part.metrics],
        "settings": [
            {
                "name": setting,
                "arms": [
                    {
                        "name": arm.name,
                        "label": arm.label,
                        "role": arm.role,
                        "options": arm.options,
                        "metrics": {m.name: _metric_record(results, part, arm.name, m, setting) for m in part.metrics},
                    }
                    for arm in part.arms_in(setting)
                ],
            }
            for setting in part.settings
        ],
    }


def _metric_record(results: Results, part: Part, arm: str, metric: Metric, setting: str) -> dict[str, Any]:
    interval = results.interval(part.name, arm, metric.name, setting)
    values: Sequence[float] = list(results.values(part.name, arm, metric.name, setting).values())
    return {**vars(interval), "values": values}


def _claim_record(each: ClaimVerdict) -> dict[str, Any]:
    return {
        **vars(each.claim),
        "text": each.sentence(),
        "higher_is_better": each.higher_is_better,
        "verdict": each.verdict,
        "difference": vars(each.difference),  # better - than
        "interval": vars(each.gain),  # the same in the claimed direction: above 0 speaks for the claim
        "differences": each.differences,
        "wins": each.wins,
        "evidence": each.evidence(),
    }
