"""Logged transitions from files: .npz, .hdf5, .parquet with the usual arrays, or a Minari data set by id or folder.

D4RL's names are understood (`terminals`, `timeouts`, `infos/cost`). Nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperworks.control.transitions import Numbers, Transitions, checked
from paperworks.core.errors import DataError, OptionError, first_line

Array = NDArray[Any]
Arrays = Mapping[str, Array]

NAMES: Mapping[str, tuple[str, ...]] = {
    "observations": ("observations", "observation", "obs", "states"),
    "actions": ("actions", "action", "acts"),
    "rewards": ("rewards", "reward", "rews"),
    "next_observations": ("next_observations", "next_observation", "next_obs", "next_states"),
    "terminations": ("terminations", "terminals", "terminal", "dones", "done"),
    "truncations": ("truncations", "timeouts", "timeout", "truncated"),
    "costs": ("costs", "cost", "infos/cost"),
    "constraint": ("constraint", "constraints", "infos/constraint"),
}
"""What each array may be called, ours first."""

_WANTED = frozenset({each for names in NAMES.values() for each in names} | {"indices"})


def read_transitions(path: str, *, limit: int | None = None) -> Transitions:
    """The transitions in a file, or of a Minari data set; at most `limit` of them, from the log's beginning.

    Raises DataError (file, what is missing or wrong, where), OptionError for a name that is neither.
    """
    place = Path(path)
    reader = _READERS.get(place.suffix.lower())
    if reader is not None and not place.is_file():
        raise DataError("no such file", file=path)
    if place.is_file():
        if reader is None:
            raise DataError(f"expected a file of {', '.join(_READERS)}, or a Minari data set", file=path)
        return from_arrays(reader(place), source=path, limit=limit)
    return _of_minari(path, limit)


def from_arrays(arrays: Arrays, *, source: str = "", limit: int | None = None) -> Transitions:
    """Transitions of named arrays. Raises DataError for what is missing, of another shape, or not finite.

    Without next observations they are taken from the row behind; what follows a truncated episode's last row was not
    logged, so that row is dropped and the one before it ends the episode.
    """
    found = {name: _named(arrays, name, limit) for name in NAMES}
    for name in ("observations", "actions", "rewards"):
        if found[name] is None:
            listed = ", ".join(sorted(arrays)) or "none"
            raise DataError(
                f"no array {name} (or {', '.join(NAMES[name][1:])}); found {listed}", file=source or None, field=name
            )
    if found["terminations"] is None and found["truncations"] is None:
        raise DataError(
            "no array terminations or truncations (or terminals, timeouts): where do episodes end?",
            file=source or None,
            field="terminations",
        )
    observations = _matrix(found["observations"], "observations", source)
    terminations, truncations = (
        _flags(found[name], name, len(observations), source) for name in ("terminations", "truncations")
    )
    following = found["next_observations"]
    whole = checked(
        Transitions(
            observations,
            _actions(found["actions"], source),
            _vector(found["rewards"], "rewards", source),
            observations if following is None else _matrix(following, "next_observations", source),
            terminations,
            truncations,
            None if found["costs"] is None else _vector(found["costs"], "costs", source),
            source,
            None if found["constraint"] is None else _vector(found["constraint"], "constraint", source),
        )
    )
    if whole.next_observations.shape != whole.observations.shape:
        raise DataError(
            f"next_observations of shape {whole.next_observations.shape}, observations of {whole.observations.shape}; "
            "expected the same",
            file=source or None,
            field="next_observations",
        )
    return _with_rows_behind(whole) if following is None else whole


def _with_rows_behind(log: Transitions) -> Transitions:
    """Next observations from the rows behind; rows whose next observation was not logged are left out."""
    following = np.concatenate([log.observations[1:], log.observations[-1:]])
    following = np.where(log.terminations[:, None], log.observations, following)  # never read, but a number
    known = ~(log.ends & ~log.terminations)
    truncations = log.truncations.copy()
    before = np.flatnonzero(~known) - 1
    before = before[before >= 0]
    truncations[before] |= ~log.terminations[before]
    if not known.any():
        raise DataError(
            "every episode is one truncated row, whose next observation is not known", file=log.source or None
        )
    found = dataclasses.replace(log, next_observations=following, truncations=truncations)
    return found.take(np.flatnonzero(known))


# ---------------------------------------------------------------------------------------------------------------- arrays


def _named(arrays: Arrays, name: str, limit: int | None) -> Array | None:
    return next((np.asarray(arrays[each])[:limit] for each in NAMES[name] if each in arrays), None)


def _matrix(values: Array | None, name: str, source: str) -> Numbers:
    """[n, width] as float32; one number a row is a column, an image a row of numbers."""
    assert values is not None
    if values.dtype.kind not in "fiub" or values.ndim < 1:
        raise DataError(f"{name}: expected numbers, found {values.dtype}", file=source or None, field=name)
    return np.ascontiguousarray(values.reshape(len(values), -1), dtype=np.float32)


def _vector(values: Array | None, name: str, source: str) -> Numbers:
    found = _matrix(values, name, source)
    if found.shape[1] != 1:
        raise DataError(f"{name}: expected one number a row, found {found.shape[1]}", file=source or None, field=name)
    return found[:, 0]


def _flags(values: Array | None, name: str, count: int, source: str) -> NDArray[np.bool_]:
    if values is None:
        return np.zeros(count, dtype=bool)
    found = _vector(values, name, source)
    if not np.isin(found, (0, 1)).all():
        raise DataError(f"{name}: expected true or false (1 or 0) in every row", file=source or None, field=name)
    return found.astype(bool)


def _actions(values: Array | None, source: str) -> Array:
    """[n, width] as float32, or [n] whole numbers where actions are discrete."""
    assert values is not None
    if values.dtype.kind in "iu" and (values.ndim == 1 or values.shape[1:] == (1,)):
        if values.min(initial=0) < 0:
            raise DataError(
                f"actions: discrete ones count from 0; found {values.min()}", file=source or None, field="actions"
            )
        return values.reshape(-1).astype(np.int64)
    return _matrix(values, "actions", source)


# ----------------------------------------------------------------------------------------------------------------- files


def _npz(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files if name in _WANTED}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"not an .npz file of plain arrays ({first_line(error)})", file=str(path)) from None
    return _of_trajectories(found) if {"obs", "acts", "indices", "terminal"} <= found.keys() else found


def _of_trajectories(found: Arrays) -> Arrays:
    """The layout of `imitation`'s rollouts: an observation more than actions in each episode, cut at `indices`."""
    starts = np.concatenate([[0], found["indices"]]).astype(np.int64)
    stops = np.concatenate([found["indices"], [len(found["acts"])]]).astype(np.int64)
    count, episode = len(found["acts"]), np.repeat(np.arange(len(starts)), stops - starts)
    if len(found["obs"]) != count + len(starts) or len(found["terminal"]) != len(starts):
        raise DataError(
            "obs, acts, indices and terminal do not belong together: expected one observation more than actions "
            "in each episode, and one terminal an episode"
        )
    before = np.arange(count) + episode
    last = np.zeros(count, dtype=bool)
    last[stops - 1] = True
    is_over = found["terminal"].astype(bool)[episode]
    return {
        "observations": found["obs"][before],
        "next_observations": found["obs"][before + 1],
        "actions": found["acts"],
        "rewards": found["rews"],
        "terminations": last & is_over,
        "truncations": last & ~is_over,
    }


