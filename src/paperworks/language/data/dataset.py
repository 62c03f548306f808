"""Rows in memory with what is known about them: the report, the fingerprint, the split by prompt.

Nothing here reads files or changes rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar, overload

from paperworks.core.errors import DataError, OptionError
from paperworks.language.data.conversation import characters
from paperworks.language.data.problems import listed
from paperworks.language.data.schemas import Text, columns_of

Row = TypeVar("Row")

LONGER_BY = 1.1
"""Chosen answers longer than the rejected by more than this ratio: length alone may explain a preference."""


@dataclass(frozen=True)
class Report:
    """What reading a source gave.

    `read` counts rows kept, `skipped` bad rows left out by kind, `noted` things kept that a reader may want to know;
    `mean_characters` is by field (of feedback: by desirable and undesirable responses).
    """

    source: str = ""
    schema: str = ""
    format: str = ""
    converted_from: str = ""
    read: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    noted: Mapping[str, int] = field(default_factory=dict)
    mean_characters: Mapping[str, float] = field(default_factory=dict)

    @property
    def length_ratio(self) -> float | None:
        """Mean characters chosen / rejected (desirable / undesirable); None where there is no such pair of means."""
        means = self.mean_characters
        for better, worse in (("chosen", "rejected"), ("desirable", "undesirable")):
            if means.get(worse, 0) > 0 and better in means:
                return means[better] / means[worse]
        return None

    @property
    def warnings(self) -> list[str]:
        """One line for each thing about the data that can mislead training."""
        ratio = self.length_ratio
        if ratio is None or ratio <= LONGER_BY:
            return []
        better, worse = ("chosen", "rejected") if "chosen" in self.mean_characters else ("desirable", "undesirable")
        return [
            f"{better} responses are {ratio:.2f} times as long as {worse} ones: a policy may learn length; "
            "report lengths, and consider a length-normalised objective"
        ]

    def lines(self) -> list[str]:
        """The report as a few lines of text, warnings last."""
        converted = f", converted from {self.converted_from}" if self.converted_from else ""
        lines = [f"{self.source}: {self.read} {self.schema} rows (format {self.format}{converted})"]
        if self.skipped:
            lines.append(f"skipped {sum(self.skipped.values())}: {listed(dict(self.skipped))}")
        if self.noted:
            lines.append(f"noted {listed(dict(self.noted))}")
        if self.mean_characters:
            means = ", ".join(f"{name} {mean:.0f}" for name, mean in self.mean_characters.items())
            lines.append(f"mean characters: {means}")
        return lines + [f"warning: {warning}" for warning in self.warnings]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values, with the length ratio and the warnings."""
        return {**dataclasses.asdict(self), "length_ratio": self.length_ratio, "warnings": self.warnings}


@dataclass(frozen=True)
class Dataset(Generic[Row]):
    """Rows of one schema, in the order of their source."""

    rows: Sequence[Row]
    report: Report = Report()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        return self.rows[index]

    @property
    def skipped(self) -> int:
        """How many bad rows of the source were left out."""
        return sum(self.report.skipped.values())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the rows' contents in order (64 hex digits); where they came from does not matter."""
        return fingerprint(self.rows)

    def take(self, n: int) -> Dataset[Row]:
        """The first n rows (all, where there are fewer). Raises OptionError for n < 1."""
        if n < 1:
            raise OptionError(f"cannot take {n} rows; expected at least 1")
        return self.with_rows(self.rows[:n])

    def with_rows(self, rows: Sequence[Row]) -> Dataset[Row]:
        """A data set of other rows under the same report, its counts and means taken anew."""
        report = dataclasses.replace(self.report, read=len(rows), mean_characters=mean_characters(rows))
        return Dataset(tuple(rows), report)

    def split(self, held_out: float | int, seed: int = 0) -> tuple[Dataset[Row], Dataset[Row]]:
        """(training, held-out) rows; a prompt never stands on both sides.

        Parameters: held_out, a fraction in (0, 1) or a number of rows ≥ 1; seed. Which prompts are held out depends
        on the prompts and the seed alone, not on the order of the rows. Where rows share prompts, the held-out side
        may come out smaller than asked; it is larger only where every prompt alone has more rows than that.
        Raises OptionError for a held_out out of range, DataError where there are fewer than two prompts.
        """
        wanted = self._wanted(held_out)
        by_prompt: dict[str, list[int]] = {}
        rows: Sequence[Any] = self.rows
        for index, row in enumerate(rows):
            by_prompt.setdefault(_canonical(row.prompt), []).append(index)
        if len(by_prompt) < 2:
            raise DataError(
                f"all {len(self.rows)} rows have the same prompt; expected at least 2 prompts to split by",
                file=self.report.source or None,
            )
        order = sorted(by_prompt, key=lambda prompt: hashlib.sha256(f"{seed}\0{prompt}".encode()).digest())
        held: set[int] = set()
        for prompt in order[:-1]:
            if len(held) + len(by_prompt[prompt]) <= wanted:
                held.update(by_prompt[prompt])
        if not held:
            held.update(by_prompt[min(order, key=lambda prompt: len(by_prompt[prompt]))])
        return (
            self.with_rows([row for index, row in enumerate(self.rows) if index not in held]),
            self.with_rows([row for index, row in enumerate(self.rows) if index in held]),
        )

    def _wanted(self, held_out: float | int) -> int:
        if isinstance(held_out, float) and 0 < held_out < 1:
            return max(1, round(held_out * len(self.rows)))
        if float(held_out).is_integer() and 1 <= held_out < len(self.rows) and not isinstance(held_out, bool):
            return int(held_out)
        raise OptionError(
            f"cannot hold out {held_out} of {len(self.rows)} rows; expected a fraction between 0 and 1, "
            "or a number of rows that leaves at least one for training"
        )


def fingerprint(rows: Iterable[Any]) -> str:
    """SHA-256 over the contents of rows in order, as 64 hex digits."""
    digest = hashlib.sha256()
    for row in rows:
        contents = {column.name: getattr(row, column.name) for column in columns_of(type(row))}
        digest.update(_canonical([type(row).__name__, contents]).encode() + b"\n")
    return digest.hexdigest()


def mean_characters(rows: Sequence[Any]) -> dict[str, float]:
    """The mean length of each text in characters, by field; responses of feedback by desirable and undesirable."""
    total: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for row in rows:
        for name, text in _texts(row):
            total[name] += characters(text)
            count[name] += 1
    return {name: total[name] / count[name] for name in count}


def _texts(row: Any) -> Iterator[tuple[str, Text]]:
    for column in columns_of(type(row)):
        if column.kind == "text":
            name = column.name
            if name == "response" and hasattr(row, "desirable"):
                name = "desirable" if row.desirable else "undesirable"
            yield name, getattr(row, column.name)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
