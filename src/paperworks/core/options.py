"""Options: one dataclass gives the command line, the YAML file and the checked Python object.

A field becomes `--kebab-case`; its help is `option(..., "text")` or the comment that stands behind the field.
Values are coerced by the field's type and never truncated; a wrong name or value is an OptionError that says what is
allowed. This file knows nothing of any particular option.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import io
import math
import re
import sys
import tokenize
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

from paperworks.core.coercion import SCALARS, coerce
from paperworks.core.described_options import DescribeAction, attach, form_of_field, typed_text
from paperworks.core.errors import OptionError, did_you_mean

T = TypeVar("T")

_BOUNDS = {"low": "≥", "above": ">", "high": "≤", "below": "<"}


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    metavar: str | None = None,
    default_factory: Any = dataclasses.MISSING,
) -> Any:
    """A dataclass field with its help text and range.

    `low` and `high` are inclusive, `above` and `below` exclusive; call `check_ranges(self)` in `__post_init__`. `metavar`
    is what stands for the value in help: FILE or DIR for text that names one.
    """
    given = {"low": low, "high": high, "above": above, "below": below, "metavar": metavar}
    metadata = {"help": help, **{name: value for name, value in given.items() if value is not None}}
    if default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_ranges(instance: Any, *, what: str = "") -> None:
    """Raises OptionError for the first numeric field outside the range that its `option(...)` states."""
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        for number in value if isinstance(value, (tuple, list)) else (value,):
            if (
                isinstance(number, (int, float))
                and not isinstance(number, bool)
                and not _within(number, field.metadata)
            ):
                raise OptionError(
                    f"{_prefix(what)}{field.name}={number} is out of range: {_range_text(field.metadata)}"
                )


def build(cls: type[T], values: Mapping[str, Any], *, what: str = "") -> T:
    """An instance of the dataclass `cls` from named values, coerced to the fields' types.

    `what` begins the error ("objective rdpo"). Names may be written with `-` or `_`.
    Raises OptionError on an unknown name (nearest match named), a missing one, a wrong type, a value out of range.
    """
    hints = typing.get_type_hints(cls)
    known = {field.name: field for field in _fields(cls)}
    given: dict[str, Any] = {}
    for raw_name, value in values.items():
        name = str(raw_name).replace("-", "_")
        if name not in known:
            raise OptionError(f"{_prefix(what)}unknown option {str(raw_name)!r}{did_you_mean(name, known)}")
        given[name] = coerce(value, hints[name], name=f"{_prefix(what)}{name}")
    missing = [name for name, field in known.items() if name not in given and _is_required(field)]
    if missing:
        raise OptionError(f"{_prefix(what)}missing option {', '.join(missing)}; give a value for it")
    instance = cls(**given)
    check_ranges(instance, what=what)
    return instance


def to_mapping(instance: Any) -> dict[str, Any]:
    """The dataclass as plain values (tuples become lists, paths text) that YAML and JSON can hold."""
    return {field.name: plain(getattr(instance, field.name)) for field in _fields(type(instance))}


def plain(value: Any) -> Any:
    """`value` as mappings, lists, text, numbers, truth values and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, str, int, float)):
        return value
    if hasattr(value, "tolist"):  # numpy scalars and arrays, tensors
        return value.tolist()
    return str(value)