def _hdf5(path: Path) -> Arrays:
    try:
        import h5py
    except ImportError:
        raise OptionError(f"{path}: needs h5py; install paperworks[control]") from None
    try:
        with h5py.File(path, "r") as file:
            return {name: file[name][()] for name in _WANTED if name in file and isinstance(file[name], h5py.Dataset)}
    except OSError as error:
        raise DataError(f"not an HDF5 file ({first_line(error)})", file=str(path)) from None


def _parquet(path: Path) -> Arrays:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        return {name: np.asarray(table[name].to_pylist()) for name in table.column_names}
    except (OSError, ValueError, pyarrow.ArrowInvalid) as error:
        raise DataError(f"not a Parquet file of numbers ({first_line(error)})", file=str(path)) from None


_READERS: Mapping[str, Callable[[Path], Arrays]] = {
    ".npz": _npz,
    ".hdf5": _hdf5,
    ".h5": _hdf5,
    ".parquet": _parquet,
}


# ---------------------------------------------------------------------------------------------------------------- Minari


def _of_minari(name: str, limit: int | None) -> Transitions:
    """A Minari data set, by the id under which it lies on this machine or by its folder."""
    try:
        import minari
        from minari.dataset.minari_dataset import MinariDataset
    except ImportError:
        raise OptionError(f"{name}: Minari data sets need minari; install paperworks[control]") from None
    try:
        folder = Path(name)
        found = MinariDataset(folder / "data") if (folder / "data").is_dir() else minari.load_dataset(name)
    except (OSError, ValueError, KeyError) as error:
        known = ", ".join(sorted(minari.list_local_datasets())[:8]) or "none"
        raise DataError(
            f"no such file, and no Minari data set of that name here ({first_line(error)}); here are: {known}",
            file=name,
        ) from None
    return _joined_episodes(list(found.iterate_episodes()), name, limit)


def _joined_episodes(episodes: list[Any], source: str, limit: int | None) -> Transitions:
    columns: dict[str, list[Array]] = {each: [] for each in ("observations", "actions", "rewards", "next_observations")}
    flags: dict[str, list[Array]] = {"terminations": [], "truncations": []}
    for episode in episodes:
        observations = np.asarray(episode.observations)
        if observations.dtype == object or observations.ndim < 1:
            raise DataError(
                "observations are dictionaries or tuples; expected arrays", file=source, field="observations"
            )
        columns["observations"].append(observations[:-1])
        columns["next_observations"].append(observations[1:])
        for each in ("actions", "rewards"):
            columns[each].append(np.asarray(getattr(episode, each)))
        for each in flags:
            flags[each].append(np.asarray(getattr(episode, each), dtype=bool))
    if not episodes:
        raise DataError("no episodes", file=source)
    for name in ("costs", "constraint"):
        parts = [part for episode in episodes if (part := _told(episode, name)) is not None]
        if len(parts) == len(episodes):
            columns[name] = parts
    return from_arrays(
        {each: np.concatenate(parts) for each, parts in {**columns, **flags}.items()},
        source=source,
        limit=limit,
    )


def _told(episode: Any, name: str) -> Array | None:
    """What an episode's infos say of each step; what they say of its reset, which comes first, is left out."""
    infos = getattr(episode, "infos", None) or {}
    key = next((each for each in NAMES[name] if each in infos), None)
    return None if key is None else np.asarray(infos[key], dtype=np.float32)[-len(episode.rewards) :]
