"""A collection from names to a folder: what `paperworks collect ENV` does, and `paperworks train --collect ENV`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paperworks.control.collection import (
    LEVELS,
    Behaviours,
    CollectOptions,
    collect,
    collected,
    learn_behaviour,
    levels_of,
)
from paperworks.control.environments import spaces_of
from paperworks.control.run_progress import Told, check_is_run, check_same
from paperworks.core.files import home, read_json
from paperworks.core.options import build, load_yaml, to_mapping
from paperworks.core.progress import Progress
from paperworks.core.runs import RunStore


def collection_job(
    environment: str,
    levels: Sequence[str],
    options: CollectOptions,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Path, list[dict[str, Any]]]:
    """Logs of these levels in `out/datasets/LEVEL`; returns the folder and what each log is.

    A folder that has been collected in before is gone on with (`resume`): behaviour policies and logs that are there are
    kept. Raises PaperworksError; KeyboardInterrupt, the last checkpoint being kept.
    """
    shown = progress if progress is not None else Progress(quiet=True)
    spaces_of(environment)
    config = {"environment": environment, "levels": list(levels), "options": to_mapping(options)}
    if resume and out is not None:
        _check_same(Path(out), config)
    made: Behaviours | None = None
    with RunStore().start("collect", environment, out, config, options.seed, resume, overwrite=overwrite) as run:
        if any(level != "random" for level in levels):
            bar = shown.bar(f"behaviour policy for {environment}", options.steps)
            told = Told(run, bar, options.steps)
            made = learn_behaviour(environment, options, run.folder, resume=resume, on_metrics=told)
            bar.finish()
        found = _known(run.folder) if resume else {}
        for level in levels:
            if level not in found or collected(run.folder, level) is None:
                shown.say(f"collecting {level}")
                log, place = collect(level, made, environment, options, run.folder / "datasets")
                returns = log.returns()
                found[level] = {
                    "level": level, "data": str(place), "transitions": len(log), "episodes": len(returns),
                    "return_mean": float(returns.mean()), "return_low": float(returns.min()),
                    "return_high": float(returns.max()),
                }  # fmt: skip
        references = None if made is None else list(made.references)
        run.finish({"environment": environment, "references": references, "logs": list(found.values())})
    return run.folder, [found[level] for level in LEVELS if level in found]


def log_for(environment: str, level: str, options: CollectOptions, progress: Progress | None = None) -> str:
    """Where a log of that level lies; collected below paperworks' home if it is not there yet."""
    (only,) = levels_of(level)
    if only == "random":
        only, folder = "random", home() / "logs" / f"{_plain(environment)}-random-{options.transitions}-{options.seed}"
    else:
        folder = home() / "logs" / f"{_plain(environment)}-{options.steps}-{options.transitions}-{options.seed}"
    place = collected(folder, only)
    if place is None:
        collection_job(environment, [only], options, folder, resume=(folder / "run.yaml").is_file(), progress=progress)
        place = folder / "datasets" / only
    return str(place)


def _known(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / "results.json"
    return {each["level"]: each for each in read_json(path)["logs"]} if path.is_file() else {}


def _check_same(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises RunError where the folder is of another environment or other options (more levels may be asked for)."""
    check_is_run(folder)
    before = load_yaml(folder / "run.yaml")
    shared = {"environment": before.get("environment")}
    check_same(shared, {"environment": config["environment"]}, folder)
    earlier = build(CollectOptions, before.get("options") or {}, what="options")
    check_same(to_mapping(earlier), config["options"], folder)


def _plain(environment: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in environment).lower()
