"""PRDC (arXiv 2306.06569): what tests/control/test_offline.py and test_nearest.py leave of its checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from paperworks.control.batches import Batch, Log
from paperworks.control.learner import Shapes
from paperworks.control.offline.prdc import PRDC, PRDCOptions
from paperworks.control.transitions import Transitions
from paperworks.core.errors import OptionError


def log_of(states: Tensor, actions: Tensor) -> Log:
    rows = len(states)
    flags, zeros = np.zeros(rows, bool), np.zeros(rows, np.float32)
    made = Transitions(states.numpy(), actions.numpy(), zeros, states.numpy(), flags, flags)
    width = states.shape[1]
    return Log(made, np.zeros(width, np.float32), np.ones(width, np.float32), torch.device("cpu"))


def learner_on(log: Log, seeds: int = 1, **options: Any) -> PRDC:
    shapes = Shapes(log.states.shape[-1], log.actions.shape[-1])
    return PRDC(shapes, PRDCOptions(hidden=(8,), **options), list(range(seeds)), log)


def distance(log: Log, batch: Batch, action: Tensor) -> float:
    return float(learner_on(log).pull(batch, action)[1]["distance"].mean())


def test_more_rows_are_never_farther() -> None:
    """Check 6: adding any row never increases the distance."""
    draw = torch.Generator().manual_seed(0)
    states, actions = torch.randn(40, 2, generator=draw), torch.rand(40, 1, generator=draw) * 2 - 1
    batch = log_of(states, actions).batch(torch.arange(10)[None])
    action = torch.rand(1, 10, 1, generator=draw) * 2 - 1
    found = [distance(log_of(states[:rows], actions[:rows]), batch, action) for rows in (10, 20, 30, 40)]
    assert found == sorted(found, reverse=True) and found[-1] < found[0]


def test_a_logged_pair_feels_no_pull() -> None:
    """Check 5: the penalty's gradient is 0 where (s, p) is a row."""
    log = log_of(torch.tensor([[0.0], [1.0]]), torch.tensor([[-0.5], [0.5]]))
    action = log.actions[None].clone().requires_grad_()
    learner_on(log).pull(log.batch(torch.arange(2)[None]), action)[0].sum().backward()
    assert action.grad is not None and not action.grad.any()


def test_the_pull_is_a_mean_over_rows_and_dimensions() -> None:
    """Its gradient is 2 (p - a*) / (rows x dimensions): a sum would change what alpha means."""
    log = log_of(torch.zeros(1, 1), torch.zeros(1, 2))
    action = torch.tensor([[[0.2, -0.4], [0.6, 0.8]]], requires_grad=True)
    learner_on(log).pull(log.batch(torch.tensor([[0, 0]])), action)[0].sum().backward()
    torch.testing.assert_close(action.grad, 2 * action.detach() / 4)


def test_each_seed_searches_its_own_log() -> None:
    state = torch.zeros(1, 1)
    logs = [log_of(state, torch.tensor([[value]])) for value in (-1.0, 1.0)]
    both = Log.stacked(logs)
    pull = learner_on(both, seeds=2).pull(both.batch(torch.tensor([[0], [0]])), torch.zeros(2, 1, 1) + 0.5)[0]
    assert pull.tolist() == pytest.approx([2.25, 0.25])


def test_alpha_may_differ_from_seed_to_seed() -> None:
    """Points of a grid stand side by side; each is what it would be alone."""
    log = log_of(torch.zeros(2, 1), torch.zeros(2, 1))
    learner, q = learner_on(log, seeds=2), torch.tensor([[2.0, -4.0], [2.0, -4.0]])
    learner.vary("alpha", [2.5, 10.0])
    assert learner.weight(q).tolist() == pytest.approx([2.5 / 3, 10 / 3])
    with pytest.raises(ValueError, match="3 values for 2 seeds"):
        learner.vary("alpha", [1.0, 2.0, 3.0])


def test_a_state_that_never_changes_is_named() -> None:
    flags, zeros = np.zeros(2, bool), np.zeros(2, np.float32)
    states, actions = np.array([[1.0, 5.0], [2.0, 5.0]], np.float32), np.zeros((2, 1), np.float32)
    (said,) = PRDC.check(Transitions(states, actions, zeros, states, flags, flags), PRDCOptions())
    assert "columns [1]" in said
    moving = states[:, :1]
    assert not PRDC.check(Transitions(moving, actions, zeros, moving, flags, flags), PRDCOptions())


@pytest.mark.parametrize("bad", [{"beta": -1.0}, {"neighbours": 0}, {"alpha": 0.0}])
def test_options_out_of_range(bad: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(bad))):
        PRDCOptions(**bad)
