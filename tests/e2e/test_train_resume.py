"""A run killed at any moment goes on to the same end; a run goes on, or is repeated, by what its folder says."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

LORA = ("--lora", "--lora-rank", 2, "--lora-dropout", 0.3)

# The process kills itself, unwarned and unprepared, at the n-th call of a function.
KILLED_AT = """
import importlib, os, signal
from operator import attrgetter
owner = attrgetter("{owner}")(importlib.import_module("{module}"))
really, calls = owner.{name}, []
def {name}(*arguments, **named):
    calls.append(1)
    if len(calls) == {nth} and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    out = really(*arguments, **named)
    if len(calls) == {nth}:
        os.kill(os.getpid(), signal.SIGKILL)
    return out
owner.{name} = {name}
"""


def killed_at(module: str, owner: str, name: str, nth: int, *, before: bool) -> str:
    return KILLED_AT.format(module=module, owner=owner, name=name, nth=nth, before=before)


# With --save-every 1 and four steps a checkpoint writes weights, optimiser and random state, one file after the other.
MOMENTS = {
    "loading": killed_at("paperworks.language.train_job", "Policy", "load", 1, before=False),
    "half a checkpoint": killed_at("paperworks.language.training", "checkpoints", "save_file", 6, before=False),
    "before its new name": killed_at("paperworks.core.runs", "files", "_take_name", 4, before=True),
    "after its new name": killed_at("paperworks.core.runs", "files", "_take_name", 4, before=False),
    "old ones not yet removed": killed_at(
        "paperworks.language.training", "checkpoints.shutil", "rmtree", 2, before=True
    ),
    "half a step": killed_at("torch", "optim.AdamW", "step", 3, before=False),
    "a line of metrics": killed_at("paperworks.core.runs", "Run", "log", 3, before=False),
    "saving the model": killed_at("paperworks.language.policy", "Policy", "write", 1, before=False),
    "results": killed_at("paperworks.core.runs", "Run", "finish", 1, before=True),
    "the report": killed_at("paperworks.language.train_report", "plots", "lines", 1, before=True),
}


def end(out: Path) -> dict[str, Any]:
    """What must be equal: every weight, every measured number, every step once."""
    (weights,) = (out / "model").glob("*.safetensors")
    results = json.loads((out / "results.json").read_text())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, results["steps"] + 1))
    timed = {"rows_per_second"}
    return {
        "weights": {name: value.numpy().tobytes() for name, value in load_file(weights).items()},
        "metrics": [{key: value for key, value in line.items() if key not in timed} for line in lines],
        "final": {key: value for key, value in results["final"].items() if key not in timed},
        **{name: results[name] for name in ("held_out", "history", "best_step", "held_out_values", "steps")},
    }


@pytest.fixture
def uninterrupted(train: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(*more: object) -> dict[str, Any]:
        assert train("dpo", "--save-every", 1, *more, "--out", tmp_path / "whole").code == 0
        return end(tmp_path / "whole")

    return run


QUICK = ("half a checkpoint", "after its new name", "half a step", "saving the model")
SLOW = [pytest.param(moment, marks=pytest.mark.slow) for moment in MOMENTS if moment not in QUICK]


@pytest.mark.parametrize("moment", [*QUICK, *SLOW])
def test_a_run_killed_at_this_moment_ends_as_the_uninterrupted_one(
    moment: str, uninterrupted: Any, arguments: Any, own_process: Any, command: Any, tmp_path: Path
) -> None:
    process: subprocess.Popen[str] = own_process(arguments("dpo", "--save-every", 1), code=MOMENTS[moment])
    _, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, err
    if moment == "loading":
        assert not (tmp_path / "out").exists()
        assert command(*arguments("dpo", "--save-every", 1)).code == 0
    else:
        outcome = command("train", "dpo", "--quiet", "--out", tmp_path / "out", "--resume")
        assert outcome.code == 0, outcome.err
    assert end(tmp_path / "out") == uninterrupted()
    assert not [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".tmp", ".old")]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "finished"


@pytest.mark.parametrize("seconds", [0.07, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.02, 0.15))])
def test_killed_after_some_time_with_adapters_and_dropout(
    seconds: float, uninterrupted: Any, arguments: Any, own_process: Any, command: Any, tmp_path: Path
) -> None:
    """The moment is whatever the machine is at that long after the first step: any must do."""
    code = f"""
