"""The options of a command for programs: what `--describe` prints, so that a form can be made of them.

A field of a dataclass knows more than argparse keeps (its type, range, plain help): it is kept beside the argparse action as
an `OptionForm`; of options written by hand the form is derived from the action. Nothing here parses or checks a value.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

Kind = Literal["whole", "number", "text", "truth", "switch", "choice", "list", "mapping", "path"]
"""What is asked for. `truth` is true or false: by its two flags where there is a negative one, else as a value behind the
flag. `switch` is on where it is given and takes no value. `text` with choices takes these words or a value of its own, as
`auto` or a number. `list` is comma-separated, `mapping` is NAME=VALUE,…"""

BOUNDS = ("low", "above", "high", "below")
PATH_METAVARS = ("FILE", "DIR", "LOG", "PATH")
"""How options that name a file or folder are written in help texts; a LOG may also be the id of a data set."""


@dataclass(frozen=True)
class OptionForm:
    """What a form needs of an option: kind, default as one would type it (None where there is none), range, words."""

    kind: Kind
    help: str = ""
    default: str | None = None
    may_be_none: bool = False  # the word `none` may be given
    required: bool = False  # by the command line, or a configuration below it
    bounds: Mapping[str, float] = field(default_factory=dict)  # of BOUNDS; of a list's each number
    choices: tuple[str, ...] = ()


def form_of_field(named: dataclasses.Field[Any], annotation: Any, help: str) -> OptionForm:
    """The form of a dataclass field; `help` is its text without range and default."""
    default, is_required = named.default, False
    if default is dataclasses.MISSING:
        is_required = named.default_factory is dataclasses.MISSING
        default = None if named.default_factory is dataclasses.MISSING else named.default_factory()
    kind, choices, may_be_none = _kind_of(annotation)
    return OptionForm(
        kind="path" if named.metadata.get("metavar") in PATH_METAVARS else kind,
        help=help,
        default=typed_text(default),
        may_be_none=may_be_none,
        required=is_required,
        bounds={name: named.metadata[name] for name in BOUNDS if name in named.metadata},
        choices=choices,
    )


def form_of_action(action: argparse.Action, help: str) -> OptionForm:
    """The form of an option written by hand; `help` is its text."""
    has_default = action.default is not argparse.SUPPRESS
    return OptionForm(
        kind=_kind_of_action(action),
        help=help,
        default=typed_text(action.default) if has_default else None,
        required=action.required,
        choices=tuple(map(str, action.choices or ())),
    )


def attach(action: argparse.Action, form: OptionForm) -> None:
    """Keeps the form beside the action, where `described` finds it."""
    vars(action)["form"] = form


def typed_text(value: Any) -> str | None:
    """A value as one would type it on the command line; None for None, which is not typed. Lists are comma-separated."""
    if value is None:
        return None
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)


def described(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """The parser's arguments and options as plain values; what its help hides is left out.

    `{"command", "about", "arguments": [{"name", "metavar", "help", "many"}], "groups": [{"title", "options": [{"flag",
    "name", "kind", "may_be_none", "default", "required", "help", "repeatable", "takes_many"}]}]}`; an option also has "low",
    "above", "high", "below", "choices" and "negative_flag" where these apply. "repeatable": the flag may be given several
    times; "takes_many": several words may stand behind it.
    """
    formatter = parser._get_formatter()
    arguments, groups = list[dict[str, Any]](), list[dict[str, Any]]()
    for group in parser._action_groups:
        shown = [action for action in group._group_actions if _is_shown(action)]
        texts = {action: formatter._expand_help(action) if action.help else "" for action in shown}
        arguments += [_argument(action, texts[action]) for action in shown if not action.option_strings]
        options = [_option(action, texts[action]) for action in shown if action.option_strings]
        if options:
            groups.append({"title": group.title or "", "options": options})
    return {"command": parser.prog, "about": parser.description or "", "arguments": arguments, "groups": groups}


class DescribeAction(argparse.Action):
    """`--describe`: prints `described` as JSON and leaves, as `--help` does."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=argparse.SUPPRESS)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(json.dumps(described(parser), indent=2, ensure_ascii=False))
        parser.exit()


def _is_shown(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)


def _argument(action: argparse.Action, help: str) -> dict[str, Any]:
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return {"name": action.dest, "metavar": name, "help": help, "many": action.nargs in ("*", "+")}


def _option(action: argparse.Action, help: str) -> dict[str, Any]:
    form: OptionForm = vars(action).get("form") or form_of_action(action, help)
    found: dict[str, Any] = {
        "flag": next((name for name in action.option_strings if name.startswith("--")), action.option_strings[0]),
        "name": action.dest,
        "kind": form.kind,
        "may_be_none": form.may_be_none,
        "default": form.default,
        "required": form.required,
        "help": form.help,
        **form.bounds,
        "repeatable": isinstance(action, (argparse._AppendAction, argparse._ExtendAction)),
        "takes_many": action.nargs in ("*", "+"),
    }
    if form.choices:
        found["choices"] = list(form.choices)
    if isinstance(action, argparse.BooleanOptionalAction):
        found["negative_flag"] = next(name for name in action.option_strings if name.startswith("--no-"))
    return found


def _kind_of_action(action: argparse.Action) -> Kind:
    if isinstance(action, argparse.BooleanOptionalAction):
        return "truth"
    if action.nargs == 0:
        return "switch"
    if action.choices is not None:
        return "choice"
    if action.metavar in PATH_METAVARS or action.type is Path:
        return "path"
    return "whole" if action.type is int else "number" if action.type is float else "text"


def _kind_of(annotation: Any) -> tuple[Kind, tuple[str, ...], bool]:
    """Of a field's type: the kind, the words that may be chosen, and whether none may be given."""
    members = list(_members(annotation))
    may_be_none = type(None) in members
    words = tuple(str(word) for each in members if _is_literal(each) for word in typing.get_args(each))
    kinds = {_kind_of_one(each) for each in members if each is not type(None) and not _is_literal(each)}
    if not kinds:
        return "choice", words, may_be_none
    if words or len(kinds) > 1:
        return "number" if kinds == {"whole", "number"} and not words else "text", words, may_be_none
    return kinds.pop(), (), may_be_none


def _members(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _is_literal(annotation: Any) -> bool:
    return typing.get_origin(annotation) is Literal


def _kind_of_one(annotation: Any) -> Kind:
    origin = typing.get_origin(annotation) or annotation
    if origin in (tuple, list, Sequence):
        return "list"
    if origin in (dict, Mapping):
        return "mapping"
    kinds: dict[Any, Kind] = {int: "whole", float: "number", bool: "truth", Path: "path"}
    return kinds.get(annotation, "text")
