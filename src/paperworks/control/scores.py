"""Returns on a scale that tasks share: 0 is a random policy's, 100 a good one's."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from paperworks.core.errors import OptionError

D4RL = {
    "HalfCheetah": (-280.178953, 12135.0),
    "Hopper": (-20.272305, 3234.3),
    "Walker2d": (1.629008, 4592.3),
    "Ant": (-325.6, 3879.7),
}
"""Returns of a random and of an expert policy by which D4RL normalises scores (arXiv 2004.07219), of the -v2 tasks."""


@dataclass(frozen=True)
class Reference:
    """The returns that are 0 and 100."""

    random: float
    best: float
    source: str = ""

    def score(self, returns: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
        """100 (return - random) / (best - random); neither end is clipped."""
        return np.asarray(100 * (np.asarray(returns, dtype=np.float64) - self.random) / (self.best - self.random))


def reference_of(environment: str | None, random: float | None = None, best: float | None = None) -> Reference | None:
    """The two returns given, else D4RL's for a task that it knows, of whatever version; None for others.

    Raises OptionError where one of the two is missing, or both are equal.
    """
    if (random is None) != (best is None):
        raise OptionError("--random-return and --best-return go together: a scale has two ends")
    if random is not None and best is not None:
        if random == best:
            raise OptionError(f"--random-return and --best-return are both {best:g}: a scale has two ends")
        return Reference(random, best, "given")
    task = re.fullmatch(rf"(?:.*/)?({'|'.join(D4RL)})-v\d+", environment or "")
    return Reference(*D4RL[task[1]], f"D4RL's {task[1]}-v2") if task else None
