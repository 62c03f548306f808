"""A server without a network: requests go straight into the application, under the name of this machine."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from following import PUBLIC, Postbox, smtp_server

from paperworks.web.app import create_app
from paperworks.web.descriptions import Descriptions
from paperworks.web.rooms import Rooms
from paperworks.web.settings import WebSettings

BASE = "http://127.0.0.1:8765"


@pytest.fixture
def settings(tmp_path: Path) -> WebSettings:
    """A server that takes jobs in and starts none; one folder besides that of its runs."""
    (tmp_path / "data").mkdir()
    return WebSettings(runs=tmp_path / "runs", folders=(tmp_path / "data",), works_queue=False)


@pytest.fixture
def client(settings: WebSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A browser that follows no redirects. No figure is drawn in the background."""
    monkeypatch.setattr("paperworks.web.app._prepare", _nothing)
    with TestClient(create_app(settings), base_url=BASE, follow_redirects=False) as browser:
        yield browser


@pytest.fixture
def shared(client: TestClient) -> Rooms:
    """What the server's routes share."""
    return client.app.state.rooms


@pytest.fixture
def csrf(client: TestClient) -> dict[str, str]:
    """The header that a change needs; the cookie is the client's."""
    return {"x-csrf-token": client.get("/api/session").json()["csrf"]}


@pytest.fixture
def post(client: TestClient, csrf: dict[str, str]) -> Callable[..., Any]:
    """Sends a form as this browser does."""
    return lambda path, **fields: client.post(path, data={"csrf": csrf["x-csrf-token"], **fields})


@pytest.fixture
def postbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Postbox]:
    """A mail server on loopback, named in the environment as a user names theirs; what it took is in the box."""
    with smtp_server() as box:
        settings = {
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": box.port,
            "SMTP_FROM": "papers@example.org",
            "BASE_URL": PUBLIC,
        }
        for name, value in settings.items():
            monkeypatch.setenv(f"PAPERWORKS_{name}", str(value))
        yield box


@pytest.fixture(scope="session")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands take, asked once for all tests of a process."""
    home = tmp_path_factory.mktemp("described")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAPERWORKS_HOME", str(home))
        asyncio.run(Descriptions().prepare())
    return home / "cache" / "web"


@pytest.fixture
def known_options(own_home: Path, described: Path) -> None:
    """A home in which the commands have said already what they take."""
    shutil.copytree(described, own_home / "cache" / "web")


async def _nothing(shared: Rooms) -> None:
    """In place of what a server prepares."""
