"""Figures of the study of data sets: performance by log, the two correlations, and where the logs lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paperworks.control.testbeds.data_study import KINDS
from paperworks.core import plots
from paperworks.experiment.results import Results


def draw(results: Results, labels: Mapping[str, str]) -> list[tuple[str, str]]:
    """Of the arms that have cells; `labels` are their names in the figures."""
    cells = {arm: results.cells_of("A", arm) for arm in labels}
    arms = [arm for arm, found in cells.items() if found]
    if not arms:
        return []
    names = [labels[arm] for arm in arms]
    best = [_means([cell.metrics["best"] for cell in cells[arm]]) for arm in arms]
    logs = cells[arms[0]][0].metrics["names"]
    performance = plots.heatmap(logs, names, np.transpose(best).tolist(), format_spec=".0f", high=100.0)
    columns = ("quality_pearson", "coverage_pearson", "quality_weight", "coverage_weight")
    found = [[results.interval("A", arm, column).mean for column in columns] for arm in arms]
    titles = ("r(TQ)", "r(SACo)", "weight TQ", "weight SACo")
    correlations = plots.heatmap(names, titles, found, low=-1.0)
    places = {
        kind: [
            (cell.metrics["coverage"][at], cell.metrics["quality"][at])
            for cell in cells[arms[0]]
            for at in range(KINDS.index(kind), len(logs), len(KINDS))
            if cell.metrics["quality"][at] is not None
        ]
        for kind in KINDS
    }
    scatter = plots.frontier(places, "SACo, coverage", "TQ, quality")
    return [
        (performance, "performance on each log, mean over seeds: 0 random, 100 the best of the online run"),
        (correlations, "correlation of performance with both measures over a seed's logs, and their weights together"),
        (
            scatter,
            "where the logs lie: a point a seed and world; the line joins those of highest quality at their coverage",
        ),
    ]


def _means(values: Sequence[Sequence[float | None]]) -> list[float]:
    """Over seeds, of those that have a number."""
    table = np.array(values, dtype=np.float64)
    counts = np.isfinite(table).sum(0)
    return np.where(counts > 0, np.nansum(table, 0) / counts.clip(min=1), np.nan).tolist()
