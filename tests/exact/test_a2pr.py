"""A2PR (arXiv 2405.19909): its losses, its guides and its gate by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.learner import Shapes
from paperworks.control.offline.a2pr import A2PR, A2PROptions, choose_guide, episode_means
from paperworks.control.offline.td3_bc import TD3BC, TD3BCOptions
from paperworks.control.offline.vae import ConditionalVAE, gaussian_kl, reconstruction_loss
from paperworks.control.transitions import Transitions
from paperworks.core.errors import OptionError

SMALL: dict[str, Any] = {"hidden": (16, 16)}
TINY: dict[str, Any] = {**SMALL, "critic_hidden": (16, 16), "vae_hidden": (16, 16)}
ROWS = 6


def log_of(rows: int = ROWS, *, seed: int = 0) -> Log:
    """Random transitions of two-number states and actions; the last one is a termination."""
    draw = np.random.default_rng(seed)
    states, following = (draw.normal(size=(rows, 2)).astype(np.float32) for _ in range(2))
    actions, rewards = draw.uniform(-1, 1, (rows, 2)).astype(np.float32), draw.normal(size=rows).astype(np.float32)
    over = np.arange(rows) == rows - 1
    made = Transitions(states, actions, rewards, following, over, np.zeros(rows, bool))
    return Log(made, np.zeros(2, np.float32), np.ones(2, np.float32), torch.device("cpu"))


def learner_on(log: Log, **options: Any) -> A2PR:
    return A2PR(Shapes(2, 2), A2PROptions(**TINY, **options), [0], log)


def whole(log: Log) -> Batch:
    return log.batch(torch.arange(len(log))[None])


def rows(*values: float) -> Tensor:
    return torch.tensor([values])


# ------------------------------------------------------------------------------------------------------------------- VAE


def test_reconstruction_is_divided_by_all_rows() -> None:
    """Check 1: of two rows one is learned from; the loss is 0.04 / 2."""
    found, weight = torch.tensor([[[0.2], [0.4]]]), (rows(1.0, 0.0) > rows(0.5, 0.5)).float()
    assert reconstruction_loss(found, torch.zeros(1, 2, 1), weight).item() == pytest.approx(0.02)


def test_kl_is_a_mean_over_latent_numbers() -> None:
    """Check 2: 0.5 and 0.318147; with half of it on the reconstruction above, 0.224537."""
    mean, deviation = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 0.5]]])
    divergence = gaussian_kl(mean, deviation.log())
    assert divergence.flatten().tolist() == pytest.approx([0.5, 0.318147], abs=1e-6)
    assert 0.02 + 0.5 * divergence.mean().item() == pytest.approx(0.224537, abs=1e-6)


def test_the_vae_s_loss_is_their_sum() -> None:
    log = log_of()
    vae, batch = ConditionalVAE(2, 2, 4, (16,), [0]), whole(log)
    loss, reconstruction, divergence = vae.loss(batch.states, batch.actions, torch.randn(1, ROWS, 4))
    assert loss.item() == pytest.approx(reconstruction.item() + 0.5 * divergence.item())


def test_the_decoder_stays_where_no_row_is_better_than_its_state() -> None:
    """Check 3: with Q <= V everywhere only the KL moves the VAE."""
    log = log_of()
    learner, batch = learner_on(log), whole(log)
    for value, moves in ((torch.full((1, ROWS), 1e3), False), (torch.full((1, ROWS), -1e3), True)):
        before = [weight.clone() for weight in learner.vae.decoder.parameters()]
        learner.fit_behaviour(batch, value, torch.randn(1, ROWS, 4))
        moved = any(not torch.equal(a, b) for a, b in zip(before, learner.vae.decoder.parameters(), strict=True))
        assert moved == moves


def test_deviations_of_the_vae_are_bounded() -> None:
    """Check 8."""
    vae = ConditionalVAE(2, 2, 2, (8,), [0])
    with torch.no_grad():
        vae.encoder.weights[-1].zero_()
        vae.encoder.biases[-1].copy_(torch.tensor([[[0.0, 0.0, 1000.0, -1000.0]]]))
    mean, log_std = vae.encode(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2))
    assert log_std.flatten().tolist() == [15, -4] and gaussian_kl(mean, log_std).isfinite().all()


# ------------------------------------------------------------------------------------------------------------ the guide


def test_the_better_action_guides_and_ties_go_to_the_candidate() -> None:
    candidate, logged = torch.full((1, 3, 1), 0.5), torch.full((1, 3, 1), -0.5)
    found = choose_guide(candidate, logged, rows(2.0, 1.0, 1.0), rows(1.0, 2.0, 1.0), rows(0.0, 0.0, 0.0))
    assert found.is_candidate.tolist() == [[True, False, True]]
    assert found.action.flatten().tolist() == [0.5, -0.5, 0.5]


def test_the_gate_is_an_or_and_equality_opens_it_for_the_candidate_alone() -> None:
    zeros = torch.zeros(1, 4, 1)
    found = choose_guide(zeros, zeros, rows(1.0, 0.0, 0.0, -1.0), rows(0.0, 1.0, -1.0, 0.0), rows(0.5, 0.5, 0.0, 0.0))
    assert found.pulls.tolist() == [[True, True, True, False]]


def test_choice_and_gate_do_not_depend_on_the_state_s_part_of_q() -> None:
    """Check 5."""
    draw = torch.Generator().manual_seed(0)
    candidate, logged = (torch.randn(1, 50, 2, generator=draw) for _ in range(2))
    q_candidate, q_logged, value, of_state = (torch.randn(1, 50, generator=draw) for _ in range(4))
    one = choose_guide(candidate, logged, q_candidate, q_logged, value)
    two = choose_guide(candidate, logged, q_candidate + of_state, q_logged + of_state, value + of_state)
    assert torch.equal(one.action, two.action) and torch.equal(one.pulls, two.pulls)
    assert one.pulls.any() and not one.pulls.all()


@pytest.mark.parametrize("mask", [1.0, 0.4])
def test_without_candidate_and_gate_it_is_td3_bc(mask: float) -> None:
    """Check 4 (V at minus infinity) and 6: the pull is mask times TD3+BC's, once."""
    log = log_of()
    batch, action = whole(log), torch.rand(1, ROWS, 2) * 2 - 1
    wanted = TD3BC(Shapes(2, 2), TD3BCOptions(**SMALL), [0], log).pull(batch, action)[0]
    noise, low = torch.randn(1, ROWS, 4), torch.full((1, ROWS), -torch.inf)
    without_gate = learner_on(log, candidate="none", gate=False, mask=mask)
    torch.testing.assert_close(without_gate.guided_pull(batch, action, -low, noise)[0], mask * wanted)
    open_gate = learner_on(log, mask=mask)
    open_gate.propose = lambda batch, action, noise: batch.actions  # type: ignore[method-assign]
    torch.testing.assert_close(open_gate.guided_pull(batch, action, low, noise)[0], mask * wanted)


