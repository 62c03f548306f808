"""HNPG and HAC against closed forms and a plain TRPO of one net (arXiv 2311.08384)."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from paperworks.control.hybrid.episodes import Episodes, Logged, Streams
from paperworks.control.hybrid.hac import Cells, TabularLog, discarded_rounds, evaluate, fit, softmax_step
from paperworks.control.hybrid.hnpg import HNPG, HNPGOptions, TRPOOptions
from paperworks.control.hybrid.natural_gradient import TrustRegion, conjugate_gradient, natural_step
from paperworks.control.hybrid.policies import CategoricalPolicies, GaussianPolicies, Policies
from paperworks.control.testbeds.comblock import Comblock, hadamard, pass_probability
from paperworks.control.testbeds.tabular_lock import TabularLock
from paperworks.core.seeding import torch_generator

HORIZON, STATE, ACTION, ROWS = 3, 4, 2, 12


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -------------------------------------------------------------------------------------------------------------- tables


def test_hac_step() -> None:
    """Check 1."""
    policy, f = (torch.tensor([values], dtype=torch.float64) for values in ([0.25, 0.25, 0.5], [1.0, 0.0, 0.5]))
    assert softmax_step(policy, f, 2.0)[0].tolist() == pytest.approx([0.534447, 0.072329, 0.393224], abs=1e-6)


@pytest.mark.parametrize(("lam", "wanted"), [(0.0, 0.2), (1.0, 0.5), (10.0, 0.745455)])
def test_a_critic_weighs_both_means(lam: float, wanted: float) -> None:
    """Check 2: a single pair, the log's target 0.2, the fresh mean 0.8."""
    one = torch.ones(1, 1, dtype=torch.float64)
    found = fit(Cells(one, 0.2 * one), Cells(one, 0.8 * one), lam, torch.tensor([0]))
    assert float(found) == pytest.approx(wanted, abs=1e-6)


def test_a_critic_of_nets_weighs_both_means_whatever_their_sizes() -> None:
    """The same pair from 4 fresh rows and 40 logged ones: two means, not one of 44 rows."""
    options = HNPGOptions(lam=10.0, critic_hidden=(), critic_steps=300, critic_rate=1e-2)
    learner = HNPG(1, 1, 1, options, [0], is_discrete=False)
    state, fresh, logged = torch.zeros(1, 1, 1, 1).double(), torch.ones(1, 1, 4).double(), torch.ones(1, 1, 40).double()
    episodes = Episodes(state.expand(-1, -1, 4, -1), state.expand(-1, -1, 4, -1), 0.8 * fresh, fresh)
    zero = state.expand(-1, -1, 40, -1)
    log = Logged(zero, zero, 0.2 * logged, zero, logged)
    learner.improve(episodes, log, Streams([0], 0, learner.actor))
    assert float(learner._q(learner.critic.detach(), zero[0], zero[0])[0, 0]) == pytest.approx(0.745455, abs=1e-4)


def test_rounds_of_evaluation() -> None:
    """HPE of one pair that leads to itself: f_k = r (1 + gamma + ...), the mean of the last ones; K1 as printed."""
    one = torch.ones(1, 1, dtype=torch.float64)
    log, nothing = TabularLog(one, one, one[..., None]), Cells(0 * one, 0 * one)
    found = evaluate(one, log, nothing, 0.0, torch.tensor([0]), gamma=0.5, rounds=4, discarded=2)
    assert float(found) == pytest.approx((1.75 + 1.875) / 2)
    assert discarded_rounds(0.99) == 4 and discarded_rounds(0.1) == 12


def test_fresh_returns_are_never_bootstrapped() -> None:
    """With lam alone the critic is the return, whatever the log's next values are."""
    one = torch.ones(1, 1, dtype=torch.float64)
    log = TabularLog(0 * one, 100 * one, one[..., None])
    found = evaluate(one, log, Cells(one, 0.3 * one), 1.0, torch.tensor([0]), gamma=1.0, rounds=5, discarded=0)
    assert float(found) == pytest.approx(0.3)


# --------------------------------------------------------------------------------------------------------------- locks


def test_a_one_hot_action_passes() -> None:
    """Check 3."""
    passes = pass_probability()
    assert passes == pytest.approx(0.9995916, abs=1e-7)
    assert [passes**horizon for horizon in (5, 50)] == pytest.approx([0.997960, 0.979781], abs=1e-6)


