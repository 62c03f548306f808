"""One value of a row, checked and turned into what its field holds.

Every function takes what a file gave (JSON values, or strings from a table's cells) and raises BadRow for what cannot
be used. Nothing here knows files or formats.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from paperworks.core.files import json_value
from paperworks.language.data.conversation import is_blank
from paperworks.language.data.problems import BadRow, shown
from paperworks.language.data.schemas import Graded, Kind, Text


def text(value: object, field: str) -> Text:
    """A string, or messages that a format has made. Empty ones are the format's business."""
    if isinstance(value, str):
        return _encodable(value, field)
    if isinstance(value, tuple):
        for message in value:
            _encodable(message["role"], field)
            _encodable(message["content"], field)
        return value
    raise BadRow("wrong type", f"expected a string; found {shown(value)}", field)


def filled_text(value: object, field: str) -> Text:
    """A text that is more than white space."""
    checked = text(value, field)
    if is_blank(checked):
        found = shown(checked) if isinstance(checked, str) else "messages without content"
        raise BadRow("empty field", f"expected text; found {found}", field)
    return checked


def texts(value: object, field: str) -> tuple[str, ...]:
    """A string or a list of strings, as a tuple."""
    items = [value] if isinstance(value, str) else _listed(value, field, "a string or a list of strings")
    for item in items:
        if not isinstance(item, str):
            raise BadRow("wrong type", f"expected a list of strings; one of them is {shown(item)}", field)
        _encodable(item, field)
    return tuple(items)


def weight(value: object, field: str) -> float:
    """A finite number ≥ 0."""
    found = _as_number(value)
    if not found >= 0:  # so written that NaN fails too
        raise BadRow("bad weight", f"expected a finite number ≥ 0; found {shown(value)}", field)
    return found


def number(value: object, field: str) -> float:
    """A finite number."""
    found = _as_number(value)
    if math.isnan(found):
        raise BadRow("bad number", f"expected a finite number; found {shown(value)}", field)
    return found


def numbers(value: object, field: str) -> dict[str, float]:
    """Finite numbers by name; a table's cell holds them as a JSON object."""
    found = _from_json(value, field, "numbers by name, as {name: number}")
    if not isinstance(found, Mapping) or not found:
        raise BadRow("wrong type", f"expected numbers by name, as {{name: number}}; found {shown(value)}", field)
    return {str(name): number(each, f"{field}.{name}") for name, each in found.items()}


def scores(value: object, field: str) -> tuple[float, ...]:
    """A list of finite numbers; a table's cell holds it as JSON."""
    expected = "a list of finite numbers"
    found = tuple(map(_as_number, _listed(_from_json(value, field, expected), field, expected)))
    for number, each in enumerate(found, start=1):
        if math.isnan(each):
            raise BadRow("bad number", f"expected finite numbers; number {number} is not one ({shown(value)})", field)
    return found


def graded(value: object, field: str) -> tuple[Graded, ...]:
    """A list of {text, degree}, degrees whole numbers from 0 on."""
    expected = "a list of {text, degree}, degree a whole number ≥ 0"
    out = []
    for item in _listed(_from_json(value, field, expected), field, expected):
        version, degree = (item.get("text"), item.get("degree")) if isinstance(item, Mapping) else (None, None)
        if not isinstance(version, str) or not isinstance(degree, int) or isinstance(degree, bool) or degree < 0:
            raise BadRow("wrong type", f"expected {expected}; one of them is {shown(item)}", field)
        out.append(Graded(_encodable(version, field), degree))
    return tuple(out)


def boolean(value: object, field: str) -> bool:
    """true or false, 1 or 0, or either as a string."""
    word = value.strip().lower() if isinstance(value, str) else value
    if isinstance(word, str | bool | int | float):
        if word in (True, "true", "1", "1.0"):
            return True
        if word in (False, "false", "0", "0.0"):
            return False
    raise BadRow("wrong type", f"expected true/false or 1/0; found {shown(value)}", field)


def labels(value: object, field: str) -> tuple[int, ...]:
    """A list of 0/1 or of -1/1, one an annotator, as 0/1; a table's cell holds it as JSON."""
    expected = "a list of 0 and 1, or of -1 and 1, one an annotator"
    items = _listed(_from_json(value, field, expected), field, expected)
    for item in items:
        if not isinstance(item, bool | int | float) or item not in (-1, 0, 1):
            raise BadRow("wrong type", f"expected {expected}; one of them is {shown(item)}", field)
    if 0 in items and -1 in items:
        raise BadRow("wrong type", f"expected {expected}; found both 0 and -1", field)
    return tuple(int(item == 1) for item in items)


def rest(record: Mapping[str, Any]) -> dict[str, Any]:
    """Everything of a record but its prompt, as JSON values."""
    return {name: json_value(each) for name, each in record.items() if name not in ("prompt", "messages")}


READ: dict[Kind, Callable[[object, str], Any]] = {
    "text": text,
    "texts": texts,
    "weight": weight,
    "boolean": boolean,
    "labels": labels,
    "number": number,
    "numbers": numbers,
    "graded": graded,
    "scores": scores,
}


def _as_number(value: object) -> float:
    """The finite number a value holds; NaN where it holds none."""
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            found = float(value)
        except (ValueError, OverflowError):
            return math.nan
        return found if math.isfinite(found) else math.nan
    return math.nan


def _from_json(value: object, field: str, expected: str) -> object:
    """A value as it is, or parsed where a table's cell holds it as JSON."""
    if not isinstance(value, str):
        return value
    try:
        parsed: object = json.loads(value)
    except (ValueError, RecursionError):
        raise BadRow("wrong type", f"expected {expected}; found {shown(value)}", field) from None
    return parsed


def _listed(value: object, field: str, expected: str) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    raise BadRow("wrong type", f"expected {expected}; found {shown(value)}", field)


def _encodable(value: str, field: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        found = value[error.start]
        if "\udc80" <= found <= "\udcff":  # what surrogateescape makes of a byte that is not UTF-8
            raise BadRow("not UTF-8", f"expected UTF-8; found the byte 0x{ord(found) - 0xDC00:02x}", field) from None
        raise BadRow("not UTF-8", f"expected Unicode text; found half a surrogate pair, {found!a}", field) from None
    return value
