"""`paperworks train reward-model`: what it leaves, and that whatever takes a reward takes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def fit(train: Any) -> Callable[..., Any]:
    """`paperworks train reward-model` on the preferences, quick, into tmp_path/out unless told otherwise."""
    return lambda *more, **named: train("reward-model", *more, **named)


@pytest.fixture(scope="module")
def trained(small_model: Path, rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a reward model."""
    from paperworks.cli.main import main

    folder = tmp_path_factory.mktemp("reward")
    data = write(folder / "preferences.jsonl", rows)
    words = ["--model", small_model, "--data", data, "--steps", 6, "--batch-size", 4, "--learning-rate", 0.003]
    assert main(["train", "reward-model", "--quiet", *map(str, words), "--out", str(folder / "run")]) == 0
    return folder / "run"


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def scores(folder: Path, prompts: list[str], responses: list[str]) -> list[float]:
    """By transformers alone: the one output at the end token."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert model.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(folder)
    out = []
    for prompt, response in zip(prompts, responses, strict=True):
        ids = tokenizer(prompt).input_ids + tokenizer(response, add_special_tokens=False).input_ids
        with torch.no_grad():
            out.append(float(model(torch.tensor([[*ids, tokenizer.eos_token_id]])).logits[0, 0]))
    return out


# --------------------------------------------------------------------------------------------------------- what it leaves


def test_it_leaves_a_run_with_a_reward_model(trained: Path) -> None:
    for name in ("run.yaml", "metrics.jsonl", "report.html", "model/config.json", "model/README.md"):
        assert (trained / name).stat().st_size > 0, name
    found = results(trained)
    assert (found["objective"], found["steps"]) == ("reward-model", 6)
    assert {"loss", "accuracy", "margin", "reward_chosen", "reward_rejected"} <= found["history"][-1].keys()
    assert found["final"]["loss"] < found["first"]["loss"]
    assert "AutoModelForSequenceClassification" in (trained / "model" / "README.md").read_text()


def test_transformers_gives_the_scores_that_paperworks_gives(trained: Path, rows: list[dict[str, Any]]) -> None:
    from paperworks.language.rewards import load_reward

    prompts, responses = [row["prompt"] for row in rows[:4]], [row["chosen"] for row in rows[:4]]
    wanted = scores(trained / "model", prompts, responses)
    assert load_reward(str(trained))(prompts, responses) == pytest.approx(wanted, abs=1e-4)
    assert len({round(score, 5) for score in wanted}) == 4


def test_what_to_do_next_is_said(train: Any) -> None:
    printed = train("reward-model", "--steps", 1).out
    assert "paperworks evaluate reward --reward" in printed and "--best-of" in printed


def test_scores_can_be_regressed_on(train: Any, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    scored = [{"prompt": r["prompt"], "response": r["chosen"], "reward": 50.0 + n} for n, r in enumerate(rows)]
    assert train("reward-regression", data=write(tmp_path / "scored.jsonl", scored)).code == 0
    values = scores(tmp_path / "out" / "model", [rows[0]["prompt"]], [rows[0]["chosen"]])
    assert values[0] == pytest.approx(56.5, abs=15)  # on the scale of the scores from the start
    assert results(tmp_path / "out")["preparation"]["reward"]["deviation"] == pytest.approx(4, abs=0.5)


def test_margins_and_centring_change_the_loss(fit: Any, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    with_margins = write(tmp_path / "margins.jsonl", [{**row, "margin": 1.0} for row in rows])
    first = {}
    for name, words in {
        "plain": ("--margin-weight", 0),
        "margin": (),
        "centred": ("--margin-weight", 0, "--centring", 1.0),
    }.items():
        assert fit(*words, "--steps", 1, "--out", tmp_path / name, data=with_margins).code == 0
        first[name] = results(tmp_path / name)["first"]["loss"]
    assert first["plain"] < first["margin"] and first["plain"] < first["centred"]


def test_adapters_keep_their_head(fit: Any, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    from paperworks.language.rewards import load_reward

    assert fit("--lora", "--lora-rank", 2, "--steps", 6, "--learning-rate", 0.01).code == 0
    assert (tmp_path / "out" / "model" / "adapter_config.json").is_file()
    reward = load_reward(str(tmp_path / "out"))
    again = load_reward(str(tmp_path / "out" / "model"))
    asked, given = [row["prompt"] for row in rows], [row["chosen"] for row in rows]
    assert reward(asked, given) == again(asked, given)


def test_a_run_that_failed_goes_on_to_the_same_end(
    fit: Any, command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    from paperworks.core import checkpoints
    from paperworks.core.errors import RunError

    assert fit("--save-every", 1, "--out", tmp_path / "whole").code == 0

    def fails_at_two(folder: Path, model: Any, optimiser: Any, state: Any) -> None:
        if state["step"] == 2:
            raise RunError("the disk went away")
        really(folder, model, optimiser, state)

    really = checkpoints.save_checkpoint
    with monkeypatch.context() as fault:
        fault.setattr(checkpoints, "save_checkpoint", fails_at_two)
        assert "went away" in fit("--save-every", 1).refused()
    assert command("train", "--resume", "--out", tmp_path / "out", "--quiet").code == 0
    one, two = (load_file(tmp_path / out / "model" / "model.safetensors") for out in ("whole", "out"))
    assert one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())
    assert results(tmp_path / "whole")["history"] == results(tmp_path / "out")["history"]


# -------------------------------------------------------------------------------------------------------------- its use


def test_generate_picks_the_best_by_it(trained: Path, small_model: Path, rows: Any, command: Any) -> None:
    prompt = rows[0]["prompt"]
    words = ("--model", small_model, "--prompt", prompt, "--best-of", 4, "--max-new-tokens", 5, "--seed", 3)
    found = command("generate", *words, "--reward", trained, "--json", "--quiet")
    assert found.code == 0, found.err
    (answered,) = json.loads(found.out)
    rewards = [response["reward"] for response in answered["responses"]]
    assert rewards == sorted(rewards, reverse=True) and len(set(rewards)) == 4
    texts = [response["text"] for response in answered["responses"]]
    assert rewards == pytest.approx(scores(trained / "model", [prompt] * 4, texts), abs=1e-3)


def test_evaluate_reports_it_of_samples(
    trained: Path, small_model: Path, preferences: Path, command: Any, tmp_path: Path
) -> None:
    words = ("--model", small_model, "--data", preferences, "--reward", trained, "--max-new-tokens", 4, "--limit", 4)
    found = command("evaluate", *words, "--json", "--quiet")
    assert found.code == 0, found.err
    assert str(trained) in found.out


def test_evaluate_reward_measures_it(trained: Path, preferences: Path, command: Any, tmp_path: Path) -> None:
    words = ("--reward", trained, "--data", preferences, "--quiet")
    found = command("evaluate", "reward", *words, "--json")
    assert found.code == 0, found.err
    report = json.loads(found.out)
    assert "accuracy" in json.dumps(report)
    assert command("evaluate", "reward", *words, "--out", tmp_path / "measured").code == 0
    assert (tmp_path / "measured" / "report.html").stat().st_size > 0


# ------------------------------------------------------------------------------------------------------------- bad input


def test_a_model_with_two_outputs_is_refused(small_model: Path, fit: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(small_model, num_labels=2)
    model.save_pretrained(tmp_path / "two")
    AutoTokenizer.from_pretrained(small_model).save_pretrained(tmp_path / "two")
    line = fit(model=tmp_path / "two").refused()
    assert str(tmp_path / "two") in line and "2" in line and "one" in line
    assert not (tmp_path / "out").exists()


def test_a_language_model_is_no_reward(small_model: Path, command: Any) -> None:
    words = ("--model", small_model, "--prompt", "It was", "--best-of", 2, "--reward", small_model, "--quiet")
    assert "without a trained reward head" in command("generate", *words).refused()


def test_a_reward_model_is_no_policy(trained: Path, train: Any, tmp_path: Path) -> None:
    for model in (trained / "model", trained):
        line = train("dpo", model=model).refused()
        assert f"{model} is a reward model" in line and "name a language model" in line
    assert not (tmp_path / "out").exists()


def test_weights_of_another_shape_are_damage(trained: Path, fit: Any, tmp_path: Path) -> None:
    model = shutil.copytree(trained / "model", tmp_path / "model")
    (model / "model.safetensors").write_bytes(b"\x10")
    line = fit(model=model).refused()
    assert str(model) in line and "damaged or incomplete" in line


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--label-smoothing", 0.5), "label_smoothing"),
        (("--centring", -1), "centring"),
        (("--margin-weight", "much"), "--margin-weight"),
        (("--beta", 0.1), "unknown option --beta"),
        (("--degree-weight", 0.1), "unknown option --degree-weight"),
        (("--validation-reward", "length"), "unknown option --validation-reward"),
    ],
)
def test_options_out_of_range_or_unknown(words: Any, named: str, fit: Any, tmp_path: Path) -> None:
    assert named in fit(*words).refused()
    assert not (tmp_path / "out").exists()


def test_scores_that_are_all_alike_are_refused(train: Any, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    scored = [{"prompt": row["prompt"], "response": row["chosen"], "reward": 2.0} for row in rows]
    line = train("reward-regression", data=write(tmp_path / "same.jsonl", scored)).refused()
    assert "same.jsonl" in line and "have the reward 2: nothing to learn from" in line