def to_yaml(values: Mapping[str, Any]) -> str:
    """YAML text in the order given, readable by `load_yaml`."""
    import yaml

    return yaml.safe_dump(plain(values), sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises OptionError (file:line) when missing, malformed, or with a key twice."""
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise OptionError(f"{path}: no such file; give the path of a YAML file of options") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise OptionError(f"{path}:{node.start_mark.line + 1}: expected 'option: value' lines")
        _refuse_double_keys(node, path)
        return {str(name): value for name, value in loader.construct_document(node).items()}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise OptionError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise OptionError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None


def add_dataclass_arguments(
    parser: argparse.ArgumentParser,
    cls: type,
    *,
    group: str | None = None,
    skip: Collection[str] = (),
    prefix: str = "",
) -> None:
    """One `--kebab-case` option a field of `cls`, in a help group of its own; `prefix` stands before each name.

    An option that is not given is absent from the namespace, so that a YAML file can stand below the command line
    (`from_namespace(..., below=load_yaml(path))`). Fields that no text can express (nested dataclasses, functions) are
    left out.
    """
    hints, comments = typing.get_type_hints(cls), field_comments(cls)
    target = parser.add_argument_group(group) if group else parser
    for field in _fields(cls):
        annotation = hints[field.name]
        if field.name in skip or not _is_expressible(annotation):
            continue
        action = target.add_argument(
            f"--{(prefix + field.name).replace('_', '-')}",
            dest=prefix + field.name,
            default=argparse.SUPPRESS,
            help=_help_text(field, comments).replace("%", "%%"),
            **_argument_form(annotation, field.metadata.get("metavar")),
        )
        attach(action, form_of_field(field, annotation, _plain_help(field, comments)))


def given_options(cls: type, args: argparse.Namespace, prefix: str = "") -> dict[str, Any]:
    """The options of `cls` that the command line named."""
    names = (field.name for field in _fields(cls))
    return {name: getattr(args, prefix + name) for name in names if hasattr(args, prefix + name)}


def from_namespace(cls: type[T], args: argparse.Namespace, *, below: Mapping[str, Any] = {}, what: str = "") -> T:
    """An instance of `cls`: the command line's options over those of `below` (a YAML file's) over the defaults."""
    return build(
        cls, {**{name.replace("-", "_"): value for name, value in below.items()}, **given_options(cls, args)}, what=what
    )


def field_comments(cls: type) -> dict[str, str]:
    """The comment behind each field in the class's source, inherited ones too; none where the source is not at hand."""
    comments: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        if "__annotations__" not in vars(parent) or parent.__module__ in ("builtins", "typing"):
            continue
        try:
            source = inspect.getsource(parent)
            tokens = list(tokenize.generate_tokens(io.StringIO(inspect.cleandoc("\n" + source)).readline))
        except (OSError, TypeError, SyntaxError, tokenize.TokenError):
            continue
        for token in tokens:
            match = re.match(r"\s*(\w+)\s*:", token.line)
            if token.type == tokenize.COMMENT and match and match[1] in vars(parent)["__annotations__"]:
                comments[match[1]] = token.string.lstrip("# ").strip()
    return comments


class Parser(argparse.ArgumentParser):
    """argparse whose mistakes are OptionErrors of one line that name the nearest option or choice.

    Where there is `--help` there is also `--describe`, which help does not show: the same as JSON, for programs.
    """

    def __init__(self, *args: Any, **keywords: Any) -> None:
        keywords.setdefault("allow_abbrev", False)  # an abbreviation today is another option tomorrow
        super().__init__(*args, **keywords)
        if self.add_help:
            self.add_argument("--describe", action=DescribeAction)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        words = list(sys.argv[1:] if args is None else args)
        parsed, unknown = self.parse_known_args(words, namespace)
        if unknown:
            self.refuse_unknown(unknown, words)
        return parsed

    def refuse_unknown(self, unknown: Sequence[str], words: Sequence[str]) -> NoReturn:
        """Raises OptionError for arguments that neither this parser nor the verb chosen in `words` knows."""
        parser = self._chosen(words)
        options = [word.split("=")[0] for word in unknown if word.startswith("-")]
        if not options:
            raise OptionError(f"{parser.prog}: unexpected argument {unknown[0]!r}; see `{parser.prog} --help`")
        known = {name for name in parser._option_string_actions if name.startswith("--")}
        raise OptionError(f"{parser.prog}: unknown option {options[0]}{_near_option(options[0], known, parser.prog)}")

    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{self.prog}: {message.removeprefix('argument ')}; see `{self.prog} --help`")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            hint = did_you_mean(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"{value!r} is not one of the choices{hint}")

    def _chosen(self, words: Iterable[str]) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = self
        for word in words:
            for action in parser._actions:
                if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                    parser = action.choices[word]
                    break
        return parser


