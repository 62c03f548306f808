"""What an experiment is: arms x seeds in settings, metrics, claims, the paper's own figures. Data; nothing runs here.

A paper's file builds one `Experiment`. Its cells are module-level functions: they run in processes of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from paperworks.core.errors import OptionError, did_you_mean

if TYPE_CHECKING:
    from paperworks.experiment.results import Results

Budget = Literal["smoke", "small", "full"]
Role = Literal["method", "baseline", "control"]
Expected = Literal["holds", "reversed", "not shown"]

BUDGETS: tuple[Budget, ...] = get_args(Budget)


@dataclass(frozen=True)
class Arm:
    """One competitor: the paper's method, a baseline at equal budget, or a control that bounds what is possible."""

    name: str
    label: str = ""  # as reports show it; the name where empty
    role: Role = "method"
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)  # what the cell needs to know; plain values
    note: str = ""
    settings: tuple[str, ...] = ()  # the settings it takes part in; () is all

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.name)


@dataclass(frozen=True)
class Metric:
    """A number that every cell of a part returns."""

    name: str
    label: str = ""
    unit: str = ""
    higher_is_better: bool = True
    format: str = ".3f"

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.name)

    def text(self, value: float) -> str:
        """The value as reports show it; a dash where there is none (a cell that diverged)."""
        return format(value, self.format) if math.isfinite(value) else "–"


@dataclass(frozen=True)
class Claim:
    """`better` beats `than` in `metric`: decided on the difference of both arms at the same seed."""

    metric: str
    better: str
    than: str
    where: str = ""  # the setting
    part: str = "A"
    higher_is_better: bool | None = None  # None: as the metric says
    text: str = ""  # the claim in the paper's words; made from the names where empty
    expected: Expected = "holds"


@dataclass(frozen=True)
class Published:
    """A figure that the paper prints, shown beside ours; `part` and `where` name our nearest setting, if any."""

    arm: str
    metric: str
    value: float | str
    setting: str = ""  # the paper's setting: model, data
    source: str = ""  # table or figure
    part: str = ""
    where: str = ""


@dataclass(frozen=True)
class Workspace:
    """Where the cells of a part find what its `prepare` left for a seed."""

    folder: Path

    def seed_folder(self, seed: int) -> Path:
        """The folder that `prepare` fills for a seed and that the seed's cells read."""
        return self.folder / f"seed-{seed}"


Cell = Callable[[Arm, str, int, Budget, Workspace], Mapping[str, Any]]
BatchedCell = Callable[[Arm, str, Sequence[int], Budget, Workspace], Sequence[Mapping[str, Any]]]
Prepare = Callable[[int, Budget, Workspace], None]
Figures = Callable[["Results"], Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class Part:
    """Arms x settings x seeds that share a cell function and metrics.

    `cell(arm, setting, seed, budget, workspace)` returns the metrics of one seed, and lists (curves) for `figures` if
    it likes. A `batched` part's cell gets all missing seeds of an (arm, setting) at once, returns one mapping a seed;
    a seed's result must not depend on which other seeds are in the call. `prepare(seed, budget, workspace)` runs once
    a seed, before the cells, for what the arms share (data, a start model).
    """

    name: str
    title: str
    arms: tuple[Arm, ...]
    seeds: Mapping[Budget, int]
    cell: Cell | BatchedCell
    metrics: tuple[Metric, ...]
    settings: tuple[str, ...] = ("",)
    prepare: Prepare | None = None
    batched: bool = False
    figures: Figures | None = None
    text: str = ""  # what is done and measured, for the report

    def arm(self, name: str) -> Arm:
        """The arm of that name. Raises OptionError when there is none."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise OptionError(
            f"part {self.name}: unknown arm {name!r}{did_you_mean(name, (arm.name for arm in self.arms))}"
        )

    def metric(self, name: str) -> Metric:
        """The metric of that name. Raises OptionError when there is none."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        known = (metric.name for metric in self.metrics)
        raise OptionError(f"part {self.name}: unknown metric {name!r}{did_you_mean(name, known)}")

    def arms_in(self, setting: str) -> tuple[Arm, ...]:
        """The arms that take part in a setting."""
        return tuple(arm for arm in self.arms if not arm.settings or setting in arm.settings)


@dataclass(frozen=True)
class Experiment:
    """A paper's experiment. Raises OptionError when a claim or a name does not fit its parts."""

    slug: str
    title: str
    parts: tuple[Part, ...]
    claims: tuple[Claim, ...] = ()
    published: tuple[Published, ...] = ()
    differences: str = ""  # what differs from the paper's setting
    notes: str = ""

    def __post_init__(self) -> None:
        _refuse_doubles("part", [part.name for part in self.parts])
        for part in self.parts:
            _refuse_doubles(f"part {part.name}: arm", [arm.name for arm in part.arms])
            _refuse_doubles(f"part {part.name}: metric", [metric.name for metric in part.metrics])
            _refuse_doubles(f"part {part.name}: setting", list(part.settings))
            if missing := [budget for budget in BUDGETS if budget not in part.seeds]:
                raise OptionError(f"part {part.name}: seeds for the budget {missing[0]!r} are missing")
            for arm in part.arms:
                for setting in arm.settings:
                    self._check_setting(part, setting)
        for claim in self.claims:
            part = self.part(claim.part)
            part.metric(claim.metric)
            self._check_setting(part, claim.where)
            for name in (claim.better, claim.than):
                if part.arm(name) not in part.arms_in(claim.where):
                    raise OptionError(f"part {part.name}: arm {name!r} of a claim takes no part in {claim.where!r}")

    def part(self, name: str) -> Part:
        """The part of that name. Raises OptionError when there is none."""
        for part in self.parts:
            if part.name == name:
                return part
        known = (part.name for part in self.parts)
        raise OptionError(f"{self.slug}: unknown part {name!r}{did_you_mean(name, known)}")

    def _check_setting(self, part: Part, setting: str) -> None:
        if setting not in part.settings:
            raise OptionError(f"part {part.name}: unknown setting {setting!r}{did_you_mean(setting, part.settings)}")


def _refuse_doubles(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"{what} {name!r} is there twice; give each a name of its own")
