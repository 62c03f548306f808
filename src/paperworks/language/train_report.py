"""report.html of a training run, made from what the run wrote: run.json, run.yaml, metrics.jsonl, results.json.

What a page shows follows from what was measured: a kind of run that measures something new needs a group of curves in
`train_curves`, and a section here where it settled something before training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paperworks.core import plots
from paperworks.core.files import read_json
from paperworks.core.options import load_yaml
from paperworks.core.progress import duration
from paperworks.core.report import Page
from paperworks.core.runs import read_metrics
from paperworks.language import train_curves
from paperworks.language.train_curves import Group
from paperworks.language.unlearning import figures
from paperworks.language.unlearning.measured_sets import LABELS, MEASURES, SET_NAMES

_NAMES = {
    "utility": "model utility",
    "forget_quality": "forget quality (p)",
    "log10_forget_quality": "forget quality (log10 p)",
    "forget_nll": "forget set: loss (nats a token)",
    **{f"{of}_{measure}": f"{LABELS[of]}: {LABELS[measure]}" for of in SET_NAMES for measure in MEASURES},
}
_NAMES_OF_OWN_ANSWERS = {
    "validation_reward": "own answers: reward",
    "tokens": "own answers: tokens",
    "unfinished": "own answers: share cut short",
}
_WARNING = "warning: "
_SETTINGS = ("degrees", "unlearning", "validation")  # parts of run.yaml that only some runs have


@dataclass(frozen=True)
class _Run:
    """What a run wrote."""

    folder: Path
    results: Mapping[str, Any]
    info: Mapping[str, Any]
    config: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """The evaluations, the one before training first."""
        found: Sequence[Mapping[str, Any]] = self.results["history"]
        return found

    @property
    def is_unlearning(self) -> bool:
        return self.config.get("unlearning") is not None

    @property
    def is_validated(self) -> bool:
        """Whether evaluations are of the policy's own answers under a reward."""
        return bool((self.config.get("validation") or {}).get("reward"))

    @property
    def of_rows(self) -> tuple[str, ...]:
        """Measures that the rows bring with them: no training changes those of the held-out ones."""
        brings_reward = self.results["data"].get("schema") == "scored"
        is_fitted = any("squared_error" in line for line in self.steps[:1])  # the reward is then the model's
        return ("advantage", "reward") if brings_reward and not is_fitted else ("advantage",)

    @property
    def held_out(self) -> Sequence[Mapping[str, Any]]:
        """The history without what was measured on the policy's own answers, and without what belongs to the rows."""
        apart = (*self.of_rows, *(_NAMES_OF_OWN_ANSWERS if self.is_validated else ()))
        return [{name: value for name, value in line.items() if name not in apart} for line in self.history]

    def named(self, measure: str) -> str:
        """A measure of the history in words."""
        own = _NAMES_OF_OWN_ANSWERS if self.is_validated else {}
        return own.get(measure) or _NAMES.get(measure) or measure.replace("_", " ")


def write_report(folder: str | Path) -> Path:
    """Write `folder/report.html` with its figures beside it; returns the path. Raises RunError for a damaged folder."""
    folder = Path(folder)
    run = _Run(
        folder,
        read_json(folder / "results.json"),
        read_json(folder / "run.json"),
        load_yaml(folder / "run.yaml"),
        read_metrics(folder / "metrics.jsonl"),
    )
    (folder / "figures").mkdir(exist_ok=True)
    page = Page(f"Training {run.results['objective']}", f"{run.config['model']} on {run.results['data']['source']}")
    _result(page, run)
    _forgetting(page, run)
    _prepared(page, run)
    _degrees(page, run)
    if run.is_validated:
        page.section(
            "Own answers",
            "At every evaluation the policy answers the validation prompts greedily; the weights kept are those whose "
            "answers the reward likes most. That makes them look better under this reward than they are: judge them by "
            "another.",
        )
        _figures(page, run, train_curves.OWN_ANSWERS, [], run.history)
    page.section("Curves")
    _figures(page, run, train_curves.GENERAL, run.steps, run.held_out)
    _distributions(page, run)
    _figures(page, run, train_curves.others(run.steps, run.held_out), run.steps, run.held_out)
    _what_was_run(page, run)
    return page.save(folder / "report.html")


# --------------------------------------------------------------------------------------------------------------- result


