"""Logged transitions as arrays: what was seen, done, earned, and where episodes end.

An episode ends by termination (the task is over, nothing follows) or by truncation (a time limit: the log stops, the world
would have gone on). A value bootstraps through the second and never through the first, so the two are kept apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from numpy.typing import NDArray

from paperworks.core.errors import DataError

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class Transitions:
    """N transitions in the order of the log, episode after episode. `actions` are whole numbers where they are discrete."""

    observations: Float[ndarray, "n state"]
    actions: Float[ndarray, "n action"] | Int[ndarray, " n"]
    rewards: Float[ndarray, " n"]
    next_observations: Float[ndarray, "n state"]
    terminations: Bool[ndarray, " n"]
    truncations: Bool[ndarray, " n"]
    costs: Float[ndarray, " n"] | None = None
    source: str = ""
    constraint: Float[ndarray, " n"] | None = None  # signed: above 0 is a violation

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def is_discrete(self) -> bool:
        return self.actions.dtype.kind in "iu"

    @property
    def ends(self) -> Bool[ndarray, " n"]:
        """Whether an episode ends with the transition, one way or the other; the last transition of a log always does."""
        found = self.terminations | self.truncations
        found[-1:] = True
        return found

    def episodes(self) -> Iterator[slice]:
        """Each episode's transitions."""
        begin = 0
        for last in np.flatnonzero(self.ends):
            yield slice(begin, int(last) + 1)
            begin = int(last) + 1

    def returns(self) -> Float[ndarray, " episodes"]:
        """The sum of rewards of each episode, undiscounted."""
        starts = [episode.start for episode in self.episodes()]
        return np.add.reduceat(self.rewards.astype(np.float64), starts) if starts else np.zeros(0)

    def returns_to_go(self, gamma: float) -> Float[ndarray, " n"]:
        """The discounted sum of rewards from each transition to its episode's end."""
        out, ends = self.rewards.astype(np.float64), self.ends
        for at in range(len(out) - 2, -1, -1):
            if not ends[at]:
                out[at] += gamma * out[at + 1]
        return out

    def take(self, rows: Sequence[int] | NDArray[np.int64] | slice) -> Transitions:
        """Some of the transitions. What was an episode is one no longer, unless whole episodes are taken."""
        arrays = {name: getattr(self, name)[rows] for name in ARRAYS if getattr(self, name) is not None}
        return dataclasses.replace(self, **arrays)

    def best_episodes(self, share: float) -> Transitions:
        """The episodes of highest return that hold together at least `share` of the transitions, in the log's order."""
        episodes, returns = list(self.episodes()), self.returns()
        kept, count = set[int](), 0
        for index in np.argsort(-returns, kind="stable"):
            if count >= share * len(self):
                break
            kept.add(int(index))
            count += episodes[index].stop - episodes[index].start
        rows = [row for index, each in enumerate(episodes) if index in kept for row in range(each.start, each.stop)]
        return self.take(rows)


ARRAYS = (
    "observations", "actions", "rewards", "next_observations", "terminations", "truncations", "costs", "constraint"
)  # fmt: skip


def checked(found: Transitions) -> Transitions:
    """The transitions, if every number is finite and every array as long. Raises DataError that names the first bad row."""
    counts = {name: len(getattr(found, name)) for name in ARRAYS if getattr(found, name) is not None}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"arrays of different lengths: {listed}; expected as many of each", file=found.source or None)
    if not len(found):
        raise DataError("no transitions", file=found.source or None)
    for name in ARRAYS:
        values = getattr(found, name)
        if values is None or values.dtype.kind != "f":
            continue
        bad = ~np.isfinite(values).reshape(len(values), -1).all(1)
        if bad.any():
            rows = np.flatnonzero(bad)
            raise DataError(
                f"{name}: {len(rows)} rows with a number that is not finite, the first is row {rows[0]}; mend or drop them",
                file=found.source or None,
                field=name,
            )
    both = found.terminations & found.truncations
    if both.any():  # an end at the limit is an end: there is nothing to bootstrap from
        return dataclasses.replace(found, truncations=found.truncations & ~both)
    return found
