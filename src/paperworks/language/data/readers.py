"""Reading a source into checked rows: open it, tell its format, map its columns, check each row as it streams.

The steps live in sources, formats and values; here is their order, and what happens to bad rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from paperworks.core.errors import DataError, OptionError, did_you_mean
from paperworks.language.data import values
from paperworks.language.data.conversation import is_blank
from paperworks.language.data.conversions import FROM_PREFERENCES
from paperworks.language.data.dataset import Dataset, Report, mean_characters
from paperworks.language.data.formats import FORMATS, RECORD_FORMATS, check_format, detect
from paperworks.language.data.problems import BadRow, Tally, listed
from paperworks.language.data.schemas import SCHEMAS, Column, Preference, ScoredGroup, Where, columns_of, schema_of
from paperworks.language.data.scored_formats import as_group, looks_like_lol
from paperworks.language.data.sources import Source, open_source
from paperworks.language.data.task_formats import task_format

BadRows = Literal["error", "skip"]
Row = TypeVar("Row")

_LOOKED_AT = 20  # rows from which format and schema are told


@overload
def read(
    source: str | Path,
    schema: type[Row],
    *,
    format: str = ...,
    mapping: Mapping[str, str] | Iterable[str] | None = ...,
    split: str | None = ...,
    bad_rows: BadRows = ...,
    limit: int | None = ...,
) -> Dataset[Row]: ...
@overload
def read(
    source: str | Path,
    schema: str,
    *,
    format: str = ...,
    mapping: Mapping[str, str] | Iterable[str] | None = ...,
    split: str | None = ...,
    bad_rows: BadRows = ...,
    limit: int | None = ...,
) -> Dataset[Any]: ...
def read(
    source: str | Path,
    schema: str | type,
    *,
    format: str = "auto",
    mapping: Mapping[str, str] | Iterable[str] | None = None,
    split: str | None = None,
    bad_rows: BadRows = "error",
    limit: int | None = None,
) -> Dataset[Any]:
    """Reads rows of one schema from a file, standard input, a folder or a Hugging Face data set.

    Parameters:
      source: a path (.jsonl, .json, .csv, .tsv, .parquet, each also .gz; .txt holds one prompt a line), `-` for JSON
        lines on standard input, a folder, or `owner/name[:configuration]` on the hub.
      schema: `preference`, `feedback`, `demonstration`, `prompt`, or the row type. Feedback and demonstrations are made
        from preferences where the source holds those; the report says so.
      format: `plain`, `chat`, `hh`, `lol`, `gsm8k`, `humaneval`, `mbpp`, or `auto` to tell it from the first rows.
      mapping: which column holds a field, `{"prompt": "question"}` or `["prompt=question"]`; dots go into nested
        objects and, as numbers, into lists.
      split: the split of a folder or hub data set (`train` where it is not given).
      bad_rows: `error` raises for the first bad row after counting the others; `skip` leaves them out and counts them.
      limit: at most so many rows, the first ones; rows after them are not checked.

    Raises DataError (file, line, field, what was expected and found) for a source or rows that cannot be used, and
    where no row is left; OptionError for an unknown schema, format, split or mapped field.
    """
    schema_name, row_type = schema_of(schema)
    check_format(format)
    if bad_rows not in ("error", "skip"):
        raise OptionError(f"bad rows {bad_rows!r}: expected 'error' or 'skip'")
    if limit is not None and limit < 1:
        raise OptionError(f"limit {limit}: expected at least 1 row")
    pairs = parse_mapping(mapping or {})
    tally, noted = Tally(str(source)), Counter[str]()
    rows: list[Any] = []
    with open_source(source, split) as opened:
        tally.file = opened.name
        head = list(islice(opened.records, _LOOKED_AT))
        plan = _plan(opened, schema_name, row_type, format, pairs, head)
        for line, record in chain(head, opened.records):
            try:
                made = plan.rows(record, Where(opened.name, line))
            except BadRow as problem:
                tally.add(line, problem)
                if bad_rows == "error":
                    rows.clear()  # the outcome is an error; only counting goes on
                continue
            if tally.first is None or bad_rows == "skip":
                noted.update(_notes(made))
                rows.extend(made)
            if limit is not None and len(rows) >= limit:
                del rows[limit:]
                break
    if tally.first is not None and bad_rows == "error":
        raise tally.error()
    if not rows:
        raise _nothing_left(tally)
    report = Report(
        source=opened.name,
        schema=schema_name,
        format=plan.format,
        converted_from="preference" if plan.convert else "",
        read=len(rows),
        skipped=dict(tally.kinds),
        noted=dict(noted),
        mean_characters=mean_characters(rows),
    )
    return Dataset(tuple(rows), report)


def parse_mapping(mapping: Mapping[str, str] | Iterable[str]) -> dict[str, str]:
    """`{"prompt": "question"}`, from itself or from `["prompt=question"]`. Raises OptionError for an unknown field."""
    if isinstance(mapping, Mapping):
        pairs = dict(mapping)
    else:
        pairs = {}
        for item in [mapping] if isinstance(mapping, str) else mapping:
            field, equals, name = item.partition("=")
            if not equals or not field.strip() or not name.strip():
                raise OptionError(f"--map {item!r}: expected FIELD=COLUMN, for example prompt=question")
            if field.strip() in pairs:
                raise OptionError(f"--map names the field {field.strip()!r} twice")
            pairs[field.strip()] = name.strip()
    known = {column.name for row_type in SCHEMAS.values() for column in columns_of(row_type) if column.kind != "rest"}
    known.add("messages")
    for field in pairs:
        if field not in known:
            raise OptionError(f"--map {field}={pairs[field]}: unknown field {field!r}{did_you_mean(field, known)}")
    return pairs


@dataclass(frozen=True)
class _Plan:
    """How the records of one source become rows."""

    row_type: type
    format: str
    mapping: dict[str, str]
    convert: str  # the schema to make from preferences, or ""

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """What a row is made of."""
        return columns_of(self.row_type)

    @cached_property
    def looked_up(self) -> tuple[Column, ...]:
        """What a record is searched for: chat and hh find the prompt of a pair by comparing its sides."""
        plain = self.format == "plain" or self.format in RECORD_FORMATS
        return self.columns if plain else _united(self.columns, columns_of(Preference)[:3])

    def rows(self, record: dict[str, Any] | BadRow, where: Where) -> list[Any]:
        """The rows of one record: one, those it holds, or those it converts to. Raises BadRow."""
        if isinstance(record, BadRow):
            raise record
        if self.format in RECORD_FORMATS:
            found = RECORD_FORMATS[self.format](record)
            if self.format == "lol" and self.row_type is ScoredGroup:
                found = [as_group(found)]
            return [row for each in found for row in self._rows(each, where)]
        return self._rows(record, where)

    def _rows(self, record: dict[str, Any], where: Where) -> list[Any]:
        laid_out = FORMATS[self.format](_named(record, self.looked_up, self.mapping))
        contents = {}
        for column in self.columns:
            if column.kind == "rest":
                contents[column.name] = values.rest(record)
                continue
            value = laid_out.get(column.name)
            if column.name in laid_out and (value != "" or column.kind == "text"):
                contents[column.name] = values.READ[column.kind](value, column.name)
            elif column.required:
                raise self._missing(column, record)
        row = self.row_type(**contents, where=where)
        if hasattr(row, "check"):
            row.check()
        return FROM_PREFERENCES[self.convert]([row]) if self.convert else [row]

    def _missing(self, column: Column, record: dict[str, Any]) -> BadRow:
        name = self.mapping.get(column.name)
        if name is not None:
            what = f"missing: there is no value at {name!a}, which --map gives for it"
            return BadRow("missing field", f"{what}; {_has(record)}", column.name)
        if any(record.get(key, 0) in (None, "") for key in (column.name, *column.aliases)):
            return BadRow("empty field", "empty; expected a value", column.name)
        hint = f"say which holds it: --map {column.name}=NAME"
        return BadRow("missing field", f"missing; {_has(record)} ({hint})", column.name)


def _plan(
    source: Source,
    schema_name: str,
    row_type: type,
    format: str,
    mapping: dict[str, str],
    head: list[tuple[int, dict[str, Any] | BadRow]],
) -> _Plan:
    known = _united(columns_of(row_type), columns_of(Preference))
    samples = [_named(record, known, mapping) for _, record in head if isinstance(record, dict)]
    convert = schema_name if schema_name in FROM_PREFERENCES and _holds_preferences(samples) else ""
    if format == "auto":
        raw = [record for _, record in head if isinstance(record, dict)]
        task = task_format(raw[0]) if raw and not mapping and schema_name in ("prompt", "demonstration") else None
        format = "lol" if any(map(looks_like_lol, raw)) else task or detect(samples)
    plan = _Plan(Preference if convert else row_type, format, mapping, convert)
    if source.columns is not None and plan.format == "plain":
        _require_columns(source.name, source.columns, plan)
    return plan


def _named(record: Mapping[str, Any], columns: Iterable[Column], mapping: Mapping[str, str]) -> dict[str, Any]:
    """The record's values under the schema's names; null is a value that was not given."""
    names = {column.name: (column.name, *column.aliases) for column in columns} | {"messages": ("messages",)}
    named = {}
    for field, keys in names.items():
        if field in mapping:
            value = _follow(record, mapping[field])
        else:
            value = next((record[key] for key in keys if record.get(key) is not None), None)
        if value is not None:
            named[field] = value
    return named


def _follow(record: Any, path: str) -> Any:
    """The value at a dotted path; a key that itself has dots is found first. None where there is nothing."""
    if isinstance(record, Mapping) and path in record:
        return record[path]
    head, _, rest = path.partition(".")
    if isinstance(record, Mapping) and head in record:
        inner = record[head]
    elif isinstance(record, list) and head.isdecimal() and len(head) < 10 and int(head) < len(record):
        inner = record[int(head)]
    else:
        return None
    return _follow(inner, rest) if rest else inner


def _holds_preferences(samples: Iterable[Mapping[str, Any]]) -> bool:
    """Does the first telling row have a chosen and a rejected response, and none of the wanted schema's own fields?"""
    for sample in samples:
        if "response" in sample or "desirable" in sample:
            return False
        if "chosen" in sample and "rejected" in sample:
            return True
    return False


