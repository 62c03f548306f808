"""The specification's exact checks of the measures and of the nine algorithms (arXiv 2111.04714).

Checks 1 to 3 on numbers and keys are in tests/control/test_measures.py; here they are made on whole logs.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from paperworks.control import measures
from paperworks.control.batches import Batch, Draws, Log
from paperworks.control.discrete import DISCRETE
from paperworks.control.discrete.bcq import DiscreteBCQ, DiscreteBCQOptions, allowed
from paperworks.control.discrete.bve import BVE
from paperworks.control.discrete.cql import DiscreteCQL, DiscreteCQLOptions, conservative_gap
from paperworks.control.discrete.crr import CRR, CRROptions, better_than_usual
from paperworks.control.discrete.dqn import DQN, DQNOptions
from paperworks.control.discrete.learner import DiscreteOptions, chosen, huber, sampled
from paperworks.control.discrete.mce import MCE, returns_to_go
from paperworks.control.discrete.qr_dqn import QRDQN, QRDQNOptions, quantile_huber
from paperworks.control.discrete.rem import REM, REMOptions, mixed, mixture_weights
from paperworks.control.learner import Shapes
from paperworks.control.measures import Grid
from paperworks.control.testbeds.discrete_worlds import KeyDoor
from paperworks.control.testbeds.worlds import logged
from paperworks.control.transitions import Transitions

SMALL: dict[str, Any] = {"hidden": (8, 8)}
SHAPES = Shapes(3, 4)


def log_of(count: int = 24, *, seed: int = 0, **replaced: Any) -> Log:
    """Random states, actions and rewards; every sixth row ends an episode, the first of them by a time limit."""
    draw = np.random.default_rng(seed)
    ends = np.arange(1, count + 1) % 6 == 0
    cut = ends & (np.arange(count) < 6)
    made = Transitions(
        observations=draw.normal(size=(count, 3)).astype(np.float32), actions=draw.integers(4, size=count),
        rewards=draw.normal(size=count).astype(np.float32),
        next_observations=draw.normal(size=(count, 3)).astype(np.float32), terminations=ends & ~cut, truncations=cut,
    )  # fmt: skip
    made = dataclasses.replace(made, **replaced)
    return Log(made, np.zeros(3, np.float32), np.ones(3, np.float32), torch.device("cpu"))


def whole(log: Log) -> Batch:
    return log.batch(torch.arange(len(log))[None])


def draws(log: Log) -> Draws:
    return Draws([0], len(log), len(log), log.device)


def with_same_heads(learner: DQN, source: DQN) -> None:
    """Every head of `learner` is the one head of `source`."""
    for own, other in ((learner.net, source.net), (learner.target_net, source.target_net)):
        for layer, (weight, bias) in enumerate(zip(other.weights, other.biases, strict=True)):
            last = layer == len(other.weights) - 1
            own.weights[layer].data = weight.data.repeat_interleave(learner.heads, -1) if last else weight.data.clone()
            own.biases[layer].data = bias.data.repeat_interleave(learner.heads, -1) if last else bias.data.clone()


def apart(learner: DQN) -> None:
    """The target network is another one than the network, as it is between copies."""
    with torch.no_grad():
        for parameter in learner.target_net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


# --------------------------------------------------------------------------------------------------------------- measures


def episodes(*returns: float) -> Transitions:
    """Episodes of two steps with these returns."""
    count = 2 * len(returns)
    rewards = np.repeat(np.asarray(returns, np.float32) / 2, 2)
    ends = np.tile([False, True], len(returns))
    states = np.arange(count, dtype=np.float32)[:, None]
    return Transitions(states, np.zeros(count, np.int64), rewards, states, ends, ~ends & False)


def test_1_quality_of_logs() -> None:
    quality = lambda log, worst, best: measures.trajectory_quality(  # noqa: E731
        float(log.returns().mean()), float(worst.returns().mean()), float(best.returns().mean())
    )
    log, worst, best = episodes(1, 3), episodes(0, 0), episodes(4)
    assert quality(log, worst, best) == 0.5
    assert (quality(worst, worst, best), quality(best, worst, best)) == (0, 1)
    scaled = [dataclasses.replace(each, rewards=each.rewards * 3) for each in (log, worst, best)]
    raised = [dataclasses.replace(each, rewards=each.rewards + 5) for each in (log, worst, best)]
    assert quality(*scaled) == pytest.approx(0.5) and quality(*raised) == pytest.approx(0.5)


def test_2_and_3_coverage_and_entropy_of_logs() -> None:
    reference, log = episodes(0, 0, 0), episodes(0, 0, 0)
    log = dataclasses.replace(log, observations=np.repeat([[0.0], [2.0], [5.0]], 2, 0).astype(np.float32))
    grid = Grid.of(reference, 100)
    own, known = grid.keys(log), grid.keys(reference)
    assert measures.coverage(own, known) == 0.5
    assert measures.log_coverage(own, known) == pytest.approx(math.log(3) / math.log(6), abs=1e-9)
    assert measures.unique(np.concatenate([own, own])) == measures.unique(own) == 3
    assert measures.unique(np.concatenate([own, known])) <= measures.unique(own) + measures.unique(known)
    assert math.exp(measures.entropy(own)) == pytest.approx(3) and math.exp(measures.entropy(known)) == pytest.approx(6)
    assert math.exp(measures.entropy(own[:5])) < measures.unique(own[:5])


def test_4_where_the_world_is_deterministic_transitions_have_the_entropy_of_pairs() -> None:
    draw = torch.Generator().manual_seed(0)
    world = KeyDoor(wall=3, door=2, key=(0, 0), goal=(7, 7))
    log = logged(world, lambda states: torch.randint(4, states.shape[:-1], generator=draw), 3000, draw)
    pairs = np.concatenate([log.observations, log.actions[:, None]], 1)
    outcomes = np.concatenate([pairs, log.rewards[:, None], log.next_observations], 1)
    counted = [
        np.unique(table, axis=0, return_inverse=True)[1].ravel().astype(np.uint64) for table in (pairs, outcomes)
    ]
    of_pairs, of_transitions = (measures.entropy(keys) for keys in counted)
    assert of_transitions == pytest.approx(of_pairs, abs=1e-12) and of_pairs > 3
    assert measures.entropy(Grid.of(log).keys(log)) == pytest.approx(of_pairs, abs=1e-9)  # bins tell all states apart
    blurred = np.where(np.arange(3000) % 2 == 0, counted[1], counted[1] + np.uint64(10**6))  # outcomes by chance
    assert measures.entropy(blurred) > of_pairs + 0.3


# ----------------------------------------------------------------------------------------------------------------- losses


def test_5_cql_s_penalty() -> None:
    q = torch.tensor([[[1.0, 2.0, 0.0]]])
    assert 0.1 * conservative_gap(q, torch.tensor([[0]])).item() == pytest.approx(0.140761, abs=1e-6)
    equal = torch.full((1, 1, 5), 3.0)
    assert 0.1 * conservative_gap(equal, torch.tensor([[2]])).item() == pytest.approx(0.1 * math.log(5), abs=1e-6)


def test_5_cql_adds_it_to_dqn_s_loss() -> None:
    log = log_of()
    dqn = DQN(SHAPES, DQNOptions(**SMALL), [0], log)
    cql = DiscreteCQL(SHAPES, DiscreteCQLOptions(**SMALL, conservatism=0.7), [0], log)
    plain = dqn.loss(whole(log), draws(log), 0)[0]
    gap = conservative_gap(dqn.values(dqn.net, whole(log).states), whole(log).actions).mean(1)
    torch.testing.assert_close(cql.loss(whole(log), draws(log), 0)[0], plain + 0.7 * gap)


def test_6_mce_s_targets() -> None:
    rewards, ends = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([False, False, True])
    assert returns_to_go(rewards, ends, 0.95).tolist() == pytest.approx([2.805, 1.9, 2.0])


@pytest.mark.parametrize("gamma", [0.0, 0.95, 1.0])
def test_6_on_long_logs_they_are_those_of_the_recursion(gamma: float) -> None:
    draw = np.random.default_rng(0)
    rewards = draw.normal(size=(2, 300)).astype(np.float32)
    ends = draw.random((2, 300)) < [[0.02], [0.5]]
    ends[:, -1] = True
    found = returns_to_go(torch.from_numpy(rewards), torch.from_numpy(ends), gamma)
    for row in range(2):
        column = np.zeros((300, 1), np.float32)
        log = Transitions(column, np.zeros(300, np.int64), rewards[row], column, ends[row], np.zeros(300, bool))
        np.testing.assert_allclose(found[row].numpy(), log.returns_to_go(gamma), atol=2e-5)


def test_7_bcq_s_allowed_actions() -> None:
    probabilities = torch.tensor([[0.6, 0.2, 0.2], [0.7, 0.21, 0.09]], dtype=torch.float64)
    assert allowed(probabilities, 0.3).tolist() == [[True, True, True], [True, False, False]]
    assert allowed(probabilities, 1.0).sum(-1).tolist() == [1, 1], "the likeliest action always is"


def test_7_bcq_s_target_and_policy_keep_to_them() -> None:
    log = log_of()
    learner, batch = DiscreteBCQ(SHAPES, DiscreteBCQOptions(**SMALL, threshold=0.6), [0], log), whole(log)
    apart(learner)
    probabilities = learner.imitation(batch.next_states).softmax(-1).detach()
    q = learner.values(learner.net, batch.next_states).detach()
    best = [
        max((a for a in range(4) if p[a] > 0.6 * p.max()), key=lambda a: float(values[a]))
        for p, values in zip(probabilities[0], q[0], strict=True)
    ]
    following = learner.values(learner.target_net, batch.next_states)[0, torch.arange(24), torch.tensor(best)]
    wanted = batch.rewards + 0.95 * batch.goes_on * following
    torch.testing.assert_close(learner.target(batch), wanted.detach())
    assert learner.act(batch.next_states)[0].tolist() == best
    assert best != q.argmax(-1)[0].tolist(), "the bound binds somewhere"


def test_8_rem() -> None:
    """Weights sum to 1, and identical heads give DQN's loss whatever they are."""
    weights = mixture_weights(torch.rand(5, 3, 200))
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, 3))
    log = log_of()
    dqn, rem = DQN(SHAPES, DQNOptions(**SMALL), [0], log), REM(SHAPES, REMOptions(**SMALL, heads=7), [0], log)
    apart(dqn)
    with_same_heads(rem, dqn)
    wanted = dqn.loss(whole(log), draws(log), 3)[0]
    torch.testing.assert_close(rem.loss(whole(log), draws(log), 3)[0], wanted)


