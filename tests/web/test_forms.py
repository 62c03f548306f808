"""From a filled-in form to the words of a command line: each as one word, nothing but the command's own options."""

from __future__ import annotations

import pytest

from paperworks.core.errors import OptionError
from paperworks.web.folders import Folders
from paperworks.web.forms import Typed, groups, words


def option(name, kind, **more):
    """An option as a command describes it."""
    about = {
        "name": name, "flag": f"--{name.replace('_', '-')}", "kind": kind, "help": "", "default": None, "may_be_none": False,
        "required": False, "repeatable": False, "takes_many": False,
    }  # fmt: skip
    return {**about, **more}


DESCRIPTION = {
    "command": "paperworks train rdpo",
    "groups": [
        {"title": "model", "options": [option("model", "text"), option("lora", "switch", default="false")]},
        {"title": "run", "options": [option("out", "path"), option("objective_file", "path")]},
        {
            "title": "objective rdpo",
            "options": [
                option("beta", "number", default="0.1", above=0),
                option("flip_rate", "text", default="0.1"),
                option("steps", "whole", low=1, may_be_none=True),
                option("pair_loss", "choice", default="sigmoid", choices=["sigmoid", "hinge"]),
                option("shuffle", "truth", default="true", negative_flag="--no-shuffle"),
                option("arms", "list"),
                option("map", "text", repeatable=True),
                option("reward", "text", takes_many=True),
                option("data", "path"),
            ],
        },
    ],
}


@pytest.fixture
def folders(tmp_path):
    for name in ("runs", "uploads"):
        (tmp_path / name).mkdir()
    return Folders((tmp_path / "runs",), tmp_path / "uploads")


def words_of(folders, *pairs):
    return words(DESCRIPTION, Typed.of(list(pairs)), folders)


def test_what_is_empty_or_the_default_is_left_out(folders):
    assert words_of(folders, ("beta", "0.1"), ("flip_rate", ""), ("pair_loss", "sigmoid"), ("shuffle", "true")) == []


def test_each_kind_of_option_as_one_types_it(folders):
    found = words_of(
        folders, ("beta", "0.5"), ("steps", "none"), ("pair_loss", "hinge"), ("shuffle", "false"), ("lora", "true"),
        ("arms", "a"), ("arms", "b"), ("map", "prompt=q\nchosen=a"), ("reward", "length\nsentiment"),
    )  # fmt: skip
    assert found == [
        "--beta=0.5", "--steps=none", "--pair-loss=hinge", "--no-shuffle", "--lora", "--arms=a,b",
        "--map=prompt=q", "--map=chosen=a", "--reward", "length", "sentiment",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("beta", "0", r"beta=0 is out of range: it must be > 0"),
        ("beta", "nan", r"out of range"),
        ("beta", "much", r"beta: expected a number, got 'much'"),
        ("steps", "1.5", r"steps: expected a whole number"),
        ("pair_loss", "hing", r"did you mean 'hinge'"),
        ("shuffle", "maybe", r"expected true or false"),
        ("betta", "1", r"betta: not an option of paperworks train rdpo \(did you mean 'beta'\?\)"),
        ("out", "/tmp/elsewhere", r"out: not an option"),
        ("objective_file", "mine.py", r"objective_file: not an option"),
        ("data", "/etc/passwd", r"not under the folders"),
        ("data", "-", r"no standard input here"),
        ("model", "/etc", r"not under the folders"),
        ("flip_rate", "evil.py:f", r"takes no Python file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(folders, name, value, said):
    with pytest.raises(OptionError, match=said):
        words_of(folders, (name, value))


def test_a_value_is_never_taken_for_an_option(folders):
    assert words_of(folders, ("flip_rate", "--out=/tmp")) == ["--flip-rate=--out=/tmp"]
    with pytest.raises(OptionError, match="cannot begin with '-'"):
        words_of(folders, ("reward", "--out=/tmp"))


def test_one_value_is_one_word_whatever_a_shell_would_make_of_it(folders):
    assert words_of(folders, ("flip_rate", "1; rm -rf $HOME `id`")) == ["--flip-rate=1; rm -rf $HOME `id`"]


def test_far_too_much_is_refused(folders):
    with pytest.raises(OptionError, match="letters"):
        Typed.of([("flip_rate", "1" * 5000)])
    with pytest.raises(OptionError, match="values"):
        words_of(folders, ("map", "\n".join("abc" for _ in range(300))))


def test_the_form_shows_what_nearly_everyone_sets_first_and_keeps_what_was_typed():
    typed = Typed.of([("beta", "0.7"), ("arms", "a,c")])
    first, own = groups(DESCRIPTION, typed, {"arms": ["a", "b", "c"]})
    by_name = {field.name: field for group in (first, own) for field in group.fields}
    assert [field.name for field in first.fields] == ["model", "lora", "data", "reward", "arms", "steps"]
    assert own.is_open and "out" not in by_name
    assert by_name["beta"].value == "0.7"
    assert (by_name["arms"].choices, by_name["arms"].values) == (("a", "b", "c"), ("a", "c"))