def test_the_log_s_policy() -> None:
    """Check 4: its rate, by formula and by play."""
    for horizon, wanted in ((5, 0.3700), (50, 0.3951)):
        step = (1 - 1 / horizon) * pass_probability() + 0.1 / horizon
        assert step**horizon == pytest.approx(wanted, abs=5e-5)
    lock = Comblock.drawn(5, [3])
    draws = [torch_generator(3)]
    latent = lock.start(20_000, draws)
    for step in range(5):
        latent, reward = lock.step(latent, step, lock.behave(latent, step, draws), draws)
    assert float((reward == 1).float().mean()) == pytest.approx(0.37, abs=4 * math.sqrt(0.37 * 0.63 / 20_000))


def test_what_is_seen_has_a_power_of_two_numbers() -> None:
    """Check 4."""
    sizes = {horizon: Comblock.drawn(horizon, [0]).state for horizon in (5, 10, 15, 30, 50)}
    assert sizes == {5: 16, 10: 16, 15: 32, 30: 64, 50: 64}


def test_uniform_play_seldom_opens() -> None:
    """Check 7: 10^-H, so 1e-5 at H = 5."""
    for horizon in (2, 5):
        world = TabularLock.drawn(horizon, [0, 1])
        assert world.success(world.uniform()).tolist() == pytest.approx([10.0**-horizon] * 2)


def test_the_tables_log_is_the_lock_s() -> None:
    """The exact rate of the behaviour policy, without the softmax between action and latent action."""
    world = TabularLock.drawn(5, [7])
    assert float(world.success(world.behaviour())) == pytest.approx((0.8 + 0.1 / 5) ** 5)
    played = world.play(world.behaviour(), 4000, "log")
    opened = (played.rewards[:, -1] == 1).double().mean()
    assert float(opened) == pytest.approx(0.82**5, abs=0.03)
    log = world.logged(played)
    assert float(log.share.sum()) == pytest.approx(1)
    returned = world.returned(played)
    last = torch.nn.functional.one_hot(world.lock.correct[0, -1], 10).bool()
    assert returned.target[0].view(5, 3, 10)[-1, :2][last].tolist() == [1, 1]


def test_hadamard_and_decoding() -> None:
    """Check 8: R R' = D I; without noise the latent state and the step can be read exactly."""
    turn = hadamard(16)
    assert torch.equal(turn @ turn.T, 16 * torch.eye(16))
    lock = Comblock(torch.zeros(1, 5, 2, dtype=torch.long), noise=0.0)
    latent = torch.tensor([[0, 1, 2]])
    for step in range(5):
        code = lock.observe(latent, step, [torch_generator(0)]) @ turn / 16
        assert code[0, :, :3].argmax(-1).tolist() == [0, 1, 2] and code[0, :, 3:].argmax(-1).tolist() == [step] * 3
        assert float(code.abs().sum()) == 6


def test_a_lure_pays_on_leaving_or_at_the_end() -> None:
    """A wrong action in a good state, then the absorbing one: the paper pays the first, the release the second."""
    chance = torch.zeros(1, 2, 1)  # the lure pays
    for where, wanted in (("leaving", [0.1, 0.0]), ("end", [0.0, 0.1])):
        lock = Comblock(torch.zeros(1, 2, 2, dtype=torch.long), lure_at=where)  # type: ignore[arg-type]
        latent, found = torch.tensor([[0]]), []
        for step in range(2):
            latent, reward = lock.turn(latent, step, torch.tensor([[9]]), chance)
            found.append(float(reward))
        assert found == pytest.approx(wanted) and int(latent) == 2


# ---------------------------------------------------------------------------------------------------- natural gradients


@pytest.mark.parametrize("policies", [GaussianPolicies(STATE, ACTION, (3,)), CategoricalPolicies(STATE, ACTION, (3,))])
def test_the_fisher_matrix_is_that_of_the_scores(policies: Policies) -> None:
    """F v against the Hessian of the mean KL, two nets that do not mix."""
    parameters = policies.start([0, 1], "actor").double() + 0.3 * numbers(2, policies.count)
    states, weights = numbers(2, 5, STATE, seed=1), torch.full((2, 5), 0.2).double()
    direction = numbers(2, policies.count, seed=2)
    found = policies.fisher(parameters, states, weights)(direction)

    def mean_kl(rows: Tensor) -> Tensor:
        return (weights * policies.kl(parameters, rows, states)).sum()

    wanted = torch.autograd.functional.hvp(mean_kl, parameters, direction)[1]
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-8)


def test_conjugate_gradient_solves_the_normal_equations() -> None:
    """Check 6: F w = g, each net with its own; a net with g = 0 rests at 0."""
    features = numbers(3, 20, 6)
    matrix = features.mT @ features / 20
    target = numbers(3, 6, seed=1)
    target[2] = 0
    found = conjugate_gradient(lambda v: torch.einsum("nij,nj->ni", matrix, v), target, steps=50, enough=1e-24)
    torch.testing.assert_close(found[:2], torch.linalg.solve(matrix, target)[:2], atol=1e-8, rtol=1e-8)
    assert found[2].tolist() == [0] * 6


