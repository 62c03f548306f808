"""Runs an experiment's missing cells, in parallel, and keeps every finished one: a killed run goes on where it was.

A cell is a file `cells/PART/SETTING/ARM/SEED.json`, written whole. It counts as done while its fingerprint (options,
budget, the source of the file that defines the cell) is the one that would be computed now.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import shutil
import time
import traceback
import urllib.parse
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paperworks
from paperworks.core.devices import cores
from paperworks.core.errors import OptionError, PaperworksError, RunError, did_you_mean
from paperworks.core.files import file_lock, json_value, read_json, write_atomic, write_json_atomic
from paperworks.core.progress import Bar, Progress, duration
from paperworks.experiment.definition import BUDGETS, Arm, Budget, Experiment, Part, Workspace
from paperworks.experiment.executors import Executor, Job, ProcessExecutor, SerialExecutor
from paperworks.experiment.results import CellResult, Failure, Results


def run_experiment(
    experiment: Experiment,
    *,
    budget: Budget = "small",
    seeds: int | None = None,
    arms: Collection[str] | None = None,
    parts: Collection[str] | None = None,
    folder: str | Path | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    fresh: bool = False,
) -> Results:
    """Computes the cells that are missing in `folder` (default ./runs/SLUG-BUDGET) and returns all that were asked for.

    `seeds` is the number of seeds, in every part, in place of the budget's; `arms` and `parts` choose by name;
    `workers` is the number of processes (default: one a core; 1 stays in this process unless `executor` says
    otherwise). `fresh` computes every cell and preparation anew. A cell that raises is in `Results.failures`, and the
    others go on.
    Raises OptionError for a name or number that does not fit, RunError when another process runs in the folder;
    KeyboardInterrupt (Ctrl-C) says how to go on.
    """
    began = time.monotonic()
    place = Path(folder) if folder is not None else Path("runs") / f"{experiment.slug}-{budget}"
    planned = _plan(experiment, budget, seeds, arms, parts, place)
    shown = progress if progress is not None else Progress(quiet=True)
    with file_lock(place / ".lock", timeout_seconds=1.0):
        if fresh:  # what the arms share is computed anew as well
            shutil.rmtree(place / "work", ignore_errors=True)
        done = {} if fresh else {cell: found for cell in planned if (found := cell.stored()) is not None}
        run = _Run(place, budget, shown, {cell: None for cell in planned if cell not in done})
        if done:
            shown.say(f"{len(done)} of {len(planned)} cells are finished already")
        if run.missing:
            own = executor if executor is not None else _default_executor(workers, len(run.missing))
            cancel = True
            try:
                run.go(own)
                cancel = False
            except KeyboardInterrupt:
                kept = f"{len(done) + len(run.finished)} of {len(planned)} cells are finished and kept in {place}"
                raise KeyboardInterrupt(f"stopped; {kept}; the same command goes on") from None
            finally:
                if executor is None:
                    own.shutdown(cancel=cancel)
    found_all = {**done, **run.finished}
    return Results(
        experiment,
        budget,
        place,
        tuple(found_all[cell] for cell in planned if cell in found_all),
        tuple(sorted(run.failures, key=lambda failure: (failure.part, failure.setting, failure.arm, failure.seed))),
        time.monotonic() - began,
    )


@dataclass(frozen=True, eq=False)
class _Planned:
    """A cell that was asked for."""

    part: Part
    setting: str
    arm: Arm
    seed: int
    budget: Budget
    folder: Path
    fingerprint: str

    @property
    def file(self) -> Path:
        names = (self.part.name, self.setting, self.arm.name)
        return self.folder.joinpath("cells", *map(_path_name, names), f"{self.seed}.json")

    def stored(self) -> CellResult | None:
        """The finished cell, None where there is none of this fingerprint or its file is damaged."""
        try:
            content = read_json(self.file)
            if content["fingerprint"] != self.fingerprint:
                return None
            return self.result(content["metrics"], content["wall_s"], content["code"])
        except (RunError, KeyError, TypeError):
            return None

    def store(self, metrics: Mapping[str, Any], wall_s: float) -> CellResult:
        """Writes the finished cell."""
        result = self.result(json_value(metrics), wall_s, code_digest())
        self.file.parent.mkdir(parents=True, exist_ok=True)
        names = {"part": self.part.name, "setting": self.setting, "arm": self.arm.name, "seed": self.seed}
        rest = {"budget": self.budget, "fingerprint": self.fingerprint, "wall_s": wall_s, "code": result.code}
        write_json_atomic(self.file, {**names, **rest, "metrics": result.metrics})
        return result

    def result(self, metrics: Mapping[str, Any], wall_s: float, code: str) -> CellResult:
        return CellResult(self.part.name, self.setting, self.arm.name, self.seed, metrics, wall_s, code)


class _Run:
    """The missing cells on their way: preparations first, each seed's cells as soon as its preparation is done.

    When a worker process dies, all jobs under way are lost and nobody knows whose fault it was: each is tried once more
    with nothing beside it, which also helps where memory was too small for several.
    """

    def __init__(self, folder: Path, budget: Budget, shown: Progress, missing: Mapping[_Planned, None]) -> None:
        self.folder, self.budget, self.shown = folder, budget, shown
        self.missing = missing
        self.finished: dict[_Planned, CellResult] = {}
        self.failures: list[Failure] = []
        self._waiting: dict[str, list[tuple[_Planned, ...]]] = {}
        self._preparing: dict[Job, tuple[Part, int, Bar]] = {}
        self._computing: dict[Job, tuple[_Planned, ...]] = {}
        self._bars: dict[str, Bar] = {}
        self._to_try_alone: list[functools.partial[Job]] = []
        self._alone: Job | None = None

    def go(self, executor: Executor) -> None:
        parts = {cell.part.name: cell.part for cell in self.missing}
        for part in parts.values():
            cells = [cell for cell in self.missing if cell.part.name == part.name]
            self._begin_part(executor, part, cells)
        while self._preparing or self._computing or self._to_try_alone:
            if not self._preparing and not self._computing:
                self._alone = self._to_try_alone.pop(0)()
            job = next(executor.as_completed([*self._preparing, *self._computing]))
            if job in self._preparing:
                self._end_preparation(executor, job)
            else:
                self._end_cells(executor, job)
        for bar in self._bars.values():
            bar.finish()

    def _begin_part(self, executor: Executor, part: Part, cells: Sequence[_Planned]) -> None:
        seeds = sorted({cell.seed for cell in cells})
        unprepared = [seed for seed in seeds if part.prepare and not self._is_prepared(part, seed)]
        if unprepared:
            bar = self.shown.bar(f"{part.name} · prepare", len(unprepared))
            for seed in unprepared:
                shutil.rmtree(self._workspace(part).seed_folder(seed), ignore_errors=True)
                self._submit_preparation(executor, part, seed, bar)
        self._bars[part.name] = self.shown.bar(f"{part.name} · {part.title}", len(cells))
        self._waiting[part.name] = _calls(part, cells)
        self._submit_ready(executor, part, set(unprepared))

    def _submit_ready(self, executor: Executor, part: Part, unprepared: Collection[int]) -> None:
        ready = [call for call in self._waiting[part.name] if not any(cell.seed in unprepared for cell in call)]
        self._waiting[part.name] = [call for call in self._waiting[part.name] if call not in ready]
        for call in ready:
            self._submit_cells(executor, call)

    def _submit_preparation(self, executor: Executor, part: Part, seed: int, bar: Bar) -> Job:
        job = executor.submit(_prepare_in_worker, part.prepare, seed, self.budget, self._workspace(part))
        self._preparing[job] = (part, seed, bar)
        return job

    def _submit_cells(self, executor: Executor, call: tuple[_Planned, ...]) -> Job:
        first, seeds = call[0], [cell.seed for cell in call]
        work = functools.partial(_compute_in_worker, first.part.cell, first.part.batched)
        job = executor.submit(work, first.arm, first.setting, seeds, self.budget, self._workspace(first.part))
        self._computing[job] = call
        return job

    def _end_preparation(self, executor: Executor, job: Job) -> None:
        part, seed, bar = self._preparing.pop(job)
        outcome = _outcome(job)
        if _is_lost(outcome) and job is not self._alone:
            self._to_try_alone.append(functools.partial(self._submit_preparation, executor, part, seed, bar))
            return
        bar.advance()
        still = self._seeds_in_preparation(part)
        if not still:
            bar.finish()
        if isinstance(outcome, _Raised):
            self._fail(part.name, "", "", seed, outcome)
            lost = [call for call in self._waiting[part.name] if any(cell.seed == seed for cell in call)]
            self._waiting[part.name] = [call for call in self._waiting[part.name] if call not in lost]
            # A batch without the failed seed is still worth computing.
            without = [tuple(cell for cell in call if cell.seed != seed) for call in lost]
            self._waiting[part.name] += [call for call in without if call]
        else:
            write_json_atomic(self._marker(part, seed), {"fingerprint": self._preparation(part, seed)})
        self._submit_ready(executor, part, still)

    def _seeds_in_preparation(self, part: Part) -> list[int]:
        under_way = [seed for each, seed, _ in self._preparing.values() if each.name == part.name]
        lost = [call.args for call in self._to_try_alone if call.func == self._submit_preparation]
        return under_way + [seed for _, each, seed, _ in lost if each.name == part.name]

    def _end_cells(self, executor: Executor, job: Job) -> None:
        call = self._computing.pop(job)
        bar, first = self._bars[call[0].part.name], call[0]
        outcome = _outcome(job)
        if _is_lost(outcome) and job is not self._alone:
            self._to_try_alone.append(functools.partial(self._submit_cells, executor, call))
            return
        if not isinstance(outcome, _Raised):
            outcome = _checked(first.part, [cell.seed for cell in call], outcome)
        if isinstance(outcome, _Raised):
            for cell in call:
                self._fail(cell.part.name, cell.setting, cell.arm.name, cell.seed, outcome)
        else:
            metrics, wall_s = outcome
            for cell, values in zip(call, metrics):
                self.finished[cell] = cell.store(values, wall_s / len(call))
        who = " ".join(filter(None, [first.arm.label, first.setting, "" if len(call) > 1 else f"seed {first.seed}"]))
        bar.advance(
            len(call), note=f"{who}: failed" if isinstance(outcome, _Raised) else f"{who} {duration(outcome[1])}"
        )

    def _fail(self, part: str, setting: str, arm: str, seed: int, raised: _Raised) -> None:
        name = "-".join(_path_name(word) for word in (part, setting, arm or "prepare", str(seed)))
        log = self.folder / "logs" / f"{name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(log, raised.trace)
        self.failures.append(Failure(part, setting, arm, seed, raised.line, log))

    def _workspace(self, part: Part) -> Workspace:
        return Workspace((self.folder / "work" / _path_name(part.name)).absolute())

    def _marker(self, part: Part, seed: int) -> Path:
        return self._workspace(part).folder / f"seed-{seed}.done.json"

    def _preparation(self, part: Part, seed: int) -> str:
        return _digest([part.name, seed, self.budget, _source(part.prepare)])

    def _is_prepared(self, part: Part, seed: int) -> bool:
        try:
            return read_json(self._marker(part, seed))["fingerprint"] == self._preparation(part, seed)
        except (RunError, KeyError, TypeError):
            return False


@dataclass(frozen=True)
class _Raised:
    """An error on its way from a worker: one line and the traceback."""

    line: str
    trace: str
    is_worker_death: bool = False

    @classmethod
    def of(cls, error: BaseException) -> _Raised:
        text = " ".join(str(error).split())[:300]
        line = text if isinstance(error, PaperworksError) else f"{type(error).__name__}: {text}"
        return cls(line, "".join(traceback.format_exception(error)))


def code_digest() -> str:
    """A digest of the package's source: cells computed by different code can be told apart."""
    return _package_digest(Path(paperworks.__file__).parent)


