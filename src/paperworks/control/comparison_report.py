"""report.html and results.json of a comparison of algorithms on logs: aggregates, profiles, who beats whom, curves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from paperworks.control import aggregates
from paperworks.control.comparison import Comparison
from paperworks.core import plots
from paperworks.core.files import write_json_atomic
from paperworks.core.options import plain
from paperworks.core.progress import table
from paperworks.core.report import Page
from paperworks.core.statistics import Interval, bootstrap_mean

PROFILE_POINTS = 61


def write_results(found: Comparison) -> Path:
    """Write both files into the comparison's folder; returns the report's path."""
    write_json_atomic(found.folder / "results.json", results(found))
    return _page(found).save(found.folder / "report.html")


def results(found: Comparison) -> dict[str, Any]:
    """Everything that the report says, as JSON values."""
    scores = found.scores()
    return {
        "tasks": list(found.tasks),
        "scales": [None if scale is None else vars(scale) for scale in found.scales],
        "returns": {method: values.tolist() for method, values in found.returns.items()},
        "scores": {method: values.tolist() for method, values in scores.items()},
        "aggregates": {
            method: {name: vars(each) for name, each in row.items()} for method, row in summary(found).items()
        },
        "improvement": [{"better": a, "than": b, **vars(each)} for (a, b), each in improvements(found).items()],
        "failures": [plain({**vars(failure), "log": str(failure.log)}) for failure in found.failures],
    }


def summary(found: Comparison) -> dict[str, dict[str, Interval]]:
    """Interquartile mean, mean and median of every method, best first."""
    ways = {"iqm": aggregates.interquartile_mean, "mean": aggregates.mean, "median": aggregates.median}
    rows = {
        method: {name: aggregates.aggregated(scores, way) for name, way in ways.items()}
        for method, scores in found.scores().items()
    }
    return dict(sorted(rows.items(), key=lambda row: -row[1]["iqm"].mean))


def improvements(found: Comparison) -> dict[tuple[str, str], Interval]:
    """P(the first beats the second) for every two methods, in the order of the summary."""
    scores, order = found.scores(), list(summary(found))
    return {
        (one, other): aggregates.improvement_interval(scores[one], scores[other])
        for place, one in enumerate(order)
        for other in order[place + 1 :]
    }


def answer(found: Comparison) -> list[str]:
    """What the comparison says, in sentences."""
    order = list(summary(found))
    if len(order) < 2:
        return [f"{order[0]} alone: nothing to compare it with."]
    best, lines = order[0], []
    told = {other: each for (one, other), each in improvements(found).items() if one == best}
    ahead = [name for name, each in told.items() if each.low > 0.5]
    level = [name for name in told if name not in ahead]
    if ahead:
        lines.append(
            f"{best} beats {', '.join(ahead)}: its runs are better more often than not (95% interval above 1/2)."
        )
    if level:
        lines.append(
            f"{best} has the highest interquartile mean, but {', '.join(level)} may be as good: more seeds would tell."
        )
    return lines


def terminal_table(found: Comparison) -> None:
    """The same in the terminal."""
    table(_rows(found), _columns(found), right=_columns(found)[1:])
    print()
    for line in answer(found):
        print(line)


def _columns(found: Comparison) -> list[str]:
    unit = "score" if found.is_normalised else "return"
    return ["algorithm", f"interquartile mean {unit}", "95% interval", "mean", "median", *found.tasks]


def _rows(found: Comparison) -> list[list[str]]:
    scores, rows = found.scores(), []
    for method, row in summary(found).items():
        iqm = row["iqm"]
        bounds = "–" if math.isnan(iqm.low) else f"[{iqm.low:.4g}, {iqm.high:.4g}]"
        tasks = [f"{task.mean():.4g}" for task in scores[method]]
        rows.append([method, f"{iqm.mean:.4g}", bounds, f"{row['mean'].mean:.4g}", f"{row['median'].mean:.4g}", *tasks])
    return rows


def _page(found: Comparison) -> Page:
    job = found.job
    unit = "normalised score" if found.is_normalised else "return"
    palette = plots.colours(job.methods)
    page = Page("Comparison of algorithms on logs", ", ".join(job.data))
    page.callout("Which one?", answer(found))
    page.facts(
        {
            "steps of each": job.training.steps, "seeds": job.training.seeds, "batch": job.training.batch_size,
            "episodes a seed": job.judging.episodes,
        }
    )  # fmt: skip
    missing = [method for method in job.methods if method not in found.returns]
    if missing:
        page.callout("Not finished", [f"{', '.join(missing)}: left out below; see the failures."], kind="warning")
    page.section(
        "Aggregates",
        f"The interquartile mean is the mean {unit} of the middle half of all runs of all tasks. Intervals resample seeds "
        "within each task (95%, stratified bootstrap); what is judged is the policy of the last step of each seed.",
    )
    columns = _columns(found)
    page.table(columns, _rows(found), right=set(columns[1:]))
    scores = found.scores()
    rows = [plots.IntervalRow(name, row["iqm"], scores[name].ravel().tolist()) for name, row in summary(found).items()]
    page.figure(plots.intervals(rows, unit, format_spec=".4g", colours_by_name=palette), "a dot a run")
    _profiles(page, found, unit, palette)
    _pairs(page, found)
    _curves(page, found, palette)
    page.section("Scales")
    for task, scale in zip(found.tasks, found.scales, strict=True):
        told = (
            "returns as they are" if scale is None else f"0 is {scale.random:g}, 100 is {scale.best:g} ({scale.source})"
        )
        page.text(f"{task}: {told}.")
    page.section("Repeat").commands([f"paperworks compare --config {found.folder / 'run.yaml'} --out NEW"])
    return page


def _profiles(page: Page, found: Comparison, unit: str, palette: dict[str, str]) -> None:
    scores = found.scores()
    every = np.concatenate([each.ravel() for each in scores.values()])
    if np.ptp(every) == 0:
        return
    at = np.linspace(every.min(), every.max(), PROFILE_POINTS)
    curves = {}
    for method, own in scores.items():
        low, high = aggregates.profile_band(own, at) if own.shape[1] > 1 else (None, None)
        bounds = (None, None) if low is None or high is None else (low.tolist(), high.tolist())
        curves[method] = plots.Curve(at.tolist(), aggregates.profile(own, at).tolist(), *bounds)
    page.section("Performance profiles", "The share of runs above each value; a curve above another is better there.")
    svg = plots.lines(curves, unit, "share of runs above", markers=False, colours_by_name=palette)
    page.figure(svg, "performance profiles")


def _pairs(page: Page, found: Comparison) -> None:
    pairs = improvements(found)
    if not pairs:
        return
    rows = [plots.IntervalRow(f"{one} > {other}", interval) for (one, other), interval in pairs.items()]
    page.section(
        "Who beats whom", "The probability that a run of the first is better than one of the second; 1/2 is a draw."
    )
    page.figure(plots.intervals(rows, "probability of improvement"), "probability of improvement")


def _curves(page: Page, found: Comparison, palette: dict[str, str]) -> None:
    page.section(
        "Learning curves", f"{found.job.training.eval_episodes} episodes a seed; the band is over seeds (95%)."
    )
    for task in found.tasks:
        curves = {}
        for method in found.job.methods:
            points = found.curves.get((method, task), ())
            if len(points) > 1:
                each = [bootstrap_mean(values) for _, values in points]
                band = ([one.low for one in each], [one.high for one in each])
                shown = (None, None) if math.isnan(each[0].low) else band
                curves[method] = plots.Curve([float(step) for step, _ in points], [one.mean for one in each], *shown)
        if curves:
            svg = plots.lines(curves, "steps", "return", title=task, markers=False, colours_by_name=palette)
            page.figure(svg, f"return on {task}")
