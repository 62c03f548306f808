"""Pictures of PPO on filtered samples: the way of every arm, what R² foretold, what a filter gains, how good rewards are."""

from __future__ import annotations

import math
from collections.abc import Mapping

from paperworks.core import plots
from paperworks.core.statistics import bootstrap_mean, paired_difference, spearman
from paperworks.experiment.results import Results

PART = "A"
JUDGED = ("br", "bw", "pow-2", "ppo-m", "bon")  # arms whose filters the chooser judges


def draw(results: Results, labels: Mapping[str, str], learned: str, noisy: str) -> list[tuple[str, str]]:
    """The figures that there are cells for, with their captions; `learned` and `noisy` name the settings."""
    drawn = [
        _ways(results, labels, learned),
        _predictions(results, labels, learned),
        _gains(results, (learned, noisy)),
        _kept(results, learned),
        _reliability(results, (learned, noisy)),
    ]
    return [each for each in drawn if each is not None]


def _ways(results: Results, labels: Mapping[str, str], setting: str) -> tuple[str, str] | None:
    curves = {
        label: plots.Curve(
            _mean_curve(results, arm, "iteration", setting), _mean_curve(results, arm, "passed", setting)
        )
        for arm, label in labels.items()
        if results.cells_of(PART, arm, setting)
    }
    if not curves:
        return None
    svg = plots.lines(curves, "iteration", "held-out programs that pass all tests", markers=False)
    return (
        svg,
        f"{setting}: greedy programs for held-out specifications, mean over seeds, each arm at its own best rate",
    )


def _predictions(results: Results, labels: Mapping[str, str], setting: str) -> tuple[str, str] | None:
    if not all(results.cells_of(PART, arm, setting) for arm in JUDGED):
        return None
    r2, passed = ({arm: results.values(PART, arm, metric, setting) for arm in JUDGED} for metric in ("r2", "passed"))
    mean = {arm: tuple(bootstrap_mean(list(of[arm].values())).mean for of in (r2, passed)) for arm in JUDGED}
    shared = set.intersection(*(set(of[arm]) for of in (r2, passed) for arm in JUDGED))
    by_seed = [spearman([r2[arm][seed] for arm in JUDGED], [passed[arm][seed] for arm in JUDGED]) for seed in shared]
    over = spearman([x for x, _ in mean.values()], [y for _, y in mean.values()])
    seeds = bootstrap_mean([value for value in by_seed if math.isfinite(value)])
    svg = plots.frontier(
        {labels[arm]: [(x, y)] for arm, (x, y) in mean.items()},
        "R² before training",
        "held-out programs that pass all tests",
    )
    return svg, (
        "what the choice before training foretold; rank correlation of R² and outcome over the five filters: "
        f"{over:.2f} of means over seeds, {seeds.format('.2f')} seed by seed"
    )


def _gains(results: Results, settings: tuple[str, ...]) -> tuple[str, str] | None:
    rows = []
    for setting in settings:
        plain = results.values(PART, "ppo-m", "passed", setting)
        for arm in ("br", "bw", "bon"):
            found = results.values(PART, arm, "passed", setting)
            if found and set(found) == set(plain):
                gains = [found[seed] - plain[seed] for seed in sorted(plain)]
                interval = paired_difference(gains, [0.0] * len(gains))
                rows.append(plots.IntervalRow(f"{arm}, {setting}", interval, gains))
    if not rows:
        return None
    svg = plots.intervals(rows, "held-out pass rate, less PPO-M's at the same seed", zero_line=True)
    return svg, "what a filter gains where the reward's errors are a model's, and where they are noise everywhere alike"


def _kept(results: Results, setting: str) -> tuple[str, str] | None:
    curves = {}
    for arm in ("br", "bw", "bon"):
        if results.cells_of(PART, arm, setting):
            x = _mean_curve(results, arm, "iteration", setting)[1:]
            for name, of in (("kept_reward", "kept"), ("all_reward", "all")):
                curves[f"{arm}, {of}"] = plots.Curve(x, _mean_curve(results, arm, name, setting)[1:])
    if not curves:
        return None
    svg = plots.lines(curves, "iteration", "learned reward", markers=False)
    return (
        svg,
        "the reward of what is trained on beside that of all that the policy writes: the filter flatters the former",
    )


def _reliability(results: Results, settings: tuple[str, ...]) -> tuple[str, str] | None:
    curves = {}
    for setting in settings:
        if cells := results.cells_of(PART, "ppo-m", setting):
            columns = list(zip(*(cell.metrics["bin_score"] for cell in cells), strict=True))
            found = [bootstrap_mean(column) for column in columns]
            curves[setting] = plots.Curve(
                [(place + 0.5) / len(columns) for place in range(len(columns))],
                [each.mean for each in found],
                [each.low for each in found],
                [each.high for each in found],
            )
    if not curves:
        return None
    svg = plots.lines(curves, "quantile of reward", "mean score")
    return svg, "mean score of the starting policy's samples by tenths of reward: mean over seeds, 95% intervals"


def _mean_curve(results: Results, arm: str, name: str, setting: str) -> list[float]:
    cells = results.cells_of(PART, arm, setting)
    columns = zip(*(cell.metrics[f"{name}_curve"] for cell in cells), strict=True)
    return [math.nan if None in column else sum(column) / len(column) for column in columns]
