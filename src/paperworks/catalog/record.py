"""A recorded result as texts: the evidence in `results/<slug>.json`, told the same way in the docs and on the page.

Numbers are formatted as the experiment said; nothing is computed anew here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paperworks.catalog.evidence import VERDICTS
from paperworks.core.errors import RunError
from paperworks.core.files import read_json

VERDICT_RULE = (
    "A claim *holds* when the 95% bootstrap interval of the difference, paired by seed, excludes 0 in the claimed "
    "direction; it is *reversed* when the interval excludes 0 in the other, and *not shown* otherwise."
)


def read_record(path: Path) -> Mapping[str, Any] | None:
    """A whole record; None where there is none. Raises RunError for a file that is not one."""
    if not path.is_file():
        return None
    record = read_json(path)
    try:
        if all(claim["verdict"] in VERDICTS for claim in record["claims"]) and record["parts"] and record["seeds"]:
            return dict(record)
    except (KeyError, TypeError):
        pass
    raise RunError(f"{path}: not a record; `paperworks run {path.stem} --record` writes it anew")


def metric_title(metric: Mapping[str, Any]) -> str:
    """A metric's name, unit, and an arrow to where it is better."""
    unit = f" ({metric['unit']})" if metric.get("unit") else ""
    return f"{metric['label']}{unit} {'↑' if metric['higher_is_better'] else '↓'}"


def interval_text(found: Mapping[str, Any] | None, spec: str) -> str:
    """Mean and 95% interval as text; a dash where a seed diverged or the arm has no number."""
    numbers = [found.get(name) if found else None for name in ("mean", "low", "high")]
    texts = [format(number, spec) for number in numbers if isinstance(number, (int, float))]
    if not texts:
        return "–"
    return f"{texts[0]} [{texts[1]}, {texts[2]}]" if len(texts) == 3 else texts[0]


def arm_rows(arms: Iterable[Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row an arm: its label with its role, then each metric's mean and interval."""
    return [
        [
            f"{arm['label']} ({arm['role']})",
            *(interval_text(arm["metrics"].get(metric["name"]), metric.get("format", ".3f")) for metric in metrics),
        ]
        for arm in arms
    ]


def seed_counts(seeds: Mapping[str, Sequence[int]]) -> str:
    """How many seeds: "10 seeds", or part by part where they differ."""
    counts = {name: len(each) for name, each in seeds.items()}
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values()))} seeds"
    return ", ".join(f"{count} seeds in part {name}" for name, count in counts.items())


def circumstances(record: Mapping[str, Any]) -> str:
    """How long it took, on what, with which versions."""
    machine, versions = record.get("hardware", {}), record.get("versions", {})
    gpus = ", ".join(machine.get("gpus") or [])
    where = f"{machine.get('processor', 'unknown processor')}, {machine.get('cores', '?')} cores"
    packages = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    seconds = float(record.get("compute_s", 0.0))
    time = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"Computed in {time} on {where}{', ' + gpus if gpus else ''}; {packages}."


def published_rows(record: Mapping[str, Any]) -> list[list[str]]:
    """The paper's figures beside ours: arm, metric, the paper's number, its setting, where it stands, ours, our setting."""
    parts = {part["name"]: part for part in record["parts"]}
    rows = []
    for figure in record["published"]:
        value = f"{figure['value']:g}" if isinstance(figure["value"], (int, float)) else str(figure["value"])
        ours, where = _our_figure(figure, parts.get(figure["part"]))
        rows.append([figure["arm"], figure["metric"], value, figure["setting"], figure["source"], ours, where])
    return rows


def _our_figure(figure: Mapping[str, Any], part: Mapping[str, Any] | None) -> tuple[str, str]:
    for setting in part["settings"] if part else ():
        for arm in setting["arms"]:
            if (setting["name"], arm["name"]) == (figure["where"], figure["arm"]) and figure["metric"] in arm[
                "metrics"
            ]:
                spec = next(m.get("format", ".3f") for m in part["metrics"] if m["name"] == figure["metric"])  # type: ignore[index]
                title = f"{part['name']}. {part['title']}"  # type: ignore[index]
                shown = interval_text(arm["metrics"][figure["metric"]], spec)
                return shown, f"{title}, {setting['name']}" if setting["name"] else title
    return "–", "–"
