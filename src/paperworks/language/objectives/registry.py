"""Objectives by name: the ones that come with the package, and those in a user's own Python file."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from paperworks.core.errors import OptionError, did_you_mean
from paperworks.core.options import build
from paperworks.language.objectives.copg import CoPG
from paperworks.language.objectives.cpo import CPO
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.hypo import HyPO
from paperworks.language.objectives.ipo import IPO
from paperworks.language.objectives.kto import KTO
from paperworks.language.objectives.ln_dpo import LNDPO
from paperworks.language.objectives.lol import (
    AdvantageLoL,
    AdvantageLoLKL,
    AdvantageLoLRefFree,
    AdvantageLoLSequence,
    RewardLoL,
)
from paperworks.language.objectives.npo import NPO, NPOKL, NPORetain
from paperworks.language.objectives.objective import Objective
from paperworks.language.objectives.orpo import ORPO
from paperworks.language.objectives.rdpo import ConservativeDPO, RobustDPO
from paperworks.language.objectives.reward_modelling import BradleyTerry, RewardRegression
from paperworks.language.objectives.rpo import RPO
from paperworks.language.objectives.rso import RSO
from paperworks.language.objectives.scored import FilteredNLL, RewardGOLD, WeightedBC
from paperworks.language.objectives.sft import SFT
from paperworks.language.objectives.simpo import SimPO
from paperworks.language.objectives.slic import HingeNorm, SLiC
from paperworks.language.objectives.soft_preferences import DNO, IPOMD, OnlineDPO, OnlineIPO, OnlineSLiC
from paperworks.language.objectives.unlearning import (
    GradientAscent,
    GradientAscentForgetKL,
    GradientAscentKL,
    GradientDifference,
)
from paperworks.language.objectives.unlearning_alternatives import (
    DPOIDK,
    DPOIDKKL,
    IDK,
    KTOIDK,
    KTOIDKKL,
    DPOIDKRetain,
    KTOIDKRetain,
)
from paperworks.language.objectives.xpo import XPO

BUILT_IN: tuple[type[Objective], ...] = (
    DPO,
    ConservativeDPO,
    RobustDPO,
    IPO,
    SLiC,
    HingeNorm,
    RSO,
    CPO,
    SimPO,
    KTO,
    ORPO,
    RPO,
    LNDPO,
    SFT,
    AdvantageLoL,
    AdvantageLoLSequence,
    AdvantageLoLRefFree,
    AdvantageLoLKL,
    RewardLoL,
    WeightedBC,
    RewardGOLD,
    FilteredNLL,
    NPO,
    NPORetain,
    NPOKL,
    GradientAscent,
    GradientDifference,
    GradientAscentKL,
    GradientAscentForgetKL,
    IDK,
    DPOIDK,
    DPOIDKRetain,
    DPOIDKKL,
    KTOIDK,
    KTOIDKRetain,
    KTOIDKKL,
    BradleyTerry,
    RewardRegression,
    CoPG,
    XPO,
    HyPO,
    OnlineIPO,
    IPOMD,
    OnlineDPO,
    OnlineSLiC,
    DNO,
)


def _spelling(name: str) -> str:
    return name.strip().lower().replace("_", "-")


class Registry:
    """Objective classes by the name users type. Upper case and `_` for `-` are accepted (`LN_DPO` finds `ln-dpo`)."""

    def __init__(self, classes: Iterable[type[Objective]] = BUILT_IN) -> None:
        self._classes: dict[str, type[Objective]] = {}
        self.register(*classes)

    def names(self) -> list[str]:
        """The names, in order of registration."""
        return list(self._classes)

    def objective_class(self, name: str) -> type[Objective]:
        """The class of that name. Raises OptionError naming the nearest one."""
        spelling = _spelling(name)
        if spelling not in self._classes:
            raise OptionError(f"unknown objective {name!r}{did_you_mean(spelling, self._classes)}")
        return self._classes[spelling]

    def make(self, name: str, options: Mapping[str, Any] = {}) -> Objective:
        """An objective with these options. Raises OptionError for an unknown name or option or a value out of range."""
        cls = self.objective_class(name)
        return build(cls, options, what=f"objective {cls.name}")

    def register(self, *classes: type[Objective]) -> None:
        """Add classes, all or none. A file loaded again replaces its own; any other name clash is an OptionError."""
        added: dict[str, type[Objective]] = {}
        for cls in classes:
            name = _spelling(cls.name)
            known = added.get(name) or self._classes.get(name)
            if known is not None and (name in added or known.__module__ != cls.__module__):
                raise OptionError(
                    f"{_origin(cls)}: objective {cls.__name__} has the name {cls.name!r}, which {known.__name__} in "
                    f"{_origin(known)} has too; give it a name of its own"
                )
            added[name] = cls
        self._classes.update(added)

    def load_file(self, path: str | Path) -> list[type[Objective]]:
        """Import a user's Python file and register the objectives defined in it; see `load_objective_file`."""
        classes = _objectives_in(_import(Path(path)), path)
        self.register(*classes)
        return classes


