"""The one family of errors that users see: one line that says what, where, what was expected and what to do.

The command line prints `str(error)` and exits with `error.exit_code`; nothing here carries a traceback to a user.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PaperworksError(Exception):
    """A mistake a user can mend. The message is one line."""

    exit_code = 2


class OptionError(PaperworksError):
    """An option, objective, paper or column that does not exist, or a value out of its range."""


class DataError(PaperworksError):
    """Rows that cannot be used. The message begins with `file:line:` where there is one.

    Parameters: what (the sentence), file, line (1-based) and field, each where known.
    """

    def __init__(self, what: str, *, file: object = None, line: int | None = None, field: str | None = None) -> None:
        where = "" if file is None else f"{file}:{line}: " if line is not None else f"{file}: "
        super().__init__(f"{where}{f'field {field!r}: ' if field else ''}{what}")
        self.file, self.line, self.field = file, line, field


class ModelError(PaperworksError):
    """A model or tokenizer that cannot be loaded, is damaged, or cannot do what was asked."""


class RewardError(PaperworksError):
    """A reward function that is missing, raises, or returns something other than one finite number a response."""


class RunError(PaperworksError):
    """A run folder that exists already, is missing, is damaged, or was made with other settings."""


class TrainingDiverged(PaperworksError):
    """The loss or a gradient became NaN or infinite; the last good checkpoint is kept."""

    exit_code = 3


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of what another library says, at most `most` characters of it; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip()[:most]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The hint for a misspelt name: ` (did you mean 'rdpo'?)`, or every known name where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if near:
        return f" (did you mean {near[0]!r}?)"
    return f" (known: {', '.join(names)})"