def test_a_softmax_table_s_natural_gradient_is_hac() -> None:
    """Check 6: one-hot states make the net a table of logits; theta + eta w is HAC's policy."""
    states, actions, eta = 3, 4, 0.7
    policies = CategoricalPolicies(states, actions, ())
    theta, f = numbers(1, policies.count), numbers(states, actions, seed=1)
    theta[:, states * actions :] = 0  # no biases: they would be a second way to the same logits
    every = torch.eye(states).double()[None]
    weights = torch.tensor([[0.5, 0.3, 0.2]]).double()
    before = policies.probabilities(theta, every)[0]
    advantage = f - (before * f).sum(-1, keepdim=True)
    gradient = torch.zeros_like(theta)
    gradient[0, : states * actions] = (weights[0, :, None] * before * advantage).flatten()
    fisher = policies.fisher(theta, every, weights)

    def of_the_table(direction: Tensor) -> Tensor:
        found = fisher(direction)
        found[:, states * actions :] = 0
        return found

    w = conjugate_gradient(of_the_table, gradient, steps=100, enough=1e-28)
    after = policies.probabilities(theta + eta * w, every)[0]
    torch.testing.assert_close(after, softmax_step(before, f, eta), atol=1e-9, rtol=1e-7)


def test_a_line_search_stays_in_its_region_or_moves_nothing() -> None:
    """Check 9."""
    policies = GaussianPolicies(STATE, ACTION, (3,))
    parameters = policies.start([0, 1, 2], "actor").double()
    states, weights = numbers(3, 40, STATE), torch.full((3, 40), 1 / 40).double()
    gradient = numbers(3, policies.count, seed=1)
    region, fisher = TrustRegion(), policies.fisher(parameters, states, weights)
    sign = torch.tensor(
        [1.0, 1.0, -1.0]
    ).double()  # for the last net the surrogate falls where its gradient promises a rise

    def surrogate(rows: Tensor) -> Tensor:
        return sign * (gradient * (rows - parameters)).sum(-1)

    step = natural_step(parameters, gradient, fisher, surrogate, region)
    assert step.is_accepted.tolist() == [True, True, False]
    assert (step.modelled_kl <= region.max_kl * 1.05).all() and (step.modelled_kl[:2] > 0.1 * region.max_kl).all()
    assert torch.equal(step.parameters[2], parameters[2]) and not torch.equal(step.parameters[0], parameters[0])
    kl = (weights * policies.kl(parameters, step.parameters, states)).sum(-1)
    assert (kl[:2] <= region.max_kl * 1.05).all()


# ---------------------------------------------------------------------------------------------------------------- TRPO


