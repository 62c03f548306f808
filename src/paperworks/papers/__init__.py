"""One file a paper: what it is, how it is composed of the library's parts, its experiment. No mechanism lives here.

`experiment_of(slug)` is the way to a paper's experiment; a paper's file is imported only when it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from typing import TYPE_CHECKING

from paperworks.core.errors import OptionError, RunError, did_you_mean

if TYPE_CHECKING:
    from paperworks.experiment.definition import Experiment


def experiment_of(slug: str) -> Experiment:
    """The experiment of a paper: `EXPERIMENT` in `papers/<slug>.py` (hyphens as underscores), imported now.

    Raises OptionError for a slug that names no paper (nearest one named) and for a paper whose experiment this version
    does not have; RunError where a package that the paper needs is not installed.
    """
    module_name = f"{__name__}.{slug.replace('-', '_')}"
    # The pattern keeps dots and dunders away from the import system: only a paper's file can be meant.
    if not re.fullmatch(r"[a-z0-9]+([-_][a-z0-9]+)*", slug) or importlib.util.find_spec(module_name) is None:
        raise _not_here(slug)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "paperworks":
            raise
        raise RunError(f"{slug}: needs the package {error.name!r}, which is not installed; install it first") from error
    experiment: Experiment | None = getattr(module, "EXPERIMENT", None)
    if experiment is None:
        raise _not_here(slug)
    return experiment


def papers_here() -> list[str]:
    """The slugs of the papers that this version has a file for, sorted; none of the files is imported."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def _not_here(slug: str) -> OptionError:
    from paperworks.catalog import Catalog

    ready = papers_here()
    try:
        Catalog.open().card(slug)
    except OptionError as unknown:
        # A paper that can run is the likelier meaning where one is near.
        near = did_you_mean(slug.lower(), ready)
        return OptionError(f"no paper named {slug!r}{near}") if "did you mean" in near else unknown
    return OptionError(
        f"{slug}: its experiment is not in this version yet, only its card (`paperworks show {slug}`); "
        f"ready to run: {', '.join(ready)}"
    )
