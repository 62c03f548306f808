"""Many independent problems (seeds, grid points) in one flat batch: every problem gets the mean of its own items.

The training loop averages a whole batch; here a batch holds problems that must not see each other, so that averages are
formed a problem at a time, by the same rule: a sum of weighted means.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from paperworks.language.objectives.objective import Objective


def losses_of_problems(objective: Objective, batch: Any, problems: int) -> Float[Tensor, " problems"]:
    """The objective's loss of every problem, from a batch that holds the problems' items one after the other.

    Every problem has the same number of items. The sum over problems can be minimised in their stead: no gradient
    crosses.
    """
    values, weights = objective.terms(batch), objective.weights(batch)
    total = None
    for name, value in values.items():
        weight = weights[name].reshape(problems, -1)
        mean = (weight * value.reshape(problems, -1)).sum(-1) / weight.sum(-1)
        total = mean if total is None else total + mean
    assert total is not None, f"objective {objective.name} has no terms"
    return total
