"""Collecting logs: levels of quality, mixtures of whole episodes, and a collection that was killed goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from paperworks.control.collection import CollectOptions, collect, joined, learn_behaviour, levels_of
from paperworks.control.collection_job import collection_job, log_for
from paperworks.control.datasets import read_transitions
from paperworks.control.minari_sets import reference_returns, write_minari
from paperworks.control.transitions import Transitions
from paperworks.core.errors import OptionError, RunError

QUICK = CollectOptions(
    steps=450, warm_up=50, transitions=100, hidden=(32, 32), learning_rate=3e-3, batch_size=32, eval_episodes=4,
    eval_every=50, save_every=150,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(point: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("collection")
    collection_job(point, ["random", "medium", "expert", "mixed", "replay"], QUICK, place)
    return place


def test_levels_are_of_rising_quality(folder: Path, point: str) -> None:
    logs = {
        level: read_transitions(str(folder / "datasets" / level)) for level in ("random", "medium", "expert", "mixed")
    }
    means = {level: log.returns().mean() for level, log in logs.items()}
    assert means["random"] < means["mixed"] < means["expert"] and means["random"] < means["expert"] - 3
    assert all(len(log) == 100 for log in logs.values())
    low, high = reference_returns(folder / "datasets" / "medium") or (0, 0)
    assert low < high
    replay = read_transitions(str(folder / "datasets" / "replay"))
    assert len(replay) % 50 == 0 and float(np.abs(replay.actions).max()) > 1  # in the environment's own bounds


def test_a_mixture_is_of_whole_episodes(folder: Path) -> None:
    mixed = read_transitions(str(folder / "datasets" / "mixed"))
    assert mixed.ends[79] and (mixed.truncations | mixed.terminations)[79]  # where the expert's part begins


def test_a_killed_collection_is_the_same_in_the_end(folder: Path, point: str, tmp_path: Path) -> None:
    def killed(done: int, values: object) -> None:
        if done >= 200:
            raise SystemExit

    with pytest.raises(SystemExit):
        learn_behaviour(point, QUICK, tmp_path, on_metrics=killed)
    made = learn_behaviour(point, QUICK, tmp_path, resume=True)
    log, _ = collect("expert", made, point, QUICK, tmp_path / "datasets")
    assert np.array_equal(log.actions, read_transitions(str(folder / "datasets" / "expert")).actions)


def test_more_levels_are_added_to_what_is_there(folder: Path, point: str) -> None:
    _, found = collection_job(point, ["medium-expert"], QUICK, folder, resume=True)
    assert [each["level"] for each in found] == ["random", "medium", "expert", "medium-expert", "mixed", "replay"]
    with pytest.raises(RunError, match="transitions=100, not 101"):
        collection_job(point, ["random"], CollectOptions(**{**vars(QUICK), "transitions": 101}), folder, resume=True)


def test_a_log_is_collected_once(point: str) -> None:
    place = log_for(point, "random", QUICK)
    written = Path(place, "data", "metadata.json").stat().st_mtime_ns
    assert log_for(point, "random", QUICK) == place
    assert Path(place, "data", "metadata.json").stat().st_mtime_ns == written


def test_minari_there_and_back(log: Transitions, point: str, tmp_path: Path) -> None:
    whole = log.take(np.arange(int(np.flatnonzero(log.ends)[4]) + 1))
    write_minari(whole, tmp_path / "a", point, about="five episodes", references=(-1.0, 2.0))
    back = read_transitions(str(tmp_path / "a"))
    for name in ("observations", "actions", "rewards", "next_observations", "terminations", "truncations"):
        assert np.array_equal(getattr(back, name), getattr(whole, name)), name
    assert reference_returns(tmp_path / "a") == (-1.0, 2.0) and reference_returns(tmp_path) is None


def test_discrete_actions_are_logged_as_they_are(tmp_path: Path) -> None:
    options = CollectOptions(transitions=50)
    _, (only,) = collection_job("CartPole-v1", ["random"], options, tmp_path / "run")
    log = read_transitions(only["data"])
    assert log.is_discrete and set(log.actions.tolist()) == {0, 1} and only["transitions"] == 50


def test_what_is_joined_is_cut_at_the_seam(log: Transitions) -> None:
    both = joined([log.take(slice(0, 5)), log.take(slice(0, 5))])
    assert both.ends[[4, 9]].all() and both.truncations[4] and len(both) == 10


@pytest.mark.parametrize(("names", "message"), [("medum", "did you mean 'medium'"), (",", "expected one or more")])
def test_levels_by_name(names: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        levels_of(names)


def test_a_behaviour_policy_that_learns_nothing(point: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="more --steps"):
        learn_behaviour(point, CollectOptions(steps=5, warm_up=5, eval_episodes=2, hidden=(4, 4)), tmp_path)
