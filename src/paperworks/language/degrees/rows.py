"""Training rows with graded versions of their responses: built ones, or those that the rows bring.

A row's field `degrees` then holds the versions to score beside its responses; the responses themselves are degree 0 and
stay where they are. With several graded responses a row, the versions of response number s have count * s added to their
degree, so that one field tells them apart; `unpacked` takes that back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paperworks.core.errors import DataError
from paperworks.language.data.schemas import Feedback, Graded, Text
from paperworks.language.degrees.ladder import Ladder, LadderStatistics, build_ladders
from paperworks.language.degrees.options import DegreeOptions
from paperworks.language.degrees.rake import Extractor

Sampler = Callable[[Sequence[Text]], list[str]]


@dataclass(frozen=True)
class GradedRows:
    """Rows with versions, the ladders they come from, and what building came to (None where every row brought its own)."""

    rows: list[Any]
    ladders: list[tuple[Text, str, Ladder]]  # prompt, role of the response graded, its ladder
    statistics: LadderStatistics | None
    given: int  # rows that brought their own degrees


def graded_roles(row_type: type, options: DegreeOptions) -> tuple[str, ...]:
    """The roles of the responses that are graded and scored anyway; none with source=sampled."""
    if options.source == "sampled":
        return ()
    if issubclass(row_type, Feedback):
        return ("response",)
    return ("chosen", "rejected") if options.source == "both" else ("chosen",)


def unpacked(packed: int, options: DegreeOptions) -> tuple[int, int]:
    """(number of the graded response in its row, degree) of what `grade_rows` wrote as a degree."""
    return divmod(packed, options.count)


def grade_rows(
    rows: Sequence[Any],
    options: DegreeOptions,
    *,
    extractor: Extractor | None = None,
    sampler: Sampler | None = None,
    enough: bool = True,
) -> GradedRows:
    """Give every row that allows it versions to score; the others keep none.

    `sampler`: a response to each prompt, for source=sampled. Raises DataError (file:line) for degrees outside
    0..count-1 and for graded responses that are not plain text; with `enough` also where fewer than a tenth of the
    responses have enough key phrases.
    """
    built_for = [(at, role, text) for at, role, text in _responses(rows, options, sampler)]
    made = build_ladders([text for _, _, text in built_for], options.ladder, extractor=extractor)
    if enough and built_for:
        made.require_enough(options.ladder)
    versions: list[list[Graded]] = [[] for _ in rows]
    ladders: list[tuple[Text, str, Ladder]] = []
    for (at, role, _), ladder in zip(built_for, made.ladders, strict=True):
        if ladder is None:
            continue
        ladders.append((rows[at].prompt, role, ladder))
        # The response itself is scored in its own role, but for a sample, which has none.
        kept = ladder.versions if role == "sampled" else ladder.versions[1:]
        number = 1 if role == "rejected" else 0
        versions[at] += [Graded(version.text, version.degree + options.count * number) for version in kept]
    given = 0
    for at, row in enumerate(rows):
        if row.degrees:
            given += 1
            own = _own_degrees(row, options)
            ladders.append((row.prompt, _main_role(row), Ladder(own, tuple(() for _ in own))))
            versions[at] = list(own if options.source == "sampled" else own[1:])
    out = [replace(row, degrees=tuple(of_row)) for row, of_row in zip(rows, versions, strict=True)]
    return GradedRows(out, ladders, made.statistics if built_for else None, given)


def _responses(rows: Sequence[Any], options: DegreeOptions, sampler: Sampler | None) -> list[tuple[int, str, str]]:
    """(row, role, text) of every response to build a ladder for."""
    open_rows = [at for at, row in enumerate(rows) if not row.degrees]
    if options.source == "sampled":
        assert sampler is not None, "source=sampled takes a sampler"
        return [(at, "sampled", text) for at, text in zip(open_rows, sampler([rows[at].prompt for at in open_rows]))]
    found = []
    for at in open_rows:
        row = rows[at]
        if options.source == "chosen" and not getattr(row, "desirable", True):
            continue
        for role in graded_roles(type(row), options):
            text = getattr(row, role)
            if not isinstance(text, str):
                raise _bad_row(row, role, "graded responses are plain text; found messages of several turns")
            found.append((at, role, text))
    return found


def _own_degrees(row: Any, options: DegreeOptions) -> tuple[Graded, ...]:
    """The row's own versions by degree, the response itself first."""
    for version in row.degrees:
        if not 0 <= version.degree < options.count:
            raise _bad_row(
                row,
                "degrees",
                f"expected degrees from 0 to {options.count - 1} (degree count {options.count}), found {version.degree}; "
                "0 is the response itself",
            )
    response = getattr(row, _main_role(row))
    if not isinstance(response, str):
        raise _bad_row(row, _main_role(row), "graded responses are plain text; found messages of several turns")
    others = [version for version in row.degrees if version != Graded(response, 0)]
    return (Graded(response, 0), *sorted(others, key=lambda version: version.degree))


def _main_role(row: Any) -> str:
    return "response" if isinstance(row, Feedback) else "chosen"


def _bad_row(row: Any, field: str, what: str) -> DataError:
    return DataError(what, file=row.where.file or None, line=row.where.line or None, field=field)
