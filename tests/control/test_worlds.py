"""Worlds on tensors: episodes end where they should, and logs of them are logs like any other."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from paperworks.control.batches import Log
from paperworks.control.policy import Normaliser
from paperworks.control.testbeds.worlds import logged, roll


class Stairs:
    """x goes up by the action, the reward is the action; at 3 the episode is over; cost 1 above 1."""

    state, action, limit = 1, 1, 5

    def start(self, shape: tuple[int, ...], draw: torch.Generator) -> torch.Tensor:
        return torch.zeros(*shape, 1)

    def seen(self, latent: torch.Tensor) -> torch.Tensor:
        return latent

    def step(
        self, latent: torch.Tensor, action: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        following = latent + action
        x = following[..., 0]
        return following, action[..., 0], x >= 3, (x > 1).float()


def test_episodes_end_at_the_goal_or_the_limit() -> None:
    speeds = torch.tensor([[[1.0]], [[0.5]]])  # two nets, an episode each
    found = roll(Stairs(), lambda states: speeds.expand_as(states), torch.zeros(2, 1, 1))
    assert found.lengths.tolist() == [[3], [5]] and found.returns.tolist() == [[3], [2.5]]
    assert found.terminated.tolist() == [[True], [False]] and found.costs.tolist() == [[2], [3]]
    assert roll(Stairs(), torch.ones_like, torch.zeros(1, 1, 1), gamma=0.5).returns.tolist() == [[1.75]]


def test_a_log_of_a_world() -> None:
    log = logged(Stairs(), torch.ones_like, 8, torch.Generator().manual_seed(0), side_by_side=2)
    assert log.observations[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert log.terminations.tolist() == [False, False, True, False, False, True, False, False]
    assert log.truncations.tolist() == [False] * 7 + [True]
    assert np.array_equal(log.next_observations, log.observations + 1)


def test_a_log_a_seed() -> None:
    draw = torch.Generator().manual_seed(0)
    logs = [logged(Stairs(), partial(torch.full_like, fill_value=speed), 4, draw) for speed in (1.0, 0.5)]
    none = Normaliser.none(1)
    made = [Log(log, none.mean, none.deviation, torch.device("cpu")) for log in logs]
    stacked, rows = Log.stacked(made), torch.tensor([[1, 2], [1, 3]])
    batch = stacked.batch(rows)
    assert len(stacked) == 4 and stacked.is_stacked
    assert batch.states[..., 0].tolist() == [[1, 2], [0.5, 1.5]] and batch.actions[..., 0].tolist() == [
        [1, 1],
        [0.5, 0.5],
    ]
    assert made[0].batch(rows).states[..., 0].tolist() == [[1, 2], [1, 0]]
    with pytest.raises(ValueError, match="of \\[4, 5\\] transitions"):
        Log.stacked(
            [made[0], Log(logged(Stairs(), torch.ones_like, 5, draw), none.mean, none.deviation, torch.device("cpu"))]
        )
