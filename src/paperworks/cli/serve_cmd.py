"""`paperworks serve`: the page, on this machine alone unless told otherwise."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import secrets
import socket
import sys
from typing import Any

from paperworks.core.errors import OptionError, RunError
from paperworks.core.options import add_dataclass_arguments, from_namespace
from paperworks.web.settings import ServeOptions, WebSettings, checked, is_loopback

HELP = "The page: search, read, run, compare and follow the papers in a browser. It listens on this machine alone."
INSTALL = 'the page needs more packages: pip install "paperworks[web]" (in a checkout: pip install -e ".[web]")'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataclass_arguments(parser, ServeOptions)


def run(args: argparse.Namespace) -> int:
    options = from_namespace(ServeOptions, args, what="serve")
    token = os.environ.get("PAPERWORKS_TOKEN", "")
    if not token and not is_loopback(options.host):
        token = secrets.token_urlsafe(24)
    if not options.public_url:  # mails sent by cron have their links from there too
        options = dataclasses.replace(options, public_url=os.environ.get("PAPERWORKS_BASE_URL", ""))
    settings = checked(options, token)
    try:
        import latex2mathml  # noqa: F401
        import multipart  # noqa: F401
        import uvicorn

        from paperworks.web.app import create_app
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("paperworks"):
            raise
        raise RunError(f"{INSTALL}; {error.name!r} is missing") from None
    listening = _listen(settings)
    settings = dataclasses.replace(settings, port=listening.getsockname()[1])
    app = create_app(settings)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            _announce(settings, is_new_token=not os.environ.get("PAPERWORKS_TOKEN"))  # from here on it answers

        def handle_exit(self, sig: int, frame: Any) -> None:
            app.state.rooms.streams.close()  # else the server would wait for browsers that follow a job
            super().handle_exit(sig, frame)

    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, proxy_headers=False)
    config.timeout_graceful_shutdown = 5
    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listening])
    print("\npaperworks: the page is closed; jobs that were running go on", file=sys.stderr)
    return 0


def _listen(settings: WebSettings) -> socket.socket:
    """The socket that takes requests; which port it has is known before the server begins."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise OptionError(
            f"--port: {settings.host}:{settings.port} cannot be had ({error.strerror}); choose another, or 0 for a free one"
        ) from None
    return listening


def _announce(settings: WebSettings, *, is_new_token: bool) -> None:
    print(f"page    {settings.base_url}")
    if settings.token and is_new_token:
        print(f"token   {settings.token}")
    elif settings.token:
        print("token   that of PAPERWORKS_TOKEN")
    print(f"runs    {settings.runs}")
    for folder in settings.folders:
        print(f"folder  {folder}")
    print("stop    Ctrl-C", flush=True)
