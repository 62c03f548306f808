"""Every test has a paperworks home of its own; torch uses one thread; nothing reaches a network."""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["NO_COLOR"] = "1"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background; programs started here would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

TESTBEDS = ("testbeds.exact", "testbeds.log_linear", "testbeds.newton", "testbeds.coverage_bandit")

# Shapes and types are checked at every call of the modules where a wrong shape would go unseen. Not everywhere: where
# users' input arrives, our own error must come first.
CHECKED = ("logprobs", "sampling", "reference_scores", "items", "objectives.objective", *TESTBEDS)
CONTROL = (
    "discrete", "online.dqn", "testbeds.discrete_worlds", "testbeds.data_study", "testbeds.data_study_trial",
    "offline.a2pr", "offline.bcq", "offline.vae", "offline.prdc", "offline.td3", "offline.td3_bc",
    "offline.family", "offline.famo2o", "offline.balance_map", "testbeds.two_rooms", "testbeds.two_rooms_trial",
)  # fmt: skip
install_import_hook([f"paperworks.language.{module}" for module in CHECKED], "beartype.beartype")
install_import_hook([f"paperworks.control.{module}" for module in CONTROL], "beartype.beartype")


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("PAPERWORKS_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def own_objectives() -> Iterator[None]:
    """What a test registers with the shared registry of objectives is gone after it."""
    registry = sys.modules.get("paperworks.language.objectives.registry")
    kept = {} if registry is None else {name: copy.copy(value) for name, value in vars(registry._DEFAULT).items()}
    yield
    registry = sys.modules.get("paperworks.language.objectives.registry")
    if registry is not None:
        vars(registry._DEFAULT).update(kept or vars(registry.Registry()))


@pytest.fixture
def undrawn_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures without their drawing, for tests that write many reports and look at none; how they look is tested apart."""
    from paperworks.core import plots

    monkeypatch.setattr(plots, "_drawn", lambda draw, width, height, description: '<svg role="img"></svg>\n')