def test_8_rem_s_mixtures() -> None:
    log = log_of()
    shared = REM(SHAPES, REMOptions(**SMALL, heads=3), [0], log)
    separate = REM(SHAPES, REMOptions(**SMALL, heads=3, mixture="separate"), [0], log)
    uniform = torch.tensor([[[0.5, 0.25, 0.25], [0.0, 0.5, 0.0], [0.1, 0.1, 0.2]]])
    assert [weights[0].tolist() for weights in shared.mixtures(uniform)] == [pytest.approx([0.5, 0.25, 0.25])] * 3
    own, choosing, judging = (weights[0].tolist() for weights in separate.mixtures(uniform))
    assert own == pytest.approx([0.5, 0.25, 0.25]) and choosing == pytest.approx([0, 1, 0], abs=1e-6)
    assert judging == pytest.approx([0.25, 0.25, 0.5])
    values = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert mixed(values, torch.tensor([[0.5, 0.25, 0.25]])).item() == 1.75


def test_8_one_quantile_is_half_of_dqn_s_loss() -> None:
    predicted, target = torch.tensor([[0.2], [3.0]]), torch.tensor([[1.0], [0.5]])
    found = quantile_huber(predicted, target, "standard")
    torch.testing.assert_close(found, 0.5 * huber(target - predicted)[:, 0])
    log = log_of()
    dqn, qr = DQN(SHAPES, DQNOptions(**SMALL), [0], log), QRDQN(SHAPES, QRDQNOptions(**SMALL, quantiles=1), [0], log)
    apart(dqn)
    with_same_heads(qr, dqn)
    torch.testing.assert_close(qr.loss(whole(log), draws(log), 0)[0], 0.5 * dqn.loss(whole(log), draws(log), 0)[0])