_DEFAULT = Registry()


def objective_names(registry: Registry = _DEFAULT) -> list[str]:
    """The names of all objectives."""
    return registry.names()


def objective_class(name: str, registry: Registry = _DEFAULT) -> type[Objective]:
    """The objective class of that name. Raises OptionError naming the nearest one."""
    return registry.objective_class(name)


def make(name: str, options: Mapping[str, Any] = {}, registry: Registry = _DEFAULT) -> Objective:
    """An objective from its name and options (numbers may be text). Raises OptionError that names what is wrong."""
    return registry.make(name, options)


def load_objective_file(path: str | Path, registry: Registry = _DEFAULT) -> list[type[Objective]]:
    """Import a user's Python file and register the objectives it defines, so that `make` finds them by their names.

    Loading the same file again replaces them. The file runs with the user's rights, like any Python import. Another
    process has to load it again. Raises OptionError (file:line where known) when the file is missing, does not run,
    defines no objective, or defines one that is not a frozen dataclass, has no name or loss, or takes a name in use.
    """
    return registry.load_file(path)


def _origin(cls: type) -> str:
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    return "paperworks" if cls.__module__.startswith("paperworks.") or file is None else str(file)


def _import(path: Path) -> ModuleType:
    if not path.is_file():
        raise OptionError(f"objective file {path}: no such file; give the path of a Python file")
    resolved = path.resolve()
    # dataclasses and type hints look their module up by name, so it has one, the same whenever this file is loaded
    name = f"objective_file_{hashlib.sha256(str(resolved).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(resolved))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(resolved)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        exec(compile(resolved.read_bytes(), str(resolved), "exec"), vars(module))
    except SyntaxError as error:
        _forget(name, before)
        raise OptionError(f"{path}:{error.lineno or 1}: not valid Python: {error.msg}") from None
    except (Exception, SystemExit) as error:
        _forget(name, before)
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(resolved)]
        where = f"{path}:{lines[-1]}" if lines else str(path)
        reason = str(error).splitlines()[0] if str(error) else "no message"
        raise OptionError(f"{where}: importing this objective file raised {type(error).__name__}: {reason}") from None
    return module


def _forget(name: str, before: ModuleType | None) -> None:
    if before is None:
        del sys.modules[name]
    else:
        sys.modules[name] = before


def _objectives_in(module: ModuleType, path: str | Path) -> list[type[Objective]]:
    defined = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Objective) and value.__module__ == module.__name__
    ]
    # a base class that others in the file build on, and that has no name of its own, is not an objective yet
    found = [cls for cls in dict.fromkeys(defined) if "name" in vars(cls) or not _has_children(cls, defined)]
    if not found:
        raise OptionError(
            f"{path}: no objective in this file; define a frozen dataclass that derives from PairObjective, "
            "FeedbackObjective or DemonstrationObjective"
        )
    for cls in found:
        _check(cls, path)
    return found


def _has_children(cls: type, classes: Iterable[type]) -> bool:
    return any(other is not cls and issubclass(other, cls) for other in classes)


def _check(cls: type[Objective], path: str | Path) -> None:
    where = f"{path}:{_line_of(cls)}: objective {cls.__name__}"
    parameters = vars(cls).get("__dataclass_params__")
    if parameters is None or not parameters.frozen:
        raise OptionError(f"{where} is not a frozen dataclass; put @dataclass(frozen=True) above it")
    if not isinstance(vars(cls).get("name"), str) or not _spelling(cls.name):
        raise OptionError(f'{where} has no name; add a line like: name: ClassVar[str] = "my-objective"')
    if cls.loss is Objective.loss and cls.terms is Objective.terms:
        raise OptionError(f"{where} has no loss; define loss(self, batch), which returns one value an item")


def _line_of(cls: type) -> int:
    try:
        return inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return 1