def _near_option(word: str, known: Collection[str], program: str) -> str:
    near = did_you_mean(word, known)
    return near if near.startswith(" (did you mean") else f"; see `{program} --help`"


def _fields(cls: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if field.init]


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _prefix(what: str) -> str:
    return f"{what}: " if what else ""


def _within(number: float, bounds: Mapping[str, Any]) -> bool:
    return (
        not math.isnan(number)
        and number >= bounds.get("low", -math.inf)
        and number <= bounds.get("high", math.inf)
        and ("above" not in bounds or number > bounds["above"])
        and ("below" not in bounds or number < bounds["below"])
    )


def _range_text(bounds: Mapping[str, Any]) -> str:
    parts = [f"{sign} {bounds[name]}" for name, sign in _BOUNDS.items() if name in bounds]
    return f"it must be {' and '.join(parts)}" if parts else "it must be a number"


def _is_expressible(annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return all(_is_expressible(member) for member in arguments)
    if origin in (tuple, list, Sequence):
        return all(member is Ellipsis or _is_expressible(member) for member in arguments)
    if origin in (dict, Mapping):
        return bool(arguments) and all(_is_expressible(member) for member in arguments)
    return origin is Literal or annotation in SCALARS or annotation in (type(None), tuple, list)


def _argument_form(annotation: Any, metavar: str | None = None) -> dict[str, Any]:
    if annotation is bool:
        return {"action": argparse.BooleanOptionalAction}

    def parse(text: str) -> Any:
        try:
            return coerce(text, annotation, name="value")
        except OptionError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix("value: ")) from None

    return {"type": parse, "metavar": metavar or _metavar(annotation)}


def _metavar(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "{" + ",".join(map(str, arguments)) + "}"
    if origin in (typing.Union, types.UnionType):
        return "|".join("none" if member is type(None) else _metavar(member) for member in arguments)
    if annotation in (tuple, list) or origin in (tuple, list, Sequence):
        return f"{_metavar(arguments[0])},…" if arguments else "TEXT,…"
    if annotation is dict or origin in (dict, Mapping):
        return "NAME=VALUE,…"
    return {int: "N", float: "X", Path: "PATH", bool: "true|false"}.get(annotation, "TEXT")


def _plain_help(field: dataclasses.Field[Any], comments: Mapping[str, str]) -> str:
    return field.metadata.get("help") or comments.get(field.name, "")


def _help_text(field: dataclasses.Field[Any], comments: Mapping[str, str]) -> str:
    parts = [_plain_help(field, comments)]
    if any(name in field.metadata for name in _BOUNDS):
        parts.append(f"[{_range_text(field.metadata).removeprefix('it must be ')}]")
    if field.default is not dataclasses.MISSING:
        parts.append(f"(default: {_default_text(field.default)})")
    elif field.default_factory is not dataclasses.MISSING:
        parts.append(f"(default: {_default_text(field.default_factory())})")
    else:
        parts.append("(required)")
    return " ".join(part for part in parts if part)


def _default_text(value: Any) -> str:
    is_empty = value is None or (not isinstance(value, str) and typed_text(value) == "")
    return "none" if is_empty else typed_text(value) or ""


def _refuse_double_keys(node: Any, path: str | Path, visited: set[int] | None = None) -> None:
    import yaml

    visited = set() if visited is None else visited
    if id(node) in visited:  # named again by an alias: aliases of aliases would be walked for ever
        return
    visited.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, item in node.value:
            if key.value in seen and isinstance(key.value, str):
                raise OptionError(f"{path}:{key.start_mark.line + 1}: {key.value!r} is given twice; keep one of them")
            if isinstance(key.value, str):
                seen.add(key.value)
            _refuse_double_keys(item, path, visited)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_double_keys(item, path, visited)
