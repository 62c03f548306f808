"""Which files a request may name: those under the folders the server was started with, links followed before the check.

Every text that a form or the API hands to a command goes through `checked_text`, because many options take a name or a
path. Nothing here opens a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from paperworks.core.errors import OptionError

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_CODE = re.compile(r"^(?P<path>.+\.py)(?P<rest>:\w+)?$")


class Folders:
    """The folders that may be read, resolved once; jobs run in the first."""

    def __init__(self, roots: Iterable[Path], uploads: Path) -> None:
        self._roots = tuple(root.resolve() for root in roots)
        self._uploads = uploads.resolve()

    @property
    def roots(self) -> tuple[Path, ...]:
        return self._roots

    @property
    def uploads(self) -> Path:
        return self._uploads

    def resolve(self, text: str) -> Path:
        """The real path that a text names, below one of the folders.

        Raises OptionError for any other, whether or not it exists: an answer must not tell what lies outside.
        """
        if "\0" in text:
            raise OptionError("a path with a NUL letter in it is none")
        given = Path(text).expanduser() if text.startswith("~/") else Path(text)
        candidates = [given] if given.is_absolute() else [root / given for root in (*self._roots, self._uploads)]
        allowed = [path for path in map(_real, candidates) if path is not None and self._is_inside(path)]
        existing = [path for path in allowed if path.exists()]
        if existing:
            return existing[0]
        if allowed and not given.is_absolute():
            raise OptionError(f"{text}: no such file under the folders of this server ({self._named()})")
        if allowed:
            raise OptionError(f"{text}: no such file")
        raise OptionError(f"{text}: not under the folders of this server ({self._named()}); start it with --folder DIR")

    def checked_text(self, text: str, *, is_path: bool, may_be_code: bool = False) -> str:
        """A value of an option as the command may have it: paths resolved, names of the Hub as they are.

        Raises OptionError for a path outside the folders, and for a Python file unless `may_be_code`.
        """
        if any(ord(letter) < 32 and letter not in "\t\n" for letter in text) or "\x7f" in text:
            raise OptionError("a value holds control characters; type it without them")
        code = _CODE.match(text)
        if code:
            if not may_be_code:
                raise OptionError(f"{text}: this option takes no Python file here")
            path = self.resolve(code["path"])
            if path.is_relative_to(self._uploads):
                raise OptionError(f"{text}: an uploaded file is never run as a program")
            return f"{path}{code['rest'] or ''}"
        leads_elsewhere = text.startswith(("/", "~")) or ".." in text.split("/")
        if leads_elsewhere or self._is_in_runs(text) or (is_path and not _HUB_NAME.fullmatch(text)):
            return str(self.resolve(text))
        if is_path:  # a file under the folders, else a name of the Hub: jobs run where no other file has that name
            try:
                return str(self.resolve(text))
            except OptionError:
                return text
        return text

    def _is_in_runs(self, text: str) -> bool:
        """Whether a job, which runs in the first folder, would find a file of that name there: a link may lead out of it."""
        try:
            return (self._roots[0] / text).exists()
        except (OSError, ValueError):
            return False

    def _is_inside(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in (*self._roots, self._uploads))

    def _named(self) -> str:
        return ", ".join(str(root) for root in self._roots) or "none"


def _real(path: Path) -> Path | None:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links, a name too long
        return None
