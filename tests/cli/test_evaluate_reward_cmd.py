"""`paperworks evaluate reward`, and rewards by folder in the other commands; mistakes cost one line and exit 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.cli import evaluate_reward_cmd
from paperworks.cli.main import main
from paperworks.core.errors import PaperworksError
from paperworks.core.options import load_yaml
from paperworks.core.runs import RunStore
from paperworks.language.rewards import load_reward
from paperworks.language.rewards.model import RewardModel
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy

torch.set_num_threads(1)
Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = byte_level_tokenizer([p + r for p, r in generate_reviews(200, 0)], 350)
    folder = tmp_path_factory.mktemp("models") / "small"
    return fresh_policy(TinySpec(layers=1, width=32, heads=2, context=128), tokenizer).save(folder)


@pytest.fixture(scope="module")
def reward_folder(policy_folder: Path) -> Path:
    model = RewardModel.load(policy_folder, device="cpu")
    with torch.no_grad():
        model.base.score.weight.mul_(30)  # type: ignore[union-attr,operator]
    return model.save(policy_folder.parent / "reward")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = zip(generate_reviews(30, 1), generate_reviews(30, 2), strict=True)
    made = [{"prompt": a.prompt, "chosen": a.response, "rejected": b.response} for a, b in rows]
    return write(tmp_path / "pairs.jsonl", made)


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    rows = [{"prompt": p, "response": r, "reward": len(r) / 10} for p, r in generate_reviews(30, 1)]
    return write(tmp_path / "scored.jsonl", rows)


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Runs the command and returns its JSON, figures by name."""

    def run(*words: object) -> dict[str, Any]:
        args = evaluate_reward_cmd.parse([*map(str, words), "--device", "cpu", "--json", "--quiet"])
        assert evaluate_reward_cmd.run(args) == 0
        found = json.loads(capsys.readouterr().out)
        return {**found, "figures": {figure["name"]: figure for figure in found["figures"]}}

    return run


def test_pairs_are_measured_by_the_models_scores(evaluate: Evaluate, reward_folder: Path, pairs: Path) -> None:
    found = evaluate("--reward", reward_folder, "--data", pairs)
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    reward = load_reward(str(reward_folder), device="cpu")
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = (reward(prompts, [row[side] for row in rows]) for side in ("chosen", "rejected"))
    accuracy = sum((a > b) + 0.5 * (a == b) for a, b in zip(chosen, rejected, strict=True)) / len(rows)
    assert found["figures"]["accuracy"]["mean"] == pytest.approx(accuracy)
    assert found["figures"]["accuracy"]["low"] < accuracy < found["figures"]["accuracy"]["high"]
    assert found["measures"]["length"]["unit"] == "tokens"


@pytest.mark.parametrize("reward", ["length", "FILE.py:fn"])
def test_any_reward_can_be_measured(reward: str, evaluate: Evaluate, pairs: Path, tmp_path: Path) -> None:
    if reward == "FILE.py:fn":
        (tmp_path / "own.py").write_text("def fn(prompt, response):\n    return len(response.split())\n")
        reward = f"{tmp_path / 'own.py'}:fn"
    found = evaluate("--reward", reward, "--data", pairs)
    assert found["figures"]["longer_preferred"]["mean"] == 1
    assert found["measures"]["length"]["unit"] == "words"


def test_scored_rows_are_told_by_their_fields(evaluate: Evaluate, reward_folder: Path, scored: Path) -> None:
    found = evaluate("--reward", reward_folder, "--data", scored)
    assert {"squared_error", "r_squared", "rank_correlation", "correlation"} <= found["figures"].keys()
    assert found["data"]["schema"] == "scored"


def test_several_rewards_of_a_row_are_summed(evaluate: Evaluate, tmp_path: Path) -> None:
    rows = [{"prompt": "p", "response": "w " * n, "rewards": {"a": n / 2, "b": n / 4}} for n in range(1, 9)]
    found = evaluate("--reward", "length", "--data", write(tmp_path / "s.jsonl", rows), "--reward-weights", "1,2")
    assert found["figures"]["squared_error"]["mean"] == pytest.approx(0)
    assert found["data"]["score"] == "R = a + 2 * b"


