"""Pictures of learning in the two rooms: the way of every arm by log, and the balances by room."""

from __future__ import annotations

from paperworks.core import plots
from paperworks.core.plots import Curve, IntervalRow
from paperworks.core.statistics import bootstrap_mean
from paperworks.experiment.results import Results

PART = "A"


def draw(results: Results) -> list[tuple[str, str]]:
    """The figures that there are cells for, with their captions."""
    part = results.experiment.part(PART)
    drawn = [_ways(results, setting) for setting in part.settings] + [_balances(results)]
    return [each for each in drawn if each is not None]


def _ways(results: Results, setting: str) -> tuple[str, str] | None:
    curves = {}
    for arm in results.experiment.part(PART).arms_in(setting):
        cells = results.cells_of(PART, arm.name, setting)
        if cells:
            points = [bootstrap_mean(values) for values in zip(*(each.metrics["return_curve"] for each in cells))]
            curves[arm.label] = Curve(cells[0].metrics["step_curve"], [point.mean for point in points])
    if not curves:
        return None
    return plots.lines(curves, "steps in the maze", "return", markers=False), f"{setting}: returns, means over seeds"


def _balances(results: Results) -> tuple[str, str] | None:
    rows = []
    for setting in results.experiment.part(PART).settings:
        for quality in ("poor", "good"):
            values = list(results.values(PART, "famo2o", f"balance_{quality}", setting).values())
            if values:
                room = f"{quality} room" if setting != "alike" else {"poor": "far room", "good": "near room"}[quality]
                rows.append(IntervalRow(f"{setting}: {room}", bootstrap_mean(values), values))
    if not rows:
        return None
    svg = plots.intervals(rows, "balance at the end", format_spec=".2f")
    return svg, "FamO2O: mean balance over each room's logged states; a dot a seed"
