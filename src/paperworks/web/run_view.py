"""What the runs' pages show of a run, read from its folder: facts, settings, claims, metrics.

Damage is said in a line and hides nothing else. A folder's files may have been written by anyone: what is taken from them is
plain values of a limited number, and text that can be sent. Nothing here makes HTML, and nothing changes a run.
"""

from __future__ import annotations

import json
import math
import shlex
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paperworks.catalog import run_results
from paperworks.catalog.run_results import DAMAGE
from paperworks.core.errors import PaperworksError, RunError
from paperworks.core.runs import RunRecord, RunStore, read_metrics

Curve = tuple[list[float], list[float]]  # steps, values

MOST_VALUES = 20_000  # of one file that are taken over: aliases in YAML can stand for more than a memory holds
MOST_YAML_BYTES, MOST_METRICS_BYTES = 1_000_000, 50_000_000
MOST_POINTS = 500
MOST_FIGURES = 6
FIRST_SHOWN = (
    "loss",
    "reward",
    "return",
    "held_out",
    "held-out",
    "eval",
    "validation",
)  # what one looks for in a training
NOT_SET: tuple[object, ...] = (None, [], {}, "")
_DAMAGE = (*DAMAGE, RecursionError, ValueError)


@dataclass(frozen=True)
class RunView:
    """All that a run's page shows. `problems` says in a line each what could not be read; that part is empty then."""

    record: RunRecord
    result: str
    counts: Mapping[str, int]
    claims: Sequence[Mapping[str, str]]
    facts: Mapping[str, str]
    command: str
    settings: Mapping[str, str]
    metrics: Sequence[Mapping[str, Any]]
    numbers: Mapping[str, float]  # of results.json: those that stand at its top
    problems: Sequence[str]


def find(store: RunStore, word: str) -> RunRecord:
    """The run of that id or beginning of one. Raises RunError for none or several; a folder is no name here."""
    if not (0 < len(word) <= 32 and set(word) <= set("0123456789abcdef")):
        raise RunError("no run of that id; the list of runs has the ids")
    record = store.get(word)
    if not record.id.startswith(word):
        raise RunError(f"no run {word!r}; the list of runs has the ids")
    return record


def run_view(record: RunRecord) -> RunView:
    """A run as its folder has it. Raises nothing for a folder that is gone or damaged: `problems` says so."""
    problems: list[str] = []
    if not record.folder.is_dir():
        problems.append(f"Its folder {record.folder} is gone; only what the index knows is left.")
    info = _read(record, "run.json", record.info, problems)
    results = _read(record, "results.json", record.results, problems)
    settings = _read(record, "run.yaml", lambda: settings_of(record.folder), problems)
    metrics: list[dict[str, Any]] = []
    try:
        metrics = metrics_of(record.folder)
    except RunError as error:
        problems.append(_text(error))
    arguments = info.get("arguments")
    return RunView(
        record=record,
        result=run_results.result_text(record),
        counts=verdict_counts(record),
        claims=_claims(record),
        facts=_facts(record, info),
        command=shlex.join(["paperworks", *map(str, arguments)]) if isinstance(arguments, list) and arguments else "",
        settings=flat(settings),
        metrics=metrics,
        numbers={name: float(value) for name, value in results.items() if is_number(value)},
        problems=problems,
    )


def verdict_counts(record: RunRecord) -> Mapping[str, int]:
    """Claims by verdict, as the verdict's bar takes them; empty where the run shows none."""
    found = run_results.claim_counts(record)
    counts = {name: found.get(name, 0) for name in ("holds", "not shown", "reversed")}
    return counts if any(counts.values()) else {}


