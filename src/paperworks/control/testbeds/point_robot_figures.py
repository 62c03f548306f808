"""What the point robot's experiment shows: estimated regions beside the true one, and return against violations."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from paperworks.control.testbeds import point_robot_trial as trial
from paperworks.control.testbeds.point_robot import ARENA
from paperworks.control.testbeds.point_robot_part import EVERY
from paperworks.core import plots
from paperworks.experiment.definition import Arm
from paperworks.experiment.results import Results


def draw(results: Results, arms: Sequence[Arm], mapped: Collection[str]) -> list[tuple[str, str]]:
    """The regions of the `mapped` arms, of seed 0, and every arm's return against its violations."""
    labels = {arm.name: arm.label for arm in arms}
    maps = [_map(results, name, labels[name]) for name in mapped]
    points = {
        labels[name]: [
            (cell.metrics["violations_feasible"], cell.metrics["return_feasible"])
            for cell in results.cells_of("A", name)
        ]
        for name in labels
    }
    svg = plots.frontier({name: each for name, each in points.items() if each}, "violating steps an episode", "return")
    caption = "return against violations from feasible starts: a point a seed"
    return [*(found for found in maps if found), (svg, caption)]


def _map(results: Results, arm: str, label: str) -> tuple[str, str] | None:
    """V of violations over the arena; None where seed 0 is not there."""
    values = next((found for cell in results.cells_of("A", arm) if (found := cell.metrics.get("map"))), None)
    if values is None:
        return None
    line = torch.linspace(-ARENA, ARENA, trial.GRID)[::EVERY].tolist()
    truth = (0.5 - trial.true_region().float()).view(trial.GRID, trial.GRID)[::EVERY, ::EVERY]
    svg = plots.field(
        line, line, torch.tensor(values).view(len(line), -1).tolist(), "x", "y",
        title=label, outlines={"what manoeuvres can save": truth.tolist()}, is_to_scale=True,
    )  # fmt: skip
    return svg, f"{label}: value of violations at speed 2, heading up right, seed 0; the line is its region's border"
