"""The report of a comparison, from what its folder holds: the page to decide by, and the table for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paperworks.core.errors import RunError
from paperworks.core.files import read_json
from paperworks.core.progress import duration, table
from paperworks.core.report import Page
from paperworks.core.statistics import Interval
from paperworks.language.comparison.commands import train_command
from paperworks.language.comparison.conclusions import bottom_line, setting_of, warnings, what_is_compared
from paperworks.language.comparison.figures import Figures
from paperworks.language.comparison.findings import Findings, PointFindings, find
from paperworks.language.comparison.grid import START, UNTRAINED
from paperworks.language.comparison.measures import Measures, Plan, read_cells, read_plan
from paperworks.language.data import plain_text

PROMPT_CHARACTERS = 600
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
    figures = Figures(page, findings, measures, folder / "figures")
    figures.results()
    figures.frontier()
    figures.overoptimisation()
    figures.duels()
    figures.sensitivity()
    _robustness(page, findings, plan)
    figures.lengths()
    _yardsticks(page, findings)
    _answers(page, findings, measures)
    _what_was_run(page, findings, plan, folder)
    return page.save(folder / "report.html")


def terminal_table(findings: Findings, plan: Plan) -> None:
    """The table of objectives and the bottom line, on standard output."""
    columns, rows = result_rows(findings, plan, [*GAINS, *COSTS], with_intervals=False)
    table(rows, columns, right=columns[1:])
    print()
    for line in bottom_line(findings, plan):
        print(line.replace("`", ""))
    for line in warnings(findings, plan):
        print(f"note: {line.replace('`', '')}")


def result_rows(
    findings: Findings, plan: Plan, names: Sequence[str], *, with_intervals: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a table of the metrics `names`: the chosen points, best first, then the untrained model.

    Metrics of rewards are left out where there is none.
    """
    names = [name for name in names if plan.rewards or name not in _OF_REWARD]
    rows = [[setting_of(p), *(_cell(findings, p, name, with_intervals) for name in names)] for p in findings.chosen]
    if findings.start:
        cells = [_text(findings.start[name], name, with_intervals) if name in findings.start else "–" for name in names]
        rows.append([UNTRAINED, *cells])
    return ["objective", *(_COLUMNS[name] for name in names)], rows


GAINS = ("reward", "win_rate", "length_controlled", "accuracy", "margin")
COSTS = ("kl", "logp_chosen", "tokens", "at_cap", "sampled", "trained", "training")
_COLUMNS = {
    "reward": "reward",
    "win_rate": "wins vs untrained",
    "length_controlled": "at equal length",
    "accuracy": "held-out accuracy",
    "margin": "margin",
    "kl": "KL",
    "logp_chosen": "log p(chosen)",
    "tokens": "tokens",
    "at_cap": "cut",
    "sampled": "tokens sampled",
    "trained": "tokens trained on",
    "training": "training a seed",
}
_OF_REWARD = ("reward", "win_rate", "length_controlled")


def _cell(findings: Findings, point: PointFindings, name: str, with_intervals: bool) -> str:
    if name == "training":
        return duration(point.seconds)
    if name in ("sampled", "trained"):
        return f"{point.sampled_tokens if name == 'sampled' else point.trained_tokens:,.0f}"
    if name != "win_rate":
        return _text(point.metrics[name], name, with_intervals)
    against = findings.pairs[point.name].get(START)
    return "–" if against is None or against.win_rate is None else _text(against.win_rate, name, with_intervals)


def _text(interval: Interval, name: str, with_interval: bool = True) -> str:
    if math.isnan(interval.mean):
        return "–"
    spec = ".0%" if name == "win_rate" else FORMATS.get(name, ".3f")
    return interval.format(spec) if with_interval else format(interval.mean, spec)


# ------------------------------------------------------------------------------------------------------------- sections


def _results(page: Page, findings: Findings, plan: Plan) -> None:
    chosen_on = (
        "Each objective stands with the settings that were best on one half of the prompts; everything shown is measured on "
        "the other half. "
        if plan.has_choice
        else ""
    )
    page.section(
        "Results",
        f"{chosen_on}Means over {plan.seeds} seeds and {findings.prompts} prompts with 95% intervals over both. "
        "Held-out accuracy and margin are by each objective's own implicit reward, in its own scale. KL is to the untrained "
        "model, in nats a response; log p(chosen) that of the held-out chosen responses, which falls where the model moves "
        "away from what it was shown; cut is the share of answers that met the token limit."
        + (
            " At equal length: reward less the slope of reward on tokens within arms "
            f"({findings.slope_on_length:+.4f} a token) times the tokens above the untrained model's mean."
            if plan.rewards
            else ""
        ),
    )
    columns, rows = result_rows(findings, plan, GAINS)
    decides = columns.index("reward" if plan.rewards else "held-out accuracy")
    highlight = [(0, 0), (0, decides)] if findings.chosen else []
    page.table(columns, rows, caption="What it gains", highlight=highlight, right=columns[1:])
    columns, rows = result_rows(findings, plan, COSTS)
    page.table(columns, rows, caption="What it costs", highlight=highlight[:1], right=columns[1:])
    for name in plan.rewards[1:]:
        values = [[p.name, _text(p.metrics[f"reward {name}"], "reward")] for p in findings.chosen]
        page.table(["objective", f"reward {name}"], values, right=[f"reward {name}"])


