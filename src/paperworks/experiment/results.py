"""What came out of an experiment: finished cells, failures, and the numbers asked of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperworks.core.errors import RunError
from paperworks.experiment.definition import Budget, Experiment, Part

if TYPE_CHECKING:
    from paperworks.core.statistics import Interval


@dataclass(frozen=True)
class CellResult:
    """One (part, setting, arm, seed) that finished. `wall_s` in seconds; a batch's time is shared among its seeds."""

    part: str
    setting: str
    arm: str
    seed: int
    metrics: Mapping[str, Any]
    wall_s: float
    code: str = ""  # digest of the package's source that computed it

    def value(self, metric: str) -> float:
        """The metric as a number, NaN where it is missing or was not finite."""
        value = self.metrics.get(metric)
        return float(value) if isinstance(value, (int, float)) else math.nan


@dataclass(frozen=True)
class Failure:
    """A cell, or the preparation of a seed (`arm` empty), that raised: one line, and the traceback in `log`."""

    part: str
    setting: str
    arm: str
    seed: int
    error: str
    log: Path


@dataclass(frozen=True)
class Results:
    """The cells that were asked for and finished. `wall_s` is the time of this run, without what earlier runs left."""

    experiment: Experiment
    budget: Budget
    folder: Path
    cells: tuple[CellResult, ...]
    failures: tuple[Failure, ...] = ()
    wall_s: float = 0.0

    def cells_of(self, part: str, arm: str, setting: str = "") -> list[CellResult]:
        """The cells of an arm in a setting, by seed."""
        found = [cell for cell in self.cells if (cell.part, cell.arm, cell.setting) == (part, arm, setting)]
        return sorted(found, key=lambda cell: cell.seed)

    def values(self, part: str, arm: str, metric: str, setting: str = "") -> dict[int, float]:
        """The metric of an arm in a setting, by seed."""
        return {cell.seed: cell.value(metric) for cell in self.cells_of(part, arm, setting)}

    def interval(self, part: str, arm: str, metric: str, setting: str = "") -> Interval:
        """Mean over seeds and its 95% interval."""
        from paperworks.core.statistics import bootstrap_mean

        return bootstrap_mean(list(self.values(part, arm, metric, setting).values()))

    def parts(self) -> list[Part]:
        """The parts that have cells, in the experiment's order."""
        present = {cell.part for cell in self.cells}
        return [part for part in self.experiment.parts if part.name in present]

    def seeds(self, part: str) -> list[int]:
        """The seeds with a finished cell in a part."""
        return sorted({cell.seed for cell in self.cells if cell.part == part})

    def compute_s(self) -> float:
        """The computing time of all cells, in whichever run they finished."""
        return sum(cell.wall_s for cell in self.cells)

    def raise_failures(self) -> None:
        """Raises RunError in one line when something failed."""
        if not self.failures:
            return
        first, more = self.failures[0], len(self.failures) - 1
        where = " ".join(
            filter(None, [f"part {first.part}", first.setting, first.arm or "preparation", f"seed {first.seed}"])
        )
        others = f" (and {more} more)" if more else ""
        raise RunError(
            f"{where} failed{others}: {first.error}; see {first.log}; the same command tries again what failed"
        )
