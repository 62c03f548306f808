"""What goes wrong while `paperworks train` runs: a full disk, numbers that explode, Ctrl-C. Nothing saved is lost."""

from __future__ import annotations

import errno
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

EXPLODES = """
from dataclasses import dataclass
from paperworks.language.objectives.objective import PairObjective

@dataclass(frozen=True)
class Explodes(PairObjective):
    '''The loss is NaN.'''
    name = "explodes"
    def loss(self, batch):
        return (batch.chosen.policy - batch.rejected.policy) * float("nan")
"""


def status(out: Path) -> str:
    return json.loads((out / "run.json").read_text())["status"]


def checkpoint(out: Path) -> Path:
    """The one checkpoint there is; it can be read."""
    (folder,) = (out / "checkpoints").glob("step-*")
    for name in ("weights", "optimiser", "random"):
        assert load_file(folder / f"{name}.safetensors")
    assert f"step-{json.loads((folder / 'state.json').read_text())['step']:08d}" == folder.name
    return folder


def full_disk_at_step_3(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    """Of the checkpoint of step 3, half the file `name` is written, then the disk is full."""
    from paperworks.core import checkpoints

    really = checkpoints.save_file

    def save_file(tensors: Any, path: Path) -> None:
        really(tensors, path)
        if path.name == name and "step-00000003" in path.parent.name:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            raise error

    monkeypatch.setattr(checkpoints, "save_file", save_file)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.safetensors", "random.safetensors"])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_disk_that_fills_while_a_checkpoint_is_written_leaves_the_last_one_whole(
    name: str, error: Exception, train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full_disk_at_step_3(monkeypatch, name, error)
    line = train("dpo", "--save-every", 1).refused()
    assert "disk full while writing" in line and "step-00000003" in line
    assert checkpoint(tmp_path / "out").name == "step-00000002"
    assert status(tmp_path / "out") == "failed"


def test_after_room_is_made_the_run_goes_on_to_the_same_weights(
    train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert train("dpo", "--save-every", 1, "--out", tmp_path / "whole").code == 0
    with monkeypatch.context() as fault:
        full_disk_at_step_3(fault, "weights.safetensors", OSError(errno.ENOSPC, "No space left on device"))
        train("dpo", "--save-every", 1).refused()
    assert train("dpo", "--save-every", 1, "--resume").code == 0
    models = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "out")]
    assert models[0] == models[1]


def test_a_disk_that_fills_while_the_model_is_saved_keeps_the_checkpoint(
    train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from paperworks.language.policy import Policy

    def write(self: Policy, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as fault:
        fault.setattr(Policy, "write", write)
        assert "disk full while writing" in train().refused()
    out = tmp_path / "out"
    assert checkpoint(out).name == "step-00000004" and not (out / "model").exists()
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert train("dpo", "--resume").code == 0
    assert load_file(out / "model" / "model.safetensors")
    assert json.loads((out / "results.json").read_text())["final"]["loss"] > 0


@pytest.mark.parametrize("name", ["run.json", "results.json", "report.html", "README.md"])
def test_a_disk_that_fills_while_a_small_file_is_written_is_one_line(
    name: str, train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    really = Path.open

    def path_open(self: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if name in self.name and set(mode) & set("xwa"):
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return really(self, mode, *more, **named)

    with monkeypatch.context() as fault:
        fault.setattr(Path, "open", path_open)
        assert "disk full while writing" in train().refused()


def test_a_damaged_checkpoint_is_named_and_not_taken_up(train: Any, tmp_path: Path) -> None:
    assert train().code == 0
    weights = checkpoint(tmp_path / "out") / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    line = train("dpo", "--resume").refused()
    assert "step-00000004" in line and "damaged" in line


# ------------------------------------------------------------------------------------------------- numbers that explode


def test_a_nan_loss_names_step_and_rows(train: Any, preferences: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(EXPLODES)
    outcome = train("explodes", "--objective-file", tmp_path / "mine.py")
    assert outcome.code == 3 and len(outcome.err.splitlines()) == 1
    assert "the loss became nan at step 1 on rows" in outcome.err
    assert outcome.err.count(f"{preferences}:") == 4
    assert "checkpoint is kept" not in outcome.err  # there is none yet
    assert status(tmp_path / "out") == "diverged"


def test_a_learning_rate_far_too_high_keeps_the_last_checkpoint(train: Any, tmp_path: Path) -> None:
    outcome = train("sft", "--learning-rate", "1e30", "--warmup", 0, "--save-every", 1)
    assert outcome.code == 3 and "at step 2 on rows" in outcome.err and "the last checkpoint is kept" in outcome.err
    assert checkpoint(tmp_path / "out").name == "step-00000001"
    assert not (tmp_path / "out" / "model").exists()


# --------------------------------------------------------------------------------------------------------------- Ctrl-C


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def steps(out: Path) -> list[int]:
    path = out / "metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def test_ctrl_c_saves_and_says_how_to_go_on(arguments: Any, own_process: Any, train: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = own_process(arguments("dpo", "--steps", 2000, "--save-every", 1000))
    wait_for(lambda: len(steps(out)) >= 3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    (line,) = err.strip().splitlines()
    done = json.loads((checkpoint(out) / "state.json").read_text())["step"]
    assert f"saved at step {done} of 2000; go on with --resume" in line
    assert steps(out) == list(range(1, done + 1))
    assert status(out) == "interrupted"


def test_ctrl_c_while_the_model_loads_is_one_line(arguments: Any, own_process: Any, tmp_path: Path) -> None:
    code = (
        "import time\n"
        "from paperworks.language import models\n"
        "models.load = lambda *words, **named: (print('here', flush=True), time.sleep(60))\n"
    )
    process = own_process(arguments(), code=code)
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "paperworks: interrupted"