@functools.cache
def _package_digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def _plan(
    experiment: Experiment,
    budget: Budget,
    seeds: int | None,
    arms: Collection[str] | None,
    parts: Collection[str] | None,
    folder: Path,
) -> list[_Planned]:
    if budget not in BUDGETS:
        raise OptionError(f"budget: {budget!r} is not one of the choices{did_you_mean(str(budget), BUDGETS)}")
    if seeds is not None and seeds < 1:
        raise OptionError(f"seeds={seeds} is out of range: it must be ≥ 1")
    chosen = experiment.parts if parts is None else tuple(experiment.part(name) for name in parts)
    known = {arm.name for part in chosen for arm in part.arms}
    for name in arms or ():
        if name not in known:
            raise OptionError(f"{experiment.slug}: unknown arm {name!r}{did_you_mean(name, known)}")
    return [
        _Planned(part, setting, arm, seed, budget, folder, _fingerprint(experiment, part, setting, arm, seed, budget))
        for part in chosen
        for setting in part.settings
        for arm in part.arms_in(setting)
        if arms is None or arm.name in arms
        for seed in range(part.seeds[budget] if seeds is None else seeds)
    ]


def _calls(part: Part, cells: Sequence[_Planned]) -> list[tuple[_Planned, ...]]:
    """The cells grouped as the part's cell function takes them, seed by seed: early results compare all arms."""
    if not part.batched:
        return [(cell,) for cell in sorted(cells, key=lambda cell: cell.seed)]
    groups: dict[tuple[str, str], list[_Planned]] = {}
    for cell in cells:
        groups.setdefault((cell.setting, cell.arm.name), []).append(cell)
    return [tuple(group) for group in groups.values()]


