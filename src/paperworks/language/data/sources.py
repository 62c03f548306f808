"""Where records come from: files of lines, lists, tables and columns, gzipped or not, and standard input.

A source gives (line, record) pairs one after another, a record being an object as the file has it, or a BadRow where
one line is damaged. Damage that ends a file (a gzip cut short, a broken list) raises DataError. Nothing here knows
schemas.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from paperworks.core.errors import DataError, OptionError, first_line
from paperworks.language.data.problems import BadRow, shown

BinaryFile = IO[bytes] | gzip.GzipFile
Records = Iterator[tuple[int, dict[str, Any] | BadRow]]

_LARGEST_CELL = 64 * 2**20  # bytes; the csv module's own limit of 128 KiB is too small for long conversations
_GZIP_MAGIC, _PARQUET_MAGIC, _ZIP_MAGIC = b"\x1f\x8b", b"PAR1", b"PK\x03\x04"


@dataclass
class Source:
    """An opened source: its name for messages, its records, and its columns where every record has the same.

    A context manager: leaving it closes the file.
    """

    name: str
    records: Records
    columns: tuple[str, ...] | None = None
    file: BinaryFile | None = None

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()


def open_source(source: str | Path, split: str | None = None) -> Source:
    """Opens a file, `-` (JSON lines on standard input), a folder or a Hugging Face data set by its id.

    Raises DataError for a missing or damaged source, OptionError for a split of something that has none.
    """
    if str(source) == "-":
        _refuse_split(split, "standard input")
        return Source("<stdin>", _json_lines("<stdin>", _guarded("<stdin>", sys.stdin.buffer)))
    path = Path(source).expanduser()
    try:
        is_folder, is_file = path.is_dir(), path.exists()
    except (OSError, ValueError):  # a name too long or with a NUL in it
        is_folder = is_file = False
    if is_file and not is_folder:
        _refuse_split(split, str(source))
        return _open_file(path)
    if is_folder or not _names_a_file(str(source)):
        from paperworks.language.data import hub

        return hub.open_folder(path, split) if is_folder else hub.open_hub(str(source), split)
    raise DataError("no such file; check the path, or give a Hugging Face data set id like owner/name", file=source)


def is_here(source: str) -> bool:
    """Whether a source is a file or folder, be it there or not: neither standard input nor a Hugging Face data set's id."""
    if source == "-":
        return False
    try:
        return _names_a_file(source) or Path(source).expanduser().exists()
    except (OSError, ValueError):  # a name too long or with a NUL in it
        return False


