"""The figures of a comparison's report, on the page and as files beside it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from paperworks.core import plots
from paperworks.core.report import Page
from paperworks.core.statistics import Interval
from paperworks.language.comparison.conclusions import what_is_compared
from paperworks.language.comparison.findings import Findings, PointFindings
from paperworks.language.comparison.grid import START, UNTRAINED, points_of
from paperworks.language.comparison.measures import Measures, Plan

LABELS = {"reward": "reward", "accuracy": "held-out accuracy (own)", "kl": "KL to the untrained model (nats)"}


class Figures:
    """Puts figures on `page` and, as SVG files, into `folder`; an objective has one colour in all of them."""

    def __init__(self, page: Page, findings: Findings, measures: Measures, folder: Path) -> None:
        self._page, self._findings, self._measures, self._folder = page, findings, measures, folder
        self._plan = measures.plan
        self._colours = plots.colours([*self._plan.objectives, UNTRAINED])
        folder.mkdir(exist_ok=True)

    def results(self) -> None:
        """Each chosen setting with every seed, and its difference to the best."""
        if not self._findings.chosen:
            return
        rows = _interval_rows(self._findings, self._measures)
        svg = plots.intervals(rows, LABELS[self._findings.criterion], colours_by_name=self._colours)
        self._add("criterion", svg, f"{what_is_compared(self._plan)}: mean and 95% interval, a small dot a seed.")
        svg = _differences(self._findings, self._colours)
        if svg:
            caption = "Paired difference to the best: an interval that touches 0 leaves the two not told apart."
            self._add("differences", svg, caption)

    def frontier(self) -> None:
        """What is gained against the KL it costs, every setting a point."""
        self._page.section("Gain against distance", _frontier_text(self._findings))
        caption = "Every setting tried; a line joins those that no other setting of the objective beats."
        self._add("frontier", _frontier(self._findings, self._colours), caption)

    def overoptimisation(self) -> None:
        """For online methods with a gold reward apart: what they were trained on and gold, against KL, as training went."""
        found = {
            point.objective: [line for line in self._measures.trajectory(point.name) if "gold_reward" in line]
            for point in self._findings.chosen
        }
        found = {name: [line for line in lines if "kl" in line] for name, lines in found.items()}
        found = {name: lines for name, lines in found.items() if len(lines) > 2}
        if not found:
            return
        self._page.section(
            "Over-optimisation",
            "The policy's own answers as training went, iteration by iteration: the reward it was trained on, and the gold "
            "reward, which it never saw. A gold reward that turns down while the other still rises is over-optimisation.",
        )
        for measure, title in (("reward", "reward trained on"), ("gold_reward", "gold reward")):
            series = {
                name: plots.Curve([line["kl"] for line in lines], [line[measure] for line in lines])
                for name, lines in found.items()
            }
            svg = plots.lines(series, LABELS["kl"], title, colours_by_name=self._colours)
            self._add(f"overoptimisation-{measure.replace('_', '-')}", svg, f"{title.capitalize()} against KL.")

    def duels(self) -> None:
        """Every two chosen settings against one another."""
        page, findings = self._page, self._findings
        if self._plan.rewards and findings.chosen:
            text = "Row against column: the chance that the row's answer to a prompt has the higher reward."
            page.section("Who wins against whom", text)
            self._add("wins", _wins(findings), "Win rate, same prompt and seed, ties half.")
            page.table(*_pair_table(findings, "win rate"))
        elif len(findings.chosen) > 1:
            text = "Difference in held-out accuracy by own implicit reward, row - column, with 95% interval."
            page.section("Each against each", text)
            page.table(*_pair_table(findings, "accuracy"))

    def sensitivity(self) -> None:
        """The metrics against every option swept over numbers."""
        plan = self._plan
        metrics = ["reward", "accuracy", "kl"] if plan.rewards else ["accuracy", "kl"]
        swept = dict.fromkeys(name for point in plan.all_points for name in point.swept)
        found = [
            (option, metric, _series(self._findings, plan, option, metric)) for option in swept for metric in metrics
        ]
        found = [each for each in found if each[2]]
        if not found:
            return
        text = "A line an objective; where several options were swept, the mean over the others."
        self._page.section("Sensitivity", text)
        for option, metric, series in found:
            values = sorted({x for curve in series.values() for x in curve.x})
            svg = plots.lines(
                series,
                option,
                LABELS[metric],
                log_x=values[0] > 0 and values[-1] >= 10 * values[0],
                x_ticks=values,
                colours_by_name=self._colours,
            )
            self._add(f"{metric}-by-{option}", svg, f"{LABELS[metric]} against `{option}`.")

    def lengths(self) -> None:
        """How long the answers are."""
        findings, measures = self._findings, self._measures
        if not findings.chosen:
            return
        lengths = {UNTRAINED: measures.lengths(START)} if measures.seeds(START) else {}
        lengths |= {point.objective: measures.lengths(point.name) for point in findings.chosen}
        bins = max(5, min(30, len({value for found in lengths.values() for value in found})))
        self._page.section("Length", "Tokens of the answers, the end token included.")
        self._add(
            "lengths",
            plots.histogram(lengths, "tokens", bins=bins, colours_by_name=self._colours),
            "Length of answers.",
        )

    def _add(self, name: str, svg: str, caption: str) -> None:
        plots.save(svg, self._folder / f"{name}.svg")
        self._page.figure(svg, caption)


def _interval_rows(findings: Findings, measures: Measures) -> list[plots.IntervalRow]:
    criterion = findings.criterion
    rows = [plots.IntervalRow(p.objective, p.metrics[criterion], p.by_seed) for p in findings.chosen]
    if criterion in findings.start and math.isfinite(findings.start[criterion].mean):
        rows.append(plots.IntervalRow(UNTRAINED, findings.start[criterion], measures.by_seed(START, criterion)))
    return rows


def _differences(findings: Findings, colours: dict[str, str]) -> str:
    best, rows = findings.best, []
    assert best is not None
    for other in findings.chosen:
        if other is not best:
            rows.append(plots.IntervalRow(other.objective, _negative(findings.pairs[best.name][other.name].criterion)))
    rows.append(plots.IntervalRow(UNTRAINED, _negative(best.than_start)))
    rows = [row for row in rows if math.isfinite(row.interval.mean)]
    title = f"difference to {best.objective}"
    return plots.intervals(rows, title, zero_line=True, format_spec="+.3f", colours_by_name=colours) if rows else ""


def _negative(interval: Interval) -> Interval:
    return Interval(-interval.mean, -interval.high, -interval.low, interval.n)


def _frontier_text(findings: Findings) -> str:
    what = "reward" if findings.criterion == "reward" else "held-out accuracy"
    return (
        f"The higher and the further left the better: {what} bought with little distance from the untrained model. An "
        "objective whose line lies above another's is better at every price shown."
    )


def _frontier(findings: Findings, colours: dict[str, str]) -> str:
    points: dict[str, list[tuple[float, float]]] = {}
    if findings.criterion in findings.start and math.isfinite(findings.start[findings.criterion].mean):
        points[UNTRAINED] = [(0.0, findings.start[findings.criterion].mean)]
    for each in findings.objectives:
        found = [(p.metrics["kl"].mean, p.metrics[findings.criterion].mean) for p in each.points if p.seeds]
        if found:
            points[each.name] = found
    return plots.frontier(points, LABELS["kl"], LABELS[findings.criterion], colours_by_name=colours)


def _wins(findings: Findings) -> str:
    rows = findings.chosen
    columns = [*(point.name for point in rows), *([START] if findings.start else [])]
    names = {point.name: point.objective for point in rows} | {START: UNTRAINED}

    def value(row: PointFindings, column: str) -> float:
        against = findings.pairs[row.name].get(column)
        return math.nan if against is None or against.win_rate is None else against.win_rate.mean

    matrix = [[value(row, column) for column in columns] for row in rows]
    return plots.heatmap([row.objective for row in rows], [names[column] for column in columns], matrix)


def _pair_table(findings: Findings, what: str) -> tuple[list[str], list[list[str]]]:
    rows = findings.chosen
    columns = [*(point.name for point in rows), *([START] if findings.start else [])]
    names = {point.name: point.objective for point in rows} | {START: UNTRAINED}

    def cell(row: PointFindings, column: str) -> str:
        against = findings.pairs[row.name].get(column)
        if against is None:
            return ""
        interval = against.win_rate if what == "win rate" else against.accuracy
        if interval is None or math.isnan(interval.mean):
            return "–"
        return interval.format(".0%" if what == "win rate" else "+.3f")

    return [what, *(names[column] for column in columns)], [[r.objective, *(cell(r, c) for c in columns)] for r in rows]


def _series(findings: Findings, plan: Plan, option: str, metric: str) -> dict[str, plots.Curve]:
    """For each objective that swept this option over numbers, the metric at each value."""
    series = {}
    for each in findings.objectives:
        planned = points_of(plan.all_points, each.name)[0]
        points = [p for p in each.points if p.seeds and isinstance(p.options.get(option), (int, float))]
        values = sorted({p.options[option] for p in points})
        if option not in planned.swept or len(values) < 2:
            continue
        groups = [[p.metrics[metric] for p in points if p.options[option] == value] for value in values]
        means = [float(np.mean([interval.mean for interval in group])) for group in groups]
        low = [group[0].low for group in groups] if len(planned.swept) == 1 else None
        high = [group[0].high for group in groups] if len(planned.swept) == 1 else None
        series[each.name] = plots.Curve(values, means, low, high)
    if len(series) > 2:  # the bands of several lines hide one another
        return {name: plots.Curve(curve.x, curve.y) for name, curve in series.items()}
    return series
