"""`--describe`: what a form needs of every option, exact for dataclass fields, derived for options written by hand."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from paperworks.core.described_options import described, typed_text
from paperworks.core.options import Parser, add_dataclass_arguments, build, option


@dataclass(frozen=True)
class Robust:
    steps: int  # optimiser steps, 100% of them
    beta: float = option(0.1, "inverse temperature", above=0)
    flip_rate: float | Literal["auto"] = option(0.1, "assumed P(label flipped)", low=0, below=0.5)
    loss: Literal["sigmoid", "hinge"] | None = None
    use_ridge: bool = False
    asks: bool | None = None
    hidden: tuple[int, ...] = option((256, 256), "widths", low=1)
    names: dict[str, str] = field(default_factory=dict)
    place: Path | None = None
    rows: str | None = option(None, "rows to read", metavar="FILE")
    title: str = ""
    seed: int | float = 0


def parser() -> Parser:
    made = Parser(prog="paperworks train rdpo", description="A robust loss.")
    made.add_argument("objective", metavar="OBJECTIVE", help="what to optimise")
    made.add_argument("more", nargs="*", help="others")
    hand = made.add_argument_group("run")
    hand.add_argument("--out", metavar="DIR", help="folder, 100%% ours (default %(default)s)", default="runs")
    hand.add_argument("--workers", type=int, required=True, help="processes")
    hand.add_argument("--scale", type=float)
    hand.add_argument("--bad-rows", choices=("error", "skip"))
    hand.add_argument("--map", action="append", metavar="FIELD=COLUMN")
    hand.add_argument("--reward", nargs="+", action="extend")
    hand.add_argument("-q", "--quiet", action="store_true")
    hand.add_argument("--chat", action=argparse.BooleanOptionalAction)
    hand.add_argument("--secret", help=argparse.SUPPRESS)
    add_dataclass_arguments(made, Robust, group="objective rdpo")
    return made


@pytest.fixture
def options() -> dict[str, dict[str, Any]]:
    """Every option described, by its flag."""
    return {each["flag"]: each for group in described(parser())["groups"] for each in group["options"]}


def test_a_field_is_described_exactly(options: dict[str, dict[str, Any]]) -> None:
    assert options["--beta"] == {
        "flag": "--beta", "name": "beta", "kind": "number", "may_be_none": False, "default": "0.1", "required": False,
        "help": "inverse temperature", "above": 0, "repeatable": False, "takes_many": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flag", "kind", "default", "may_be_none"),
    [
        ("--steps", "whole", None, False),
        ("--loss", "choice", None, True),
        ("--use-ridge", "truth", "false", False),
        ("--asks", "truth", None, True),
        ("--hidden", "list", "256,256", False),
        ("--names", "mapping", "", False),
        ("--place", "path", None, True),
        ("--rows", "path", None, True),
        ("--title", "text", "", False),
        ("--seed", "number", "0", False),
    ],
)
def test_kinds_and_defaults_of_fields(
    options: dict[str, dict[str, Any]], flag: str, kind: str, default: str | None, may_be_none: bool
) -> None:
    found = options[flag]
    assert (found["kind"], found["default"], found["may_be_none"]) == (kind, default, may_be_none)


@pytest.mark.parametrize(
    ("flag", "kind"),
    [
        ("--out", "path"),
        ("--workers", "whole"),
        ("--scale", "number"),
        ("--bad-rows", "choice"),
        ("--map", "text"),
        ("--quiet", "switch"),
        ("--chat", "truth"),
    ],
)
def test_kinds_of_options_written_by_hand(options: dict[str, dict[str, Any]], flag: str, kind: str) -> None:
    assert options[flag]["kind"] == kind


def test_a_number_or_a_word_is_text_with_the_word_and_the_range(options: dict[str, dict[str, Any]]) -> None:
    found = options["--flip-rate"]
    assert (found["kind"], found["choices"], found["low"], found["below"]) == ("text", ["auto"], 0, 0.5)


def test_required_is_what_has_no_default(options: dict[str, dict[str, Any]]) -> None:
    assert [flag for flag, found in options.items() if found["required"]] == ["--workers", "--steps"]


def test_help_is_the_text_alone(options: dict[str, dict[str, Any]]) -> None:
    assert options["--steps"]["help"] == "optimiser steps, 100% of them"
    assert options["--out"]["help"] == "folder, 100% ours (default runs)"


def test_what_may_be_given_often_and_how_truth_is_denied(options: dict[str, dict[str, Any]]) -> None:
    assert [flag for flag, found in options.items() if found["repeatable"]] == ["--map", "--reward"]
    assert [flag for flag, found in options.items() if found["takes_many"]] == ["--reward"]
    negative = {flag: found["negative_flag"] for flag, found in options.items() if "negative_flag" in found}
    assert negative == {"--chat": "--no-chat", "--use-ridge": "--no-use-ridge"}


def test_arguments_and_groups_keep_their_order_and_hidden_options_stay_hidden() -> None:
    found = described(parser())
    assert [group["title"] for group in found["groups"]] == ["run", "objective rdpo"]
    assert found["arguments"] == [
        {"name": "objective", "metavar": "OBJECTIVE", "help": "what to optimise", "many": False},
        {"name": "more", "metavar": "MORE", "help": "others", "many": True},
    ]
    assert "secret" not in json.dumps(found) and "--describe" not in json.dumps(found)


def test_describe_prints_the_same_and_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parser().parse_args(["--describe"])
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out) == described(parser())
    assert "--describe" not in parser().format_help()


def test_every_default_as_typed_gives_the_default(options: dict[str, dict[str, Any]]) -> None:
    typed = {each["name"]: each["default"] for each in options.values() if each["default"] is not None}
    own = {name: text for name, text in typed.items() if name in Robust.__dataclass_fields__}
    assert build(Robust, {**own, "steps": 1}) == Robust(steps=1)


def test_typed_text_of_what_is_not_given() -> None:
    assert (typed_text(None), typed_text(()), typed_text({"a": 1}), typed_text(True)) == (None, "", "a=1", "true")
