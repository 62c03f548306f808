"""`paperworks select ladder`: graded versions to look at and to keep; mistakes are one line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from paperworks.cli.main import main

CHOSEN = "My landlord kept the security deposit. The deposit was two months rent."
REJECTED = "Red apples and green pears and blue plums are my favourite fruit."


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Complaint {n}?", "chosen": CHOSEN, "rejected": REJECTED} for n in range(3)]
    rows.append({"prompt": "Short?", "chosen": "Yes.", "rejected": "No."})
    Path("prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("demos.jsonl").write_text(json.dumps({"prompt": "Complaint?", "response": CHOSEN}) + "\n")


def written(path: str = "ladders.jsonl") -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["select", *words]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    return line


def test_statistics_and_ladders_for_reading(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["select", "ladder", "--data", "prefs.jsonl", "--degrees", "3", "--stop-words", "short", "--show", "1"])
        == 0
    )
    out = capsys.readouterr().out
    assert "prefs.jsonl: 4 preference rows" in out
    assert "4 responses of 9.2 words, 3.2 key phrases each" in out
    assert "3 have a ladder (75.0%), 1 too few key phrases" in out
    assert "words left by degree: 12.0, 7.0, 4.0" in out
    assert "chosen of “Complaint 0?”" in out and "Complaint 1?" not in out
    assert "  1  My the security deposit. The deposit was." in out
    assert "without two months rent, landlord kept\n" in out
    assert "without security deposit, deposit\n" in out


def test_the_file_has_every_version(capsys: pytest.CaptureFixture[str]) -> None:
    command = "select ladder --data prefs.jsonl --degrees 3 --stop-words short --out ladders.jsonl --show 0"
    assert main(command.split()) == 0
    assert "ladders ladders.jsonl" in capsys.readouterr().out
    rows = written()
    assert [(row["prompt"], row["degree"]) for row in rows[:4]] == [
        ("Complaint 0?", 0), ("Complaint 0?", 1), ("Complaint 0?", 2), ("Complaint 1?", 0),
    ]  # fmt: skip
    assert len(rows) == 9 and rows[0]["text"] == CHOSEN and rows[0]["removed"] == []
    assert rows[2]["removed"] == ["two months rent", "landlord kept", "security deposit", "deposit"]


def test_the_file_is_replaced_only_when_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("ladders.jsonl").write_text("mine")
    words = ["ladder", "--data", "prefs.jsonl", "--out", "ladders.jsonl"]
    assert "--out ladders.jsonl: exists; give another file or --overwrite" in refused(capsys, *words)
    assert Path("ladders.jsonl").read_text() == "mine"
    assert main(["select", *words, "--overwrite"]) == 0
    assert written()


def test_both_responses_of_a_pair() -> None:
    command = "select ladder --data prefs.jsonl --source both --degrees 3 --out ladders.jsonl"
    assert main(command.split()) == 0
    assert {row["role"]: row["text"] for row in written() if row["degree"] == 0} == {
        "chosen": CHOSEN,
        "rejected": REJECTED,
    }


def test_responses_of_demonstrations(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "ladder", "--data", "demos.jsonl", "--source", "response", "--degrees", "3"]) == 0
    assert "response of “Complaint?”" in capsys.readouterr().out


def test_a_packed_file_another_column_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    with gzip.open("other.jsonl.gz", "wt") as file:
        for _ in range(5):
            file.write(json.dumps({"question": "Why?", "chosen": CHOSEN, "rejected": REJECTED}) + "\n")
    command = "select ladder --data other.jsonl.gz --map prompt=question --limit 2 --json"
    assert main(command.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["responses"], found["share"], found["out"]) == (2, 1.0, None)


def test_stop_words_from_a_file() -> None:
    Path("words.txt").write_text("kept\nsecurity\n")
    command = "select ladder --data prefs.jsonl --degrees 2 --stop-words words.txt --out ladders.jsonl"
    assert main(command.split()) == 0
    assert written()[1]["text"] == "kept security.."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "select: name what to select: paperworks select WHAT (known: ladder, filter, pairs)"),
        ("lader", "(did you mean 'ladder'?)"),
        ("ladder", "give the training rows: --data FILE"),
        ("ladder --data none.jsonl", "none.jsonl: no such file"),
        ("ladder --data prefs.jsonl --degrees 1", "degrees=1 is out of range: it must be ≥ 2"),
        ("ladder --data prefs.jsonl --rho 2", "rho=2.0 is out of range: it must be > 0 and ≤ 1"),
        (
            "ladder --data prefs.jsonl --degrees 20",
            "only 0 of 4 responses have the 19 key phrases that 20 degrees take",
        ),
        ("ladder --data prefs.jsonl --stop-words englisch", "no such file or list (did you mean 'english'?)"),
        ("ladder --data prefs.jsonl --removl key", "unknown option --removl (did you mean '--removal'?)"),
        ("ladder --data prefs.jsonl --source rejected", "'rejected' is not one of the choices"),
        ("ladder --data prefs.jsonl --show -1", "--show: expected a whole number of at least 0, got -1"),
        ("ladder --data demos.jsonl", "demos.jsonl"),
    ],
)
def test_a_mistake_is_one_line(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(capsys, *words.split())


def test_responses_of_several_turns_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    turns = [
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    row = {"prompt": [{"role": "user", "content": "x"}], "chosen": turns, "rejected": turns[:1]}
    Path("turns.jsonl").write_text(json.dumps(row) + "\n")
    said = refused(capsys, *["ladder", "--data", "turns.jsonl", "--format", "chat"])
    assert "turns.jsonl:1: field 'chosen': ladders take responses of plain text" in said


def test_help_names_the_actions_and_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "--help"]) == 0
    assert "ladder" in capsys.readouterr().out
    assert main(["select", "ladder", "--help"]) == 0
    out = capsys.readouterr().out
    for option in ("--data", "--source", "--degrees", "--rho", "--stop-words", "--out", "--limit", "--show"):
        assert option in out
