"""LineWorld: a walk to the right end of a line, and logs in which the right way was taken in some places only.

Where the log leans the wrong way, a policy that imitates what was done there never arrives; the good action was logged
nearby. A second action must stay near what was logged, so that leaving the data is punished.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from paperworks.control.transitions import Transitions

LENGTH, STRIDE, GOAL = 10.0, 0.25, 9.99
CELLS, GOAL_CELLS = 100, 3  # from the last GOAL_CELLS cells a step can reach the goal
LARGEST_SIDE_STEP = 0.3
NOISE = 0.05


class LineWorld:
    """x in [0, 10] moves by a_1 / 4, unless |a_2| > 0.3; at x >= 9.99 the episode is over with reward 1."""

    state, action, limit = 1, 2, 200

    def start(self, shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
        """Uniform in [0, 1]."""
        return torch.rand(*shape, 1, generator=draw)

    def seen(self, latent: Tensor) -> Tensor:
        return latent

    def step(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ahead, aside = action.split(1, -1)
        following = (latent + STRIDE * ahead * (aside.abs() <= LARGEST_SIDE_STEP)).clamp(0, LENGTH)
        over = following[..., 0] >= GOAL
        return following, over.float(), over, torch.zeros_like(following[..., 0])


def starts(count: int = 21) -> Tensor:
    """Evenly spread over [0, 1]."""
    return torch.linspace(0, 1, count)[:, None]


def line_log(good: float, seed: int, transitions: int = 4000) -> Transitions:
    """Single steps from places uniform on the line: to the right in a share `good` of the cells, to the left elsewhere.

    Which cells is the seed's. The last cells, from which a step reaches the goal, are always good: a log in which nobody
    ever arrived says nothing of where to go.
    """
    draw = np.random.default_rng(seed)
    is_good = np.zeros(CELLS, dtype=bool)
    is_good[-GOAL_CELLS:] = True
    more = max(0, round(good * CELLS) - GOAL_CELLS)
    is_good[draw.choice(CELLS - GOAL_CELLS, more, replace=False)] = True
    x = draw.uniform(0, LENGTH, transitions).astype(np.float32)
    side = np.where(is_good[(x / LENGTH * CELLS).astype(int).clip(max=CELLS - 1)], 1.0, -1.0)
    actions = np.stack([side, np.zeros(transitions)], 1) + draw.normal(0, NOISE, (transitions, 2))
    actions = actions.clip(-1, 1).astype(np.float32)
    following, rewards, over, _ = LineWorld().step(torch.from_numpy(x[:, None]), torch.from_numpy(actions))
    return Transitions(x[:, None], actions, rewards.numpy(), following.numpy(), over.numpy(), ~over.numpy())
