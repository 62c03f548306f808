"""report.html of a run on a log, made from what it wrote: run.json, run.yaml, metrics.jsonl, results.json."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paperworks.core import plots
from paperworks.core.files import read_json, write_atomic
from paperworks.core.options import load_yaml
from paperworks.core.progress import duration
from paperworks.core.report import Page
from paperworks.core.runs import read_metrics
from paperworks.core.statistics import bootstrap_mean

_CURVES = {
    "critic": "critics' loss",
    "value": "value's loss",
    "q": "mean Q of the batch",
    "pull": "distance from the log (what holds the actor)",
    "imitation": "squared difference from the logged action",
    "log_loss": "-log probability of the logged action",
    "gap": "log sum exp of values less the logged action's",
    "actor": "actor's loss",
    "weight": "weight of the value in the actor's loss",
    "distance": "distance to the nearest logged pair",
    "elsewhere": "share whose nearest pair is of another state",
    "advantage": "mean advantage of logged actions",
    "positive": "share of logged actions that are better than V(s)",
    "guide_generated": "share of states guided by the VAE's proposal",
    "guide_logged": "share of states guided by the logged action",
    "guide_none": "share of states that nothing pulls",
    "candidate_distance": "distance of the VAE's proposal from the logged action",
    "reconstruction": "VAE's reconstruction loss",
    "kl": "VAE's KL to its prior",
    "balance": "mean balance that the balance model picks",
    "balance_entropy": "entropy of the balance model, nats",
    "episode_return": "return of the episodes lived through",
    "policy": "policy's loss",
    "imitated": "share of logged actions that are imitated",
    "feasible": "share of states that can be kept safe",
    "expected cost": "expected cost of the policy, discounted",
    "multiplier": "multiplier of the cost",
    "cost": "violations an episode",
}


@dataclass(frozen=True)
class ReportSection:
    """A part of a run's report that its algorithm wrote: words, numbers by name, and figures with captions."""

    title: str
    text: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    figures: Sequence[tuple[str, str]] = ()

    def saved(self, folder: Path) -> dict[str, Any]:
        """As results.json has it; the figures become files in the run's folder."""
        named = []
        (folder / "figures").mkdir(exist_ok=True)
        for svg, caption in self.figures:
            name = f"figures/{hashlib.sha256(svg.encode()).hexdigest()[:12]}.svg"
            write_atomic(folder / name, svg)
            named.append([name, caption])
        return {"title": self.title, "text": self.text, "facts": dict(self.facts), "figures": named}

    @classmethod
    def loaded(cls, saved: Mapping[str, Any], folder: Path) -> ReportSection:
        """What `saved` gave."""
        figures = [((folder / name).read_text(encoding="utf-8"), caption) for name, caption in saved["figures"]]
        return cls(saved["title"], saved["text"], saved["facts"], figures)

    def show(self, page: Page) -> None:
        """Put it into a page."""
        page.section(self.title, self.text)
        if self.facts:
            page.facts(self.facts)
        for svg, caption in self.figures:
            page.figure(svg, caption)


def write_report(folder: str | Path) -> Path:
    """Write `folder/report.html`; returns the path. Raises RunError for a damaged folder."""
    folder = Path(folder)
    results, info = read_json(folder / "results.json"), read_json(folder / "run.json")
    config, steps = load_yaml(folder / "run.yaml"), read_metrics(folder / "metrics.jsonl")
    training, data = config["training"], results.get("data")
    where = f"in {config['env']}" if data is None else f"on {data['source']}"
    page = Page(f"Training {results['algorithm']}", where)
    known = {"steps": training["steps"], "seeds": training["seeds"], **log_facts(data)}
    page.facts({**known, "time": duration(float(info.get("wall_s") or 0))})
    show_returns(page, results["evaluations"], data, training["eval_episodes"], "steps")
    for saved in results.get("sections", ()):
        ReportSection.loaded(saved, folder).show(page)
    page.section("Curves", "Means over seeds, and over the steps since the point before.")
    show_curves(page, steps, _CURVES, "steps")
    page.section("Repeat").commands(
        [f"paperworks train {results['algorithm']} --config {folder / 'run.yaml'} --out NEW"]
    )
    return page.save(folder / "report.html")


def log_facts(data: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is said of the log, where there is one."""
    if data is None:
        return {}
    return {
        "log": data["source"],
        "transitions": data["transitions"],
        "episodes": data["episodes"],
        "mean return of the log": f"{data['return_mean']:.4g}",
    }


def show_curves(page: Page, lines: Sequence[Mapping[str, Any]], titles: Mapping[str, str], unit: str) -> None:
    """A figure for each number of metrics.jsonl that has a title and more than one point."""
    for name, title in titles.items():
        points = [(float(line["step"]), float(line[name])) for line in lines if line.get(name) is not None]
        if len(points) > 1:
            x, y = (list(column) for column in zip(*points, strict=True))
            page.figure(plots.lines({title: plots.Curve(x, y)}, unit, title, markers=False), title)


def show_returns(
    page: Page, evaluations: Sequence[Any], data: Mapping[str, Any] | None, episodes: int, unit: str
) -> None:
    """Mean returns over training, with intervals over seeds, and the log's where there is one."""
    if not evaluations:
        return
    page.section("Returns", f"{episodes} episodes a policy, each seed's mean; the interval is over seeds (95%).")
    found = [bootstrap_mean(values) for _, values in evaluations]
    x = [float(done) for done, _ in evaluations]
    low, high = [each.low for each in found], [each.high for each in found]
    curves = {"policy": plots.Curve(x, [each.mean for each in found], low, high)}
    if data is not None:
        curves["the log's mean"] = plots.Curve([x[0], x[-1]], [data["return_mean"]] * 2)
    page.figure(plots.lines(curves, unit, "return", markers=False), "return of whole episodes")
    rows = [
        [done, f"{each.mean:.4g}", f"[{each.low:.4g}, {each.high:.4g}]"] for (done, _), each in zip(evaluations, found)
    ]
    page.table([unit, "mean return", "95% interval"], rows, right={unit, "mean return"})
