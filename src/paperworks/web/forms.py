"""From a command's description to a form, and from a filled-in form to the words of a command line.

The page adds no option and no check of its own to a command: a form has the command's options under their names, and what
is typed goes to the command as one word each, never through a shell. Two things differ: where a run goes is the server's to
say, and files must lie under its folders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paperworks.core.errors import OptionError, did_you_mean
from paperworks.web.folders import Folders

# Where a run goes and how it is told is the server's to say; an objective file and what lifts the sandbox run code.
NOT_HERE = frozenset(
    (
        "out",
        "config",
        "resume",
        "overwrite",
        "quiet",
        "json",
        "record",
        "dry_run",
        "objective_file",
        "allow_unsandboxed",
    )
)
# Options that may name a Python function of a file under the server's folders.
MAY_BE_CODE = frozenset(("reward", "gold_reward", "train_reward", "validation_reward", "judge"))
UPLOADED = frozenset(("data", "prompts", "eval_data", "eval_prompts", "forget", "retain", "validation_prompts"))
# What nearly every user of a command sets: shown first, whatever the command's own groups are.
ESSENTIAL = (
    "budget", "model", "lora", "data", "forget", "retain", "prompts", "env", "reward", "train_reward", "objectives",
    "reference_point", "seeds", "parts", "arms", "steps", "iterations", "learning_rate", "batch_size", "held_out",
)  # fmt: skip
LONGEST = 4000  # letters of one value
MOST_VALUES = 200  # of one option


@dataclass(frozen=True)
class Field:
    """One option as a form shows it. `value` is what was typed; `choices` are (value, text)."""

    name: str
    label: str
    flag: str
    kind: str
    help: str
    default: str
    value: str = ""
    values: tuple[str, ...] = ()  # where several are ticked
    choices: tuple[str, ...] = ()
    range: str = ""
    minimum: str = ""
    maximum: str = ""
    is_many: bool = False  # one value a line
    may_upload: bool = False


@dataclass(frozen=True)
class Group:
    """Options under one heading; `is_open` says whether they are shown before one asks."""

    title: str
    fields: tuple[Field, ...]
    is_open: bool


@dataclass(frozen=True)
class Typed:
    """What was typed into a form: every option's values, empty ones left out."""

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, str]]) -> Typed:
        """The values of a submitted form, several of one name in their order. Raises OptionError for far too much."""
        values: dict[str, tuple[str, ...]] = {}
        for name, value in pairs:
            text = value.strip()
            if len(text) > LONGEST:
                raise OptionError(f"{name}: has {len(text)} letters; at most {LONGEST} are taken")
            if text:
                values[name] = (*values.get(name, ()), text)
        return cls(values)

    def first(self, name: str) -> str:
        return self.values.get(name, ("",))[0]


def groups(
    description: Mapping[str, Any], typed: Typed, choices: Mapping[str, Sequence[str]] | None = None
) -> list[Group]:
    """The form of a command. `choices` names the values of options that the command itself takes as free text."""
    shown = {
        group["title"]: [
            _field(option, typed, (choices or {}).get(option["name"], ()))
            for option in group["options"]
            if option["name"] not in NOT_HERE
        ]
        for group in description["groups"]
    }
    first = {each.name: each for fields in shown.values() for each in fields if each.name in ESSENTIAL}
    found = [Group("", tuple(first[name] for name in ESSENTIAL if name in first), is_open=True)]
    for title, fields in shown.items():
        rest = tuple(each for each in fields if each.name not in first)
        if rest:
            is_own = title.startswith(("objective ", "method ", "algorithm "))
            found.append(Group(title, rest, is_own or any(each.value or each.values for each in rest)))
    return found


def words(description: Mapping[str, Any], typed: Typed, folders: Folders) -> list[str]:
    """The options of a command line that say what was typed; what equals the default is left out.

    Raises OptionError for an option that the command has not, a value that is none of its kind or range, and a path
    outside the folders.
    """
    known = {
        option["name"]: option
        for group in description["groups"]
        for option in group["options"]
        if option["name"] not in NOT_HERE
    }
    found: list[str] = []
    for name, values in typed.values.items():
        if name not in known:
            raise OptionError(f"{name}: not an option of {description['command']}{did_you_mean(name, known)}")
        found += _words_of(known[name], values, folders)
    return found