def test_8_the_official_quantile_loss_tells_predicted_quantiles_not_apart() -> None:
    """Its levels lie along the targets: two quantiles at one place get one gradient; the standard ones part."""
    target = torch.tensor([[-1.0, 0.0, 1.0]])
    gradients = {}
    for variant in ("standard", "official"):
        predicted = torch.zeros(1, 3, requires_grad=True)
        quantile_huber(predicted, target, variant).sum().backward()  # type: ignore[arg-type]
        assert predicted.grad is not None
        gradients[variant] = predicted.grad[0].tolist()
    assert gradients["official"] == pytest.approx([(2 / 3 * 1 - 1 * 1) / 3] * 3)
    assert gradients["standard"] == pytest.approx([(5 / 6 - 1 / 6) / 3, 0, (1 / 6 - 5 / 6) / 3])


def test_9_crr_counts_only_what_is_better_than_usual() -> None:
    known, own = torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[[1.0] * 4, [0.0, 1, 1, 1], [2.0, 1, 1, 1]]])
    assert better_than_usual(known, own).tolist() == [[0, 1, 0]]


def test_9_crr_with_one_action_in_every_state_learns_nothing() -> None:
    """A policy sure of the logged action has the advantage 0: the actor stays."""
    log = log_of(actions=np.zeros(24, np.int64))
    learner = CRR(SHAPES, CRROptions(**SMALL, learning_rate=0.1), [0], log)
    learner.actor.biases[-1].data[..., 0] = 1e4
    before = [parameter.clone() for parameter in learner.actor.parameters()]
    told = learner.update(whole(log), draws(log), 0)
    assert told["imitated"].item() == 0
    assert all(torch.equal(one, two) for one, two in zip(before, learner.actor.parameters(), strict=True))


