"""What can be wrong with one row, and the tally of all bad rows of a source.

Readers go on after the first bad row, so that the one error a user sees also says how many more there are.
"""

from __future__ import annotations

from collections import Counter

from paperworks.core.errors import DataError


class BadRow(Exception):
    """One row that cannot be used. Never leaves the readers: it is counted, or becomes a `DataError`.

    Parameters: kind (a few words, the same for all rows with this fault), what (expected and found), field.
    """

    def __init__(self, kind: str, what: str, field: str | None = None) -> None:
        super().__init__(what)
        self.kind, self.what, self.field = kind, what, field


class Tally:
    """Bad rows of one source: the first in full, the others counted by kind."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.kinds: Counter[str] = Counter()
        self.first: BadRow | None = None
        self.first_line = 0

    def add(self, line: int, problem: BadRow) -> None:
        """Counts a bad row that starts at `line` (1-based; the record number where a source has no lines)."""
        if self.first is None:
            self.first, self.first_line = problem, line
        self.kinds[problem.kind] += 1

    def error(self) -> DataError:
        """The error for a source that must be free of bad rows."""
        assert self.first is not None
        others = self.kinds - Counter([self.first.kind])
        more = sum(others.values())
        kinds = f" ({listed(others)})" if set(others) - {self.first.kind} else " like it"
        tail = f"; {more} more bad row{'s' * (more != 1)}{kinds}" if more else ""
        hint = "mend it, or skip bad rows with --bad-rows skip"
        return DataError(
            f"{self.first.what}{tail}; {hint}", file=self.file, line=self.first_line, field=self.first.field
        )


def listed(kinds: Counter[str] | dict[str, int]) -> str:
    """`missing field: 3, identical pair: 1`, most frequent first."""
    return ", ".join(f"{kind}: {count}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def shown(value: object, limit: int = 40) -> str:
    """A value as an error message shows it: on one line, cut short, its type named unless it is a string."""
    text = ascii(value) if isinstance(value, str) else repr(value) if _is_small(value) else ""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if isinstance(value, str):
        return f"the string {text}" if value else "an empty string"
    if value is None:
        return "null"
    name = {"dict": "object", "bool": "boolean", "int": "number", "float": "number", "bytes": "bytes"}.get(
        type(value).__name__, type(value).__name__
    )
    return f"the {name} {text}" if text else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _is_small(value: object) -> bool:
    return isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 10**30)
