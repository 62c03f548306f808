"""Chat messages and HH dialogues: where the prompt ends, and what cannot be a pair."""

from __future__ import annotations

import json

import pytest

from paperworks.core.errors import DataError
from paperworks.language.data import Demonstration, Feedback, Preference, PromptRow, as_messages, plain_text, read


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


@pytest.fixture
def read_rows(tmp_path):
    def read_them(rows: list, schema: type = Preference, **options: object):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return read(path, schema, **options)

    return read_them


EXPECTED = Preference((user("hi"),), "hello", "go away")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [user("hi")], "chosen": [assistant("hello")], "rejected": [assistant("go away")]},
        {"prompt": [user("hi")], "chosen": "hello", "rejected": "go away"},
        {"prompt": "hi", "chosen": [assistant("hello")], "rejected": [assistant("go away")]},
        {"chosen": [user("hi"), assistant("hello")], "rejected": [user("hi"), assistant("go away")]},
        {
            "prompt": "hi",
            "messages": [user("hi"), assistant("hello")],
            "chosen": [{**user("hi"), "tool_calls": None}, assistant("hello")],
            "rejected": [user("hi"), assistant("go away")],
        },
        {
            "prompt": [user("hi")],
            "chosen": [user("hi"), assistant("hello")],
            "rejected": [user("hi"), assistant("go away")],
        },
    ],
)
def test_chat_layouts_of_one_pair(read_rows, row):
    dataset = read_rows([row])
    assert dataset.report.format == "chat"
    assert list(dataset) == [EXPECTED]


def test_chat_conversations_that_part_early(read_rows):
    system = {"role": "system", "content": ""}
    chosen = [system, user("a"), assistant("b"), user("c"), assistant("d")]
    rejected = [system, user("a"), assistant("B")]
    dataset = read_rows([{"chosen": chosen, "rejected": rejected}])
    assert list(dataset) == [Preference((system, user("a")), (assistant("b"), user("c"), assistant("d")), "B")]
    assert dataset.report.noted == {"chosen of several turns": 1}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"chosen": [user("a"), assistant("b")], "rejected": [user("c"), assistant("d")]}, "share no first turn"),
        (
            {"chosen": [user("a"), user("b")], "rejected": [user("a"), assistant("d")]},
            "'chosen': expected the assis",
        ),
        (
            {
                "chosen": [user("a"), assistant("b"), user("c"), assistant("d")],
                "rejected": [user("a"), assistant("b"), user("C"), assistant("d")],
            },
            "chosen and rejected part at turn 3, which is not the assistant's",
        ),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, "'prompt': expected a list of messages, each with role"),
        ({"prompt": [user("")], "chosen": "a", "rejected": "b"}, "'prompt': expected text; found messages without"),
        (
            {"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"},
            "message 1: expected an object whose role",
        ),
        ({"prompt": [{"role": "user", "content": None}], "chosen": "a", "rejected": "b"}, "found content that is null"),
        ({"prompt": ["hi"], "chosen": "a", "rejected": "b"}, "found the string 'hi'"),
        (
            {"prompt": [user("a")], "chosen": [assistant("")], "rejected": "b"},
            "'chosen': expected text; found an",
        ),
        ({"prompt": [user("a")], "chosen": 3, "rejected": "b"}, "'chosen': expected a string; found the number 3"),
        ({"prompt": [user("a")], "chosen": "b", "rejected": "b"}, "chosen equals rejected"),
    ],
)
def test_bad_chat_rows(read_rows, row, expected):
    with pytest.raises(DataError) as caught:
        read_rows([row])
    assert expected in str(caught.value)


