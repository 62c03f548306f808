"""`paperworks train OBJECTIVE --degree-weight …`: an auxiliary loss that leaves an ordinary model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

WITH = ("--degree-weight", 0.5)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --------------------------------------------------------------------------------------------------------- what it leaves


@pytest.mark.parametrize("objective", ["dpo", "kto", "simpo"])
def test_it_joins_objectives_on_pairs_and_on_feedback(objective: str, train: Any, tmp_path: Path) -> None:
    outcome = train(objective, *WITH)
    assert outcome.code == 0 and outcome.err == ""
    out = tmp_path / "out"
    found = results(out)
    assert found["objective"] == objective and found["steps"] == 4
    assert found["preparation"]["degrees"]["built"]["with_ladder"] > 0
    assert any("responses have a ladder" in note for note in found["notes"])
    for step in lines(out / "metrics.jsonl"):
        assert step["loss"] == pytest.approx(step["alignment"] + step["degree"], abs=1e-4)
        assert step["degree_accuracy"] is None if step["degree"] == 0 else 0 <= step["degree_accuracy"] <= 1
    assert any(step["degree"] > 0 for step in lines(out / "metrics.jsonl"))
    assert yaml.safe_load((out / "run.yaml").read_text())["degrees"]["weight"] == 0.5
    assert (out / "report.html").stat().st_size > 0


def test_the_head_is_left_out_of_the_model(train: Any, small_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    assert train("dpo", *WITH).code == 0
    folder = tmp_path / "out" / "model"
    assert weights(tmp_path / "out").keys() == load_file(small_model / "model.safetensors").keys()
    _, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_adapters_are_saved_without_the_head(train: Any, tmp_path: Path) -> None:
    assert train("dpo", *WITH, "--lora", "--lora-rank", 2).code == 0
    names = load_file(tmp_path / "out" / "model" / "adapter_model.safetensors").keys()
    assert names and all("lora_" in name for name in names)


def test_the_ladders_can_be_looked_at(train: Any, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    assert train("dpo", *WITH, "--degree-count", 3, "--held-out", 0).code == 0
    built = lines(tmp_path / "out" / "ladders.jsonl")
    chosen = {(row["prompt"], row["chosen"]) for row in rows}
    assert len(built) % 3 == 0 and [line["degree"] for line in built] == [0, 1, 2] * (len(built) // 3)
    for line in built:
        assert line["role"] == "chosen"
        assert ((line["prompt"], line["text"]) in chosen) == (line["degree"] == 0)
        assert bool(line["removed"]) == (line["degree"] > 0)
        assert all(phrase not in line["text"].lower() for phrase in line["removed"])
    assert "the" in (tmp_path / "out" / "stop_words.txt").read_text().split()


@pytest.mark.parametrize(
    "words",
    [
        ("--degree-head", "ordinal"),
        ("--degree-head", "ranking"),
        ("--degree-source", "both"),
        ("--degree-removal", "masked"),
        ("--degree-extractor", "tfidf"),
    ],
)
def test_its_options_are_other_losses(words: tuple[str, str], train: Any, tmp_path: Path) -> None:
    assert train("dpo", *WITH, *words, "--steps", 2).code == 0
    assert train("dpo", *WITH, "--steps", 2, "--out", tmp_path / "plain").code == 0
    name = words[0].removeprefix("--degree-")
    assert yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())["degrees"][name] == words[1]
    one, two = (lines(tmp_path / out / "metrics.jsonl")[0] for out in ("out", "plain"))
    assert one["alignment"] == pytest.approx(two["alignment"], abs=1e-5)
    assert one["degree"] != pytest.approx(two["degree"], abs=1e-6)
    assert ("degree_accuracy" in one) == (words[1] != "ranking")


def test_rows_may_bring_their_own_degrees(train: Any, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    own = [
        {**row, "degrees": [{"text": row["chosen"][:12], "degree": 1}, {"text": " It was.", "degree": 3}]}
        for row in rows
    ]
    assert train("dpo", *WITH, data=write(tmp_path / "own.jsonl", own)).code == 0
    found = results(tmp_path / "out")
    assert found["preparation"]["degrees"] == {"built": None, "rows_with_own_degrees": found["training_rows"]}
    assert {line["degree"] for line in lines(tmp_path / "out" / "ladders.jsonl")} == {0, 1, 3}


# ------------------------------------------------------------------------------------------------------------- the weight


def test_without_weight_it_is_the_objective_bit_for_bit(train: Any, tmp_path: Path) -> None:
    assert train("dpo", "--out", tmp_path / "plain").code == 0
    assert train("dpo", "--degree-weight", 0).code == 0
    one, two = weights(tmp_path / "plain"), weights(tmp_path / "out")
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not (tmp_path / "out" / "ladders.jsonl").exists()
    assert "degree" not in lines(tmp_path / "out" / "metrics.jsonl")[0]


def test_a_tiny_weight_hardly_moves_and_a_large_one_does(train: Any, tmp_path: Path) -> None:
    """The first step: what comes from the objective is the same, and the gradient nears the objective's own."""
    norms, first = {}, {}
    for weight in (0, 1e-6, 1.0):
        assert train("dpo", "--degree-weight", weight, "--steps", 1, "--out", tmp_path / f"{weight}").code == 0
        first[weight] = lines(tmp_path / f"{weight}" / "metrics.jsonl")[0]
        norms[weight] = first[weight]["grad_norm"]
    assert first[1e-6]["alignment"] == pytest.approx(first[0]["loss"], abs=1e-6)
    assert norms[1e-6] == pytest.approx(norms[0], rel=1e-3)
    assert norms[1.0] != pytest.approx(norms[0], rel=1e-2)
    assert first[1.0]["degree"] == pytest.approx(1e6 * first[1e-6]["degree"], rel=1e-3)


