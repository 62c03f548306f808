"""Text and YAML values as the type that a field asks for, never truncated: what would lose something is an error."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from paperworks.core.errors import OptionError, did_you_mean

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def coerce(value: Any, annotation: Any, *, name: str) -> Any:
    """`value` as the type `annotation`: text from a command line or YAML becomes a number, truth value, list or None.

    Raises OptionError "NAME: expected …, got …" where that cannot be done without losing something.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return coerce(value, arguments[0], name=name)
    if origin in (typing.Union, types.UnionType):
        return _coerce_union(value, arguments, name)
    if origin is Literal:
        return _coerce_literal(value, arguments, name)
    if annotation in (tuple, list) or origin in (tuple, list, Sequence):
        return _coerce_sequence(value, annotation, name)
    if annotation is dict or origin in (dict, Mapping):
        return _coerce_mapping(value, arguments, name)
    if _is_options(annotation):
        if isinstance(value, annotation):
            return value
        if isinstance(value, Mapping):
            from paperworks.core.options import build  # build coerces, and a field may be a dataclass again

            return build(annotation, value, what=name)
        raise _wrong(name, "a mapping of options", value)
    if annotation in SCALARS:
        return SCALARS[annotation](value, name)
    if annotation is type(None):
        if value is None or (isinstance(value, str) and value.strip().lower() in ("none", "null")):
            return None
        raise _wrong(name, "'none'", value)
    return value


def type_text(annotation: Any) -> str:
    """The type in a user's words: "a whole number", "'auto' or a number"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_text(member) for member in arguments)
    if annotation in (tuple, list) or origin in (tuple, list, Sequence):
        return "values separated by commas"
    if _is_options(annotation):
        return "a mapping of options"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    return names.get(annotation, "'none'" if annotation is type(None) else str(annotation))


def _is_options(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def _wrong(name: str, expected: str, value: Any) -> OptionError:
    return OptionError(f"{name}: expected {expected}, got {value!r}")


def _coerce_union(value: Any, members: Sequence[Any], name: str) -> Any:
    # The narrow members first: "none" and "auto" must not be read as free text, nor "3" where a number may stand.
    order = {type(None): 0, int: 2, float: 3, bool: 4, Path: 6, str: 7}

    def rank(member: Any) -> int:
        origin: Any = typing.get_origin(member)
        return 1 if origin is Literal else order.get(member, 5)

    grouped = [member for member in members if _is_options(member)]
    if isinstance(value, Mapping) and len(grouped) == 1:
        return coerce(value, grouped[0], name=name)  # whose own error says which option is wrong
    for member in sorted(members, key=rank):
        try:
            return coerce(value, member, name=name)
        except OptionError:
            continue
    raise _wrong(name, " or ".join(type_text(member) for member in members), value)


def _coerce_literal(value: Any, choices: Sequence[Any], name: str) -> Any:
    for choice in choices:
        if (value == choice and type(value) is type(choice)) or (isinstance(value, str) and value == str(choice)):
            return choice
    raise OptionError(f"{name}: {value!r} is not one of the choices{did_you_mean(str(value), map(str, choices))}")


def _coerce_sequence(value: Any, annotation: Any, name: str) -> Any:
    kind: Any = list if annotation is list or typing.get_origin(annotation) is list else tuple
    arguments = typing.get_args(annotation)
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")] if value.strip() else []
    elif isinstance(value, (int, float)):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise _wrong(name, type_text(annotation), value)
    if kind is tuple and arguments and Ellipsis not in arguments:
        if len(value) != len(arguments):
            raise _wrong(name, f"{len(arguments)} values separated by commas", value)
        return tuple(coerce(item, member, name=name) for item, member in zip(value, arguments))
    return kind(coerce(item, arguments[0] if arguments else str, name=name) for item in value)


def _coerce_mapping(value: Any, arguments: Sequence[Any], name: str) -> dict[Any, Any]:
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(separator for _, separator, _ in pairs):
            raise _wrong(name, "name=value pairs separated by commas", value)
        value = {key.strip(): item.strip() for key, _, item in pairs}
    if not isinstance(value, Mapping):
        raise _wrong(name, "name=value pairs", value)
    return {key: coerce(item, arguments[1] if arguments else Any, name=f"{name}.{key}") for key, item in value.items()}


def _as_bool(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if isinstance(value, (str, int)) and word in _BOOLEANS:
        return _BOOLEANS[word]
    raise _wrong(name, "true or false", value)


def _as_int(value: Any, name: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return int(value)  # exact beyond 2**53, where the way through float is not
        except ValueError:
            pass
    if isinstance(value, (str, float)):
        try:
            number = float(value)
            if number.is_integer():
                return int(number)
        except (ValueError, OverflowError):
            pass
    raise _wrong(name, "a whole number", value)


def _as_float(value: Any, name: str) -> float:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
            if not math.isnan(number):
                return number
        except (ValueError, OverflowError):
            pass
    raise _wrong(name, "a number", value)


def _as_text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Path):
        return str(value)
    raise _wrong(name, "text (in YAML: in quotes)", value)


def _as_path(value: Any, name: str) -> Path:
    if isinstance(value, Path):
        return value
    if isinstance(value, str) and value:
        return Path(value).expanduser()
    raise _wrong(name, "a path", value)


SCALARS: Mapping[Any, Any] = {bool: _as_bool, int: _as_int, float: _as_float, str: _as_text, Path: _as_path}
