"""Answers are compared with what their prompts' rows expect: numbers as numbers, rows found again by their prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paperworks.core.errors import DataError, OptionError, RewardError
from paperworks.language.data import PromptRow, Where, read
from paperworks.language.data.schemas import Message
from paperworks.language.rewards import load_reward
from paperworks.language.rewards.verifier import ExactAnswer, NumberAnswer, RowReward, final_answer, final_number


def row(prompt: object, line: int = 1, **fields: object) -> PromptRow:
    return PromptRow(prompt, fields, Where("prompts.jsonl", line))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 + 4 = 7 apples.\n#### 7", "7"),
        ("#### 1,234.50 dollars, not 99", "1234.50"),
        ("12 #### -3", "-3"),
        ("#### 5\nno, wait\n#### 6", "6"),
        ("first 1, then 2.", "2"),
        ("it costs $1,000,000.", "1000000"),
        ("-$5", "-5"),
        ("$-5.5", "-5.5"),
        ("€ 12", "12"),
        ("\u22127", "-7"),
        ("x = 10 - 5", "5"),
        ("10-5", "5"),
        ("(a) - 5", "5"),
        ("= -5", "-5"),
        ("12,34", "34"),
        (".5", "0.5"),
        ("about 1.5e3", "1500"),
        (r"so \boxed{12} apples of 13", "12"),
        (r"\boxed{-3} and #### 4", "4"),
        ("#### nothing, though 8 before", "8"),
        ("a 5-year-old", "5"),
        ("5%", "5"),
        ("v2 x5 no", None),
        ("", None),
    ],
)
def test_the_final_number_of_a_response(text: str, number: str | None) -> None:
    found = final_number(text)
    assert (found is None) == (number is None) and (number is None or found == pytest.approx(float(number)))


def test_numbers_are_equal_by_value_whatever_they_look_like() -> None:
    reward = RowReward(NumberAnswer(), [row("q", answer="… = 1,200\n#### 1,200")])
    assert reward(["q"] * 5, ["1200", "$1,200.00", "1.2e3", "1201", "none"]) == [1, 1, 1, 0, 0]
    near = RowReward(NumberAnswer(tolerance=0.01), [row("q", answer=3.3333)])
    assert near(["q"] * 3, ["3.33", "3.2", "-3.33"]) == [1, 0, 0]
    big = "9" * 5000
    assert RowReward(NumberAnswer(), [row("q", answer=big)])(["q"] * 2, [big, big[1:]]) == [1, 0]


def test_exact_answers_are_the_marked_part_or_the_whole() -> None:
    assert final_answer("so:\n#### the blue one ") == "the blue one"
    assert final_answer(r"\boxed{\frac{1}{2}} it is") == r"\frac{1}{2}"
    assert final_answer(r" plain, \boxed{open ") == r"plain, \boxed{open"
    reward = RowReward(ExactAnswer(), [row("q", answer="New  York")])
    assert reward(["q"] * 3, [" New York\n", "I think\n#### New York", "new york"]) == [1, 1, 0]
    assert RowReward(ExactAnswer(ignores_case=True), [row("q", answer="New York")])(["q"], ["new york"]) == [1]
    assert RowReward(ExactAnswer(), [row("q", answer=4)])(["q"], ["4"]) == [1]


def test_a_prompt_is_found_through_what_a_chat_puts_around_it() -> None:
    reward = RowReward(
        NumberAnswer(), [row("one?", answer=1), row((Message(role="user", content="two?"),), 2, answer=2)]
    )
    chat = (Message(role="system", content="Be brief."), Message(role="user", content="one?"))
    assert reward([chat, (Message(role="user", content="two?"),), "two?"], ["1", "2", "2"]) == [1, 1, 1]
    with pytest.raises(RewardError, match=r"number:answer: no row has prompt 2 \('three\?'\)"):
        reward(["one?", "three?"], ["1", "3"])


def test_dialogues_that_end_alike_are_told_apart() -> None:
    def dialogue(name: str) -> tuple[Message, ...]:
        return tuple(Message(role="user", content=text) for text in (f"I am {name}.", "Who am I?"))

    reward = RowReward(ExactAnswer(), [row(dialogue("Ann"), answer="Ann"), row(dialogue("Bob"), 2, answer="Bob")])
    assert reward([dialogue("Bob"), dialogue("Ann")], ["Bob", "Bob"]) == [1, 0]
    with pytest.raises(RewardError, match="no row has prompt 1"):
        reward(["Who am I?"], ["Ann"])


def test_one_prompt_with_two_answers_is_refused_with_both_places() -> None:
    rows = [row("q", 1, answer=1), row("q", 2, answer="1.0"), row("q", 3, answer=2)]
    assert RowReward(NumberAnswer(), rows[:2])(["q"], ["1"]) == [1]
    with pytest.raises(
        DataError, match=r"^prompts.jsonl:3: the prompt stands at prompts.jsonl:1 too, where number:answer"
    ):
        RowReward(NumberAnswer(), rows)


def test_rows_without_what_is_compared_are_refused_by_line_and_field() -> None:
    with pytest.raises(DataError, match=r"prompts.jsonl:1: field 'result': missing; .* the row has answer"):
        RowReward(NumberAnswer("result"), [row("q", answer=1)])
    for value in ("none", True):
        with pytest.raises(DataError, match=r"field 'answer': expected a number"):
            RowReward(NumberAnswer(), [row("q", answer=value)])
    with pytest.raises(DataError, match=r"field 'answer': expected text or a number; found a list"):
        RowReward(ExactAnswer(), [row("q", answer=["a"])])


def test_specs_name_verifiers(tmp_path: Path) -> None:
    file = tmp_path / "gsm.jsonl"
    file.write_text(json.dumps({"question": "2 + 3?", "answer": "2 + 3 = 5\n#### 5"}) + "\n")
    rows = read(file, "prompt").rows
    for spec in ("number", "number:answer", "exact", "exact:answer"):
        reward = load_reward(spec, rows=rows)
        assert reward.name == f"{spec.partition(':')[0]}:answer" and reward(["2 + 3?"] * 2, ["It is\n#### 5", "6"]) == [
            1,
            0,
        ]
    pattern = load_reward(r"regex:^#### \d+$")
    assert pattern(["q"] * 3, ["#### 12", "x #### 12", "#### 12 x"]) == [1, 0, 0]


def test_specs_that_cannot_be_are_refused_in_a_line() -> None:
    with pytest.raises(OptionError, match=r"reward number:answer: .* it goes with --prompts FILE"):
        load_reward("number:answer")
    with pytest.raises(OptionError, match=r"regex:\(: not a regular expression"):
        load_reward("regex:(")
    with pytest.raises(OptionError, match="expected regex:PATTERN"):
        load_reward("regex:")
    with pytest.raises(OptionError, match=r"unknown reward 'numbre:answer'.*number:FIELD"):
        load_reward("numbre:answer")


def test_a_users_function_may_take_rows(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def near(prompts, responses, rows):\n"
        "    return [-abs(float(r) - row['target']) for r, row in zip(responses, rows)]\n"
    )
    reward = load_reward(f"{file}:near", rows=[row("a", target=2), row("b", target=5)])
    assert reward(["b", "a"], ["4", "4"]) == [-1, -2]
    with pytest.raises(RewardError, match=r"mine.py:near: raised ValueError: .* \(line 2\)"):
        reward(["a"], ["four"])
    with pytest.raises(OptionError, match="takes the prompts' rows"):
        load_reward(f"{file}:near")


def test_as_many_prompts_as_responses() -> None:
    reward = RowReward(NumberAnswer(), [row("q", answer=1)])
    assert reward([], []) == []
    with pytest.raises(RewardError, match="got 1 prompts and 2 responses"):
        reward(["q"], ["1", "1"])