def settings_of(folder: Path) -> Any:
    """The content of a run's run.yaml, to be shown; empty where there is none. Raises RunError for a damaged one.

    Aliases within it may stand for more than a memory holds: `sendable` cuts that.
    """
    import yaml

    class Plain(yaml.SafeLoader):
        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            """Leaves merges (`<<`) as they are, which then count as damage: merged aliases grow without limit."""

    if not (folder / "run.yaml").exists():
        return {}
    path = own_file(folder, "run.yaml", MOST_YAML_BYTES)
    try:
        return yaml.load(path.read_bytes(), Plain) or {}  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, OSError):
        raise RunError(f"{path}: damaged, expected YAML; its settings are not shown") from None


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl as plain values. Raises RunError for a file that is not the run's, or too large."""
    if not (folder / "metrics.jsonl").exists():
        return []
    path = own_file(folder, "metrics.jsonl", MOST_METRICS_BYTES)
    try:
        return [sendable(line) for line in read_metrics(path)]
    except (OSError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read ({_text(error)})") from None


def own_file(folder: Path, name: str, most_bytes: int) -> Path:
    """The real path of a file of a run's folder.

    Raises RunError where it is missing, larger than `most_bytes`, no regular file, or a link that leads out of the folder.
    """
    root = folder.resolve()
    try:
        path = (root / name).resolve()
        status = path.stat() if path.is_relative_to(root) else None
    except (OSError, RuntimeError):  # missing, a loop of links
        raise RunError(f"no {name} in {folder}") from None
    if status is None or not stat.S_ISREG(status.st_mode):
        raise RunError(
            f"{folder / name}: not a file of the run's own folder, so it is not shown; put the file itself there"
        )
    if status.st_size > most_bytes:
        raise RunError(
            f"{folder / name}: {status.st_size / 1e6:.0f} MB, more than the {most_bytes / 1e6:.0f} MB shown here; open the file"
        )
    return path


def sendable(value: Any) -> Any:
    """`value` as strict JSON holds it: no NaN, no half letters, and after MOST_VALUES values only an ellipsis."""
    left = MOST_VALUES

    def plain(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > 20:
            return "…"
        if isinstance(value, Mapping):
            return {_text(key): plain(item, depth + 1) for key, item in list(value.items())[: max(left, 0)]}
        if isinstance(value, (list, tuple, set)):
            return [plain(item, depth + 1) for item in list(value)[: max(left, 0)]]
        if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        return _text(value)

    return plain(value, 0)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as name and text, nested names with a dot between; those that are not set are left out."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            found.update(flat(value, f"{prefix}{name}."))
        elif value not in NOT_SET:
            found[f"{prefix}{name}"] = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)
    return found


def curves(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Every numeric column over the steps, thinned; those that one looks at first come first, the others as they appear."""
    found: dict[str, Curve] = {}
    for line in metrics:
        step = line.get("step")
        for name, value in line.items() if is_number(step) else ():
            if name != "step" and is_number(value):
                steps, values = found.setdefault(name, ([], []))
                steps.append(float(step))  # type: ignore[arg-type]  # a number, as just seen
                values.append(float(value))
    return {name: (_thinned(found[name][0]), _thinned(found[name][1])) for name in sorted(found, key=_importance)}


def is_number(value: object) -> bool:
    """Whether a value of a file is a finite number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _importance(name: str) -> int:
    return next((place for place, word in enumerate(FIRST_SHOWN) if word in name.lower()), len(FIRST_SHOWN))


def _thinned(points: list[float]) -> list[float]:
    every = math.ceil(len(points) / (MOST_POINTS - 1))
    return points if len(points) <= MOST_POINTS else [*points[:-1:every], points[-1]]


def _read(record: RunRecord, name: str, read: Any, problems: list[str]) -> dict[str, Any]:
    """A file's content as plain values, or nothing and one more problem."""
    try:
        found = sendable(read())
    except _DAMAGE as error:
        if record.folder.is_dir():
            problems.append(_said(name, error))
        return {}
    if isinstance(found, dict):
        return found
    problems.append(f"{name}: damaged, expected names and values.")
    return {}


def _said(name: str, error: BaseException) -> str:
    return _text(error) if isinstance(error, PaperworksError) else f"{name}: damaged, it cannot be read."


def _claims(record: RunRecord) -> list[Mapping[str, str]]:
    found = run_results.claims(record)
    return [{name: _text(claim.get(name) or "") for name in ("part", "verdict", "text", "evidence")} for claim in found]


def _facts(record: RunRecord, info: Mapping[str, Any]) -> dict[str, str]:
    """What is known beside state and times, by name; what is not known is left out."""
    hardware, versions = (info.get(name) or {} for name in ("hardware", "versions"))
    computer: list[Any] = []
    if isinstance(hardware, dict):
        gpus = hardware.get("gpus")
        cores = f"{hardware['cores']} cores" if hardware.get("cores") else None
        computer = [hardware.get("processor"), cores, *(gpus if isinstance(gpus, list) else ())]
    facts = {
        "folder": str(record.folder),
        "seed": "" if record.seed is None else str(record.seed),
        "peak memory": _gigabytes(info.get("peak_memory_bytes")),
        "peak GPU memory": _gigabytes(info.get("peak_gpu_memory_bytes")),
        "machine": record.host or "",
        "computer": ", ".join(str(part) for part in computer if part),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items())
        if isinstance(versions, dict)
        else "",
        "revision": str(info.get("git_revision") or ""),
    }
    return {name: _text(text) for name, text in facts.items() if text}


def _gigabytes(size: object) -> str:
    return f"{size / 1e9:.2f} GB" if isinstance(size, (int, float)) and is_number(size) and size > 0 else ""


def _text(value: object) -> str:
    """Text that UTF-8 can hold."""
    return str(value).encode("utf-8", "replace").decode("utf-8")
