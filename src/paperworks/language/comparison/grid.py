"""Which configurations of which objectives are compared: the product of swept options, a point each.

`NAME=0.1,1` sweeps an option of every objective that has it, `OBJECTIVE.NAME=0.1,1` of one; the same spelling without a
comma fixes it (`--set`). What names one objective goes before what names all of them. Nothing here trains.
"""

from __future__ import annotations

import dataclasses
import itertools
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paperworks.core.coercion import coerce
from paperworks.core.errors import OptionError, did_you_mean
from paperworks.core.options import build, plain
from paperworks.language.objectives.objective import Objective
from paperworks.language.online.methods import METHODS, trainable_class, trainable_names
from paperworks.language.online.options import OnlineOptions

START = "start"  # the arm of the untrained model
UNTRAINED = "untrained"  # what reports call it
TRAINING = ("learning_rate",)  # options of the training loop that may differ between points
# Those of sampling, for methods that learn from their own answers; how many iterations follows from the steps of all.
ONLINE = tuple(
    field.name for field in dataclasses.fields(OnlineOptions)
    if field.name not in ("iterations", "prompts_per_iteration", "samples_shown", "kl_stop")
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One configuration of an objective. `options` holds what --set and --sweep gave, defaults are left out."""

    objective: str
    options: Mapping[str, Any]
    swept: tuple[str, ...]  # the names among `options` that were swept

    @property
    def name(self) -> str:
        """`rdpo beta=0.1 flip_rate=0.2`; names a point among all points of a comparison."""
        return " ".join([self.objective, *(f"{key}={_text(value)}" for key, value in self.options.items())])

    def make(self) -> Objective:
        """The objective of this point. Raises OptionError for a value out of its range."""
        cls = trainable_class(self.objective)
        own = {name: value for name, value in self.options.items() if _is_own(cls, name)}
        return build(cls, own, what=f"objective {cls.name}")

    def training(self) -> dict[str, Any]:
        """The training loop's options that this point sets for itself."""
        return {name: value for name, value in self.options.items() if self._kind(name) == "training"}

    def online(self) -> dict[str, Any]:
        """The options of sampling that this point sets, above its method's defaults. Raises OptionError."""
        given = {name: value for name, value in self.options.items() if self._kind(name) == "online"}
        return {**METHODS[self.objective].defaults, **given} if self.is_online else given

    @property
    def is_online(self) -> bool:
        """Whether it learns from its own answers."""
        return self.objective in METHODS

    def _kind(self, name: str) -> str:
        if _is_own(trainable_class(self.objective), name):
            return "own"
        return "training" if name in TRAINING else "online"

    def assignments(self) -> str:
        """`beta=0.1 flip_rate=0.2`, or `defaults`."""
        return " ".join(f"{key}={_text(value)}" for key, value in self.options.items()) or "defaults"


def parse_assignments(words: Iterable[str], option: str) -> dict[str, str]:
    """`["beta=0.1,1", "rdpo.flip_rate=0.2"]` as a mapping from (dotted) name to text. Raises OptionError."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip()
        if not (name and equals and text.strip()):
            raise OptionError(f"{option} {word}: expected NAME=VALUE or OBJECTIVE.NAME=VALUE")
        if name in found:
            raise OptionError(f"{option} {name} is given twice; give all its values at once: {name}=V1,V2")
        found[name] = text.strip()
    return found


def chosen_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """The names as their classes spell them. Raises OptionError for an unknown or doubled one, or one called `start`."""
    if not names:
        raise OptionError(
            f"compare: name the objectives: paperworks compare dpo rdpo … (known: {', '.join(trainable_names())})"
        )
    found = [trainable_class(name).name for name in names]
    for name in found:
        if found.count(name) > 1:
            raise OptionError(f"objective {name!r} is named twice; sweep its options to compare settings of it")
        if name == START:
            raise OptionError(f"an objective called {START!r} cannot be compared: the untrained model has that name")
    return tuple(found)


def grid(
    objectives: Sequence[str], sweep: Mapping[str, Any] = {}, settings: Mapping[str, Any] = {}
) -> tuple[Point, ...]:
    """Every point of every objective's grid, objective by objective; each is built once, so values out of range show.

    Values are text or already numbers; those of `sweep` may be lists. Raises OptionError for a name that no objective
    has (nearest named), an objective not compared, an option both fixed and swept, or a value that does not fit.
    """
    classes = [trainable_class(name) for name in chosen_objectives(objectives)]
    for mapping, option in ((sweep, "--sweep"), (settings, "--set")):
        for name in mapping:
            _check_name(name, classes, option)
    points: list[Point] = []
    for cls in classes:
        fixed = {name: _coerced(cls, name, value, "--set") for name, value in _of(cls, settings).items()}
        swept = {name: _values(cls, name, value) for name, value in _of(cls, sweep).items()}
        for name in set(fixed) & set(swept):
            in_both = [name in mapping or f"{cls.name}.{name}" in mapping for mapping in (settings, sweep)]
            own = [f"{cls.name}.{name}" in mapping for mapping in (settings, sweep)]
            if all(in_both) and own[0] == own[1]:
                raise OptionError(f"option {name} of {cls.name} is both set and swept; keep one of them")
            del (swept if own[0] else fixed)[name]
        for combination in itertools.product(*swept.values()):
            options = {**fixed, **dict(zip(swept, combination, strict=True))}
            points.append(Point(cls.name, options, tuple(swept)))
            points[-1].make()
    return tuple(points)


def points_of(points: Iterable[Point], objective: str) -> list[Point]:
    """The points of one objective."""
    return [point for point in points if point.objective == objective]


def _check_name(name: str, classes: Sequence[type[Objective]], option: str) -> None:
    objective, dot, field = name.rpartition(".")
    if dot:
        spelled = trainable_class(objective).name
        if spelled not in [cls.name for cls in classes]:
            raise OptionError(f"{option} {name}: {spelled} is not among the objectives compared")
        known = _names(trainable_class(objective))
        if field.replace("-", "_") not in known:
            raise OptionError(f"{option} {name}: {spelled} has no option {field!r}{did_you_mean(field, known)}")
        return
    every = {known for cls in classes for known in _names(cls)}
    if field.replace("-", "_") not in every:
        raise OptionError(f"{option} {name}: none of the objectives has this option{did_you_mean(field, every)}")


def _of(cls: type[Objective], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given for this objective, by field name; what names it alone replaces what names all."""
    general, own = {}, {}
    for name, value in given.items():
        objective, dot, field = name.rpartition(".")
        field = field.replace("-", "_")
        if dot and trainable_class(objective) is cls:
            own[field] = value
        elif not dot and field in _names(cls):
            general[field] = value
    return {**general, **own}


def _values(cls: type[Objective], name: str, given: Any) -> list[Any]:
    parts = given if isinstance(given, (list, tuple)) else str(given).split(",")
    values = [_coerced(cls, name, part.strip() if isinstance(part, str) else part, "--sweep") for part in parts]
    return list(dict.fromkeys(values))


def _coerced(cls: type[Objective], name: str, value: Any, option: str) -> Any:
    hints = typing.get_type_hints(cls if _is_own(cls, name) else OnlineOptions)
    annotation = float if name in TRAINING and not _is_own(cls, name) else hints[name]
    return plain(coerce(value, annotation, name=f"{option} {cls.name}.{name}"))


def _names(cls: type[Objective]) -> list[str]:
    fields: Any = cls
    own = [field.name for field in dataclasses.fields(fields) if field.init]
    return [*own, *TRAINING, *(ONLINE if cls.name in METHODS else ())]


def _is_own(cls: type[Objective], name: str) -> bool:
    fields: Any = cls
    return name in {field.name for field in dataclasses.fields(fields)}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
