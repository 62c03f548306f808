"""Which logged transition supports a decision, and at what distance: PRDC's search (arXiv 2306.06569), for any policy.

A decision far from every logged pair of state and action is a guess of the critics, whatever its value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.typing import NDArray

from paperworks.control.nearest import NearestRows
from paperworks.control.policy import ActionBounds, ControlPolicy
from paperworks.control.transitions import Transitions
from paperworks.core.errors import DataError, OptionError
from paperworks.core.files import write_atomic


@dataclass(frozen=True)
class Support:
    """For every decision the nearest logged pair: its row, and how far it is in all, in the state, in the action.

    States are as the policy normalises them, actions in [-1, 1]; distance^2 = (beta state)^2 + action^2.
    """

    rows: Int[ndarray, " decisions"]
    distances: Float[ndarray, " decisions"]
    states: Float[ndarray, " decisions"]
    actions: Float[ndarray, " decisions"]


def support(
    policy: ControlPolicy,
    log: Transitions,
    observations: Float[ndarray, "decisions state"],
    *,
    actions: Float[ndarray, "decisions action"] | None = None,
    beta: float = 2.0,
) -> Support:
    """The logged rows nearest to what the policy does in these states (`actions`, or its own), searched exactly.

    Raises OptionError for discrete actions or a negative beta, DataError for a log of other widths.
    """
    bounds = policy.bounds
    if not isinstance(bounds, ActionBounds) or log.is_discrete:
        raise OptionError("support is a distance between continuous actions; these are discrete")
    if beta < 0:
        raise OptionError(f"beta {beta}: expected at least 0")
    widths, known = (log.observations.shape[1], log.actions.shape[1]), (len(policy.normaliser.mean), bounds.width)
    if widths != known:
        raise DataError(f"states and actions of {widths} numbers; the policy's are of {known}", file=log.source or None)

    def normalised(states: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(((states - policy.normaliser.mean) / policy.normaliser.deviation).astype(np.float32))

    done = np.asarray(policy.act(observations) if actions is None else actions, np.float32)
    states, decided = normalised(observations), torch.from_numpy(bounds.inward(done))
    logged_states, logged_actions = normalised(log.observations), torch.from_numpy(bounds.inward(log.actions))
    index = NearestRows(torch.cat([beta * logged_states, logged_actions], 1))
    rows = index.query(torch.cat([beta * states, decided], 1))[:, 0]
    apart, off = (states - logged_states[rows]).norm(dim=1), (decided - logged_actions[rows]).norm(dim=1)
    distances = ((beta * apart).square() + off.square()).sqrt()
    return Support(rows.numpy(), distances.numpy(), apart.numpy(), off.numpy())


class Recorded:
    """An `act` that remembers what it saw and did, of episodes side by side."""

    def __init__(self, act: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        self._act = act
        self._seen: list[NDArray[Any]] = []
        self._done: list[NDArray[Any]] = []

    def __call__(self, seen: NDArray[Any]) -> NDArray[Any]:
        action = self._act(seen)
        self._seen.append(np.array(seen))
        self._done.append(np.array(action))
        return action

    def decisions(
        self, lengths: Float[ndarray, " episodes"]
    ) -> tuple[
        Int[ndarray, " decisions"],
        Int[ndarray, " decisions"],
        Float[ndarray, "decisions state"],
        Float[ndarray, "decisions action"],
    ]:
        """(episode, step, state, action) of every decision before its episode's end, episode after episode."""
        is_before = np.arange(len(self._seen)) < np.asarray(lengths)[:, None]
        episodes, steps = np.nonzero(is_before)
        return episodes, steps, np.stack(self._seen, 1)[is_before], np.stack(self._done, 1)[is_before]


def write_support(
    path: str | Path, episodes: Int[ndarray, " decisions"], steps: Int[ndarray, " decisions"], found: Support
) -> Path:
    """A line a decision: episode, step, the row of the log that supports it, and how far that one is."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("episode", "step", "row", "distance", "state_distance", "action_distance"))
    numbers = (
        episodes,
        steps,
        found.rows,
        *(np.round(each, 6) for each in (found.distances, found.states, found.actions)),
    )
    lines.writerows(zip(*(each.tolist() for each in numbers), strict=True))
    write_atomic(path, text.getvalue())
    return Path(path)
