"""Training the members of a reward ensemble side by side: their scores, and which rows each of them sees how often.

The members share a backbone and every batch; what tells them apart is the start of their heads and their own bootstrap of
the rows (Efron 1979; as weights, arXiv 1512.05469), which also stands for an order of the rows of their own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.seeding import torch_generator
from paperworks.language.data.schemas import Preference
from paperworks.language.objectives.objective import ResponseLogps

if TYPE_CHECKING:
    from paperworks.language.data.dataset import Dataset

_DRAWS = 1 << 24  # numbers of a row reach objectives as float32, which holds integers up to here
_POISSON = np.cumsum([0.36787944, 0.36787944, 0.18393972, 0.06131324, 0.01532831, 0.00306566, 0.00051094, 0.00007299])


@dataclass(frozen=True)
class DrawnPreference(Preference):
    """A pair with a number drawn for it, from which each member's weight follows."""

    member_draw: float | None = None


def with_draws(dataset: Dataset[Preference], seed: int) -> Dataset[Any]:
    """The rows with a number each, fixed by the seed and the row's place."""
    draws = torch.randint(_DRAWS, (len(dataset),), generator=torch_generator(seed, "bootstrap")).tolist()
    names = [each.name for each in dataclasses.fields(Preference)]
    rows = [
        DrawnPreference(**{name: getattr(row, name) for name in names}, member_draw=float(draw))
        for row, draw in zip(dataset.rows, draws, strict=True)
    ]
    return dataset.with_rows(rows)


def bootstrap_weights(draws: Float[Tensor, " rows"], members: int) -> Float[Tensor, "rows members"]:
    """How often each member has each row: independent Poisson(1) counts, 1 for all where the row has no draw (NaN)."""
    known = draws.detach().cpu().double().numpy()
    seeds = np.where(np.isnan(known), 0, known).astype(np.uint64)[:, None]
    mixed = _mixed(_mixed(seeds) + np.arange(1, members + 1, dtype=np.uint64)[None])
    uniform = (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53
    counts = np.searchsorted(_POISSON, uniform, side="right").astype(np.float32)
    counts[np.isnan(known)] = 1.0
    return torch.from_numpy(counts).to(draws)


def member_rewards(response: ResponseLogps, members: int) -> Float[Tensor, "items members"]:
    """Each member's reward of each response. Zeros where nothing was scored."""
    if members == 1:
        return response.policy[:, None]
    by_token = response.by_token
    if by_token is None or len(by_token.policy) != len(response.policy) * members:
        # Rows of a process that has none in this step are not scored; they have a zero a token, not one a member.
        return response.policy[:, None].expand(-1, members)
    return by_token.policy.view(-1, members)


def _mixed(values: Any) -> Any:
    """splitmix64's finaliser: neighbouring numbers become unrelated ones."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
