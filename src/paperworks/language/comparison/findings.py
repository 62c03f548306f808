"""What a comparison found: each objective's chosen settings, how they compare with the best and with the untrained model.

Where options were swept, settings are chosen on one half of the prompts and everything here is measured on the other half.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paperworks.core.statistics import Interval
from paperworks.language.comparison.grid import START, Point, points_of
from paperworks.language.comparison.measures import ROW_METRICS, Measures, sample_metrics

SWINGS = ("best", "median", "worst", "iqr", "better_than_start")


@dataclass(frozen=True)
class PointFindings:
    """One configuration. `criterion_to_choose` is its mean on the half that options are chosen on."""

    name: str
    objective: str
    options: Mapping[str, Any]
    metrics: Mapping[str, Interval]
    by_seed: tuple[float, ...]  # criterion
    than_start: Interval  # criterion minus the start's
    criterion_to_choose: float
    seconds: float
    sampled_tokens: float  # written in training, a seed; 0 for objectives that learn from rows
    trained_tokens: float  # response tokens that carried a gradient, a seed
    seeds: tuple[int, ...]
    diverged: tuple[int, ...]


@dataclass(frozen=True)
class ObjectiveFindings:
    """An objective: its points, and the one that stands for it (None where no training of it finished)."""

    name: str
    points: tuple[PointFindings, ...]
    chosen: PointFindings | None
    robustness: Mapping[str, float]  # of the criterion over points: SWINGS


@dataclass(frozen=True)
class Against:
    """A chosen point against another arm: differences arm - other, and the chance to win by the first reward."""

    criterion: Interval
    accuracy: Interval
    win_rate: Interval | None
    length_controlled: Interval | None
    tokens: Interval


@dataclass(frozen=True)
class Findings:
    """Everything a report says in numbers. `pairs` is by name of two chosen points (or `start`)."""

    criterion: str
    objectives: tuple[ObjectiveFindings, ...]
    start: Mapping[str, Interval]
    best: PointFindings | None
    pairs: Mapping[str, Mapping[str, Against]]
    prompts: int
    slope_on_length: float
    diverged: Mapping[str, str]  # "arm seed 0" -> why
    missing: tuple[str, ...]  # cells without a result: failed, or not finished yet
    training_warnings: Mapping[str, tuple[str, ...]]

    @property
    def chosen(self) -> list[PointFindings]:
        """The chosen points, best first."""
        found = [each.chosen for each in self.objectives if each.chosen is not None]
        return sorted(found, key=lambda point: -point.metrics[self.criterion].mean)

    @property
    def points(self) -> list[PointFindings]:
        return [point for each in self.objectives for point in each.points]


def find(measures: Measures) -> Findings:
    """The findings of the cells that are there."""
    plan = measures.plan
    objectives = tuple(_objective(measures, name) for name in plan.objectives)
    criterion = plan.criterion
    chosen = [each.chosen for each in objectives if each.chosen is not None]
    best = max(chosen, key=lambda point: point.metrics[criterion].mean, default=None)
    names = [point.name for point in chosen] + ([START] if measures.seeds(START) else [])
    pairs = {
        one: {other: _against(measures, one, other) for other in names if other != one} for one in names if one != START
    }
    start = {metric: measures.interval(START, metric) for metric in _metrics(measures)} if measures.seeds(START) else {}
    arms = [START, *(point.name for point in plan.all_points)]
    there = {*measures.cells, *measures.diverged}
    return Findings(
        criterion=criterion,
        objectives=objectives,
        start=start,
        best=best,
        pairs=pairs,
        prompts=measures.prompts(),
        slope_on_length=measures.slope if plan.rewards else 0.0,
        diverged={f"{arm} seed {seed}": why for (arm, seed), why in sorted(measures.diverged.items())},
        missing=tuple(f"{arm} seed {seed}" for arm in arms for seed in range(plan.seeds) if (arm, seed) not in there),
        training_warnings={arm: lines for arm in arms if (lines := _warnings(measures, arm))},
    )


def _objective(measures: Measures, name: str) -> ObjectiveFindings:
    planned = points_of(measures.plan.all_points, name)
    points = tuple(_point(measures, point) for point in planned)
    finished = [point for point in points if point.seeds]
    # A point of which a training diverged stands for an objective only where there is no other.
    candidates = [point for point in finished if not point.diverged] or finished
    chosen = max(candidates, key=_choice, default=None)
    return ObjectiveFindings(name, points, chosen, _robustness(measures.plan.criterion, finished))


def _choice(point: PointFindings) -> float:
    return -math.inf if math.isnan(point.criterion_to_choose) else point.criterion_to_choose


def _point(measures: Measures, point: Point) -> PointFindings:
    plan, name = measures.plan, point.name
    half = "choose" if plan.has_choice else "report"
    seeds = measures.seeds(name)
    return PointFindings(
        name=name,
        objective=point.objective,
        options=point.options,
        metrics={metric: measures.interval(name, metric) for metric in _metrics(measures)},
        by_seed=tuple(measures.by_seed(name, plan.criterion)),
        than_start=measures.difference(name, START, plan.criterion),
        criterion_to_choose=float(np.mean(measures.by_seed(name, plan.criterion, half))) if seeds else math.nan,  # type: ignore[arg-type]
        seconds=measures.mean_seconds(name),
        sampled_tokens=measures.mean_of_cells(name, "sampled_tokens"),
        trained_tokens=measures.mean_of_cells(name, "trained_tokens"),
        seeds=tuple(seeds),
        diverged=tuple(seed for arm, seed in measures.diverged if arm == name),
    )


def _robustness(criterion: str, points: Sequence[PointFindings]) -> dict[str, float]:
    if not points:
        return dict.fromkeys(SWINGS, math.nan)
    values = np.array([point.metrics[criterion].mean for point in points])
    upper, median, lower = np.quantile(values, [0.75, 0.5, 0.25])
    better = [point.than_start.mean > 0 for point in points]
    spread = float(upper - lower) if len(values) > 1 else math.nan
    found = (float(values.max()), float(median), float(values.min()), spread, float(np.mean(better)))
    return dict(zip(SWINGS, found, strict=True))


def _against(measures: Measures, arm: str, other: str) -> Against:
    with_reward = bool(measures.plan.rewards)
    return Against(
        criterion=measures.difference(arm, other, measures.plan.criterion),
        accuracy=measures.difference(arm, other, "accuracy"),
        win_rate=measures.win_rate(arm, other) if with_reward else None,
        length_controlled=measures.difference(arm, other, "length_controlled") if with_reward else None,
        tokens=measures.difference(arm, other, "tokens"),
    )


def _metrics(measures: Measures) -> list[str]:
    return [*sample_metrics(measures.plan.rewards), *ROW_METRICS]


def _warnings(measures: Measures, arm: str) -> tuple[str, ...]:
    lines = [line for seed in measures.seeds(arm) for line in measures.cells[arm, seed].get("warnings", ())]
    return tuple({line.split(":")[0]: line for line in lines}.values())
