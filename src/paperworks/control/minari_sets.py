"""Minari data sets written and described: a log of whole episodes, with the returns that scores are normalised by."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from paperworks.control.environments import single
from paperworks.control.transitions import Transitions
from paperworks.core.errors import OptionError
from paperworks.core.files import atomic_folder, read_json, write_json_atomic


def write_minari(
    log: Transitions, folder: Path, environment: str, *, about: str, references: tuple[float, float] | None = None
) -> Path:
    """Write a log as a Minari data set into `folder`, whole or not at all. `references` are returns at scores 0 and 1."""
    try:
        import minari
        from minari.data_collector import EpisodeBuffer
    except ImportError:
        raise OptionError("Minari data sets need minari; install paperworks[control]") from None
    episodes = [
        EpisodeBuffer(
            id=number,
            observations=np.concatenate([log.observations[rows], log.next_observations[rows][-1:]]),
            actions=log.actions[rows],
            rewards=log.rewards[rows].tolist(),
            terminations=log.terminations[rows].tolist(),
            truncations=(log.truncations | log.ends & ~log.terminations)[rows].tolist(),
        )
        for number, rows in enumerate(log.episodes())
    ]
    with atomic_folder(folder) as partial, tempfile.TemporaryDirectory() as scratch:
        before = os.environ.get("MINARI_DATASETS_PATH")
        os.environ["MINARI_DATASETS_PATH"] = scratch
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                minari.create_dataset_from_buffers(
                    "log-v0", buffer=episodes, **_named(environment), algorithm_name="paperworks collect", author="paperworks",
                    author_email="none", code_permalink="none", description=about,
                )  # fmt: skip
        finally:
            if before is None:
                del os.environ["MINARI_DATASETS_PATH"]
            else:
                os.environ["MINARI_DATASETS_PATH"] = before
        shutil.move(Path(scratch) / "log-v0" / "data", partial / "data")
        if references is not None:  # Minari itself writes them for an environment that it can name alone
            described = read_json(partial / "data" / "metadata.json")
            described |= {"ref_min_score": references[0], "ref_max_score": references[1]}
            write_json_atomic(partial / "data" / "metadata.json", described)
    return folder


def _named(environment: str) -> dict[str, Any]:
    """The environment by its name, or its spaces where it is one of a program's own that a file cannot name."""
    made = single(environment)
    spaces = {"observation_space": made.observation_space, "action_space": made.action_space}
    made.close()
    try:
        made.spec.to_json()
    except ValueError:
        return spaces
    return {"env": environment}


def reference_returns(folder: str | Path) -> tuple[float, float] | None:
    """(random, expert) returns that a Minari data set's folder says; None where it says none, or is none."""
    try:
        described = json.loads((Path(folder) / "data" / "metadata.json").read_text(encoding="utf-8"))
        low, high = described["ref_min_score"], described["ref_max_score"]
    except (OSError, ValueError, KeyError):
        return None
    return None if low is None or high is None else (float(low), float(high))
