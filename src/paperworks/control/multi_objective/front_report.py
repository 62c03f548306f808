"""report.html of a search for a front, made from what it wrote: the front, how it grew, where it is sparse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paperworks.control.multi_objective import pareto
from paperworks.core import plots
from paperworks.core.files import read_json
from paperworks.core.options import load_yaml
from paperworks.core.progress import duration
from paperworks.core.report import Page

UTILITY_WEIGHTS = 200  # preferences that expected utility is over, about
SAMPLES = 50_000


def write_report(folder: str | Path) -> Path:
    """Write `folder/report.html`; returns the path. Raises RunError for a damaged folder."""
    folder = Path(folder)
    results, info, config = (
        read_json(folder / "results.json"), read_json(folder / "run.json"), load_yaml(folder / "run.yaml")
    )  # fmt: skip
    names, members = results["names"], results["front"]
    points = np.asarray([member["returns"] for member in members], dtype=np.float64).reshape(-1, len(names))
    volume, weights = _volume(results, points), _weights(len(names))
    page = Page(f"Front by {results['search']}", f"of {results['environment']}")
    page.facts(
        {
            "policies on the front": len(members),
            "hypervolume": f"{volume(points):.5g}",
            "expected utility": f"{pareto.expected_utility(points, weights):.5g}",
            "sparsity": f"{pareto.sparsity(points):.5g}",
            "steps": results["steps"],
            "time": duration(float(info.get("wall_s") or 0)),
        }
    )
    gamma, episodes = config["options"]["eval_gamma"], config["front"]["final_episodes"]
    page.section(
        "The front",
        f"Returns discounted by {gamma:g}, means of {episodes} fresh episodes of each policy's likeliest actions. Policies "
        "that another beats in these episodes are left out. A front of returns has no policies in its hollows: there, "
        "a policy that mixes two others is as good as any.",
    )
    for first, second in [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))][:3]:
        shown = [(float(point[first]), float(point[second])) for point in points]
        svg = plots.scatter({"policies": shown}, names[first], names[second])
        page.figure(svg, f"{names[second]} against {names[first]}")
    rows = [[m["name"], *(f"{value:.4g}" for value in m["returns"]), m["origin"], m["steps"]] for m in members]
    page.table(["policy", *names, "from", "found after"], rows, right={*names, "found after"})
    _curves(page, results, volume, weights)
    _gaps(page, points, names)
    even = pareto.even_preference(len(names))
    page.section("Use it").commands(
        [
            f"paperworks act --model {folder} --preference {even} --env {results['environment']}",
            f"paperworks train {results['search']} --config {folder / 'run.yaml'} --out NEW",
        ]
    )
    return page.save(folder / "report.html")


def _volume(results: dict[str, Any], points: np.ndarray) -> Callable[[np.ndarray], float]:
    """Exact up to three objectives; beyond on fixed points of a box that holds every front of the run."""
    reference = np.asarray(results["reference"], dtype=np.float64)
    if len(reference) <= 3:
        return lambda some: pareto.hypervolume(some, reference)
    every = [points, *(np.asarray(found).reshape(-1, len(reference)) for _, found in results["curve"])]
    best = np.maximum(np.concatenate(every).max(0), reference)
    return pareto.SampledVolume(reference.tolist(), best.tolist(), samples=SAMPLES)


def _weights(objectives: int) -> np.ndarray:
    parts = 1
    while len(pareto.simplex_grid(objectives, parts + 1)) <= UTILITY_WEIGHTS:
        parts += 1
    return pareto.simplex_grid(objectives, parts)


def _curves(page: Page, results: dict[str, Any], volume: Callable[[np.ndarray], float], weights: np.ndarray) -> None:
    steps = [float(step) for step, _ in results["curve"]]
    if len(steps) < 2:
        return
    fronts = [np.asarray(found, dtype=np.float64).reshape(-1, len(results["names"])) for _, found in results["curve"]]
    page.section("How it grew", "After each leg, by the returns that the search measured.")
    for title, figure in (
        ("hypervolume", volume),
        ("expected utility", lambda points: pareto.expected_utility(points, weights)),
        ("sparsity", pareto.sparsity),
        ("policies", len),
    ):
        values = [(step, float(figure(points))) for step, points in zip(steps, fronts, strict=True) if len(points)]
        if values:
            curve = plots.Curve(*zip(*values, strict=True))
            page.figure(plots.lines({title: curve}, "steps", title, markers=False), title)


def _gaps(page: Page, points: np.ndarray, names: Sequence[str]) -> None:
    found = pareto.gaps(points)
    if not found:
        return
    page.section("Where it is sparse", "The widest gaps between neighbours, in shares of the objective's range.")
    rows = [
        [names[gap.objective], f"{gap.low[gap.objective]:.4g}", f"{gap.high[gap.objective]:.4g}", f"{gap.share:.0%}"]
        for gap in found
    ]
    page.table(["objective", "from", "to", "share"], rows, right={"from", "to", "share"})
