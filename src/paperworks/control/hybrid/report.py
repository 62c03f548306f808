"""report.html of a run of HNPG or TRPO, made from what it wrote: run.json, run.yaml, metrics.jsonl, results.json."""

from __future__ import annotations

from pathlib import Path

from paperworks.control.report import log_facts, show_curves, show_returns
from paperworks.core.files import read_json
from paperworks.core.options import load_yaml
from paperworks.core.progress import duration
from paperworks.core.report import Page
from paperworks.core.runs import read_metrics

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
    known = {
        "iterations": training["iterations"],
        "steps an iteration, at least": training["steps_per_iteration"],
        "horizon": results["horizon"],
        "seeds": training["seeds"],
        **log_facts(data),
    }
    page.facts({**known, "time": duration(float(info.get("wall_s") or 0))})
    show_returns(page, results["evaluations"], data, training["eval_episodes"], "iterations")
    page.section("Curves", "Means over seeds, after each iteration's fit.")
    show_curves(page, lines, _CURVES, "iterations")
    page.section("Repeat").commands([f"paperworks train {results['method']} --config {folder / 'run.yaml'} --out NEW"])
    return page.save(folder / "report.html")