def test_a_state_that_is_worth_more_than_both_actions_leaves_the_value_alone() -> None:
    """Check 4 (V at infinity): L = -lambda mean Q, which is -alpha where every Q is positive."""
    log = log_of()
    learner, batch, action = learner_on(log), whole(log), torch.rand(1, ROWS, 2)
    pull, told = learner.guided_pull(batch, action, torch.full((1, ROWS), torch.inf), torch.randn(1, ROWS, 4))
    assert pull.item() == 0 and told["guide_none"].item() == 1
    q = rows(1.0, 2.0, 3.0)
    assert (-learner.weight(q) * q.mean(1)).item() == pytest.approx(-2.5)


@pytest.mark.parametrize(
    ("detached", "candidate"), [(False, "encode_policy"), (True, "encode_policy"), (False, "prior")]
)
def test_the_gradient_passes_through_a_proposal_that_encodes_the_policy_s_action(
    detached: bool, candidate: str
) -> None:
    log = log_of()
    learner, batch = learner_on(log, detach_guide=detached, candidate=candidate), whole(log)
    action, noise = torch.zeros(1, ROWS, 2, requires_grad=True), torch.randn(1, ROWS, 4)
    found = learner.propose(batch, action, noise)
    assert found.requires_grad == (not detached)
    if candidate == "encode_policy":
        torch.testing.assert_close(found, learner.vae(batch.states, action, noise)[0])
    else:  # from the clipped prior, whatever the policy does
        torch.testing.assert_close(found, learner.vae.decode(batch.states, noise.clamp(-0.5, 0.5)))


