"""Pictures of A2PR's experiment: scores by set, and where its guides come from."""

from __future__ import annotations

from collections.abc import Mapping

from paperworks.control.testbeds.pendulum_logs import SETS
from paperworks.core import plots
from paperworks.core.statistics import bootstrap_mean
from paperworks.experiment.results import Results

PART = "B"
GUIDES = {
    "guide_generated": "VAE's proposal", "guide_logged": "logged action", "guide_none": "nothing",
    "positive": "logged action better than V",
}  # fmt: skip


def pendulum_figures(results: Results, labels: Mapping[str, str]) -> list[tuple[str, str]]:
    """One picture of scores for each set."""
    found = []
    for name in SETS:
        rows = []
        for arm, label in labels.items():
            values = list(results.values(PART, arm, f"score {name}").values())
            if values:
                rows.append(plots.IntervalRow(label, bootstrap_mean(values), values))
        if rows:
            found.append((plots.intervals(rows, "score", format_spec=".0f"), f"{name}: 0 is random, 100 the expert"))
    cells = results.cells_of(PART, "a2pr")
    if cells:
        curves = {
            label: plots.Curve(
                range(len(SETS)),
                [sum(cell.metrics[guide][at] for cell in cells) / len(cells) for at in range(len(SETS))],
            )
            for guide, label in GUIDES.items()
        }
        named = ", ".join(f"{at} {name}" for at, name in enumerate(SETS))
        svg = plots.lines(curves, "set", "share of states", x_ticks=range(len(SETS)))
        found.append((svg, f"what A2PR's actor is pulled to in the last step, mean over seeds; sets: {named}"))
    return found