def _result(page: Page, run: _Run) -> None:
    results, history = run.results, run.history
    warnings, notes = _remarks(results)
    page.section("Result")
    if results.get("stopped"):
        page.callout(f"Stopped at step {results['steps']}", [results["stopped"]], kind="warning")
    if history and results["best_step"] == 0 < results["steps"]:
        warnings = [_nothing_was_better(run), *warnings]
    if warnings:
        page.callout("Before you rely on it", warnings, kind="warning")
    if history:
        _before_and_after(page, run)
    elif run.is_unlearning:
        page.text(
            "Nothing was measured but the rows trained on. `--eval-forget FILE` and `--eval-retain FILE` measure while it "
            "trains; `paperworks evaluate unlearning` measures what is saved."
        )
    else:
        page.text("No rows were held out, so nothing is known about other data than the training rows.")
    if notes:
        page.callout("Notes", notes)
    kinds = f": {results['data']['schema']}" if run.is_unlearning else ""
    page.facts(
        {
            "training rows": f"{results['training_rows']}{kinds}",
            "steps": results["steps"],
            "wall time": duration(run.info.get("wall_s") or results["seconds"]),
            "peak memory": _gigabytes(run.info.get("peak_memory_bytes")),
            "LoRA": _shown(run.config["lora"]) if run.config["lora"] else "no, full weights",
        }
    )


