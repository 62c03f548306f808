"""Figures of C-MORL's trial: how hypervolume grew, the fronts of a seed, what was selected when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paperworks.control.testbeds.front_trial import CIRCLE, SEAS, Task, true_front
from paperworks.core import plots
from paperworks.core.statistics import bootstrap_mean
from paperworks.experiment.definition import Part
from paperworks.experiment.results import CellResult, Results

SHOWN = ("c-morl", "weighted-sum", "ends")  # whose fronts are drawn


def circle_figures(results: Results) -> list[tuple[str, str]]:
    """Part A."""
    return _figures(results, "A", {"": CIRCLE})


def sea_figures(results: Results) -> list[tuple[str, str]]:
    """Part B."""
    return _figures(results, "B", SEAS)


def tree_figures(results: Results) -> list[tuple[str, str]]:
    """Part C."""
    return _figures(results, "C", {})


def _figures(results: Results, name: str, tasks: Mapping[str, Task]) -> list[tuple[str, str]]:
    part = results.experiment.part(name)
    drawn = [figure for setting in part.settings for figure in _growth(results, part, setting)]
    for setting, task in tasks.items():
        drawn += _fronts(results, part, setting, task)
    return drawn


def _growth(results: Results, part: Part, setting: str) -> list[tuple[str, str]]:
    curves = {}
    for arm in part.arms_in(setting):
        cells = [cell for cell in results.cells_of(part.name, arm.name, setting) if "curve_steps" in cell.metrics]
        if cells:
            curves[arm.label] = _curve(cells)
    if not curves:
        return []
    where = f" ({setting})" if setting else ""
    svg = plots.lines(curves, "steps", "hypervolume, share of the true front's", markers=True)
    return [
        (svg, f"Hypervolume against steps{where}: mean over seeds, 95% intervals, where every seed had ended a leg")
    ]


def _curve(cells: Sequence[CellResult]) -> plots.Curve:
    """The means while legs had ended in all seeds, and at the end."""
    rows = np.asarray([cell.metrics["curve_hypervolume"] for cell in cells]).T
    known = [(float(step), row) for step, row in zip(cells[0].metrics["curve_steps"], rows) if (row > 0).all()]
    end = float(np.mean([cell.value("steps") for cell in cells]))
    known.append((end, np.asarray([cell.value("hypervolume") for cell in cells])))
    found = [bootstrap_mean(row) for _, row in known]
    steps, means = [step for step, _ in known], [each.mean for each in found]
    return plots.Curve(steps, means, [each.low for each in found], [each.high for each in found])


def _fronts(results: Results, part: Part, setting: str, task: Task) -> list[tuple[str, str]]:
    """The true front, and what arms found of it with the first seed; the points selected in each round."""
    where, axes = f" ({setting})" if setting else "", task.world.spaces.names or ("objective 1", "objective 2")
    true = _pairs(true_front(task).tolist())
    found, drawn = {"true front": true}, []
    for arm in part.arms_in(setting):
        cells = results.cells_of(part.name, arm.name, setting)
        if not cells or arm.name not in SHOWN:
            continue
        found[arm.label] = _pairs(cells[0].metrics.get("points") or [])
        rounds = [_pairs(chosen) for chosen in cells[0].metrics.get("selections") or []][:4]
        if rounds:
            maps = {"true front": true, **{f"round {number + 1}": each for number, each in enumerate(rounds)}}
            drawn.append((plots.scatter(maps, *axes), f"Selected in each round, first seed{where}"))
    return [(plots.scatter(found, *axes), f"The fronts of the first seed{where}"), *drawn]


def _pairs(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    return [(float(point[0]), float(point[1])) for point in points]
