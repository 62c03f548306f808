"""The options of `paperworks train`, each by what it leaves in the run folder."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file


def results(tmp_path: Path, out: str = "out") -> dict[str, Any]:
    return json.loads((tmp_path / out / "results.json").read_text())


def weights(tmp_path: Path, out: str = "out") -> dict[str, torch.Tensor]:
    return load_file(tmp_path / out / "model" / "model.safetensors")


def first_step(tmp_path: Path, out: str = "out") -> dict[str, Any]:
    return json.loads((tmp_path / out / "metrics.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize(
    "objective", ["dpo", "cdpo", "rdpo", "ipo", "slic", "simpo", "kto", "orpo", "rpo", "ln-dpo", "sft"]
)
def test_every_objective_trains_from_a_preference_file(objective: str, train: Any, tmp_path: Path) -> None:
    outcome = train(objective, "--steps", 2)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""  # --quiet
    for name in ("run.yaml", "run.json", "results.json", "metrics.jsonl", "report.html", "model/config.json"):
        assert (tmp_path / "out" / name).stat().st_size > 0, name
    assert results(tmp_path)["steps"] == 2


def test_gradient_checkpointing_changes_memory_alone(train: Any, tmp_path: Path) -> None:
    for lora in ((), ("--lora",)):
        names = [f"{name}{len(lora)}" for name in ("plain", "checkpointed")]
        assert train("dpo", *lora, "--out", tmp_path / names[0]).code == 0
        assert train("dpo", *lora, "--gradient-checkpointing", "--out", tmp_path / names[1]).code == 0
        losses = [results(tmp_path, name)["final"]["loss"] for name in names]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5) and losses[0] < 0.69


def test_bf16_arithmetic_trains_float32_weights(train: Any, tmp_path: Path) -> None:
    assert train("sft", "--out", tmp_path / "full").code == 0
    assert train("sft", "--autocast", "bf16").code == 0
    assert {value.dtype for value in weights(tmp_path).values()} == {torch.float32}
    losses = [results(tmp_path, name)["final"]["loss"] for name in ("full", "out")]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)


def test_bf16_weights_are_saved_as_such(train: Any, tmp_path: Path) -> None:
    assert train("sft", "--precision", "bfloat16").code == 0
    assert {value.dtype for value in weights(tmp_path).values()} == {torch.bfloat16}


def test_tensorboard_gets_every_step(train: Any, tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert train("dpo", "--tracker", "tensorboard").code == 0
    events = min((tmp_path / "out").rglob("events.out.tfevents.*"), key=lambda path: len(path.parts))
    read = event_accumulator.EventAccumulator(str(events.parent))
    read.Reload()
    logged = [json.loads(line)["loss"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [event.step for event in read.Scalars("loss")] == [1, 2, 3, 4]
    assert [event.value for event in read.Scalars("loss")] == pytest.approx(logged, rel=1e-5)


def test_a_tracker_that_is_not_installed_is_named(train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    really = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "wandb" else really(name, *more)
    )
    line = train("dpo", "--tracker", "wandb").refused()
    assert "wandb" in line and "pip install" in line
    assert not (tmp_path / "out").exists()


def test_rows_to_evaluate_on_may_be_a_file_of_their_own(train: Any, rows: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in rows[:5]))
    assert train("dpo", "--eval-data", other, "--limit", 8).code == 0
    assert (results(tmp_path)["training_rows"], results(tmp_path)["held_out_rows"]) == (8, 5)
    assert results(tmp_path)["history"][0]["loss"] == pytest.approx(0.693147, abs=1e-5)


def test_nothing_need_be_held_out(train: Any, tmp_path: Path) -> None:
    assert train("dpo", "--held-out", 0).code == 0
    found = results(tmp_path)
    assert (found["training_rows"], found["held_out_rows"], found["history"], found["best_step"]) == (14, 0, [], 4)
    assert "No rows were held out" in (tmp_path / "out" / "model" / "README.md").read_text()
    assert "No rows were held out" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(("held_out", "expected"), [("0.25", 4), ("3", 3)])
def test_a_share_or_a_number_of_rows_is_held_out(held_out: str, expected: int, train: Any, tmp_path: Path) -> None:
    assert train("dpo", "--held-out", held_out).code == 0
    assert results(tmp_path)["held_out_rows"] == pytest.approx(expected, abs=1)
    assert results(tmp_path)["held_out_rows"] + results(tmp_path)["training_rows"] == 14


def test_the_same_rows_give_the_same_run_however_they_come(
    train: Any, preferences: Path, rows: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a plain file, gzipped, from standard input, as CSV, or with columns of other names."""
    assert train("dpo", "--out", tmp_path / "plain").code == 0
    zipped = tmp_path / "rows.jsonl.gz"
    zipped.write_bytes(gzip.compress(preferences.read_bytes()))
    assert train("dpo", "--out", tmp_path / "zipped", data=zipped).code == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(preferences.read_bytes())))
    assert train("dpo", "--out", tmp_path / "piped", data="-").code == 0
    renamed = tmp_path / "renamed.jsonl"
    other = [{"question": r["prompt"], "good": r["chosen"], "bad": {"text": r["rejected"]}} for r in rows]
    renamed.write_text("".join(json.dumps(row) + "\n" for row in other))
    mapping = [word for pair in ("prompt=question", "chosen=good", "rejected=bad.text") for word in ("--map", pair)]
    assert train("dpo", *mapping, "--out", tmp_path / "renamed", data=renamed).code == 0
    expected = weights(tmp_path, "plain")
    for name in ("zipped", "piped", "renamed"):
        assert results(tmp_path, name)["data"]["fingerprint"] == results(tmp_path, "plain")["data"]["fingerprint"]
        assert all(torch.equal(value, expected[key]) for key, value in weights(tmp_path, name).items()), name


