"""`paperworks select pairs`: preference pairs of scored candidates; mistakes are one line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from paperworks.cli.main import main
from paperworks.language.data import read


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chance = random.Random(0)
    rows = [
        {
            "prompt": f"Question {n}?",
            "responses": [f"answer {n}.{k}" for k in range(16 + n % 3)],
            "scores": [chance.gauss(0, 1) for _ in range(16 + n % 3)],
        }
        for n in range(20)
    ]
    write("candidates.jsonl", rows)


def write(path: str, rows: list[dict]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def written() -> list[dict]:
    return [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()]


def refused(capsys: pytest.CaptureFixture[str], words: str) -> str:
    assert main(["select", "pairs", *words.split()]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    return line


def test_pairs_are_rows_that_any_preference_training_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "pairs", "--data", "candidates.jsonl", "--out", "pairs.jsonl"]) == 0
    out = capsys.readouterr().out
    assert "80 pairs of 20 prompts, 8 accepted each" in out and "expected acceptance of the first sweep: median" in out
    rows = written()
    assert len(rows) == 80 and len(read("pairs.jsonl", "preference").rows) == 80
    for row in rows:
        assert row["chosen_reward"] >= row["rejected_reward"] and 0.5 <= row["probability"] <= 1
        assert row["chosen"].split(".")[0] == row["prompt"].lower().replace("question", "answer").rstrip("?")
    by_prompt = [row[side] for row in rows[:4] for side in ("chosen", "rejected")]
    assert len(set(by_prompt)) == 8


def test_beta_0_takes_the_best_and_a_tournament_has_more_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    command = "select pairs --data candidates.jsonl --beta 0 --n-samples 2 --out pairs.jsonl --json"
    assert main(command.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"] == 20 and found["accepted_reward"] > 1 > found["mean_reward"]
    source = json.loads(Path("candidates.jsonl").read_text().splitlines()[0])
    best, second = sorted(source["scores"], reverse=True)[:2]
    assert (written()[0]["chosen_reward"], written()[0]["rejected_reward"]) == (best, second)
    assert main(["select", "pairs", "--data", "candidates.jsonl", "--ranking", "tournament", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == 140


def test_other_names_and_doubled_candidates(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": "a?", "candidates": ["x", "y", "x", "z"], "rewards": [1, 2, 3, 4]},
        {"prompt": "b?", "candidates": ["x", "x", "x", "z"], "rewards": [1, 2, 3, 4]},
    ]
    write("other.jsonl", rows)
    words = "--data other.jsonl --map responses=candidates --n-samples 3 --ranking tournament --json"
    said = refused(capsys, words)
    assert "other.jsonl:2: field 'responses': 2 different candidates, n_samples=3 are to be accepted; draw more" in said
    assert main(["select", "pairs", *words.split(), "--bad-rows", "skip"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["prompts"], found["pairs"], found["left_out"]) == (1, 2, 1)


def test_rewards_far_apart_for_beta_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "pairs", "--data", "candidates.jsonl", "--beta", "0.01"]) == 0
    assert "this is nearly best-of-n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "give the training rows: --data FILE"),
        (
            "--data candidates.jsonl --n-samples 7",
            "n_samples=7: expected an even number to pair, or ranking=tournament",
        ),
        ("--data candidates.jsonl --n-samples 18", "16 different candidates, n_samples=18"),
        ("--data candidates.jsonl --beta -1", "beta=-1.0 is out of range: it must be ≥ 0"),
        ("--data candidates.jsonl --sampler best", "'best' is not one of the choices (known: exact, paper)"),
    ],
)
def test_a_mistake_is_one_line(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(capsys, words)


def test_a_missing_reward_names_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    write("bad.jsonl", [{"prompt": "a?", "responses": ["x", "y"], "scores": [1, float("nan")]}])
    assert "bad.jsonl:1: field 'scores': expected finite numbers; number 2" in refused(capsys, "--data bad.jsonl")
