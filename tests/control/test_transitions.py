"""Logs: where episodes end and what follows, the names they come under, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from paperworks.control.datasets import read_transitions
from paperworks.control.transitions import Transitions
from paperworks.core.errors import DataError

Made = Callable[..., Transitions]


def test_without_next_observations_a_truncated_row_is_dropped_and_a_terminated_one_kept(made: Made) -> None:
    found = made()
    assert found.observations.ravel().tolist() == [0, 1, 2]
    assert found.next_observations.ravel().tolist() == [1, 1, 3]  # behind a termination nothing is read
    assert found.terminations.tolist() == [False, True, False]
    assert found.truncations.tolist() == [False, False, True]  # the episode's known part ends here


def test_a_log_that_just_stops_is_a_truncation(made: Made) -> None:
    found = made(truncations=None)
    assert len(found) == 3 and found.truncations.tolist() == [False, False, True]


def test_given_next_observations_keep_every_row(made: Made) -> None:
    found = made(next_observations=[[1.0], [9.0], [3.0], [4.0]])
    assert len(found) == 4 and found.next_observations.ravel().tolist() == [1, 9, 3, 4]
    assert [(part.start, part.stop) for part in found.episodes()] == [(0, 2), (2, 4)]
    assert found.returns().tolist() == [3, 7]
    assert found.returns_to_go(0.5).tolist() == [2, 2, 5, 4]


def test_an_end_at_the_limit_is_an_end(made: Made) -> None:
    found = made(terminations=[False, True, False, True], next_observations=[[1.0], [0.0], [3.0], [0.0]])
    assert found.terminations.tolist() == [False, True, False, True] and not found.truncations.any()


def test_the_best_episodes(made: Made) -> None:
    found = made(next_observations=[[1.0], [0.0], [3.0], [4.0]])
    assert found.best_episodes(0.5).rewards.tolist() == [3, 4]
    assert found.best_episodes(0.51).rewards.tolist() == [1, 2, 3, 4]


def test_whole_numbers_are_discrete_actions(made: Made) -> None:
    assert made(actions=[0, 1, 1, 0]).is_discrete and made(actions=[[0], [1], [1], [0]]).actions.shape == (3,)
    assert not made().is_discrete


@pytest.mark.parametrize("kind", ["npz", "hdf5", "parquet"])
def test_files(arrays: dict[str, np.ndarray], log: Transitions, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"log.{kind}"
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
    else:
        pyarrow.parquet.write_table(pyarrow.table({name: list(values) for name, values in arrays.items()}), path)
    found = read_transitions(str(path))
    assert len(found) == len(log) and np.allclose(found.observations, log.observations)
    assert (found.terminations == log.terminations).all() and (found.truncations == log.truncations).all()
    assert len(read_transitions(str(path), limit=100)) < 100


def test_rollouts_as_imitation_keeps_them(tmp_path: Path) -> None:
    """An observation more than actions in each episode; what else is in the file is not opened."""
    path = tmp_path / "rollouts.npz"
    np.savez(
        path,
        obs=np.arange(7.0)[:, None], acts=np.array([0, 1, 1, 0, 1]), rews=np.arange(5.0), indices=np.array([2]),
        terminal=np.array([True, False]), infos=np.array([{"a": 1}] * 5, dtype=object),
    )  # fmt: skip
    found = read_transitions(str(path))
    assert found.observations.ravel().tolist() == [0, 1, 3, 4, 5]
    assert found.next_observations.ravel().tolist() == [1, 2, 4, 5, 6]
    assert found.terminations.tolist() == [False, True, False, False, False]
    assert found.truncations.tolist() == [False, False, False, False, True] and found.is_discrete
    np.savez(
        path, obs=np.zeros((6, 1)), acts=np.zeros(5), rews=np.zeros(5), indices=np.array([2]), terminal=np.zeros(2)
    )
    with pytest.raises(DataError, match="do not belong together"):
        read_transitions(str(path))


def test_minari(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its episodes bring the observation behind their last step, so that nothing is dropped."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    env = gymnasium.make("Pendulum-v1", max_episode_steps=7)
    episodes = []
    for seed in range(3):
        seen = [env.reset(seed=seed)[0], *(env.step(np.zeros(1, np.float32))[0] for _ in range(7))]
        ends = [False] * 6 + [True]
        episodes.append(
            EpisodeBuffer(
                id=seed, observations=np.array(seen), actions=np.zeros((7, 1), np.float32), rewards=[0.0] * 7,
                terminations=[False] * 7, truncations=ends,
            )
        )  # fmt: skip
    about = {"algorithm_name": "still", "author": "a", "author_email": "a@b.c", "code_permalink": "c"}
    minari.create_dataset_from_buffers("pendulum/still-v0", buffer=episodes, env=env, **about)
    for name in ("pendulum/still-v0", str(tmp_path / "pendulum" / "still-v0")):
        found = read_transitions(name)
        assert (len(found), int(found.truncations.sum()), len(list(found.episodes()))) == (21, 3, 3)
        assert np.array_equal(found.next_observations[:6], found.observations[1:7])
        assert not np.array_equal(found.next_observations[6], found.observations[7])


def test_costs_in_what_minari_s_episodes_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An info a step, and one of the reset before them."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    episode = EpisodeBuffer(
        id=0, observations=np.zeros((4, 3), np.float32), actions=np.zeros((3, 1), np.float32), rewards=[0.0] * 3,
        terminations=[False] * 3, truncations=[False, False, True], infos={"cost": np.array([9.0, 0.0, 1.0, 0.0])},
    )  # fmt: skip
    about = {"algorithm_name": "still", "author": "a", "author_email": "a@b.c", "code_permalink": "c"}
    env = gymnasium.make("Pendulum-v1")
    minari.create_dataset_from_buffers("pendulum/costly-v0", buffer=[episode], env=env, **about)
    found = read_transitions("pendulum/costly-v0")
    assert found.costs is not None and found.costs.tolist() == [0, 1, 0] and found.constraint is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rewards": None}, "no array rewards"),
        ({"terminations": None, "truncations": None}, "where do episodes end"),
        ({"rewards": [1.0, 2.0]}, "different lengths: observations 4, actions 4, rewards 2"),
        ({"rewards": [1.0, float("nan"), 3.0, 4.0]}, "rewards: 1 rows .* first is row 1"),
        ({"observations": [[0.0], [1.0], [np.inf], [3.0]]}, "observations: 1 rows .* row 2"),
        ({"next_observations": [[1.0, 1.0]] * 4}, "next_observations of shape"),
        ({"terminations": [0, 1, 2, 0]}, "expected true or false"),
        ({"actions": [-1, 0, 1, 0]}, "count from 0"),
        ({"observations": [["a"], ["b"], ["c"], ["d"]]}, "expected numbers"),
    ],
)
def test_what_is_wrong_is_named(made: Made, given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(**given)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"no", "not an .npz file"),
        ("a.hdf5", b"no", "not an HDF5 file"),
        ("a.parquet", b"no", "not a Parquet file"),
        ("a.csv", b"no", "expected a file of .npz"),
        ("b.npz", None, "no such file"),
        ("nothing/here-v0", None, "no Minari data set of that name"),
    ],
)
def test_files_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, message: str
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_transitions(name)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, observations=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="plain arrays"):
        read_transitions(str(path))