def test_messages_are_demonstrations_or_prompts(read_rows):
    row = {"messages": [user("a"), assistant("b"), user("c"), assistant("d")]}
    assert list(read_rows([row], Demonstration)) == [Demonstration((user("a"), assistant("b"), user("c")), "d")]
    assert list(read_rows([{"messages": [user("a")]}], PromptRow)) == [PromptRow((user("a"),))]
    assert list(read_rows([row], PromptRow)) == [PromptRow((user("a"), assistant("b"), user("c")))]
    with pytest.raises(DataError, match="ends with an answer by the assistant; found 1 message"):
        read_rows([{"messages": [assistant("a")]}], Demonstration)


def test_chat_feedback(read_rows):
    row = {"prompt": [user("a")], "completion": [assistant("b")], "label": True}
    assert list(read_rows([row], Feedback)) == [Feedback((user("a"),), "b", True)]


def test_list_under_plain_names_the_format(read_rows):
    with pytest.raises(DataError, match=r"is it --format chat\?"):
        read_rows([{"prompt": [user("a")], "chosen": "b", "rejected": "c"}], format="plain")


def hh(chosen: str, rejected: str) -> dict[str, str]:
    return {"chosen": chosen, "rejected": rejected}


def test_hh_dialogues_are_split_at_the_last_answer(read_rows):
    start = "\n\nHuman: hi\n\nAssistant: yes?\n\nHuman: two\nlines"
    dataset = read_rows([hh(f"{start}\n\nAssistant: good", f"{start}\n\nAssistant: bad")])
    prompt = (user("hi"), assistant("yes?"), user("two\nlines"))
    assert list(dataset) == [Preference(prompt, "good", "bad")]
    assert dataset.report.format == "hh"


def test_hh_keeps_empty_answers_and_counts_them(read_rows):
    dataset = read_rows([hh("\n\nHuman: hi\n\nAssistant:", "\n\nHuman: hi\n\nAssistant: bad")])
    assert list(dataset) == [Preference((user("hi"),), "", "bad")]
    assert dataset.report.noted == {"empty chosen": 1}


def test_hh_turns_of_one_speaker_become_one(read_rows):
    pair = hh(
        "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d\n\nAssistant: e\n\nAssistant: f",
        "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d\n\nAssistant: g",
    )
    prompt = (user("a"), assistant("b\n\nc"), user("d"))
    assert list(read_rows([pair])) == [Preference(prompt, "e\n\nf", "g")]


def test_hh_answers_that_part_earlier(read_rows):
    pair = hh("\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "\n\nHuman: a\n\nAssistant: B")
    dataset = read_rows([pair])
    assert list(dataset) == [Preference((user("a"),), (assistant("b"), user("c"), assistant("d")), "B")]


@pytest.mark.parametrize(
    ("pair", "kind"),
    [
        (hh("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant: b"), "identical pair"),
        (hh("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant:  b "), "identical pair"),
        (hh("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: c\n\nAssistant: b"), "no shared prompt"),
        (hh("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant: b\n\nHuman: c"), "no final answer"),
        (hh("\n\nHuman: a\n\nAssistant: b", "nothing"), "not a dialogue"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": 3}, "wrong type"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b"}, "missing field"),
    ],
)
def test_bad_hh_pairs(read_rows, pair, kind):
    good = hh("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant: c")
    assert read_rows([good, pair], bad_rows="skip").report.skipped == {kind: 1}


def test_hh_prompt_with_separate_answers(read_rows):
    row = {"prompt": "\n\nHuman: a\n\nAssistant:", "chosen": " b", "rejected": " c"}
    assert list(read_rows([row])) == [Preference((user("a"),), "b", "c")]
    assert list(read_rows([row], PromptRow)) == [PromptRow((user("a"),))]


def test_conversation_as_messages_and_as_text():
    assert as_messages("q", "a") == (user("q"), assistant("a"))
    assert as_messages((user("q"),), (assistant("a"), user("b"))) == (user("q"), assistant("a"), user("b"))
    assert plain_text((user("q"), assistant("a"))) == "user: q\n\nassistant: a"
    assert plain_text("as it is") == "as it is"