def fresh_episodes(seeds: int = 1) -> Episodes:
    """Random ones; a third of the episodes end before the last step."""
    alive = torch.ones(seeds, HORIZON, ROWS).double()
    alive[:, -1, : ROWS // 3] = 0
    return Episodes(
        numbers(seeds, HORIZON, ROWS, STATE), numbers(seeds, HORIZON, ROWS, ACTION, seed=1),
        numbers(seeds, HORIZON, ROWS, seed=2) * alive, alive,
    )  # fmt: skip


def perceptron(sizes: tuple[int, ...], row: Tensor) -> nn.Sequential:
    """torch's own layers with the numbers of a row."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out).double()
        weight, row = row[: fan_in * fan_out], row[fan_in * fan_out :]
        bias, row = row[:fan_out], row[fan_out:]
        linear.weight.data, linear.bias.data = weight.clone().view(fan_in, fan_out).T.contiguous(), bias.clone()
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def plain_trpo(learner: HNPG, fresh: Episodes, streams: Streams) -> list[Tensor]:
    """TRPO one step of the horizon after another, with torch's modules, a Fisher matrix in full, and no batching."""
    options, policies = learner.options, learner.policies
    alive, returns = fresh.alive[0], torch.zeros(HORIZON, ROWS).double()
    for step in reversed(range(HORIZON)):
        later = returns[step + 1] if step + 1 < HORIZON else torch.zeros(ROWS).double()
        returns[step] = (fresh.rewards[0, step] + later) * alive[step]
    noise = streams.normal("fresh values", options.value_samples, HORIZON, ROWS, ACTION)[0]
    values, critics = torch.zeros(HORIZON, ROWS).double(), []
    for step in range(HORIZON):
        critic = perceptron((STATE + ACTION, *options.critic_hidden, 1), learner.critic[step].detach())
        adam = torch.optim.Adam(critic.parameters(), lr=options.critic_rate)
        for _ in range(options.critic_steps):
            adam.zero_grad()
            q = critic(torch.cat([fresh.states[0, step], fresh.actions[0, step]], -1))[:, 0]
            (((q - returns[step]).square() * alive[step]).sum() / alive[step].sum()).backward()
            adam.step()
        critics.append(critic)
        actor = perceptron((STATE, *options.hidden, ACTION), learner.actor[step, : policies.nets.count].detach())
        with torch.no_grad():
            mean, std = actor(fresh.states[0, step]), learner.actor[step, policies.nets.count :].detach().exp()
            drawn = [critic(torch.cat([fresh.states[0, step], mean + std * each[step]], -1))[:, 0] for each in noise]
            values[step] = torch.stack(drawn).mean(0)
    found = []
    for step in range(HORIZON):
        advantage = torch.zeros(ROWS).double()
        for later in reversed(range(step, HORIZON)):
            following = values[later + 1] * alive[later + 1] if later + 1 < HORIZON else 0
            error = fresh.rewards[0, later] + following - values[later]
            advantage = (error + options.gae_lambda * advantage) * alive[later]
        actor = perceptron((STATE, *options.hidden, ACTION), learner.actor[step, : policies.nets.count].detach())
        log_std = nn.Parameter(learner.actor[step, policies.nets.count :].detach().clone())
        parameters = [*actor.parameters(), log_std]
        share = alive[step] / alive[step].sum()

        def log_prob(actor: nn.Module, log_std: Tensor, step: int = step) -> Tensor:
            normal = torch.distributions.Normal(actor(fresh.states[0, step]), log_std.exp())
            return normal.log_prob(fresh.actions[0, step]).sum(-1)

        before = log_prob(actor, log_std).detach()
        flat = nn.utils.parameters_to_vector
        gradient = flat(torch.autograd.grad((share * advantage * log_prob(actor, log_std)).sum(), parameters))
        mean = actor(fresh.states[0, step])
        matrix = torch.zeros(len(gradient), len(gradient)).double()
        for row in range(ROWS):
            for dim in range(ACTION):
                slope = torch.autograd.grad(mean[row, dim], list(actor.parameters()), retain_graph=True)
                slope_row = torch.cat([flat(slope), torch.zeros(ACTION).double()])
                matrix += share[row] * torch.outer(slope_row, slope_row) / log_std.detach()[dim].exp() ** 2
        matrix[-ACTION:, -ACTION:] += 2 * torch.eye(ACTION)
        damped = matrix + options.damping * torch.eye(len(matrix)).double()
        x = torch.linalg.solve(damped, gradient)
        move, start = x * math.sqrt(2 * options.max_kl / float(x @ damped @ x)), flat(parameters).detach().clone()
        for halvings in range(10):
            nn.utils.vector_to_parameters(start + 0.5**halvings * move, parameters)
            gain = (share * advantage * ((log_prob(actor, log_std) - before).exp() - 1)).sum()
            if gain > 0 and gain > 0.1 * 0.5**halvings * (gradient @ move):
                break
        else:
            nn.utils.vector_to_parameters(start, parameters)
        layers = [part for layer in actor if isinstance(layer, nn.Linear) for part in (layer.weight.T, layer.bias)]
        found.append(torch.cat([part.detach().flatten() for part in layers] + [log_std.detach()]))
    return found


def test_without_a_log_an_iteration_is_trpo() -> None:
    """Check 5, against a TRPO written plainly; conjugate gradient runs to convergence."""
    options = TRPOOptions(hidden=(3,), critic_hidden=(4,), gradient_steps=200, critic_steps=5, critic_rate=1e-2)
    learner, fresh = HNPG(STATE, ACTION, HORIZON, options, [5], is_discrete=False), fresh_episodes()
    streams = Streams([5], 0, learner.actor)
    wanted = plain_trpo(learner, fresh, streams)
    before = learner.actor.detach().clone()
    told = learner.improve(fresh, None, streams)
    assert "offline_loss" not in told and float(told["accepted"]) > 0
    torch.testing.assert_close(learner.actor.detach(), torch.stack(wanted), atol=1e-5, rtol=1e-4)
    assert float((learner.actor.detach() - before).abs().max()) > 1e-3


def test_hnpg_without_a_log_and_trpo_are_one() -> None:
    """Check 5: bit for bit."""
    fresh, found = fresh_episodes(), []
    for options in (TRPOOptions(hidden=(3,)), HNPGOptions(hidden=(3,), lam=0.5)):
        learner = HNPG(STATE, ACTION, HORIZON, options, [0], is_discrete=False)
        learner.improve(fresh, None, Streams([0], 0, learner.actor))
        found.append(learner.actor.detach())
    assert torch.equal(*found)