def _fingerprint(experiment: Experiment, part: Part, setting: str, arm: Arm, seed: int, budget: Budget) -> str:
    who = [experiment.slug, part.name, setting, arm.name, seed, budget]
    return _digest([*who, json_value(arm.options), _source(part.cell), _source(part.prepare)])


@functools.cache
def _source(function: Callable[..., Any] | None) -> str:
    """The source of the file that defines a function: an edited paper does not pass for the old one's results."""
    if function is None:
        return ""
    inner = function.func if isinstance(function, functools.partial) else function
    try:
        return Path(inspect.getsourcefile(inner) or "").read_text(encoding="utf-8")
    except (TypeError, OSError):
        return f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', '')}"


def _digest(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _path_name(name: str) -> str:
    return urllib.parse.quote(name, safe="=,+ ").replace(".", "%2E", 1 if name.startswith(".") else 0) or "_"


def _default_executor(workers: int | None, calls: int) -> Executor:
    if workers is not None and workers < 1:
        raise OptionError(f"workers={workers} is out of range: it must be ≥ 1")
    count = min(cores() if workers is None else workers, calls)
    return SerialExecutor() if count == 1 and workers == 1 else ProcessExecutor(count, max(1, cores() // count))


def _prepare_in_worker(prepare: Callable[..., None], seed: int, budget: Budget, workspace: Workspace) -> _Raised | None:
    _seed_globals(seed)
    workspace.seed_folder(seed).mkdir(parents=True, exist_ok=True)
    try:
        prepare(seed, budget, workspace)
    except Exception as error:
        return _Raised.of(error)
    return None


def _compute_in_worker(
    cell: Callable[..., Any],
    batched: bool,
    arm: Arm,
    setting: str,
    seeds: Sequence[int],
    budget: Budget,
    workspace: Workspace,
) -> _Raised | tuple[list[Any], float]:
    """The metrics of each seed and the seconds they took together."""
    _seed_globals(seeds[0])
    began = time.monotonic()
    try:
        if batched:
            found = [dict(metrics) for metrics in cell(arm, setting, tuple(seeds), budget, workspace)]
        else:
            found = [dict(cell(arm, setting, seeds[0], budget, workspace))]
        return json_value(found), time.monotonic() - began
    except Exception as error:
        return _Raised.of(error)


def _seed_globals(seed: int) -> None:
    # A worker's earlier jobs must not show in its next one; arms of one seed begin with the same random numbers.
    from paperworks.core.seeding import derive_seed, seed_everything

    seed_everything(derive_seed("cell", seed))


def _outcome(job: Job) -> Any:
    try:
        return job.result()
    except BrokenExecutor as error:
        line = "its process died, also when tried again with nothing beside it (out of memory?)"
        return _Raised(line, "".join(traceback.format_exception(error)), is_worker_death=True)
    except Exception as error:
        return _Raised.of(error)


def _is_lost(outcome: Any) -> bool:
    return isinstance(outcome, _Raised) and outcome.is_worker_death


def _checked(part: Part, seeds: Sequence[int], outcome: tuple[list[Any], float]) -> _Raised | tuple[list[Any], float]:
    found = outcome[0]
    if len(found) != len(seeds):
        line = f"the cell of part {part.name} returned {len(found)} results for {len(seeds)} seeds"
        return _Raised(line, line)
    for metric in part.metrics:
        if any(metric.name not in metrics for metrics in found):
            line = f"the cell of part {part.name} returned no {metric.name!r}, expected each of its metrics"
            return _Raised(line, line)
    return outcome
