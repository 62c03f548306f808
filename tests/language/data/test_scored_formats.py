"""The `lol` layout: pairs of scored answers with the turns before each."""

from __future__ import annotations

from typing import Any

import pytest

from paperworks.language.data.problems import BadRow
from paperworks.language.data.scored_formats import lol, looks_like_lol

TURNS = ["<|prompter|>Hello?", "<|assistant|>Hello.", "<|prompter|> Who are you?", "<|assistant|>"]
RECORD: dict[str, Any] = {
    "prefix": [TURNS, TURNS],
    "suffix": [" A model. ", "You."],
    "reward": [1.5, -0.25],
    "meta": {},
}


def test_a_record_is_one_row_an_answer() -> None:
    first, second = lol(RECORD)
    assert first["prompt"] == (
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Who are you?"},
    )
    assert (first["response"], first["reward"]) == ("A model.", 1.5)
    assert (second["prompt"], second["response"], second["reward"]) == (first["prompt"], "You.", -0.25)
    assert looks_like_lol(RECORD) and not looks_like_lol({"prompt": "a", "response": "b", "reward": [1]})


def test_turns_of_one_speaker_become_one() -> None:
    prefix = ["<|prompter|>One.", "<|prompter|>Two?", "<|assistant|>"]
    (row,) = lol({"prefix": [prefix], "suffix": ["Yes."], "reward": [0]})
    assert row["prompt"] == ({"role": "user", "content": "One.\n\nTwo?"},)


def test_an_answer_may_be_empty() -> None:
    assert lol({**RECORD, "suffix": ["", "You."]})[0]["response"] == ""


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"reward": [1.0]}, "suffix", "found prefix 2, suffix 2, reward 1"),
        ({"reward": 1.0}, "reward", "expected a list, an entry an answer; found the number 1.0"),
        ({"reward": [1.0, float("nan")]}, "reward", "expected a finite number"),
        ({"suffix": ["a", None]}, "suffix", "expected a string; found null"),
        ({"prefix": [TURNS, []]}, "prefix", "expected a list of turns"),
        ({"prefix": [TURNS, ["Human: hello"]]}, "prefix", "begin with <|prompter|> or <|assistant|>"),
        ({"prefix": [TURNS, ["<|assistant|>"]]}, "prefix", "expected the last turn before the answer"),
        (
            {"prefix": [TURNS, ["<|prompter|>a", "<|assistant|>b"]]},
            "prefix",
            "expected the last turn before the answer",
        ),
        ({"prefix": [], "suffix": [], "reward": []}, "suffix", "1 or more"),
    ],
)
def test_a_bad_record_says_what_is_wrong(change: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(BadRow) as found:
        lol({**RECORD, **change})
    assert message in found.value.what and found.value.field == field


def test_a_missing_list_is_named() -> None:
    with pytest.raises(BadRow, match="missing; expected lists prefix, suffix and reward"):
        lol({"prefix": [TURNS], "suffix": ["a"]})
