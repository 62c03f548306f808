"""report.html of a run of HNPG or TRPO, made from what it wrote: run.json, run.yaml, metrics.jsonl, results.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paperworks.core import plots
from paperworks.core.files import read_json
from paperworks.core.options import load_yaml
from paperworks.core.progress import duration
from paperworks.core.report import Page
from paperworks.core.runs import read_metrics
from paperworks.core.statistics import bootstrap_mean

_CURVES = {
    "fresh_return": "return of fresh episodes",
    "fresh_length": "their length",
    "online_loss": "critic's squared error on fresh returns",
    "offline_loss": "critic's squared temporal difference on the log",
    "kl": "KL of a step, mean of nets, nats",
    "kl_most": "KL of a step, largest of nets, nats",
    "accepted": "share of steps that the line search accepts",
}


def write_report(folder: str | Path) -> Path:
    """Write `folder/report.html`; returns the path. Raises RunError for a damaged folder."""
    folder = Path(folder)
    results, info = read_json(folder / "results.json"), read_json(folder / "run.json")
    config, lines = load_yaml(folder / "run.yaml"), read_metrics(folder / "metrics.jsonl")
    training, data = config["training"], results["data"]
    page = Page(f"Training {results['method']}", f"in {config['env']}")
    known: dict[str, object] = {
        "iterations": training["iterations"],
        "steps an iteration, at least": training["steps_per_iteration"],
        "horizon": results["horizon"],
        "seeds": training["seeds"],
    }
    if data is not None:
        known |= {
            "log": data["source"],
            "transitions": data["transitions"],
            "mean return of the log": f"{data['return_mean']:.4g}",
        }
    page.facts({**known, "time": duration(float(info.get("wall_s") or 0))})
    _returns(page, results["evaluations"], data, training["eval_episodes"])
    page.section("Curves", "Means over seeds, after each iteration's fit.")
    for name, title in _CURVES.items():
        points = [(float(line["step"]), float(line[name])) for line in lines if line.get(name) is not None]
        if len(points) > 1:
            x, y = (list(column) for column in zip(*points, strict=True))
            page.figure(plots.lines({title: plots.Curve(x, y)}, "iterations", title, markers=False), title)
    page.section("Repeat").commands([f"paperworks train {results['method']} --config {folder / 'run.yaml'} --out NEW"])
    return page.save(folder / "report.html")


def _returns(page: Page, evaluations: list[Any], data: dict[str, Any] | None, episodes: int) -> None:
    page.section("Returns", f"{episodes} episodes a policy, actions drawn; the interval is over seeds (95%).")
    found = [bootstrap_mean(values) for _, values in evaluations]
    x = [float(done) for done, _ in evaluations]
    curves = {
        "policy": plots.Curve(
            x, [each.mean for each in found], [each.low for each in found], [each.high for each in found]
        )
    }
    if data is not None:
        curves["the log's mean"] = plots.Curve([x[0], x[-1]], [data["return_mean"]] * 2)
    page.figure(plots.lines(curves, "iterations", "return", markers=False), "return of whole episodes")
    rows = [
        [done, f"{each.mean:.4g}", f"[{each.low:.4g}, {each.high:.4g}]"] for (done, _), each in zip(evaluations, found)
    ]
    page.table(["iterations", "mean return", "95% interval"], rows, right={"iterations", "mean return"})
