"""The rows of an unlearning run: drawn alternatives, what is refused, and lists of answers from files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from paperworks.core.errors import DataError
from paperworks.language.data import Dataset, Forget, Message, Report, Retain, Text, Where
from paperworks.language.objectives.npo import NPO, NPORetain
from paperworks.language.objectives.unlearning import GradientAscentKL, GradientDifference, UnlearningObjective
from paperworks.language.objectives.unlearning_alternatives import DPOIDK, IDK, KTOIDK
from paperworks.language.unlearning.data import assemble, read_alternatives
from paperworks.language.unlearning.refusals import REFUSALS


def to_forget(*prompts: Text, answer: str = " Anna.", alternative: str = "") -> Dataset[Forget]:
    rows = [Forget(p, answer, alternative, where=Where("f.jsonl", i)) for i, p in enumerate(prompts, start=1)]
    return Dataset(rows, Report(source="f.jsonl", schema="forget", noted={"odd": 1}))


def to_keep(*prompts: Text, answer: str = " A hat.") -> Dataset[Retain]:
    rows = [Retain(p, answer, where=Where("r.jsonl", 10 * i)) for i, p in enumerate(prompts, start=1)]
    return Dataset(rows, Report(source="r.jsonl", schema="retain", noted={"odd": 2}))


def refusal(
    forget: Dataset[Forget],
    retain: Dataset[Retain] | None,
    objective: UnlearningObjective,
    alternatives: Sequence[str] | None = None,
) -> str:
    with pytest.raises(DataError) as caught:
        assemble(forget, retain, alternatives, seed=0, objective=objective)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_to_keep_follow_those_to_forget() -> None:
    made = assemble(to_forget("Who?"), to_keep("What?", "Why?"), None, seed=0, objective=NPORetain())
    assert list(made) == [Forget("Who?", " Anna."), Retain("What?", " A hat."), Retain("Why?", " A hat.")]
    assert made.report.source == "f.jsonl + r.jsonl"
    assert made.report.noted == {"odd": 3}
    assert made.report.lines()[0].startswith("f.jsonl + r.jsonl: 3 forget (1) and retain (2) rows")
    assert "alternative" not in made.report.mean_characters


def test_rows_to_keep_that_are_not_trained_on_are_left_out_with_a_note() -> None:
    made = assemble(to_forget("Who?"), to_keep("What?", "Why?"), None, seed=0, objective=NPO())
    assert list(made) == [Forget("Who?", " Anna.")]
    assert {key: count for key, count in made.report.noted.items() if "npo does not train on" in key}.popitem()[1] == 2


@pytest.mark.parametrize("objective", [DPOIDK(), IDK(retain_weight=0.0), KTOIDK()], ids=repr)
def test_alternatives_are_drawn_by_the_seed_and_begin_as_the_answers_do(objective: UnlearningObjective) -> None:
    prompts = [f"Question {number}?" for number in range(40)]

    def drawn(seed: int) -> list[Any]:
        rows = assemble(to_forget(*prompts), None, ["No idea.", "Unknown."], seed=seed, objective=objective)
        return [row.alternative for row in rows]

    assert set(drawn(0)) == {" No idea.", " Unknown."}
    assert drawn(0) == drawn(0) != drawn(1)
    chat = assemble(to_forget("Who?", answer="Anna."), None, ["No idea."], seed=0, objective=objective)
    assert chat[0].alternative == "No idea."


def test_an_alternative_of_the_row_itself_stays() -> None:
    made = assemble(to_forget("Who?", alternative="Ask her."), None, [], seed=0, objective=DPOIDK())
    assert made[0].alternative == "Ask her."
    assert made.report.noted == {"odd": 1}


def test_the_built_in_list_is_used_and_noted_where_none_is_given() -> None:
    made = assemble(to_forget("Who?", "Where?"), None, None, seed=0, objective=DPOIDK())
    assert all(row.alternative.strip() in REFUSALS for row in made)
    assert [count for kind, count in made.report.noted.items() if "--idk FILE" in kind] == [2]
    given = assemble(to_forget("Who?", "Where?"), None, ["No idea."], seed=0, objective=DPOIDK())
    assert given.report.noted == {"odd": 1}


def test_nothing_is_drawn_for_objectives_without_alternatives() -> None:
    made = assemble(to_forget("Who?"), None, ["No idea."], seed=0, objective=NPO())
    assert made[0].alternative == ""
    assert [kind for kind in made.report.noted if "npo does not use (--idk)" in kind]


def test_built_in_refusals_are_different_sentences() -> None:
    assert len({refusal.casefold() for refusal in REFUSALS}) == len(REFUSALS) >= 30
    assert all(refusal == refusal.strip() and refusal.endswith(".") for refusal in REFUSALS)


def chat(question: str) -> tuple[Message, ...]:
    return (Message(role="user", content=question),)


@pytest.mark.parametrize("objective", [NPO(), NPORetain()], ids=repr)
@pytest.mark.parametrize("same", ["Who is it?", " who  IS\nit? ", chat("Who is it?")], ids=["same", "spaced", "chat"])
def test_prompts_in_both_are_named(objective: UnlearningObjective, same: Text) -> None:
    found = refusal(to_forget("Where?", "Who is it?"), to_keep("What?", same), objective)
    assert (
        "1 of 2 prompts to forget are also among those to keep, 0 with the same answer: f.jsonl:2 = r.jsonl:20" in found
    )


def test_of_many_prompts_in_both_the_first_are_named_and_the_others_counted() -> None:
    prompts = [f"Question {number}?" for number in range(9)]
    found = refusal(to_forget(*prompts), to_keep(*prompts, answer="anna."), NPORetain())
    assert found.startswith("9 of 9") and "9 with the same answer" in found
    assert "f.jsonl:1 = r.jsonl:10, f.jsonl:2 = r.jsonl:20, f.jsonl:3 = r.jsonl:30 and 6 more" in found


def test_rows_from_no_file_are_named_by_number() -> None:
    found = refusal(Dataset([Forget("a", "x"), Forget("b", "y")]), Dataset([Retain("b", "z")]), NPORetain())
    assert "row 2 = row 1" in found


def test_an_empty_set_to_forget() -> None:
    assert "--forget FILE" in refusal(to_forget(), to_keep("What?"), NPO())
    assert refusal(to_forget(), None, NPO()).startswith("f.jsonl: no rows to forget")


@pytest.mark.parametrize("retain", [None, to_keep()], ids=["none", "empty"])
@pytest.mark.parametrize(
    "objective", [NPORetain(), GradientDifference(), GradientAscentKL(), IDK(), NPO(retain_weight=0.5)], ids=repr
)
def test_nothing_to_keep(objective: UnlearningObjective, retain: Dataset[Retain] | None) -> None:
    found = refusal(to_forget("Who?"), retain, objective, ["No idea."])
    assert found.startswith(f"{objective.name} needs rows to keep") and "--retain FILE" in found


def test_no_alternative_in_a_row_and_an_empty_list() -> None:
    found = refusal(to_forget("Who?"), None, DPOIDK(), [])
    assert found.startswith("f.jsonl:1: field 'alternative': dpo-idk needs") and "--idk FILE" in found


def test_answers_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "idk.txt"
    path.write_text('I don\'t know. \n\n"Unknown" is all I can say.\n"Quoted."\n{"idk": "No idea."}\n')
    expected = ["I don't know.", '"Unknown" is all I can say.', "Quoted.", "No idea."]
    assert read_alternatives(path) == expected
    packed = tmp_path / "idk.txt.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_alternatives(packed) == expected


@pytest.mark.parametrize("field", ["idk", "answer", "response", "text"])
def test_answers_as_json_lines(tmp_path: Path, field: str) -> None:
    path = tmp_path / "idk.jsonl"
    path.write_text("".join(json.dumps({"id": 3, field: text}) + "\n" for text in ("No idea.", " Unknown.")))
    assert read_alternatives(str(path)) == ["No idea.", "Unknown."]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ": no answers"),
        (b"\n \n", ": no answers"),
        (
            b'Unknown.\n{"reply": "No idea."}\n',
            ":2: expected the answer as idk, answer, response, text; found an object",
        ),
        (b'{"idk": "No', ":1: begins with { but is not JSON"),
        (b'{"idk": 3}', ":1: expected a string; found the number 3"),
        (b'{"idk": null}', ":1: expected a string; found null"),
        (b'{"idk": " "}', ":1: expected text"),
        (b"{}", ":1: expected the answer as idk"),
        (b"Unknown.\nNo id\xe9e.\n", ":2: expected UTF-8; found the byte 0xe9"),
        (b"\xff\xfeU\x00", ":1: the text is UTF-16"),
        (b"\x1f\x8b\x08", "gzip"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "idk.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_alternatives(path)
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_there_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_alternatives(tmp_path / "idk.txt")
    with pytest.raises(DataError, match=r"answers one a line, in a file that ends in \.txt"):
        read_alternatives(tmp_path / "idk.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_alternatives(tmp_path / "nowhere" / "idk.txt")