def _require_columns(file: str, present: tuple[str, ...], plan: _Plan) -> None:
    """Says once for the whole table what every row would say. Raises DataError."""
    for column in plan.columns:
        name = plan.mapping.get(column.name)
        names = (column.name, *column.aliases) if name is None else (name, name.partition(".")[0])
        if column.required and not set(names) & set(present):
            what = f"no such column{'' if name is None else f' {name!a}'}"
            columns = ", ".join(ascii(column)[1:-1] for column in present[:20])
            hint = f"say which holds it: --map {column.name}=COLUMN"
            raise DataError(f"{what}; the columns are {columns} ({hint})", file=file, line=1, field=column.name)


def _united(*groups: Iterable[Column]) -> tuple[Column, ...]:
    """Columns of several schemas, the first of a name kept."""
    united: dict[str, Column] = {}
    for column in chain(*groups):
        united.setdefault(column.name, column)
    return tuple(united.values())


def _has(record: Mapping[str, Any]) -> str:
    keys = [ascii(key)[1:-1][:40] for key in list(record)[:12]]
    return f"the row has {', '.join(keys)}{', …' if len(record) > 12 else ''}" if keys else "the row has no fields"


def _notes(rows: Iterable[Any]) -> Iterator[str]:
    """Things about rows that are kept which a reader may want to know."""
    for row in rows:
        for column in columns_of(type(row)):
            value = getattr(row, column.name)
            if column.kind != "text" or column.name == "prompt" or not (column.required or value):
                continue
            if is_blank(value):
                yield f"empty {column.name}"
            elif isinstance(value, tuple):
                yield f"{column.name} of several turns"


def _nothing_left(tally: Tally) -> DataError:
    if tally.first is None:
        return DataError("0 rows; expected at least one", file=tally.file)
    first = tally.error()
    return DataError(
        f"0 rows left, all {sum(tally.kinds.values())} skipped ({listed(tally.kinds)}); the first, at line "
        f"{tally.first_line}: {first.field or 'row'}: {tally.first.what}",
        file=tally.file,
    )