import os, signal, threading
from paperworks.core.runs import Run
really = Run.log
def log(*arguments, **named):
    threading.Timer({seconds}, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return really(*arguments, **named)
Run.log = log
"""
    options = ("--save-every", 1, "--steps", 12, *LORA)
    process = own_process(arguments("dpo", *options), code=code)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    outcome = command("train", "dpo", "--quiet", "--out", tmp_path / "out", "--resume")
    assert outcome.code == 0, outcome.err
    assert end(tmp_path / "out") == uninterrupted(*options)


# ------------------------------------------------------------------------------------------------- going on, repeating


@pytest.fixture
def stopped(train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a run with adapters that failed behind its second step."""
    from paperworks.core import checkpoints
    from paperworks.core.errors import RunError

    def save_checkpoint(folder: Path, model: Any, optimiser: Any, state: Any) -> None:
        if state["step"] == 3:
            raise RunError("the disk went away")
        really(folder, model, optimiser, state)

    really = checkpoints.save_checkpoint
    with monkeypatch.context() as fault:
        fault.setattr(checkpoints, "save_checkpoint", save_checkpoint)
        assert "went away" in train("dpo", "--save-every", 1, "--beta", 0.3, *LORA).refused()
    return tmp_path / "out"


def test_resume_needs_no_option_repeated(stopped: Path, command: Any, uninterrupted: Any) -> None:
    before = yaml.safe_load((stopped / "run.yaml").read_text())
    assert command("train", "--resume", "--out", stopped, "--quiet").code == 0
    assert yaml.safe_load((stopped / "run.yaml").read_text()) == before
    assert end(stopped) == uninterrupted("--beta", 0.3, *LORA)


def test_options_repeated_alike_are_no_matter(stopped: Path, train: Any) -> None:
    assert train("dpo", "--save-every", 1, "--beta", 0.3, *LORA, "--resume").code == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("dpo", "--beta", 0.5), "options.beta was 0.3, now 0.5"),
        (("dpo", "--batch-size", 8), "training.batch_size was 4, now 8"),
        (("dpo", "--lora-rank", 4), "lora.rank was 2, now 4"),
        (("dpo", "--map", "prompt=question"), "data.mapping.prompt was not given, now question"),
        (("dpo", "--model", "tiny"), "model was"),
        (("ipo",), "objective was dpo, now ipo"),
    ],
)
def test_an_option_that_differs_is_named(words: tuple[object, ...], named: str, stopped: Path, command: Any) -> None:
    before = (stopped / "run.yaml").read_bytes()
    line = command("train", *words, "--resume", "--out", stopped, "--quiet").refused()
    assert named in line and "--overwrite" in line and line.count(", now ") == 1
    assert (stopped / "run.yaml").read_bytes() == before


def test_rows_that_changed_since_are_noticed(stopped: Path, preferences: Path, command: Any) -> None:
    lines = preferences.read_text().splitlines()
    preferences.write_text("\n".join(lines[:-1]) + "\n")
    assert "the training rows are not those" in command("train", "--resume", "--out", stopped, "--quiet").refused()
    preferences.write_text("\n".join(lines) + "\n")
    assert command("train", "--resume", "--out", stopped, "--quiet").code == 0


def test_there_must_be_something_to_resume(command: Any, train: Any, tmp_path: Path) -> None:
    assert "nothing to resume there" in command("train", "dpo", "--resume", "--out", tmp_path / "nowhere").refused()
    assert "nothing to resume there" in train("dpo", "--resume").refused()
    assert not (tmp_path / "out").exists()
    assert "--out DIR" in command("train", "dpo", "--resume", "--model", "tiny", "--data", "x.jsonl").refused()


def test_resuming_a_finished_run_changes_nothing(train: Any, tmp_path: Path) -> None:
    assert train().code == 0
    before = end(tmp_path / "out")
    assert train("dpo", "--resume").code == 0
    assert end(tmp_path / "out") == before


def test_a_configuration_repeats_a_run_into_a_new_folder(train: Any, command: Any, tmp_path: Path) -> None:
    assert train("rdpo", "--flip-rate", 0.2, *LORA, "--seed", 3).code == 0
    config = tmp_path / "out" / "run.yaml"
    assert command("train", "--config", config, "--out", tmp_path / "again", "--quiet").code == 0
    assert end(tmp_path / "again") == end(tmp_path / "out")
    assert (tmp_path / "again" / "run.yaml").read_text() == config.read_text()


def test_options_override_a_configuration(train: Any, command: Any, tmp_path: Path) -> None:
    assert train("rdpo", "--flip-rate", 0.2).code == 0
    config, again = tmp_path / "out" / "run.yaml", tmp_path / "again"
    assert command("train", "--config", config, "--out", again, "--quiet", "--flip-rate", 0.1, "--seed", 5).code == 0
    before, now = (yaml.safe_load((folder / "run.yaml").read_text()) for folder in (tmp_path / "out", again))
    assert now["options"] == {**before["options"], "flip_rate": 0.1}
    assert now["training"] == {**before["training"], "seed": 5}