# ---------------------------------------------------------------------------------------------------------------- targets


def test_double_dqn_chooses_by_one_network_and_judges_by_the_other() -> None:
    log = log_of()
    learner, batch = DQN(SHAPES, DQNOptions(**SMALL), [0], log), whole(log)
    apart(learner)
    for parameter in learner.target_net.parameters():
        parameter.data.mul_(-1)  # so that the two disagree
    best = learner.net(batch.next_states).argmax(-1)
    following = learner.target_net(batch.next_states)[0, torch.arange(24), best[0]]
    torch.testing.assert_close(learner.target(batch), (batch.rewards + 0.95 * batch.goes_on * following).detach())
    assert (best != learner.target_net(batch.next_states).argmax(-1)).any()


def test_bve_takes_the_next_logged_action_and_leaves_out_what_was_cut() -> None:
    log = log_of()
    learner, batch = BVE(SHAPES, DiscreteOptions(**SMALL), [0], log), whole(log)
    target, counts = learner.target(batch)
    assert counts[0].tolist() == [float(row != 5) for row in range(24)]
    q = learner.net(batch.next_states)[0]
    for row in (0, 7, 22):
        wanted = batch.rewards[0, row] + 0.95 * q[row, log.actions[row + 1]]
        torch.testing.assert_close(target[0, row], wanted.detach())
    torch.testing.assert_close(target[0, 11], batch.rewards[0, 11])  # terminated


def test_a_log_a_seed_gives_each_seed_its_own_targets() -> None:
    logs = [log_of(seed=0), log_of(seed=1)]
    stacked = Log.stacked(logs)
    rows = torch.arange(24).expand(2, -1)
    together = BVE(SHAPES, DiscreteOptions(**SMALL), [0, 1], stacked)
    found = together.target(stacked.batch(rows))[0]
    earned = MCE(SHAPES, DiscreteOptions(**SMALL), [0, 1], stacked).earned
    for seed, log in enumerate(logs):
        torch.testing.assert_close(
            found[seed], BVE(SHAPES, DiscreteOptions(**SMALL), [seed], log).target(whole(log))[0][0]
        )
        torch.testing.assert_close(earned[seed], MCE(SHAPES, DiscreteOptions(**SMALL), [0], log).earned)


def test_actions_are_drawn_by_their_probabilities() -> None:
    probabilities = torch.tensor([[[0.5, 0.0, 0.5], [0.1, 0.6, 0.3]]])
    uniform = ((torch.arange(1000) + 0.5) / 1000).expand(1, 2, -1)
    drawn = sampled(probabilities, uniform)
    shares: list[Tensor] = [torch.bincount(drawn[0, row], minlength=3) / 1000 for row in range(2)]
    torch.testing.assert_close(torch.stack(shares), probabilities[0], atol=2e-3, rtol=0)
    assert sampled(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0]]])).item() == 1  # rounding leaves no place behind


def test_values_are_picked_by_action() -> None:
    values = torch.arange(24.0).view(1, 2, 3, 4)
    assert chosen(values, torch.tensor([[2, 0]])).tolist() == [[[8.0, 9, 10, 11], [12, 13, 14, 15]]]
    assert chosen(values[..., 0], torch.tensor([[2, 0]])).tolist() == [[8.0, 12.0]]


def test_the_defaults_are_the_study_s() -> None:
    for learner in DISCRETE.values():
        options = learner.options_class()
        assert (options.hidden, options.learning_rate, options.gamma) == ((256, 256, 256), 1e-4, 0.95)
        assert getattr(options, "target_every", 100) == 100
    assert (QRDQNOptions().quantiles, REMOptions().heads, CRROptions().sampled_actions) == (50, 200, 4)
    assert (DiscreteBCQOptions().threshold, DiscreteBCQOptions().logit_penalty) == (0.3, 0.01)
    assert DiscreteCQLOptions().conservatism == 0.1
    net = DQN(Shapes(100, 4), DQNOptions(hidden=(400,)), [0], log_of()).net
    assert net.activation == "selu" and net.weights[0].std().item() == pytest.approx(0.1, rel=0.02)
    assert all((bias == 0).all() for bias in net.biases)
