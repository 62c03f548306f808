"""The progress mirror: bars and last lines in a file that is always whole, never the reason that work ends."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paperworks.core import progress, progress_mirror
from paperworks.core.progress import Progress
from paperworks.core.progress_mirror import MOST_BARS, MOST_LINES, VARIABLE, ProgressMirror, mirror_asked_for


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (progress, progress_mirror):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Callable[[], dict[str, Any]]:
    """Progress has a mirror; what is in its file now."""
    monkeypatch.setattr(progress, "_MIRROR", ProgressMirror(tmp_path / "progress.json"))
    return lambda: json.loads((tmp_path / "progress.json").read_text())


def test_the_file_holds_every_bar_and_what_was_said(mirrored: Callable[[], dict[str, Any]], clock: Clock) -> None:
    with Progress(stream=io.StringIO()) as shown:
        shown.say("12 rows")
        cells, unknown = shown.bar("cells", total=4), shown.bar("search")
        clock.now += 2
        cells.advance(note="loss 0.5")
        assert mirrored()["bars"][0] == {
            "label": "cells", "done": 1, "total": 4, "note": "loss 0.5", "seconds": 2, "finished": False,
        }  # fmt: skip
        unknown.update(7)
    found = mirrored()
    assert found["said"] == ["12 rows"]
    assert [(bar["done"], bar["total"]) for bar in found["bars"]] == [(1, 4), (7, None)]


def test_it_is_written_every_half_second_at_most(mirrored: Callable[[], dict[str, Any]], clock: Clock) -> None:
    bar = Progress(stream=io.StringIO()).bar("train", total=100)
    clock.now += 0.4
    bar.update(10)
    assert mirrored()["bars"][0]["done"] == 0
    clock.now += 0.1
    bar.update(11)
    assert mirrored()["bars"][0]["done"] == 11


def test_a_finished_bar_is_told_at_once_and_takes_no_more_time(
    mirrored: Callable[[], dict[str, Any]], clock: Clock
) -> None:
    with Progress(stream=io.StringIO()) as shown:
        bar = shown.bar("train", total=100)
        clock.now += 0.25
        bar.finish("done early")
        (found,) = mirrored()["bars"]
        assert (found["done"], found["finished"], found["note"]) == (100, True, "done early")
        clock.now += 60
    assert mirrored()["bars"][0]["seconds"] == 0.25


def test_quiet_progress_is_not_mirrored(mirrored: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    with Progress(quiet=True) as shown:
        list(shown.track([1, 2], "pairs"))
    assert not (tmp_path / "progress.json").exists()


def test_the_oldest_finished_bars_and_lines_give_way(mirrored: Callable[[], dict[str, Any]]) -> None:
    with Progress(stream=io.StringIO()) as shown:
        shown.bar("whole run")
        for number in range(2 * MOST_BARS):
            shown.say(f"line {number}")
            shown.bar(f"round {number}", total=1).finish()
    found = mirrored()
    labels = [bar["label"] for bar in found["bars"]]
    assert labels[0] == "whole run" and labels[-1] == f"round {2 * MOST_BARS - 1}" and len(labels) == MOST_BARS
    assert len(found["said"]) == MOST_LINES and found["said"][-1] == f"line {2 * MOST_BARS - 1}"


def test_values_that_json_lacks_and_broken_text_are_written_all_the_same(
    mirrored: Callable[[], dict[str, Any]],
) -> None:
    with Progress(stream=io.StringIO()) as shown:
        shown.say("name \udcff")
        shown.bar("train", total=float("inf")).update(float("nan"))
    found = mirrored()
    assert found["said"] == ["name ?"]
    assert (found["bars"][0]["done"], found["bars"][0]["total"]) == (None, None)


def test_a_place_that_cannot_be_written_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(progress, "_MIRROR", ProgressMirror(tmp_path / "missing" / "progress.json"))
    with Progress(stream=io.StringIO()) as shown:
        assert list(shown.track([1, 2], "pairs")) == [1, 2]


def test_nothing_is_left_beside_the_file(mirrored: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    with Progress(stream=io.StringIO()) as shown:
        list(shown.track([1, 2], "pairs"))
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_the_mirror_of_a_parent_is_not_written_by_a_fork(
    mirrored: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress(stream=io.StringIO()) as shown:
        shown.bar("of the parent")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        shown.bar("of a worker").finish()
    assert [bar["label"] for bar in mirrored()["bars"]] == ["of the parent"]


def test_without_the_variable_there_is_no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert mirror_asked_for() is None and progress._MIRROR is None


def test_the_variable_is_gone_for_the_processes_that_are_started(tmp_path: Path) -> None:
    program = (
        "import os; from paperworks.core.progress import Progress\n"
        "with Progress() as shown: list(shown.track(range(3), 'cells'))\n"
        f"print(os.environ.get({VARIABLE!r}))"
    )
    environment = {**os.environ, VARIABLE: str(tmp_path / "progress.json")}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout == "None\n"
    (bar,) = json.loads((tmp_path / "progress.json").read_text())["bars"]
    assert (bar["label"], bar["done"], bar["total"], bar["finished"]) == ("cells", 3, 3, True)