def open_binary(path: Path) -> BinaryFile:
    """A file's bytes, unpacked where its name ends in .gz. Raises DataError where name and content disagree."""
    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
        is_packed = path.suffix.lower() == ".gz"
        if is_packed and magic and not magic.startswith(_GZIP_MAGIC):
            raise DataError("the name ends in .gz but the content is not gzip; rename it without .gz", file=path)
        if not is_packed and magic.startswith(_GZIP_MAGIC):
            raise DataError(f"the content is gzip; rename it to {path.name}.gz", file=path)
        if magic == _ZIP_MAGIC:
            raise DataError("the content is a zip archive; unpack it and give a file in it", file=path)
        if magic == _PARQUET_MAGIC and path.suffix.lower() != ".parquet":
            raise DataError(f"the content is Parquet; rename it to {path.stem}.parquet", file=path)
        return gzip.open(path, "rb") if is_packed else path.open("rb")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", file=path) from None


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of a text file, line ends and a byte order mark left out.

    Bytes that are not UTF-8 come as lone surrogates (Python's `surrogateescape`), for the caller to refuse by row.
    """
    with open_binary(path) as stream:
        yield from _text_lines(str(path), _guarded(str(path), stream))


def _open_file(path: Path) -> Source:
    name = str(path)
    ending = _ending(path)
    if ending not in _OPENERS:
        raise DataError(
            f"cannot tell what it holds from the ending {ending or '(none)'!r}; expected "
            f"{', '.join(_OPENERS)}, each also with .gz",
            file=name,
        )
    stream = open_binary(path)
    try:
        opened = _OPENERS[ending](name, stream)
    except BaseException:
        stream.close()
        raise
    opened.file = stream
    return opened


def _open_json_lines(name: str, stream: BinaryFile) -> Source:
    return Source(name, _json_lines(name, _guarded(name, stream)))


def _open_json(name: str, stream: BinaryFile) -> Source:
    content = b"".join(_guarded(name, stream))
    _refuse_other_encodings(name, content[:4])
    content = content.removeprefix(codecs.BOM_UTF8)
    if content.lstrip()[:1] == b"[":
        return Source(name, _json_list(name, content))
    if b"\n" in content.strip() and _is_json(content):
        raise DataError("one JSON value over several lines; expected a list of objects", file=name, line=1)
    # Many published .json files hold JSON lines.
    return Source(name, _json_lines(name, iter(io.BytesIO(content))))


def _open_text(name: str, stream: BinaryFile) -> Source:
    lines = _text_lines(name, _guarded(name, stream))
    return Source(name, ((number, {"prompt": line}) for number, line in lines if line.strip()), ("prompt",))


def _open_table(separator: str) -> Callable[[str, BinaryFile], Source]:
    def open_table(name: str, stream: BinaryFile) -> Source:
        csv.field_size_limit(_LARGEST_CELL)
        lines = _text_lines(name, _guarded(name, stream), keep_ends=True)
        reader = csv.reader((line for _, line in lines), delimiter=separator, strict=True)
        header = _header(name, reader)
        return Source(name, _table_rows(name, reader, header), tuple(header))

    return open_table


def _open_parquet(name: str, stream: BinaryFile) -> Source:
    import pyarrow.parquet

    try:
        if isinstance(stream, gzip.GzipFile):
            stream = io.BytesIO(b"".join(_guarded(name, stream)))
        table = pyarrow.parquet.ParquetFile(stream)
        columns = tuple(table.schema_arrow.names)
    except DataError:
        raise
    except Exception as error:  # pyarrow raises errors of many families for damaged files
        raise DataError(f"not a Parquet file ({first_line(error)})", file=name) from None
    return Source(name, _parquet_rows(name, table), columns)


_OPENERS: dict[str, Callable[[str, BinaryFile], Source]] = {
    ".jsonl": _open_json_lines,
    ".ndjson": _open_json_lines,
    ".json": _open_json,
    ".csv": _open_table(","),
    ".tsv": _open_table("\t"),
    ".parquet": _open_parquet,
    ".txt": _open_text,
}


def _json_lines(name: str, lines: Iterator[bytes]) -> Records:
    for number, line in enumerate(lines, start=1):
        if number == 1:
            _refuse_other_encodings(name, line[:4])
            line = line.removeprefix(codecs.BOM_UTF8)
            if line.lstrip()[:1] == b"[":
                raise DataError("a JSON list; expected one object a line (rename it to .json)", file=name, line=1)
        if not line.strip():
            continue
        try:
            yield number, _as_record(json.loads(line.decode("utf-8")))
        except UnicodeDecodeError as error:
            found = f"found the byte 0x{line[error.start]:02x} at byte {error.start + 1} of the line"
            yield number, BadRow("not UTF-8", f"expected UTF-8; {found}")
        except json.JSONDecodeError as error:
            yield number, BadRow("not JSON", f"not JSON ({error.msg} at column {error.colno})")
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets thousands deep
            yield number, BadRow("not JSON", f"not usable JSON ({first_line(error)})")


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _json_list(name: str, content: bytes) -> Records:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"expected UTF-8; found the byte 0x{content[error.start]:02x}", file=name, line=line) from None
    decoder, space = json.JSONDecoder(), re.compile(r"[ \t\n\r]*")
    at, line = space.match(text, text.index("[") + 1).end(), 1  # type: ignore[union-attr]
    line += text.count("\n", 0, at)
    closed = text[at : at + 1] == "]"
    while not closed:
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise DataError(f"not JSON ({error.msg} at column {error.colno})", file=name, line=error.lineno) from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"not usable JSON ({first_line(error)})", file=name, line=line) from None
        yield line, _as_record(value)
        after = space.match(text, end).end()  # type: ignore[union-attr]
        mark = text[after : after + 1]
        if mark not in (",", "]") or not mark:
            line += text.count("\n", at, after)
            raise DataError("not JSON (expected ',' or ']' after an object)", file=name, line=line)
        closed = mark == "]"
        following = space.match(text, after + 1).end()  # type: ignore[union-attr]
        line += text.count("\n", at, following)
        at = following
    if not text[at:].lstrip("] \t\n\r") == "":
        raise DataError("not JSON (text after the end of the list)", file=name, line=line)


def _as_record(value: Any) -> dict[str, Any] | BadRow:
    if isinstance(value, dict):
        return value
    return BadRow("not an object", f"expected a JSON object; found {shown(value)}")


def _header(name: str, reader: Any) -> list[str]:
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise DataError(f"not a table ({error})", file=name, line=1) from None
    if not header or not any(cell.strip() for cell in header):
        raise DataError("expected a header line with the columns' names; found none", file=name, line=1)
    header = [cell.strip() for cell in header]
    if any("\ud800" <= character <= "\udfff" for cell in header for character in cell):
        raise DataError("the header is not UTF-8 text; save the table as UTF-8", file=name, line=1)
    double = next((cell for cell in header if cell and header.count(cell) > 1), None)
    if double is not None:
        raise DataError(f"the header names the column {double!a} twice", file=name, line=1)
    return header


def _table_rows(name: str, reader: Any, header: list[str]) -> Records:
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"not a table ({error}); check the quotes from here on", file=name, line=line) from None
        if cells is None:
            return
        if not cells:
            continue
        if len(cells) != len(header):
            yield line, BadRow("wrong number of cells", f"expected {len(header)} cells; found {len(cells)}")
        else:
            yield line, {column: cell for column, cell in zip(header, cells, strict=True) if column}


def _parquet_rows(name: str, table: Any) -> Records:
    number = 0
    try:
        for batch in table.iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                number += 1
                yield number, record
    except Exception as error:  # pyarrow raises errors of many families for damaged files
        raise DataError(f"damaged Parquet after record {number} ({first_line(error)})", file=name) from None


def _text_lines(name: str, lines: Iterator[bytes], keep_ends: bool = False) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, start=1):
        if number == 1:
            _refuse_other_encodings(name, line[:4])
            line = line.removeprefix(codecs.BOM_UTF8)
        text = line.decode("utf-8", errors="surrogateescape")
        yield number, text if keep_ends else text.rstrip("\r\n")


def _guarded(name: str, stream: BinaryFile) -> Iterator[bytes]:
    """The lines of a binary stream; a broken gzip or a failing disk becomes a DataError that says how far it got."""
    number = 0
    try:
        while line := stream.readline():
            number += 1
            yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        what = f"the gzip is damaged or cut short after line {number} ({first_line(error)})"
        raise DataError(f"{what}; download or copy it again", file=name) from None
    except OSError as error:
        raise DataError(f"cannot be read after line {number} ({error.strerror})", file=name) from None


def _refuse_other_encodings(name: str, start: bytes) -> None:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError("the text is UTF-16; save it as UTF-8", file=name, line=1)


def _refuse_split(split: str | None, what: str) -> None:
    if split is not None:
        raise OptionError(f"split {split!r}: {what} has no splits; only a folder or a Hugging Face data set has")


def _names_a_file(source: str) -> bool:
    ending = _ending(Path(source))
    return source.startswith(("/", "./", "../", "~")) or source.count("/") > 1 or ending in (*_OPENERS, ".gz")


def _ending(path: Path) -> str:
    inner = Path(path.stem) if path.suffix.lower() == ".gz" else path
    return inner.suffix.lower() or (".gz" if inner is not path else "")
