"""BCQ (arXiv 1812.02900): its targets by hand, and that the saved policy acts as the learner does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from paperworks.control.batches import Draws, Log
from paperworks.control.learner import Shapes
from paperworks.control.networks import Perceptrons
from paperworks.control.offline.bcq import BCQ, BCQOptions, best_proposal, shifted, soft_clipped
from paperworks.control.policy import ActionBounds, ControlPolicy, Normaliser
from paperworks.control.transitions import Transitions
from paperworks.core.errors import OptionError

OPTIONS = BCQOptions(hidden=(8, 8), vae_hidden=(8,), proposals=3, acting_proposals=5)


def log_of(rows: int = 4) -> Log:
    draw = np.random.default_rng(0)
    states, following = (draw.normal(size=(rows, 3)).astype(np.float32) for _ in range(2))
    actions, rewards = draw.uniform(-1, 1, (rows, 2)).astype(np.float32), draw.normal(size=rows).astype(np.float32)
    made = Transitions(states, actions, rewards, following, np.arange(rows) == rows - 1, np.zeros(rows, bool))
    return Log(made, np.zeros(3, np.float32), np.ones(3, np.float32), torch.device("cpu"))


@pytest.mark.parametrize(("optimism", "wanted"), [(0.25, 1.5), (0.0, 1.0), (1.0, 3.0)])
def test_the_lower_critic_weighs_three_quarters(optimism: float, wanted: float) -> None:
    assert soft_clipped(torch.tensor([[[3.0], [1.0]]]), optimism).item() == wanted


def test_a_shift_is_small_and_stays_within_bounds() -> None:
    net, actions = Perceptrons((4, 8, 1), [0], "perturbation"), torch.linspace(-1, 1, 9).view(1, 9, 1)
    states = torch.randn(1, 9, 3) * 100
    found = shifted(net, states, actions, 0.05)
    assert found.abs().max() <= 1 and (found - actions).abs().max() <= 0.05 + 1e-6
    assert (found != actions).any() and torch.equal(shifted(net, states, actions, 0.0), actions)


def test_targets_are_of_the_best_proposal() -> None:
    log = log_of()
    learner, batch = BCQ(Shapes(3, 2), OPTIONS, [0], log), log.batch(torch.arange(4)[None])
    noise = torch.randn(1, 4 * 3, 4)
    found = learner.target(batch, noise)
    for row in range(4):
        values = []
        for number in range(3):
            state = batch.next_states[:, row : row + 1]
            proposal = learner.vae.propose(state, noise[:, None, row * 3 + number])
            action = shifted(learner.target_perturbation, state, proposal, 0.05)
            values.append(soft_clipped(learner.target_critics(state, action), 0.25).item())
        following = 0.0 if row == 3 else 0.99 * max(values)  # the last row is a termination
        assert found[0, row].item() == pytest.approx(batch.rewards[0, row].item() + following, abs=1e-5)


def test_proposals_are_of_the_clipped_prior() -> None:
    learner = BCQ(Shapes(3, 2), OPTIONS, [0], log_of())
    states, far = torch.randn(1, 2, 3), torch.full((1, 2, 4), 9.0)
    torch.testing.assert_close(learner.vae.propose(states, far), learner.vae.decode(states, far * 0 + 0.5))


def test_a_step_moves_every_part_and_its_targets() -> None:
    log = log_of()
    learner = BCQ(Shapes(3, 2), OPTIONS, [0, 1], log)
    before = {name: value.clone() for name, value in learner.named_parameters()}
    learner.update(log.batch(torch.zeros(2, 4, dtype=torch.long)), Draws([0, 1], 4, 4, log.device), 0)
    still = {name for name, value in learner.named_parameters() if torch.equal(before[name], value)}
    assert not still, still


def test_the_policy_of_a_seed_acts_as_the_learner_and_survives_a_file(tmp_path: Path) -> None:
    learner = BCQ(Shapes(3, 2), OPTIONS, [0, 1], log_of())
    states = torch.randn(6, 3)
    noise = torch.randn(1, 6, 5, 4, generator=torch.Generator().manual_seed(3)).expand(2, -1, -1, -1)
    nets = (learner.vae.decoder, learner.perturbation, learner.critics)
    together = best_proposal(*nets, states.expand(2, -1, -1), noise, 0.05).detach()
    bounds = ActionBounds(np.full(2, -1, np.float32), np.ones(2, np.float32))
    saved = [ControlPolicy(learner.actor_of(place), Normaliser.none(3), bounds, "bcq") for place in range(2)]
    for policy, wanted in zip(saved, together, strict=True):
        found = policy.act(states.numpy(), torch.Generator().manual_seed(3))
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-6)
    again = ControlPolicy.load(saved[1].save(tmp_path / "policy"))
    own = saved[1].act(states.numpy(), torch.Generator().manual_seed(4))
    np.testing.assert_array_equal(again.act(states.numpy(), torch.Generator().manual_seed(4)), own)
    assert not np.array_equal(own, saved[1].act(states.numpy(), torch.Generator().manual_seed(5)))


def test_it_chooses_what_its_critic_values_most() -> None:
    learner = BCQ(Shapes(3, 2), OPTIONS, [0], log_of())
    states, draw = torch.randn(1, 6, 3), torch.Generator().manual_seed(0)
    chosen = learner.critics.first(states, learner.act(states, draw))
    noise = torch.randn(1, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    for number in range(5):
        other = shifted(learner.perturbation, states, learner.vae.propose(states, noise[:, :, number]), 0.05)
        assert (chosen >= learner.critics.first(states, other) - 1e-6).all()


def test_options_out_of_range() -> None:
    with pytest.raises(OptionError, match="optimism"):
        BCQOptions(optimism=1.5)
