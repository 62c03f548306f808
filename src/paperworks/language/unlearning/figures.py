"""Figures of unlearning: the forget-quality/utility plane, the collapse curve, the distributions of s. All are SVG text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from paperworks.core import plots
from paperworks.language.unlearning.measured_sets import MeasuredSet
from paperworks.language.unlearning.measures import FORGOTTEN
from paperworks.language.unlearning.outcome import UnlearningReport

START, RETAIN_ONLY, THRESHOLD = "before unlearning", "retain-only model", f"p = {FORGOTTEN:g}"


class PlanePoint(NamedTuple):
    """A place in the plane."""

    utility: float
    log10_forget_quality: float


def plane_point(values: Mapping[str, float]) -> PlanePoint | None:
    """The place of a report's or evaluator's values; None where either number was not measured."""
    if "utility" not in values or "log10_forget_quality" not in values:
        return None
    return PlanePoint(values["utility"], values["log10_forget_quality"])


def plane(
    trajectories: Mapping[str, Sequence[PlanePoint]],
    *,
    start: PlanePoint | None = None,
    retain_only: PlanePoint | None = None,
    title: str = "",
    colours_by_name: Mapping[str, str] | None = None,
) -> str:
    """Forget quality (log10 p) over model utility: each method's way, evaluation by evaluation; up and right is better.

    The start and the retain-only model are points of their own; a line marks p = 0.05, above which a model counts as
    having forgotten. Points without finite numbers are left out.
    """
    series = {name: _curve(points) for name, points in trajectories.items()}
    for name, point in ((START, start), (RETAIN_ONLY, retain_only)):
        if point is not None:
            series[name] = _curve([point])
    places = [x for curve in series.values() for x in curve.x]
    if places:
        low, high = min(places), max(places)
        margin = max(0.02, 0.08 * (high - low))
        series[THRESHOLD] = plots.Curve([max(0.0, low - margin), min(1.0, high + margin)], [math.log10(FORGOTTEN)] * 2)
    return plots.lines(
        series,
        "model utility",
        "forget quality (log10 p)",
        title=title,
        markers=True,
        colours_by_name={THRESHOLD: "#8A8A8A", **(colours_by_name or {})},
    )


def _curve(points: Sequence[PlanePoint]) -> plots.Curve:
    kept = [point for point in points if all(map(math.isfinite, point))]
    return plots.Curve([point.utility for point in kept], [point.log10_forget_quality for point in kept])


def collapse_curve(
    losses: Mapping[str, Sequence[tuple[float, float]]],
    *,
    log_x: bool = False,
    y: str = "forget loss (nats a token)",
    title: str = "",
    colours_by_name: Mapping[str, str] | None = None,
) -> str:
    """Loss on the forget set over optimiser steps, a line a method, from (step, loss).

    Gradient ascent's grows linearly, NPO's like the logarithm of the steps (arXiv 2404.05868, Theorem 2): with `log_x`
    NPO's is a straight line. Step 0 is then left out.
    """
    series = {}
    for name, points in losses.items():
        kept = [(step, loss) for step, loss in points if math.isfinite(loss) and (step > 0 or not log_x)]
        series[name] = plots.Curve([step for step, _ in kept], [loss for _, loss in kept])
    return plots.lines(series, "step", y, title=title, log_x=log_x, colours_by_name=colours_by_name)


def histories(
    runs: Mapping[str, Sequence[Mapping[str, float]]], value: str = "forget_nll"
) -> dict[str, list[tuple[float, float]]]:
    """(step, value) of each run's evaluations that have it, as `collapse_curve` takes them."""
    return {name: [(line["step"], line[value]) for line in lines if value in line] for name, lines in runs.items()}


def statistic_histograms(
    sets: Mapping[str, MeasuredSet], *, title: str = "", colours_by_name: Mapping[str, str] | None = None
) -> str:
    """Distributions of log10 s, an outline a model: right of 0 the true answer is likelier than the wrong ones."""
    values = {name: (measured.log_s / math.log(10)).tolist() for name, measured in sets.items()}
    bins = min(30, max(8, round(1.5 * math.sqrt(max(map(len, values.values()), default=0)))))
    return plots.histogram(
        values, "log10 s: true against wrong answers", title=title, bins=bins, colours_by_name=colours_by_name
    )


def report_histograms(report: UnlearningReport, colours_by_name: Mapping[str, str] | None = None) -> str:
    """The forget set's s under a model and, where there is one, under the retain-only model."""
    sets = {report.model: report.forget}
    if report.retain_only is not None:
        sets[RETAIN_ONLY] = report.retain_only
    return statistic_histograms(sets, colours_by_name=colours_by_name)