@pytest.mark.parametrize("kind", ["pairs", "scored"])
def test_out_keeps_rows_report_and_what_repeats_the_run(
    kind: str, evaluate: Evaluate, reward_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    out = tmp_path / "run"
    found = evaluate("--reward", reward_folder, "--data", request.getfixturevalue(kind), "--out", out)
    (record,) = RunStore().list()
    assert (record.verb, record.status) == ("evaluate", "finished")
    assert len((out / "rows.jsonl").read_text().splitlines()) == 30
    page = (out / "report.html").read_text()
    assert "<svg" in page and ("It ranks" in page) == (kind == "pairs")
    again = evaluate("--config", out / "run.yaml")
    assert again["figures"] == found["figures"]
    assert load_yaml(out / "run.yaml")["reward"] == str(reward_folder)


def test_texts_too_long_for_the_model_are_counted(evaluate: Evaluate, reward_folder: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "chosen": "It was fun. " * 60, "rejected": "no"},
        {"prompt": "q", "chosen": "yes", "rejected": "no"},
    ]
    found = evaluate("--reward", reward_folder, "--data", write(tmp_path / "long.jsonl", rows))
    assert any("25.0% of prompts with responses were longer than the 128 tokens" in note for note in found["notes"])


def test_the_table_is_for_reading(reward_folder: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--reward", str(reward_folder), "--data", str(pairs), "--quiet", "--device", "cpu"]
    assert evaluate_reward_cmd.run(evaluate_reward_cmd.parse(args)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("accuracy: chosen above rejected") and "30 pairs" in line for line in lines)
    assert any(line.startswith("expected calibration error") for line in lines)


# ------------------------------------------------------------------------------------------------------------ other commands


def test_generate_keeps_the_best_by_a_reward_model(
    policy_folder: Path, reward_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "--model", policy_folder, "--prompt", "The film was", "--best-of", "4", "--n", "2"]
    words += ["--reward", reward_folder, "--max-new-tokens", "6", "--device", "cpu", "--json", "--quiet"]
    assert main(list(map(str, words))) == 0
    responses = json.loads(capsys.readouterr().out)[0]["responses"]
    texts, rewards = [each["text"] for each in responses], [each["reward"] for each in responses]
    assert rewards == sorted(rewards, reverse=True)
    scores = load_reward(str(reward_folder), device="cpu")(["The film was"] * len(texts), texts)
    assert rewards == pytest.approx(scores, abs=1e-4)


def test_evaluate_measures_samples_by_a_reward_model(
    policy_folder: Path, reward_folder: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--model", policy_folder, "--data", pairs, "--reward", reward_folder, "--metrics", "reward"]
    words += [
        "--max-new-tokens",
        "6",
        "--device",
        "cpu",
        "--json",
        "--quiet",
        "--limit",
        "4",
        "--out",
        tmp_path / "run",
    ]
    assert main(list(map(str, words))) == 0
    (figure,) = json.loads(capsys.readouterr().out)["figures"]
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    reward = load_reward(str(reward_folder), device="cpu")
    scores = reward([each["prompt"] for each in samples], [each["text"] for each in samples])
    assert figure["mean"] == pytest.approx(sum(scores) / len(scores), abs=1e-4)


# ------------------------------------------------------------------------------------------------------------------- mistakes


def refused(*words: object) -> str:
    with pytest.raises(PaperworksError) as caught:
        evaluate_reward_cmd.run(evaluate_reward_cmd.parse([*map(str, words), "--quiet", "--device", "cpu"]))
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_missing_is_said(pairs: Path, reward_folder: Path) -> None:
    assert "give the reward to measure: --reward" in refused("--data", pairs)
    assert "give rows to measure it on: --data" in refused("--reward", reward_folder)


def test_a_policy_is_no_reward(pairs: Path, policy_folder: Path) -> None:
    assert "without a trained reward head" in refused("--reward", policy_folder, "--data", pairs)


def test_rows_without_reward_or_pair(tmp_path: Path, reward_folder: Path) -> None:
    data = write(tmp_path / "rows.jsonl", [{"prompt": "p", "response": "r"}])
    assert "rows.jsonl:1: field 'reward'" in refused("--reward", reward_folder, "--data", data)


def test_weights_go_with_scored_rows(pairs: Path, scored: Path, reward_folder: Path) -> None:
    words = ("--reward", reward_folder, "--reward-weights", "1,2", "--data")
    assert "--reward-weights goes with scored rows" in refused(*words, pairs)
    assert "reward_weights has 2 weights, the rows have 1 rewards" in refused(*words, scored)


def test_messages_for_a_reward_model_without_template(tmp_path: Path, reward_folder: Path) -> None:
    model = RewardModel.load(reward_folder, device="cpu")
    model.tokenizer.chat_template = None
    folder = model.save(tmp_path / "no-template")
    chat = [{"role": "user", "content": "hi"}]
    data = write(tmp_path / "chats.jsonl", [{"prompt": chat, "chosen": "yes", "rejected": "no"}])
    assert "has no chat template and the prompt is a list of messages" in refused("--reward", folder, "--data", data)
