"""A browser, a server for it, and visits. Without Playwright or Chromium these tests are skipped and say what is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from serving import Server
from visiting import Visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARTEFACTS = Path(__file__).parents[2] / "test-artifacts"
NewVisit = Callable[..., Visit]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's own Chromium without a window. One a module: while it is there, this thread has a running event loop."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = os.environ.get("PAPERWORKS_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium: install it (apt-get install chromium), or name the program in PAPERWORKS_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def kept_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What servers make once and find again: the commands' options, figures, the tiny model."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, kept_cache: Path) -> Iterator[Server]:
    """A server for the tests of one module."""
    started = Server(tmp_path_factory.mktemp("server"), kept_cache)
    yield started
    started.stop()


@pytest.fixture
def visit(chromium: Browser, server: Server, request: pytest.FixtureRequest) -> Iterator[NewVisit]:
    """Opens windows on the server; each is checked when the test ends."""
    ARTEFACTS.mkdir(exist_ok=True)
    opened: list[Visit] = []
    name = f"{Path(str(request.path)).stem.removeprefix('test_browser_')}-{request.node.name.removeprefix('test_')}"

    def begin(**looks: Any) -> Visit:
        opened.append(Visit(chromium, server.address, ARTEFACTS, name, **looks))
        return opened[-1]

    yield begin
    for each in opened:
        each.leave()
