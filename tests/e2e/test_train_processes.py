"""Two processes are one: `accelerate launch` gives the losses and the weights of a single process, on gloo, without a GPU."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def launch(tmp_path: Path) -> Callable[[list[list[str]]], subprocess.CompletedProcess[str]]:
    """Runs commands one after the other in the same two processes."""

    def run(commands: list[list[str]]) -> subprocess.CompletedProcess[str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = tmp_path / "program.py"
        program.write_text(f"from paperworks.cli.main import main\nraise SystemExit(max(map(main, {commands!r})))\n")
        # `accelerate launch --cpu` starts one process, whatever --num_processes says; this starts two on the CPU.
        launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", 2, "--num_machines", 1]
        more = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
        return subprocess.run(
            [sys.executable, "-m", *map(str, (*launcher, *more)), str(program)],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return lines


def assert_same(one: Path, two: Path) -> None:
    for alone, together in zip(metrics(one), metrics(two), strict=True):
        assert alone.keys() == together.keys()
        for name in alone.keys() - {"rows_per_second"}:
            assert together[name] == pytest.approx(alone[name], abs=1e-5, rel=1e-4), (name, alone["step"])
    results = [json.loads((folder / "results.json").read_text()) for folder in (one, two)]
    for alone, together in zip(results[0]["history"], results[1]["history"], strict=True):
        assert together == pytest.approx(alone, abs=1e-5, rel=1e-4)
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-4, rtol=0)


RUNS = {
    "dpo": ("--held-out", 4, "--batch-size", 4),  # 10 rows: the last step has two
    "sft": ("--held-out", 3, "--batch-size", 4),  # 11 rows: the last step has three
    "kto": ("--held-out", 4, "--batch-size", 6),  # 24 rows, with a reference point that is a mean over the step
}


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(launch: Any, arguments: Any, command: Any, tmp_path: Path) -> None:
    commands = {}
    for objective, options in RUNS.items():
        words = arguments(objective, "--steps", 5, *options, "--out")
        assert command(*words, tmp_path / f"{objective}-one").code == 0
        commands[objective] = [*words, str(tmp_path / f"{objective}-two")]
    done = launch(list(commands.values()))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report ") == len(RUNS)  # one process prints
    for objective in RUNS:
        assert_same(tmp_path / f"{objective}-one", tmp_path / f"{objective}-two")


def test_a_process_without_rows_in_the_last_step(launch: Any, arguments: Any, command: Any, tmp_path: Path) -> None:
    """13 training rows in steps of 4, and one held-out row: the second process has nothing to do in some."""
    words = arguments("dpo", "--held-out", 1, "--out")
    assert command(*words, tmp_path / "one").code == 0
    done = launch([[*words, str(tmp_path / "two")]])
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "one", tmp_path / "two")