def test_the_head_learns(train: Any, tmp_path: Path) -> None:
    assert train("dpo", "--degree-weight", 1, "--degree-head-lr", 0.05, "--steps", 12).code == 0
    steps = lines(tmp_path / "out" / "metrics.jsonl")
    assert steps[-1]["degree"] < steps[0]["degree"]


# ------------------------------------------------------------------------------------------------------ going on, repeating


def test_a_run_that_failed_goes_on_to_the_same_end(
    train: Any, command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from paperworks.core import checkpoints
    from paperworks.core.errors import RunError

    assert train("dpo", *WITH, "--save-every", 1, "--out", tmp_path / "whole").code == 0

    def fails_at_three(folder: Path, model: Any, optimiser: Any, state: Any) -> None:
        if state["step"] == 3:
            raise RunError("the disk went away")
        really(folder, model, optimiser, state)

    really = checkpoints.save_checkpoint
    with monkeypatch.context() as fault:
        fault.setattr(checkpoints, "save_checkpoint", fails_at_three)
        assert "went away" in train("dpo", *WITH, "--save-every", 1).refused()
    assert command("train", "--resume", "--out", tmp_path / "out", "--quiet").code == 0
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert results(tmp_path / "whole")["history"] == results(tmp_path / "out")["history"]


def test_its_configuration_repeats_it(train: Any, command: Any, tmp_path: Path) -> None:
    assert train("simpo", *WITH, "--degree-head", "ordinal").code == 0
    config = tmp_path / "out" / "run.yaml"
    assert command("train", "--config", config, "--out", tmp_path / "again", "--quiet").code == 0
    one, two = weights(tmp_path / "out"), weights(tmp_path / "again")
    assert all(torch.equal(value, two[name]) for name, value in one.items())


# -------------------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def refuse(train: Any, tmp_path: Path) -> Callable[..., str]:
    """The one line of a run that is refused; nothing is left behind."""

    def run(*words: object, **named: Any) -> str:
        line: str = train(*words, **named).refused()
        assert not (tmp_path / "out").exists()
        return line

    return run


def test_ladders_impossible_for_most_rows_say_what_may_be_wrong(
    refuse: Any, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    short = [{**row, "chosen": " It was so.", "rejected": " It was not."} for row in rows]
    line = refuse("dpo", *WITH, data=write(tmp_path / "short.jsonl", short))
    assert "key phrases" in line and "stop" in line and "language" in line


def test_messages_of_several_turns_have_no_versions(refuse: Any, tmp_path: Path) -> None:
    said = (("assistant", "Yes."), ("user", "And?"), ("assistant", "No."))
    turns = [{"role": role, "content": content} for role, content in said]
    rows = [
        {"prompt": [{"role": "user", "content": f"Say {n}"}], "chosen": turns, "rejected": turns[:1]} for n in range(4)
    ]
    line = refuse("dpo", *WITH, "--held-out", 0, data=write(tmp_path / "turns.jsonl", rows))
    assert "turns.jsonl:1: field 'chosen'" in line and "plain text" in line


def test_degrees_beyond_the_count_are_named(refuse: Any, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    own = [{**row, "degrees": [{"text": " It was.", "degree": 7}]} for row in rows]
    line = refuse("dpo", *WITH, "--held-out", 0, data=write(tmp_path / "own.jsonl", own))
    assert "own.jsonl:1: field 'degrees'" in line and "from 0 to 3" in line


@pytest.mark.parametrize(
    ("objective", "words", "named"),
    [
        ("dpo", ("--degree-weight", -1), "weight=-1"),
        ("dpo", (*WITH, "--degree-count", 1), "count=1"),
        ("dpo", (*WITH, "--degree-rho", 0), "rho=0"),
        ("dpo", (*WITH, "--degree-head", "softmin"), "did you mean 'softmax'?"),
        ("dpo", (*WITH, "--degree-stop-words", "nowhere.txt"), "nowhere.txt"),
        ("dpo", (*WITH, "--degree-source", "elsewhere"), "elsewhere"),
        ("sft", WITH, "unknown option --degree-weight"),
        ("npo", WITH, "unknown option --degree-weight"),
    ],
)
def test_options_out_of_range_or_unknown(objective: str, words: Any, named: str, refuse: Any) -> None:
    assert named in refuse(objective, *words)