def _field(option: Mapping[str, Any], typed: Typed, choices: Sequence[str]) -> Field:
    values = typed.values.get(option["name"], ())
    is_many = bool(option["repeatable"] or option["takes_many"])
    kind = option["kind"]
    if choices and kind == "list":
        kind, values = "several", tuple(part for value in values for part in value.split(","))
    return Field(
        name=option["name"],
        label=option["name"].replace("_", " ").capitalize().replace("lora", "LoRA").replace("Lora", "LoRA"),
        flag=option["flag"],
        kind=kind,
        help=option["help"],
        default="" if option["default"] is None else str(option["default"]),
        value="\n".join(values) if is_many else (values[-1] if values else ""),
        values=tuple(values),
        choices=tuple(choices or option.get("choices", ())),
        range=range_text(option),
        minimum=_bound(option, "low"),
        maximum=_bound(option, "high"),
        is_many=is_many,
        may_upload=option["name"] in UPLOADED,
    )


def range_text(option: Mapping[str, Any]) -> str:
    """The range of an option in signs: `≥ 0 and < 0.5`; "" where it has none."""
    signs = {"low": "≥", "above": ">", "high": "≤", "below": "<"}
    return " and ".join(f"{sign} {option[name]:g}" for name, sign in signs.items() if name in option)


def _bound(option: Mapping[str, Any], name: str) -> str:
    return f"{option[name]:g}" if name in option else ""


def _words_of(option: Mapping[str, Any], values: Sequence[str], folders: Folders) -> list[str]:
    name, flag = option["name"], option["flag"]
    if option["repeatable"] or option["takes_many"]:
        each = [line.strip() for value in values for line in value.splitlines() if line.strip()]
        if len(each) > MOST_VALUES:
            raise OptionError(f"{name}: {len(each)} values; at most {MOST_VALUES} are taken")
        safe = [_safe(option, value, folders) for value in each]
        if option["repeatable"]:
            return [f"{flag}={value}" for value in safe]
        if any(value.startswith("-") for value in safe):  # the command would take it for an option
            raise OptionError(f"{name}: a value cannot begin with '-'")
        return [flag, *safe] if safe else []
    if option["kind"] == "list":
        values = (",".join(values),)
    if len(values) > 1:
        raise OptionError(f"{name}: given {len(values)} times; one value is expected")
    value = values[0]
    if option["kind"] in ("truth", "switch"):
        if value not in ("true", "false", "on"):
            raise OptionError(f"{name}: expected true or false, got {value!r}")
        is_on = value != "false"
        if str(is_on).lower() == option["default"]:
            return []
        if option["kind"] == "truth" and not option.get("negative_flag"):
            return [f"{flag}={str(is_on).lower()}"]
        return [flag] if is_on else [option["negative_flag"]] if option.get("negative_flag") else []
    if value == option["default"]:
        return []
    return [f"{flag}={_safe(option, value, folders)}"]


def _safe(option: Mapping[str, Any], value: str, folders: Folders) -> str:
    name, kind = option["name"], option["kind"]
    if option.get("may_be_none") and value.lower() == "none":
        return value
    if kind in ("whole", "number"):
        return _number(option, value)
    if kind == "choice" and value not in option["choices"]:
        raise OptionError(f"{name}: {value!r} is not one of the choices{did_you_mean(value, option['choices'])}")
    if value == "-" and kind == "path":
        raise OptionError(f"{name}: there is no standard input here; name a file")
    return folders.checked_text(value, is_path=kind == "path" or name == "model", may_be_code=name in MAY_BE_CODE)


def _number(option: Mapping[str, Any], text: str) -> str:
    name = option["name"]
    try:
        value = int(text) if option["kind"] == "whole" else float(text)
    except ValueError:
        expected = "a whole number" if option["kind"] == "whole" else "a number"
        raise OptionError(f"{name}: expected {expected}, got {text!r}") from None
    is_outside = (
        math.isnan(value)
        or value < option.get("low", -math.inf)
        or value > option.get("high", math.inf)
        or ("above" in option and value <= option["above"])
        or ("below" in option and value >= option["below"])
    )
    if is_outside:
        raise OptionError(f"{name}={text} is out of range: it must be {range_text(option)}")
    return text