def test_limit_reads_the_first_rows(train: Any, tmp_path: Path) -> None:
    assert train("dpo", "--limit", 6, "--held-out", 0).code == 0
    assert results(tmp_path)["training_rows"] == 6


def test_json_prints_the_result_and_nothing_else(train: Any, tmp_path: Path) -> None:
    outcome = train("dpo", "--json")
    printed = json.loads(outcome.out)
    assert printed["folder"] == str(tmp_path / "out") and printed["steps"] == 4
    assert printed["final"]["loss"] == results(tmp_path)["final"]["loss"]


def test_the_model_and_the_report_are_named_at_the_end(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = train("dpo").out
    assert "model   out/model" in out and "report  out/report.html" in out and "paperworks generate --model out" in out


def test_without_out_the_folder_is_made_below_runs(
    command: Any, arguments: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = arguments("sft", "--out", "x")
    assert command(*words[: words.index("--out")]).code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("train-sft-") and (folder / "model").is_dir()


def test_an_objective_of_ones_own(train: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from dataclasses import dataclass\n"
        "from paperworks.language.objectives.objective import PairObjective\n"
        "@dataclass(frozen=True)\n"
        "class SquareMargin(PairObjective):\n"
        "    '''The margin is to be `target`.'''\n"
        "    name = 'square-margin'\n"
        "    target: float = 1.0  # what the margin should be\n"
        "    def loss(self, batch):\n"
        "        return (batch.chosen.policy - batch.rejected.policy - self.target) ** 2\n"
    )
    outcome = train("square-margin", "--objective-file", mine, "--target", 2.0)
    assert outcome.code == 0, outcome.err
    assert yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())["options"] == {"target": 2.0}


def test_the_best_weights_are_kept_or_the_last(train: Any, tmp_path: Path) -> None:
    """At a rate far too high the held-out loss rises from the start: the best weights are those of step 0."""
    options = ("--learning-rate", 3.0, "--warmup", 0, "--schedule", "constant", "--eval-every", 1)
    assert train("sft", *options).code == 0
    assert train("sft", *options, "--select", "last", "--out", tmp_path / "last").code == 0
    best, last = results(tmp_path), results(tmp_path, "last")
    assert best["best_step"] == min(best["history"], key=lambda entry: entry["loss"])["step"] < 4
    assert best["held_out"]["loss"] < last["held_out"]["loss"] and last["best_step"] == 4
    assert any(not torch.equal(value, weights(tmp_path, "last")[key]) for key, value in weights(tmp_path).items())


def test_accumulation_leaves_the_first_step_as_it_is(train: Any, tmp_path: Path) -> None:
    for micro in (1, 4):
        assert train("dpo", "--micro-batch", micro, "--out", tmp_path / str(micro)).code == 0
    one, four = first_step(tmp_path, "1"), first_step(tmp_path, "4")
    assert one["loss"] == pytest.approx(four["loss"], abs=1e-6)
    assert one["grad_norm"] == pytest.approx(four["grad_norm"], rel=1e-4)


def test_names_full_of_markup_do_no_harm_in_report_and_card(
    train: Any, small_model: Path, preferences: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(small_model, tmp_path / "<script>alert(1)")
    data = tmp_path / "<img src=x onerror=alert(2)>.jsonl"
    data.write_bytes(preferences.read_bytes())
    assert train("dpo", model=model, data=data).code == 0
    report = (tmp_path / "out" / "report.html").read_text()
    assert "<script>alert" not in report and "&lt;script&gt;alert(1)" in report
    assert "<img src=x" not in report and "&lt;img src=x" in report
