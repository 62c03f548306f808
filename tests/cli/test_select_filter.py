"""`paperworks select filter`: which samples to train on, from rewards beside scores; mistakes are one line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from paperworks.cli.main import main


def write(path: str, rows: list[dict]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def samples(prompts: int = 60, per_prompt: int = 5, *, scale: float = 0.45) -> list[dict]:
    """Rewards that follow the chance of a score at their ends, and nothing in the middle."""
    chance = random.Random(0)
    rows = []
    for prompt in range(prompts):
        for _ in range(per_prompt):
            reward = max(-1.0, min(1.0, chance.gauss(0, scale)))
            passes = 0.5 + (0.45 if reward > 0.3 else -0.45 if reward < -0.3 else chance.uniform(-0.4, 0.4))
            rows.append({"prompt_id": prompt, "reward": reward, "score": int(chance.random() < passes)})
    return rows


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("scored.jsonl", samples())


def refused(capsys: pytest.CaptureFixture[str], words: str) -> str:
    assert main(["select", "filter", *words.split()]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    return line


def test_a_table_and_a_recommendation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "filter", "--data", "scored.jsonl"]) == 0
    out = capsys.readouterr().out
    assert "scored.jsonl: 60 prompts of 5 samples" in out
    rows = {
        line.split()[0]: line
        for line in out.splitlines()
        if line.split() and line.split()[0] in ("br", "bw", "none", "bon")
    }
    assert len(rows) == 4 and " 40.0%" in rows["bw"] and " 40.0%" in rows["br"] and "100.0%" in rows["none"]
    assert "20.0%" in rows["bon"]
    assert "expected order: " in out and "recommended: " in out and "pow:2" in out


def test_json_has_the_same_and_the_order_of_rows_within_prompts_matters_little(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = samples()
    write("shuffled.jsonl", sorted(rows, key=lambda row: row["reward"]))
    found = []
    for file in ("scored.jsonl", "shuffled.jsonl"):
        assert main(f"select filter --data {file} --filter bw none --json".split()) == 0
        found.append(json.loads(capsys.readouterr().out))
    by_name = [{each["filter"]: each["r2"] for each in run["filters"]} for run in found]
    assert by_name[0] == pytest.approx(by_name[1])  # neither filter draws
    assert found[0]["recommended"] == found[0]["order"][0]
    assert all(each["low"] <= each["r2"] + 0.2 and each["high"] <= 1 for each in found[0]["filters"])


def test_a_page_with_the_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "filter", "--data", "scored.jsonl", "--out", "page.html"]) == 0
    page = Path("page.html").read_text()
    assert "Which samples to train on" in page and "<svg" in page and "recommended: " in page
    capsys.readouterr()
    assert "exists" in refused(capsys, "--data scored.jsonl --out page.html")


def test_other_columns_and_thresholds(capsys: pytest.CaptureFixture[str]) -> None:
    write(
        "other.jsonl",
        [{"task": f"t{r['prompt_id']}", "rm": r["reward"], "passed": bool(r["score"])} for r in samples()],
    )
    command = (
        "select filter --data other.jsonl --prompt-field task --reward-field rm --score-field passed "
        "--filter top_bottom top_random custom:0.5,0.5,0,0,0 --high 0.3 --low -0.3 --json"
    )
    assert main(command.split()) == 0
    shares = {each["filter"]: each["kept_share"] for each in json.loads(capsys.readouterr().out)["filters"]}
    assert shares["custom:0.5,0.5,0,0,0"] == pytest.approx(0.4)
    assert 0.3 < shares["top_bottom"] < 0.7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "give the scored samples: --data FILE"),
        ("--data none.jsonl", "none.jsonl: no such file"),
        ("--data scored.jsonl --filter best", "unknown filter 'best'"),
        ("--data scored.jsonl --filter pow", "filter 'pow': expected pow:K"),
        ("--data scored.jsonl --filter pow:two", "expected numbers after the colon"),
        ("--data scored.jsonl --filter pow:-1", "expected a power above 0"),
        ("--data scored.jsonl --filter custom:0.5,0.5", "2 weights for 5 samples a prompt; expected one each"),
        ("--data scored.jsonl --filter custom:1,0,0,0,1", "the weights sum to 2; expected 1"),
        ("--data scored.jsonl --filter custom:1.5,-0.5,0,0,0", "expected weights of at least 0"),
        ("--data scored.jsonl --filter top", "filter top: expected a threshold high"),
        ("--data scored.jsonl --filter top --high 3", "filter top: nothing is left of 300 samples at high=3"),
        ("--data scored.jsonl --filter top_bottom --high 0 --low 1", "low=1 is above high=0"),
        ("--data scored.jsonl --groups 3", "groups=3 is out of range: it must be ≥ 4"),
        ("--data scored.jsonl --filter custom:1,0,0,0,0 --keep 0", "keep=0: expected at least 1"),
        ("--data scored.jsonl --reward-field rewrad", "field 'rewrad': missing (did you mean 'reward'?)"),
    ],
)
def test_a_mistake_is_one_line(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(capsys, words)


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        (samples(per_prompt=1), "", "ranks 1 sample a prompt; expected at least 2, or filter none"),
        ([{**row, "score": 1} for row in samples()], "", "all scores are 1: nothing to predict"),
        ([{**row, "reward": 0.5} for row in samples()], "", "all rewards are 0.5: no filter can tell samples apart"),
        (
            [{**row, "reward": 9 * row["reward"]} for row in samples()],
            "--filter pow:2",
            "filter pow:2: takes rewards in [-1, 1]",
        ),
        (
            [{**row, "reward": float(row["reward"] > 0)} for row in samples()],
            "",
            "R² is not meaningful for any filter: 2 of 10 groups",
        ),
        (samples()[:-2], "", "prompt the string '59' has 3 rows where most have 5"),
        (
            [*samples(), {"prompt_id": 9, "reward": "high", "score": 1}],
            "",
            "expected a number, found the string 'high'",
        ),
        ([*samples(), {"prompt_id": 9, "reward": float("nan"), "score": 1}], "", "expected a finite number"),
        ([*samples(), {"prompt_id": None, "reward": 1, "score": 1}], "", "field 'prompt_id': missing"),
    ],
)
def test_rows_that_cannot_be_used(rows: list[dict], words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("bad.jsonl", rows)
    assert said in refused(capsys, f"--data bad.jsonl {words}")


def test_bad_rows_may_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    write(
        "bad.jsonl",
        [*samples(), {"prompt_id": 60, "reward": 1, "score": 1}, {"prompt_id": 61, "reward": "x", "score": 1}],
    )
    assert main(["select", "filter", "--data", "bad.jsonl", "--bad-rows", "skip"]) == 0
    out = capsys.readouterr().out
    assert "60 prompts of 5 samples, 1 left out (wrong type), 1 left out (another number of samples)" in out


def test_a_filter_with_too_few_groups_is_named_and_the_others_are_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "filter", "--data", "scored.jsonl", "--filter", "none", "top", "--high", "0.9"]) == 0
    out = capsys.readouterr().out
    assert "top: R² is not meaningful, 1 of 10 groups of rewards have samples, a line takes 4 or more" in out
    assert "recommended: none" in out
