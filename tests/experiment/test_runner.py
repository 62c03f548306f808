"""The runner computes what is missing and nothing else, whatever stopped it before."""

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_experiment as toy

from paperworks.core.errors import OptionError, RunError
from paperworks.core.files import file_lock
from paperworks.experiment import run_experiment
from paperworks.experiment.executors import ProcessExecutor, SerialExecutor


def run(folder, experiment=toy.EXPERIMENT, **options):
    return run_experiment(experiment, folder=folder, workers=1, **options)


def cell_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder / "cells")) for path in (folder / "cells").rglob("*.json"))


def living_processes_of_group(group: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(stat.parent.name)
    return found


def test_every_arm_setting_and_seed_is_computed_once(tmp_path):
    results = run(tmp_path)
    expected = [f"{a.name} {s} {seed}" for s in toy.PART.settings for a in toy.PART.arms_in(s) for seed in range(5)]
    assert toy.calls(tmp_path) == sorted(expected)
    assert results.values("A", "rdpo", "score", "hard") == {seed: 7 + 10.02 * seed for seed in range(5)}
    assert math.isnan(results.cells[0].value("lost"))
    assert results.cells[0].metrics["curve"] == [1.0, 2.0]
    assert "A/hard/rdpo/3.json" in cell_files(tmp_path)
    again = run(tmp_path)
    assert len(toy.calls(tmp_path)) == len(expected)
    assert again.cells == results.cells


def test_processes_give_what_one_process_gives(tmp_path):
    serial = run(tmp_path / "serial")
    parallel = run_experiment(toy.EXPERIMENT, folder=tmp_path / "parallel", workers=2)
    # "noise" comes from the global generator: it must not depend on what a worker did before.
    assert [cell.metrics for cell in parallel.cells] == [cell.metrics for cell in serial.cells]
    noise = serial.values("A", "rdpo", "noise", "easy")
    assert noise == serial.values("A", "dpo", "noise", "easy")
    assert len(set(noise.values())) == 5


def test_ten_seeds_after_five_run_five_more(tmp_path):
    run(tmp_path, seeds=5)
    before = toy.calls(tmp_path)
    results = run(tmp_path, seeds=10)
    new = set(toy.calls(tmp_path)) - set(before)
    assert len(new) == len(before) == 25
    assert {line.split()[-1] for line in new} == {"5", "6", "7", "8", "9"}
    assert results.seeds("A") == list(range(10))
    assert len(run(tmp_path, seeds=3).cells) == 15


def test_a_killed_run_goes_on_with_the_missing_cells_only(tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import toy_experiment as toy\n"
        "from paperworks.experiment import run_experiment\n"
        "run_experiment(toy.SLOW, folder=sys.argv[2], workers=1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(Path(toy.__file__).parent), str(tmp_path)])
    while len(cell_files(tmp_path)) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = cell_files(tmp_path)
    assert 3 <= len(kept) < 25
    before = toy.calls(tmp_path)
    results = run(tmp_path, toy.SLOW)
    assert len(results.cells) == len(cell_files(tmp_path)) == 25
    assert len(toy.calls(tmp_path)) - len(before) == 25 - len(kept)
    whole = run(tmp_path / "whole")
    assert [cell.metrics for cell in results.cells] == [cell.metrics for cell in whole.cells]


def test_workers_end_when_their_parent_is_killed(tmp_path):
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "import os\n"
        "from paperworks.experiment.executors import ProcessExecutor\n"
        "print(ProcessExecutor(1).submit(os.getpid).result(), flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(Path(toy.__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists() and "Z" not in Path(f"/proc/{worker}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_damaged_cell_is_computed_again(tmp_path):
    run(tmp_path)
    (tmp_path / "cells" / "A" / "easy" / "dpo" / "2.json").write_text('{"finger')
    run(tmp_path)
    assert len(toy.calls(tmp_path)) == 26


def test_other_options_or_another_budget_are_other_cells(tmp_path):
    run(tmp_path, seeds=1)
    changed = dataclasses.replace(toy.ARMS[0], options={"level": 9.0})
    run(tmp_path, toy.with_part(arms=(changed, *toy.ARMS[1:])), seeds=1)
    assert toy.calls(tmp_path).count("rdpo easy 0") == 2
    assert toy.calls(tmp_path).count("dpo easy 0") == 1
    run(tmp_path, toy.with_part(arms=(changed, *toy.ARMS[1:])), budget="smoke")
    assert toy.calls(tmp_path).count("dpo easy 0") == 2


def test_fresh_computes_everything_anew(tmp_path):
    experiment = toy.with_part(cell=toy.cell_on_prepared, prepare=toy.prepare, metrics=toy.PART.metrics[:1])
    run(tmp_path, experiment, seeds=1)
    (tmp_path / "work" / "A" / "seed-0" / "base.txt").write_text("7")
    assert run(tmp_path, experiment, seeds=1).cells[0].value("score") == 0.0
    (tmp_path / "work" / "calls.txt").unlink()
    assert run(tmp_path, experiment, seeds=1, fresh=True).cells[0].value("score") == 0.0
    assert toy.calls(tmp_path) == [
        "clean easy 0",
        "dpo easy 0",
        "dpo hard 0",
        "prepare 0",
        "rdpo easy 0",
        "rdpo hard 0",
    ]


@pytest.mark.parametrize("executor", [SerialExecutor, lambda: ProcessExecutor(1)])
def test_a_failed_cell_leaves_the_others_and_is_tried_again(tmp_path, executor):
    experiment = toy.with_option("raise", True, seeds={"smoke": 1, "small": 2, "full": 2})
    own = executor()
    results = run(tmp_path, experiment, executor=own)
    own.shutdown()
    assert len(results.cells) == 8
    assert [(f.arm, f.setting, f.seed) for f in results.failures] == [("rdpo", "easy", 1), ("rdpo", "hard", 1)]
    assert "Traceback" in results.failures[0].log.read_text()
    with pytest.raises(RunError, match=r"part A easy rdpo seed 1 failed \(and 1 more\): prefs.jsonl:3: expected rows"):
        results.raise_failures()
    fine = toy.with_part(seeds={"smoke": 1, "small": 2, "full": 2})
    run(tmp_path, fine).raise_failures()


def test_a_cell_that_kills_its_process_fails_alone(tmp_path):
    results = run_experiment(toy.with_option("die", True, settings=("easy",)), folder=tmp_path, workers=2, seeds=2)
    assert [(failure.arm, failure.seed) for failure in results.failures] == [("rdpo", 1)]
    assert "its process died, also when tried again" in results.failures[0].error
    assert len(results.cells) == 5


def test_a_cell_must_return_its_metrics(tmp_path):
    results = run(tmp_path, toy.with_option("short", True), seeds=1)
    assert results.failures[0].error == "the cell of part A returned no 'score', expected each of its metrics"


def test_a_batched_part_gets_all_missing_seeds_at_once(tmp_path):
    experiment = toy.with_part(cell=toy.batched_cell, batched=True, metrics=toy.PART.metrics[:1], settings=("easy",))
    run(tmp_path, experiment, seeds=2)
    results = run(tmp_path, experiment, seeds=5)
    assert [line for line in toy.calls(tmp_path) if line.startswith("dpo")] == ["dpo easy 0,1", "dpo easy 2,3,4"]
    assert results.values("A", "dpo", "score", "easy") == {seed: 1 + 10.01 * seed for seed in range(5)}


def test_preparation_runs_once_a_seed_and_only_its_own_cells_fall_with_it(tmp_path):
    experiment = toy.with_part(cell=toy.cell_on_prepared, prepare=toy.prepare, metrics=toy.PART.metrics[:1])
    results = run(tmp_path, experiment, seeds=4)
    assert results.values("A", "dpo", "score", "hard") == {0: 0.0, 1: 100.0, 3: 300.0}
    assert [(failure.arm, failure.seed, failure.error) for failure in results.failures] == [
        ("", 2, "ValueError: no data for this seed")
    ]
    with pytest.raises(RunError, match="part A preparation seed 2 failed: ValueError"):
        results.raise_failures()
    run(tmp_path, experiment, seeds=5)
    lines = toy.calls(tmp_path)
    assert [lines.count(f"prepare {seed}") for seed in range(5)] == [1, 1, 2, 1, 1]


def test_a_preparation_that_kills_its_process_fails_alone(tmp_path):
    experiment = toy.with_part(cell=toy.cell_on_prepared, prepare=toy.prepare_or_die, metrics=toy.PART.metrics[:1])
    results = run_experiment(experiment, folder=tmp_path, workers=2, seeds=3)
    assert [(failure.arm, failure.seed) for failure in results.failures] == [("", 1)]
    assert results.values("A", "dpo", "score", "hard") == {0: 0.0, 2: 200.0}


def test_a_preparation_cut_short_is_done_again(tmp_path):
    experiment = toy.with_part(cell=toy.cell_on_prepared, prepare=toy.prepare, metrics=toy.PART.metrics[:1])
    half = tmp_path / "work" / "A" / "seed-0"
    half.mkdir(parents=True)
    (half / "base.txt").write_text("wrong")
    (half / "left over").write_text("")
    results = run(tmp_path, experiment, seeds=1)
    assert results.values("A", "dpo", "score", "hard") == {0: 0.0}
    assert not (half / "left over").exists()


class Interrupted(SerialExecutor):
    """Ctrl-C comes after some cells."""

    def __init__(self, after: int) -> None:
        self.left = after

    def as_completed(self, jobs):
        for job in super().as_completed(jobs):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield job


def test_control_c_keeps_what_is_finished_and_says_how_to_go_on(tmp_path):
    with pytest.raises(KeyboardInterrupt, match=r"4 of 25 cells are finished and kept in .*; the same command goes on"):
        run(tmp_path, executor=Interrupted(after=4))
    assert len(cell_files(tmp_path)) == 4
    assert len(run(tmp_path).cells) == 25


def test_control_c_stops_running_processes_at_once(tmp_path):
    executor = ProcessExecutor(1)
    executor.submit(os.getpid).result()
    executor.submit(time.sleep, 60)
    began = time.monotonic()
    executor.shutdown(cancel=True)
    assert time.monotonic() - began < 20  # not the job's minute


def test_control_c_on_a_terminal_stops_everything_with_one_message(tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import toy_experiment as toy\n"
        "from paperworks.experiment import run_experiment\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        run_experiment(toy.with_option('sleep', 60), folder=sys.argv[2], workers=2)\n"
        "    except KeyboardInterrupt as stopped:\n"
        "        print(stopped)\n"
    )
    (tmp_path / "program.py").write_text(program)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(Path(toy.__file__).parent), str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives a command
    )
    while not cell_files(tmp_path / "run"):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=30)
    assert "of 25 cells are finished and kept in" in out
    assert "Traceback" not in errors
    deadline = time.monotonic() + 20
    while living_processes_of_group(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_arms_and_parts_are_chosen_by_name(tmp_path):
    results = run(tmp_path, arms=["dpo"], seeds=1)
    assert {cell.arm for cell in results.cells} == {"dpo"}
    with pytest.raises(OptionError, match=r"toy: unknown arm 'dpoo' \(did you mean 'dpo'\?\)"):
        run(tmp_path, arms=["dpoo"])
    with pytest.raises(OptionError, match="toy: unknown part 'Z'"):
        run(tmp_path, parts=["Z"])
    with pytest.raises(OptionError, match=r"budget: 'smal' is not one of the choices \(did you mean 'small'\?\)"):
        run(tmp_path, budget="smal")
    with pytest.raises(OptionError, match="seeds=0 is out of range"):
        run(tmp_path, seeds=0)
    with pytest.raises(OptionError, match="workers=0 is out of range"):
        run_experiment(toy.EXPERIMENT, folder=tmp_path, workers=0)


def test_two_runs_in_one_folder_do_not_meet(tmp_path):
    with file_lock(tmp_path / ".lock"), pytest.raises(RunError, match="held by another process"):
        run(tmp_path, seeds=1)


def test_hostile_names_stay_inside_the_folder(tmp_path):
    arms = tuple(dataclasses.replace(arm, name=f"../../{arm.name}", settings=()) for arm in toy.ARMS)
    run(tmp_path / "in", toy.with_part(arms=arms, settings=("..", "a/b")), seeds=1)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert len(cell_files(tmp_path / "in")) == 6


def test_a_cell_file_says_where_it_comes_from(tmp_path):
    run(tmp_path, seeds=1)
    content = json.loads((tmp_path / "cells" / "A" / "easy" / "dpo" / "0.json").read_text())
    assert content.keys() == {"part", "setting", "arm", "seed", "budget", "fingerprint", "wall_s", "code", "metrics"}
    assert content["metrics"]["lost"] is None
