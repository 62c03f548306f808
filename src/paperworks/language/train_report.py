"""report.html of a training run, made from what the run wrote: run.json, run.yaml, metrics.jsonl, results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paperworks.core import plots
from paperworks.core.files import read_json
from paperworks.core.options import load_yaml
from paperworks.core.progress import duration
from paperworks.core.report import Page
from paperworks.core.runs import read_metrics

CURVES = {
    "loss": ("Loss", ("loss",)),
    "accuracy": ("Preference accuracy", ("accuracy", "debiased_accuracy")),
    "margin": ("Mean margin (objective's own scale)", ("margin",)),
    "logps": ("Log-probability of responses (nats)", ("logp_chosen", "logp_rejected", "logp")),
    "grad_norm": ("Gradient norm", ("grad_norm",)),
}


def write_report(folder: str | Path) -> Path:
    """Write `folder/report.html` with its figures beside it; returns the path. Raises RunError for a damaged folder."""
    folder = Path(folder)
    results, info = read_json(folder / "results.json"), read_json(folder / "run.json")
    config = load_yaml(folder / "run.yaml")
    steps = read_metrics(folder / "metrics.jsonl")
    (folder / "figures").mkdir(exist_ok=True)
    page = Page(f"Training {results['objective']}", f"{config['model']} on {results['data']['source']}")
    _summary(page, results, info, config)
    _curves(page, steps, results["history"], folder)
    if results.get("held_out_values", {}).get("margin"):
        svg = plots.histogram({"held-out pairs": results["held_out_values"]["margin"]}, "margin: chosen - rejected")
        plots.save(svg, folder / "figures" / "margins.svg")
        page.section(
            "Margins", "Each held-out pair's margin after training. Pairs left of 0 are ranked against their label."
        )
        page.figure(svg)
    page.section("What was run")
    page.facts({f"objective: {name}": value for name, value in results["options"].items()})
    page.facts({name: value for name, value in config["training"].items() if value is not None})
    page.section("Where")
    page.facts({**info.get("versions", {}), **dict(info.get("hardware", {}).items())})
    return page.save(folder / "report.html")


def _summary(page: Page, results: Mapping[str, Any], info: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    page.section("Result")
    if results["history"]:
        first, kept = results["history"][0], results["held_out"]
        rows = [[name, _number(first.get(name)), _number(kept.get(name))] for name in kept if name not in ("step",)]
        caption = (
            f"{results['held_out_rows']} held-out rows; weights of step {results['best_step']} of {results['steps']}"
        )
        page.table(["held-out", "before", "after"], rows, caption=caption)
    else:
        page.text("No rows were held out, so nothing is known about other data than the training rows.")
    for line in [*results["data"]["warnings"], *results["warnings"], *results["notes"]]:
        page.note(line)
    page.facts(
        {
            "training rows": results["training_rows"],
            "wall time": duration(info.get("wall_s") or results["seconds"]),
            "peak memory": f"{(info.get('peak_memory_bytes') or 0) / 1e9:.2f} GB",
            "LoRA": config["lora"] or "no, full weights",
        }
    )


def _curves(page: Page, steps: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]], folder: Path) -> None:
    page.section("Curves")
    for file, (title, names) in CURVES.items():
        series: dict[str, plots.Curve] = {}
        for name in names:
            points = [(line["step"], line[name]) for line in steps if line.get(name) is not None]
            if points:
                series[name] = plots.Curve(*map(list, zip(*points, strict=True)))
            held = [(line["step"], line[name]) for line in history if line.get(name) is not None]
            if held:
                series[f"{name} (held out)"] = plots.Curve(*map(list, zip(*held, strict=True)))
        if series:
            svg = plots.lines(series, "step", title)
            plots.save(svg, folder / "figures" / f"{file}.svg")
            page.figure(svg, title)


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.4f}"