def _remarks(results: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(warnings, notes), each said once: notes repeat the warnings and why training stopped."""
    notes = results["notes"]
    said = [line.removeprefix(_WARNING) for line in notes if line.startswith(_WARNING)]
    warnings = list(dict.fromkeys([*results["data"]["warnings"], *results["warnings"], *said]))
    stopped = results.get("stopped")
    rest = [line for line in notes if not line.startswith(_WARNING) and line not in warnings]
    return warnings, [line for line in rest if not (stopped and line.endswith(stopped))]


def _nothing_was_better(run: _Run) -> str:
    floor = (run.config.get("unlearning") or {}).get("keep_floor", 0)
    among = (
        f" with at least {floor:.0%} of the utility before training" if floor and "utility" in run.history[0] else ""
    )
    return (
        f"no evaluation{among} came out better than the one before training, so the model that was saved is the untrained "
        "one; `--select last` saves the last"
    )


def _before_and_after(page: Page, run: _Run) -> None:
    results, first, last, kept = run.results, run.history[0], run.history[-1], run.results["held_out"]
    columns = ["measured", "before", "after"]
    entries = [first, kept]
    if kept.get("step") != last["step"]:
        columns = ["measured", "before", "kept", "last"]
        entries.append(last)
    names = [name for name in kept if name not in ("step", *run.of_rows)]
    rows = [[run.named(name), *(_number(entry.get(name)) for entry in entries)] for name in names]
    caption = f"weights of step {results['best_step']} of {results['steps']}"
    if results["held_out_rows"]:
        caption = f"{results['held_out_rows']} held-out rows; {caption}"
    if run.is_unlearning:
        caption = f"at most {run.config['unlearning']['eval_limit']} questions of each set; {caption}"
    page.table(columns, rows, caption=caption, right=columns[1:])


# ---------------------------------------------------------------------------------------------------- kinds of training


def _forgetting(page: Page, run: _Run) -> None:
    if not run.is_unlearning:
        return
    page.section("Forgetting and keeping")
    _plane(page, run)
    _figures(page, run, train_curves.MEASURED, [], run.history)
    _figures(page, run, train_curves.FORGETTING, run.steps, run.held_out)


def _plane(page: Page, run: _Run) -> None:
    known = [{name: value for name, value in line.items() if value is not None} for line in run.history]
    points = [point for point in map(figures.plane_point, known) if point is not None]
    kept = figures.plane_point({name: value for name, value in run.results["held_out"].items() if value is not None})
    if not points or kept is None:
        return
    way = {run.results["objective"]: points, f"kept (step {run.results['best_step']})": [kept]}
    svg = figures.plane(way, start=points[0])
    plots.save(svg, run.folder / "figures" / "plane.svg")
    page.figure(
        svg,
        "Evaluation by evaluation; up and right is better. Above the line the model cannot be told from one that never saw "
        "the forget set.",
    )


def _prepared(page: Page, run: _Run) -> None:
    """What the objective settled before training, degrees apart."""
    facts = {name: value for name, value in (run.results.get("preparation") or {}).items() if name != "degrees"}
    if not facts:
        return
    percentiles, value = facts.pop("advantage_percentiles", None), dict(facts.pop("value", {}))
    errors = value.pop("mse_by_epoch", None)
    page.section("Settled before training")
    if "positive_share" in facts:
        facts["kept"] = f"{facts['kept']} of {facts.pop('rows')}"
        facts["rows that beat the reference"] = f"{facts.pop('positive_share'):.1%}"
    page.facts({name: _shown(each) for name, each in _flat(facts)})
    if value:
        page.text(
            "The value says how much reward the reference's own answer to a prompt earns; a row's advantage is its reward "
            "less that. An error near that of a constant means that the prompts tell nothing about it."
        )
        page.facts(
            {
                "reference's mean reward": _number(value["mean_reward"]),
                "value: mean squared error": _number(value["mse"]),
                "of a constant": _number(value["constant_mse"]),
                "prompts fitted on": value["prompts"],
                "prompts held out": value["held_out_prompts"],
                "head": f"{value['kind']}, epoch {value['kept_epoch']} of {value['epochs']}",
            }
        )
    if percentiles:
        columns = [f"{percent}%" for percent in percentiles]
        page.table(
            columns,
            [[_number(each) for each in percentiles.values()]],
            caption="percentiles of the advantages of all rows",
            right=columns,
        )
    if errors and len(errors) > 1:
        curve = plots.Curve(list(range(len(errors))), errors)
        ticks = train_curves.step_ticks(len(errors) - 1)
        _figure(
            page, run, "value-fit", plots.lines({"error": curve}, "epoch", "Mean squared error", x_ticks=ticks), "Value"
        )


def _degrees(page: Page, run: _Run) -> None:
    facts = (run.results.get("preparation") or {}).get("degrees")
    if facts is None:
        return
    page.section(
        "Degrees of preference",
        "Beside its own loss the objective learnt to tell versions of a response apart, from which more and more key "
        "phrases were removed.",
    )
    built = facts.get("built")
    if built:
        page.facts(
            {
                "responses with a ladder": f"{built['with_ladder']} of {built['responses']} ({built['share']:.1%})",
                "key phrases a response": f"{built['phrases']:.1f}",
                "versions left out as empty": built["dropped_versions"],
                "rows with degrees of their own": facts["rows_with_own_degrees"],
            }
        )
        words = built["words_by_degree"]
        columns = ["degree", *map(str, range(len(words)))]
        page.table(columns, [["words left", *(f"{each:.1f}" for each in words)]], right=columns[1:])
        page.text(f"Guessing one of {len(words)} degrees is right in {1 / max(1, len(words)):.0%} of cases.")
    else:
        page.facts({"rows with degrees of their own": facts["rows_with_own_degrees"]})
    _figures(page, run, train_curves.DEGREES, run.steps, run.held_out)


def _distributions(page: Page, run: _Run) -> None:
    """The held-out rows one by one: rewards of a reward model, margins of pairs."""
    values = run.results.get("held_out_values") or {}
    sides = {side: values[f"reward_{side}"] for side in ("chosen", "rejected") if values.get(f"reward_{side}")}
    if sides or values.get("margin"):
        page.section("Held-out pairs")
    if sides:
        palette = {"chosen": "#0072B2", "rejected": "#D55E00"}
        svg = plots.histogram(sides, "reward", bins=_bins(sides.values()), colours_by_name=palette)
        _figure(
            page, run, "rewards", svg, "Rewards after training. Only differences between answers to one prompt count."
        )
    if values.get("margin"):
        svg = plots.histogram(
            {"held-out pairs": values["margin"]}, "margin: chosen - rejected", bins=_bins([values["margin"]])
        )
        _figure(
            page,
            run,
            "margins",
            svg,
            "Each pair's margin after training. Left of 0 are pairs ranked against their label.",
        )


# ----------------------------------------------------------------------------------------------------------------- parts


def _figures(
    page: Page,
    run: _Run,
    groups: Iterable[Group],
    steps: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
) -> None:
    for group in groups:
        svg = train_curves.figure(group, steps, history)
        if svg is not None:
            _figure(page, run, group.file, svg, group.caption or group.title)


def _figure(page: Page, run: _Run, file: str, svg: str, caption: str) -> None:
    plots.save(svg, run.folder / "figures" / f"{file}.svg")
    page.figure(svg, caption)


def _what_was_run(page: Page, run: _Run) -> None:
    page.section("What was run")
    page.facts({f"objective: {name}": _shown(value) for name, value in run.results["options"].items()})
    for part in ("training", *_SETTINGS):
        settings = run.config.get(part) or {}
        before = "" if part == "training" else f"{part}: "
        page.facts({before + name: _shown(value) for name, value in settings.items() if value is not None})
    page.commands(["paperworks train --config run.yaml"])
    page.section("Where")
    hardware = dict(run.info.get("hardware", {}))
    if "memory_bytes" in hardware:
        hardware["memory"] = _gigabytes(hardware.pop("memory_bytes"))
    page.facts({name: _shown(value) for name, value in {**run.info.get("versions", {}), **hardware}.items()})


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        label = f"{above}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{label}: ")
        else:
            yield label, value


def _bins(columns: Iterable[Sequence[float]]) -> int:
    """More bins for more values: few values in many bins are a comb."""
    return min(40, max(8, round(2 * math.sqrt(max(map(len, columns), default=0)))))


def _gigabytes(number: float | None) -> str:
    return f"{(number or 0) / 1e9:.2f} GB"


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.2e}" if 0 < abs(value) < 0.001 else f"{value:.4f}"


def _shown(value: Any) -> str:
    """A setting as a reader would write it."""
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items())
    return ", ".join(map(_shown, value)) if isinstance(value, list) else str(value)
