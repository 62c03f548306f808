"""The report of a comparison, from what its folder holds: the page to decide by, and the table for a terminal."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paperworks.core.errors import RunError
from paperworks.core.files import read_json
from paperworks.core.progress import duration, table
from paperworks.core.report import Page
from paperworks.core.statistics import Interval
from paperworks.language.comparison_conclusions import bottom_line, setting_of, warnings, what_is_compared
from paperworks.language.comparison_figures import add_figures
from paperworks.language.comparison_findings import Findings, PointFindings, find
from paperworks.language.comparison_grid import START
from paperworks.language.comparison_measures import Measures, Plan, read_cells, read_plan
from paperworks.language.data import plain_text

FORMATS = {"kl": ".2f", "tokens": ".1f", "at_cap": ".0%", "margin": ".2f", "logp_chosen": ".1f"}


def write_report(folder: str | Path) -> Path:
    """Writes `folder`/report.html and the figures beside it from the cells that are finished; returns the path.

    Raises RunError where none is.
    """
    folder = Path(folder)
    plan = read_plan(folder)
    cells = read_cells(folder, plan)
    if not cells:
        raise RunError(f"{folder}: no training is finished, there is nothing to report; the same command goes on")
    measures = Measures(plan, cells)
    findings = find(measures)
    data = Path(plan.rows["data"]).name or plan.rows["data"]
    page = Page(f"Which objective? {', '.join(plan.objectives)}", f"{plan.job['model']} on {data}, {plan.seeds} seeds")
    page.callout("Bottom line", bottom_line(findings, plan))
    noted = warnings(findings, plan)
    if noted:
        page.callout("Before you rely on it", noted, kind="warning")
    _results(page, findings, plan)
    add_figures(page, findings, measures, folder / "figures")
    _robustness(page, findings, plan)
    _yardsticks(page, findings)
    _answers(page, findings, measures)
    _what_was_run(page, findings, plan, folder)
    return page.save(folder / "report.html")


def terminal_table(findings: Findings, plan: Plan) -> None:
    """The table of objectives and the bottom line, on standard output."""
    columns, rows = result_rows(findings, plan, with_intervals=False)
    table(rows, columns, what_is_compared(plan).replace("`", ""), right=columns[2:])
    print()
    for line in bottom_line(findings, plan):
        print(line.replace("`", ""))
    for line in warnings(findings, plan):
        print(f"note: {line.replace('`', '')}")


def next_commands(findings: Findings, plan: Plan) -> list[str]:
    """What a reader does next: train with the best settings."""
    best, job = findings.best, plan.job
    if best is None:
        return []
    words = ["paperworks", "train", best.objective, "--model", job["model"], "--data", job["data"]["path"]]
    for name, value in best.options.items():
        words += _as_option(name, value)
    for name, value in job["training"].items():
        if name not in best.options and value != _TRAINING_DEFAULTS().get(name):
            words += _as_option(name, value)
    if job["lora"]:
        words += ["--lora", *(word for name, value in job["lora"].items() for word in _as_option(f"lora_{name}", value))]
    for name in ("held_out", "eval_data", "objective_file", "precision", "device", "chat_template"):
        if job[name] is not None and job[name] != _JOB_DEFAULTS.get(name):
            words += _as_option(name, job[name])
    for name, value in job["data"].items():
        if name == "mapping":
            words += [word for field, column in value.items() for word in ("--map", f"{field}={column}")]
        elif name != "path" and value not in (None, "auto", "error"):
            words += _as_option(name, value)
    if job["gradient_checkpointing"]:
        words.append("--gradient-checkpointing")
    return [" ".join(shlex.quote(str(word)) for word in [*words, "--select", "last"])]


_JOB_DEFAULTS: Mapping[str, Any] = {"held_out": 0.1, "precision": "float32", "device": "auto"}


def _TRAINING_DEFAULTS() -> dict[str, Any]:  # noqa: N802
    from paperworks.core.options import to_mapping
    from paperworks.language.training import TrainOptions

    return to_mapping(TrainOptions())


def _as_option(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, f"{value:g}" if isinstance(value, float) else str(value)]