def _robustness(page: Page, findings: Findings, plan: Plan) -> None:
    if not plan.has_choice:
        return
    page.section(
        "How much the settings matter",
        f"Over the settings tried of each objective: {what_is_compared(plan)}. An objective whose median is near its best is "
        "safe to use without tuning. Best here is the best on the reported half, so it may be above the chosen one.",
    )
    columns = ["objective", "settings", "best", "median", "worst", "IQR", "better than untrained"]
    rows = []
    for each in findings.objectives:
        swings = each.robustness
        numbers = [_number(swings[name]) for name in ("best", "median", "worst", "iqr")]
        share = swings["better_than_start"]
        rows.append([each.name, len(each.points), *numbers, "–" if math.isnan(share) else f"{share:.0%}"])
    page.table(columns, rows, right=columns[1:])
    names = ["reward", "accuracy", "kl", "tokens"] if plan.rewards else ["accuracy", "kl", "tokens"]
    marks = {point.name for point in findings.chosen}
    all_rows = [
        [
            p.name,
            "chosen" if p.name in marks else "diverged" if p.diverged else "",
            *(_text(p.metrics[n], n) for n in names),
        ]
        for p in findings.points
    ]
    page.table(["every setting", "", *names], all_rows, caption="Every setting, on the reported half", right=names)


def _yardsticks(page: Page, findings: Findings) -> None:
    page.section(
        "Held-out pairs by the same yardsticks",
        "Accuracy by each objective's own implicit reward, before and after training, and by three measures that are the same "
        "for all: the summed log-ratio to the untrained model, that log-ratio a token, and the log-probability a token.",
    )
    names = {
        "accuracy_at_start": "own, before",
        "accuracy": "own, after",
        "accuracy_log_ratio": "log-ratio",
        "accuracy_token_log_ratio": "log-ratio a token",
        "accuracy_token_logp": "log-probability a token",
    }
    rows = [[p.objective, *(_text(p.metrics[name], name) for name in names)] for p in findings.chosen]
    if findings.start:
        ties = ("accuracy_log_ratio", "accuracy_token_log_ratio")  # of the untrained model to itself
        rows.append([UNTRAINED, *("–" if n in ties else _text(findings.start[n], n) for n in names)])
    page.table(["objective", *names.values()], rows, right=list(names.values()))


def _answers(page: Page, findings: Findings, measures: Measures) -> None:
    plan = measures.plan
    page.section(
        "Answers", "First answers to a few prompts, seed 0 where it finished; drawn at temperature 1, not picked."
    )
    arms = [*([START] if measures.seeds(START) else []), *(point.name for point in findings.chosen)]
    for index, prompt in plan.shown.items():
        rows = []
        for arm in arms:
            cell = measures.cells[arm, measures.seeds(arm)[0]]
            at = int(index) * plan.samples
            reward = f"{cell['rewards'][plan.rewards[0]][at]:.3f}" if plan.rewards else "–"
            rows.append([UNTRAINED if arm == START else arm, cell["texts"][index], cell["tokens"][at], reward])
        text = plain_text(prompt if isinstance(prompt, str) else tuple(prompt))
        text = (
            text if len(text) <= PROMPT_CHARACTERS else f"…{text[-PROMPT_CHARACTERS:]}"
        )  # its end is what is answered
        page.table(["arm", "answer", "tokens", "reward"], rows, caption=f"Prompt: {text}", right=["tokens", "reward"])


def _what_was_run(page: Page, findings: Findings, plan: Plan, folder: Path) -> None:
    job, rows = plan.job, plan.rows
    page.section(
        "What was run",
        "Every arm is trained on the same rows (or on its own answers to their prompts) for the same number of steps from the "
        "same start, and kept at its last step: no objective chooses its stopping point on rows that it is judged by. A "
        "seed decides the order of rows, the adapters' start and the random numbers of sampling, and is the same for all arms. "
        "The held-out rows are the same for "
        "every seed and share no prompt with the training rows unless a file of them was given. Intervals resample seeds and "
        "prompts independently of one another; differences are taken within seed and prompt.",
    )
    for line in plan.notes:
        page.text(f"{line}.")
    info: Any = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    training = {name: value for name, value in job["training"].items() if value is not None}
    page.facts(
        {
            "model": job["model"],
            "data": rows["data"],
            "rows (fingerprint)": f"{rows['rows']} ({rows['fingerprint']})",
            "training / held-out rows": f"{rows['training_rows']} / {rows['held_out_rows']}",
            "evaluation prompts": f"{rows['prompts']}, {findings.prompts} of them reported",
            "answers a prompt and seed": plan.samples,
            "most tokens an answer": job["measure"]["max_new_tokens"],
            "rewards": ", ".join(plan.rewards) or "none",
            "steps": plan.steps,
            "adapters": job["lora"] or "none, full weights",
            "precision": job["precision"],
            "wall time": duration(info["wall_s"]) if info.get("wall_s") else "–",
            **{name: value for name, value in training.items() if name not in ("steps", "epochs")},
            **info.get("versions", {}),
            **{k: v for k, v in info.get("hardware", {}).items() if k in ("processor", "cores", "gpus") and v},
        }
    )
    page.section("Next", "Repeat this comparison, and train with the best settings:")
    commands = [f"paperworks compare --config {folder / 'run.yaml'} --out again"]
    page.commands([*commands, *([train_command(findings.best, job)] if findings.best else [])])


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
