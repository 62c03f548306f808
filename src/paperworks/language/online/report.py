"""report.html of an online run, made from what it wrote: run.json, run.yaml, metrics.jsonl, samples.jsonl, results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paperworks.core import plots
from paperworks.core.files import read_json
from paperworks.core.options import load_yaml
from paperworks.core.progress import duration
from paperworks.core.report import Page
from paperworks.core.runs import read_metrics
from paperworks.language import train_curves
from paperworks.language.online.kept_samples import SAMPLES
from paperworks.language.train_curves import Group

_CURVES = (
    Group(
        "reward",
        "Reward of the policy's answers",
        {"reward": "reward", "gold_reward": "gold reward"},
        "Means over an iteration's answers, before learning from them. The gold reward is never trained on.",
    ),
    Group(
        "kl",
        "KL to the reference (nats an answer)",
        {"kl": "log-ratio (k1)", "kl_k3": "k3"},
        "Two unbiased estimates from the same answers; k3 is never negative.",
    ),
    Group("length", "Tokens an answer", {"length": "tokens"}),
    Group(
        "shares",
        "Shares",
        {"finished": "answers that end", "silent_groups": "prompts without signal", "clipped": "ratios clipped"},
        "A prompt is without signal where all its answers have the same reward.",
    ),
    Group("kl_weight", "Weight of the KL penalty", {"kl_weight": "weight"}),
    Group(
        "terms",
        "Terms of the loss",
        {"policy": "policy", "value": "value", "dpo": "pairs", "optimism": "optimism"},
        at_least=2,
    ),
    Group("loss", "Loss", {"loss": "loss"}),
    Group("grad_norm", "Gradient norm", {"grad_norm": "norm"}, "Before clipping."),
    Group(
        "seconds",
        "Seconds an iteration",
        {"seconds_sampling": "sampling", "seconds_scoring": "scoring", "seconds_updating": "learning"},
    ),
)  # fmt: skip
_APART = (
    "sampled_tokens",
    "trained_tokens",
    "rows",
    "seconds",
    "kl_token",
    "reward_std",
)  # shown in the tables, or not
_SHOWN = {
    "reward": "reward", "gold_reward": "gold reward", "kl": "KL (nats an answer)", "length": "tokens an answer",
    "finished": "share that end",
}  # fmt: skip


def write_report(folder: str | Path) -> Path:
    """Write `folder/report.html` with its figures beside it; returns the path. Raises RunError for a damaged folder."""
    folder = Path(folder)
    results, info = read_json(folder / "results.json"), read_json(folder / "run.json")
    config, steps = load_yaml(folder / "run.yaml"), read_metrics(folder / "metrics.jsonl")
    (folder / "figures").mkdir(exist_ok=True)
    page = Page(f"Training {results['method']}", f"{config['model']} on prompts of {results['data']['source']}")
    _result(page, results, info, config)
    _frontier(page, folder, steps)
    page.section("Curves", "By iteration.")
    fixed = ("kl_weight",) if len({line.get("kl_weight") for line in steps}) == 1 else ()
    lines = [{name: value for name, value in line.items() if name not in (*_APART, *fixed)} for line in steps]
    for group in (*_CURVES, *train_curves.others(lines, [], besides=_CURVES)):
        svg = train_curves.figure(group, lines, [])
        if svg is not None:
            plots.save(svg, folder / "figures" / f"{group.file}.svg")
            page.figure(svg, group.caption or group.title)
    _samples(page, folder)
    page.section("What was run")
    for part in ("options", "online", "rewards", "judging", "training", "validation", "lora"):
        settings = config.get(part) or {}
        page.facts({f"{part}: {name}": _text(value) for name, value in settings.items() if value not in (None, [], {})})
    page.commands(["paperworks train --config run.yaml"])
    return page.save(folder / "report.html")


def _result(page: Page, results: Mapping[str, Any], info: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    page.section("Result")
    if results.get("stopped"):
        page.callout(f"Stopped after iteration {results['iterations']}", [results["stopped"]], kind="warning")
    if results["warnings"]:
        page.callout("Before you rely on it", results["warnings"], kind="warning")
    first, final = results["first"], results["final"]
    rows = [[name, _number(first.get(key)), _number(final.get(key))] for key, name in _SHOWN.items() if key in final]
    page.table(["own answers", "first iteration", "last iteration"], rows, right=["first iteration", "last iteration"])
    history = results["history"]
    if history:
        names = [name for name in history[0] if name != "step"]
        rows = [[str(entry["step"]), *(_number(entry.get(name)) for name in names)] for entry in history]
        page.table(
            ["iteration", *(name.replace("_", " ") for name in names)],
            rows,
            caption=f"held-out prompts; the weights kept are those of iteration {results['best_step']}",
            right=names,
        )
    warned = [line for line in results["notes"] if not line.startswith("warning: ")]
    if warned:
        page.callout("Notes", warned)
    left_out = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in results["left_out"].items())
    page.facts(
        {
            "reward": results["reward"] or config["judging"]["judge"] or "none",
            "iterations": results["iterations"],
            "tokens sampled": f"{results['sampled_tokens']:,}",
            "tokens trained on": f"{results['trained_tokens']:,}",
            "left out": left_out or "nothing",
            "wall time": duration(info.get("wall_s") or results["seconds"]),
            "LoRA": _text(config["lora"]) if config["lora"] else "no, full weights",
        }
    )


def _frontier(page: Page, folder: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    """Reward against the distance from the reference: where more distance stops paying."""
    names = [name for name in ("reward", "gold_reward") if all(name in line and "kl" in line for line in steps)]
    if len(steps) < 3 or not names:
        return
    curves = {
        _SHOWN[name]: plots.Curve([line["kl"] for line in steps], [line[name] for line in steps]) for name in names
    }
    svg = plots.lines(curves, "KL to the reference (nats an answer)", "reward")
    plots.save(svg, folder / "figures" / "frontier.svg")
    page.figure(
        svg, "Iteration by iteration. A gold reward that turns down while the reward rises is over-optimisation."
    )


def _samples(page: Page, folder: Path) -> None:
    path = folder / SAMPLES
    if not path.is_file():
        return
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not found:
        return
    page.section("Answers", f"The first and the last iteration's; all that were kept are in {SAMPLES}.")
    columns = ["iteration", "prompt", "answer", "reward", "KL"]
    ends = dict.fromkeys((found[0]["iteration"], found[-1]["iteration"]))
    rows = [
        [
            str(line["iteration"]), line["prompt"][-300:], line["answer"] + ("" if line["finished"] else " …"),
            _number(line.get("reward")), _number(line.get("kl")),
        ]
        for iteration in ends for line in found if line["iteration"] == iteration
    ]  # fmt: skip
    page.table(columns, rows, right=["iteration", "reward", "KL"])


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(each)}" for name, each in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
