"""GSM8K's, HumanEval's and MBPP's files are prompts with answers or tests beside them, and demonstrations."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from paperworks.core.errors import DataError, OptionError
from paperworks.language.data import Demonstration, Feedback, PromptRow, read

GSM8K = {"question": "Ann has 3 pens and buys 4. How many?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def f(x):\n    """Adds 1."""\n',
    "entry_point": "f",
    "canonical_solution": "    return x + 1\n",
    "test": "def check(candidate):\n    assert candidate(1) == 2\n",
}
MBPP = {
    "task_id": 601,
    "text": "Write a function that adds 1.",
    "code": "def f(x): return x + 1",
    "test_list": ["assert f(1) == 2", "assert f(2) == 3"],
    "test_setup_code": "",
    "challenge_test_list": [],
}


def file_of(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
    return path


@pytest.mark.parametrize("format", ["auto", "gsm8k"])
def test_gsm8k(tmp_path: Path, format: str) -> None:
    path = file_of(tmp_path, GSM8K)
    dataset = read(path, PromptRow, format=format)
    assert dataset.report.format == "gsm8k"
    assert dataset[0].prompt == GSM8K["question"]
    assert dataset[0].fields == {"question": GSM8K["question"], "answer": "7", "response": GSM8K["answer"]}
    assert list(read(path, Demonstration, format=format)) == [Demonstration(GSM8K["question"], GSM8K["answer"])]


@pytest.mark.parametrize("format", ["auto", "humaneval"])
def test_humaneval(tmp_path: Path, format: str) -> None:
    path = file_of(tmp_path, HUMANEVAL)
    row = read(path, PromptRow, format=format)[0]
    assert row.prompt == HUMANEVAL["prompt"].rstrip() and row.fields["test"] == HUMANEVAL["test"]
    assert "prompt" not in row.fields
    assert read(path, Demonstration, format=format)[0].response == "\n" + HUMANEVAL["canonical_solution"]


@pytest.mark.parametrize("format", ["auto", "mbpp"])
@pytest.mark.parametrize("name", ["text", "prompt"])  # the sanitised half calls it prompt
def test_mbpp(tmp_path: Path, format: str, name: str) -> None:
    path = file_of(tmp_path, {name: MBPP["text"], **{key: value for key, value in MBPP.items() if key != "text"}})
    row = read(path, PromptRow, format=format)[0]
    assert row.prompt == (
        "Write a function that adds 1.\nYour code should pass these tests:\n\nassert f(1) == 2\nassert f(2) == 3\n"
    )
    assert row.fields["test"] == row.fields["test_list"] == MBPP["test_list"]
    assert read(path, Demonstration, format=format)[0].response == MBPP["code"]


def test_other_files_and_other_schemas_are_read_as_before(tmp_path: Path) -> None:
    path = file_of(tmp_path, GSM8K)
    assert read(path, PromptRow, mapping=["prompt=question"])[0].fields["answer"] == GSM8K["answer"]
    plain = file_of(tmp_path, {"prompt": "a", "answer": "b", "nested": {"x": [1, None]}})
    dataset = read(plain, PromptRow)
    assert dataset.report.format == "plain"
    assert dataset[0].fields == {"answer": "b", "nested": {"x": [1, None]}}
    with pytest.raises(DataError, match="field 'prompt': missing"):
        read(file_of(tmp_path, GSM8K), Feedback)


def test_fields_are_not_part_of_what_makes_prompts_equal_but_of_what_a_run_depends_on(tmp_path: Path) -> None:
    one, two = (read(file_of(tmp_path, {"prompt": "a", "answer": answer}), PromptRow) for answer in ("b", "c"))
    assert one[0] == two[0] and one.fingerprint != two.fingerprint


@pytest.mark.parametrize(
    ("format", "record", "message"),
    [
        ("gsm8k", {**GSM8K, "answer": "seven"}, "field 'answer': expected a solution that ends with `#### ANSWER`"),
        ("gsm8k", {"answer": "#### 7"}, "field 'question': missing; expected text"),
        ("gsm8k", {**GSM8K, "question": 5}, "field 'question': expected a string"),
        ("humaneval", {**HUMANEVAL, "test": None}, "field 'test': missing"),
        ("mbpp", {**MBPP, "test_list": []}, "field 'test_list': expected a list of strings"),
        ("mbpp", {**MBPP, "test_list": "assert f"}, "field 'test_list': expected a list of strings"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, format: str, record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"rows.jsonl.gz:1: {message}"):
        read(file_of(tmp_path, record), PromptRow, format=format)


def test_unknown_formats_name_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"unknown format 'gms8k' \(did you mean 'gsm8k'\?\)"):
        read("x.jsonl", PromptRow, format="gms8k")
