"""Values become the field's type, or an error names the option, what was expected and what was given."""

import re
from dataclasses import dataclass
from typing import Literal

import pytest

from paperworks.core.coercion import coerce, type_text
from paperworks.core.errors import OptionError
from paperworks.core.options import option


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("0.1", float, 0.1),
        ("1e-3", float, 1e-3),
        (3, float, 3.0),
        ("1e3", int, 1000),
        (2.0, int, 2),
        ("9007199254740993", int, 9007199254740993),
        ("no", bool, False),
        ("none", int | None, None),
        ("auto", float | Literal["auto"], "auto"),
        ("0.25", float | Literal["auto"], 0.25),
        ("1", int | bool, 1),
        ("a, b", tuple[str, ...], ("a", "b")),
        ([1, "2"], list[int], [1, 2]),
        (0.5, tuple[float, ...], (0.5,)),
        ("prompt=question,chosen=best", dict[str, str], {"prompt": "question", "chosen": "best"}),
        ("3", str, "3"),
    ],
)
def test_text_and_yaml_values_become_the_fields_type(value, kind, expected):
    result = coerce(value, kind, name="x")
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1.5, int), ("1.5", int), (True, int), (True, float), ("nan", float), ("", float), ("maybe", bool), (2, bool),
        (7, str), ("a", tuple[int, ...]), ("1,2,3", tuple[int, int]), ("inf", int), ("question", dict[str, str]),
    ],
)  # fmt: skip
def test_what_would_lose_something_is_refused_with_the_name_and_the_value(value, kind):
    with pytest.raises(OptionError, match=r"steps: expected .*got"):
        coerce(value, kind, name="steps")


def test_types_in_a_users_words():
    assert type_text(float | Literal["auto"] | None) == "a number or 'auto' or 'none'"
    assert type_text(tuple[int, ...]) == "values separated by commas"


@dataclass
class Size:
    width: int = option(1, low=1)


def test_a_group_of_options_that_may_be_left_out_says_which_of_them_is_wrong():
    assert coerce({"width": "3"}, Size | None, name="size") == Size(3)
    assert coerce("none", Size | None, name="size") is None
    for value, message in (
        ({"width": 0}, "size: width=0 is out of range: it must be ≥ 1"),
        ({"width": "wide"}, "size: width: expected a whole number, got 'wide'"),
        ({"depth": 1}, "size: unknown option 'depth'"),
        (3, "size: expected a mapping of options or 'none', got 3"),
    ):
        with pytest.raises(OptionError, match=re.escape(message)):
            coerce(value, Size | None, name="size")
