"""Processes that do for the server what it does not load: short ones, whose answer is waited for. Jobs are `workers`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from paperworks.core.errors import RunError

_SECRETS = ("PAPERWORKS_TOKEN", "PAPERWORKS_SMTP_")  # what the server knows and its processes do not need


def environment() -> Mapping[str, str]:
    """This process's variables without what is secret."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_SECRETS)}


async def answer_of(*words: str, what: str, seconds: float, given: bytes = b"", folder: Path | None = None) -> bytes:
    """What `python -m WORDS` prints; `given` is its standard input, `folder` where it runs.

    Raises RunError with the last line of its errors where it fails; `what` begins the one for a process that takes too long.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *words,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=folder, env=environment(),
    )  # fmt: skip
    try:
        out, errors = await asyncio.wait_for(process.communicate(given), seconds)
    except TimeoutError:
        raise RunError(f"{what} took more than {seconds:.0f} s; try again when less is going on") from None
    finally:
        if process.returncode is None:  # too slow, or whoever asked has gone
            process.kill()
            await process.wait()
    if process.returncode:
        lines = errors.decode("utf-8", "replace").strip().splitlines() or [f"{what} failed and gave no reason"]
        said = next((line for line in reversed(lines) if line.startswith("paperworks: ")), lines[-1])
        raise RunError(said.removeprefix("paperworks: ").removeprefix("error: "))
    return out
