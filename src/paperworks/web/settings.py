"""What a server is started with: where it listens, which folders it may read, how many jobs run at once."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from paperworks.core.errors import OptionError
from paperworks.core.options import option

DEFAULT_PORT = 8765


@dataclass(frozen=True)
class ServeOptions:
    """The options of `paperworks serve`."""

    host: str = option("127.0.0.1", "the address to listen on; another than this machine's own demands a token")
    port: int = option(DEFAULT_PORT, "the port; 0 takes a free one", low=0, high=65535)
    folder: tuple[Path, ...] = option((), "folders whose data and models jobs may use (besides runs and uploads)")
    runs: Path = option(Path("runs"), "where the runs that are started here go")
    jobs: int = option(1, "jobs at once; the others wait for their turn", low=1)
    upload_mb: float = option(50.0, "the largest file that can be uploaded, in MB", above=0)
    public_url: str = option("", "the address under which others reach the page, for links in feeds and mails")


@dataclass(frozen=True)
class WebSettings:
    """Checked settings of one server. `token` is "" where none is needed; it appears in no representation."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    folders: tuple[Path, ...] = ()
    runs: Path = Path("runs")
    jobs: int = 1
    upload_bytes: int = 50_000_000
    public_url: str = ""
    token: str = field(default="", repr=False)
    works_queue: bool = True  # False: jobs are taken in but not started (tests; a second server beside one that works)

    @property
    def base_url(self) -> str:
        """Where the page is reached, without a slash at the end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, which no other machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked(options: ServeOptions, token: str) -> WebSettings:
    """The settings of a server. Raises OptionError for a folder that is not there and an address without scheme."""
    for folder in options.folder:
        if not folder.is_dir():
            raise OptionError(f"--folder: {folder} is not a folder; name one that exists")
    if options.public_url and not options.public_url.startswith(("http://", "https://")):
        raise OptionError(f"--public-url: expected http://… or https://…, got {options.public_url!r}")
    if not is_loopback(options.host) and not token:
        raise OptionError(f"--host {options.host}: other machines reach it, so it needs a token")
    runs = options.runs.expanduser().absolute()
    return WebSettings(
        host=options.host,
        port=options.port,
        folders=tuple(folder.resolve() for folder in options.folder),
        runs=runs,
        jobs=options.jobs,
        upload_bytes=int(options.upload_mb * 1e6),
        public_url=options.public_url,
        token=token,
    )
