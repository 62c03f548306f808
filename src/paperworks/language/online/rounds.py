"""What a builder of an iteration's rows may ask beside the rollouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paperworks.language.objectives.objective import Objective
from paperworks.language.objectives.policy_gradient import Penalty
from paperworks.language.online.batches import Batch
from paperworks.language.online.judges import Judge


@dataclass(frozen=True)
class Context:
    """What a builder may ask beside the rollouts."""

    objective: Objective
    penalty: Penalty
    judge: Judge
    seed: tuple[int | str, ...]  # of this iteration
    offline: Callable[[], Batch] | None = (
        None  # the iteration's rows of a preference file, for methods that mix them in
    )