def test_the_bandit_s_settling_point() -> None:
    """Reward 3 - (a - 0.8)^2, nine tenths logged at -0.5, one at 0.7: TD3+BC rests at 0.195, a guide of 0.7 at 0.745."""
    logged = torch.tensor([[[-0.5]] * 9 + [[0.7]]]).view(1, 10, 1)
    for guide, wanted in ((logged, 0.195), (torch.full_like(logged, 0.7), 0.745)):
        action = torch.full((1, 10, 1), wanted, requires_grad=True)
        q = 3 - (action - 0.8).square().sum(-1)
        weight = 2.5 / q.detach().abs().mean(1)
        (-weight * q.mean(1) + (action - guide).square().mean((1, 2))).sum().backward()
        assert action.grad is not None and action.grad.sum().item() == pytest.approx(0, abs=5e-3)


# ---------------------------------------------------------------------------------------------------------- value, steps


def test_the_value_s_target_is_the_lower_of_two_bootstraps() -> None:
    """Check 7."""
    log = log_of()
    learner, batch = learner_on(log, target_noise=0.0), whole(log)
    with torch.no_grad():
        for weight in learner.critics.parameters():
            weight.mul_(2)  # so that online and target critics differ
    following = learner.next_action(batch, Draws([0], ROWS, ROWS, log.device), 0)
    target = learner.bootstrapped(batch, learner.target_critics, following)
    online = learner.bootstrapped(batch, learner.critics, following)
    lower = torch.minimum(target, online)
    assert (lower <= target).all() and (lower < target).any() and (lower < online).any()
    assert lower[0, -1].item() == target[0, -1].item() == batch.rewards[0, -1].item()
    value = learner.value(batch.states).squeeze(-1)
    told = learner.fit_value(batch, value, target, following)
    assert told["value"].item() == pytest.approx((value - lower).square().mean().item())


def test_the_order_of_rows_does_not_matter() -> None:
    """Check 9: every number that a step tells."""
    log, order = log_of(), torch.tensor([3, 1, 5, 0, 4, 2])

    class Same(Draws):
        """Noise that goes along with the rows."""

        def __init__(self, order: Tensor) -> None:
            self.order = order

        def normal(self, name: str, step: int, *shape: int) -> Tensor:
            draw = torch.Generator().manual_seed(len(name))
            return torch.randn(1, *shape, generator=draw)[:, self.order]

    one = learner_on(log, policy_every=1).update(whole(log), Same(torch.arange(ROWS)), 0)
    two = learner_on(log, policy_every=1).update(log.batch(order[None]), Same(order), 0)
    assert {"guide_none", "pull", "value", "kl", "positive"} <= one.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], msg=name)


def test_the_vae_has_a_rate_of_its_own() -> None:
    learner = learner_on(log_of(), learning_rate=1e-4)
    assert sorted({group["lr"] for group in learner.optimiser.param_groups}) == [1e-4, 1e-3]


def test_what_it_finds_out_about_a_log() -> None:
    values, ends = torch.tensor([[1.0, 3.0, -2.0]]), torch.tensor([False, True, True])
    assert episode_means(values, ends) == [[2, -2]]
    log = log_of()
    log.ends[2] = True
    learner, batch = learner_on(log), whole(log)
    found = learner.quality(log)
    with torch.no_grad():
        wanted = learner.critics.first(batch.states, batch.actions) - learner.value(batch.states).squeeze(-1)
    assert found.episode_advantage[0] == pytest.approx([wanted[0, :3].mean().item(), wanted[0, 3:].mean().item()])
    assert found.positive == pytest.approx([(wanted > 0).float().mean().item()])
    assert found == learner.quality(log) and 0 <= found.generated[0] + found.logged[0] <= 1 + 1e-6
    (section,) = learner.judged(log)
    assert len(section.facts) == 4 and section.facts["logged actions better than V(s)"] == f"{found.positive[0]:.1%}"


@pytest.mark.parametrize("bad", [{"mask": -0.1}, {"vae_weight": -1.0}, {"latent_dim": 0}, {"alpha": 0.0}])
def test_options_out_of_range(bad: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(bad))):
        dataclasses.replace(A2PROptions(), **bad)
