"""One value of a row, checked and turned into what its field holds.

Every function takes what a file gave (JSON values, or strings from a table's cells) and raises BadRow for what cannot
be used. Nothing here knows files or formats.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from paperworks.language.data.conversation import is_blank
from paperworks.language.data.problems import BadRow, shown
from paperworks.language.data.schemas import Kind, Text


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
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number) or number < 0:
        raise BadRow("bad weight", f"expected a finite number ≥ 0; found {shown(value)}", field)
    return number


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
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRow("wrong type", f"expected {expected}; found {shown(value)}", field) from None
    items = _listed(value, field, expected)
    for item in items:
        if not isinstance(item, bool | int | float) or item not in (-1, 0, 1):
            raise BadRow("wrong type", f"expected {expected}; one of them is {shown(item)}", field)
    if 0 in items and -1 in items:
        raise BadRow("wrong type", f"expected {expected}; found both 0 and -1", field)
    return tuple(int(item == 1) for item in items)


READ: dict[Kind, Callable[[object, str], Any]] = {
    "text": text,
    "texts": texts,
    "weight": weight,
    "boolean": boolean,
    "labels": labels,
}


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
