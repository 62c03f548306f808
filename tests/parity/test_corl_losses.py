"""Losses and gradients of TD3+BC, PRDC, IQL and CQL against the formulas of CORL (PRDC: of its authors), written out here.

One net at a time, nothing batched. CORL's IQL takes the mean of both critics' losses where IQL's authors and we take the sum:
its gradient is half of ours, and Adam's step the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import d3rlpy_losses as given
import pytest
import torch
from scipy.spatial import KDTree
from test_d3rlpy_losses import Noise, batch_of, made
from torch import Tensor
from torch.nn import functional

GAMMA, TARGET_ENTROPY = 0.99, -float(given.ACTION)


class Net:
    """One perceptron of the given weights."""

    def __init__(self, name: str, fan_in: int, fan_out: int) -> None:
        self.layers = [
            tuple(torch.from_numpy(each).requires_grad_() for each in layer)
            for layer in given.layers(name, fan_in, fan_out)
        ]

    def __call__(self, *inputs: Tensor) -> Tensor:
        x = torch.cat(inputs, -1)
        for weight, bias in self.layers[:-1]:
            x = functional.relu(x @ weight + bias)
        return x @ self.layers[-1][0] + self.layers[-1][1]

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Of all weights, then of all biases."""
        ordered = [layer[at] for at in (0, 1) for layer in self.layers]
        return list(torch.autograd.grad(loss, ordered, retain_graph=True))


class Theirs:
    """The batch and the nets as CORL has them."""

    def __init__(self) -> None:
        self.actor, self.target_actor = (Net(name, given.STATE, given.ACTION) for name in ("actor", "target actor"))
        self.critics, self.targets = (
            [Net(f"{kind} {number}", given.STATE + given.ACTION, 1) for number in range(2)]
            for kind in ("critic", "target critic")
        )
        self.value = Net("value", given.STATE, 1)
        batch = {name: torch.from_numpy(values) for name, values in given.batch().items()}
        self.states, self.actions, self.next_states = batch["states"], batch["actions"], batch["next_states"]
        self.rewards, self.not_done = batch["rewards"][:, None], 1 - batch["terminals"][:, None]
        self.noise = {name: torch.from_numpy(values) for name, values in given.noise().items()}

    def q_losses(self, target: Tensor) -> Tensor:
        return torch.stack(
            [functional.mse_loss(q(self.states, self.actions), target.detach()) for q in self.critics]
        ).sum()

    def td3_target(self) -> Tensor:
        noise = (0.2 * self.noise["target"]).clamp(-0.5, 0.5)
        action = (self.target_actor(self.next_states).tanh() + noise).clamp(-1, 1)
        values = [q(self.next_states, action) for q in self.targets]
        return self.rewards + self.not_done * GAMMA * torch.min(*values)

    def td3_actor(self, anchor: Tensor) -> Tensor:
        pi = self.actor(self.states).tanh()
        q = self.critics[0](self.states, pi)
        weight = 2.5 / q.abs().mean().detach()
        return -weight * q.mean() + functional.mse_loss(pi, anchor)

    def td3_bc(self) -> tuple[Tensor, Tensor]:
        return self.q_losses(self.td3_target()), self.td3_actor(self.actions)

    def prdc(self) -> tuple[Tensor, Tensor]:
        beta, (states, actions) = given.OPTIONS["prdc"]["beta"], map(torch.from_numpy, given.logged())
        tree = KDTree(torch.cat([beta * states, actions], 1).numpy())
        key = torch.cat([beta * self.states, self.actor(self.states).tanh()], 1).detach().numpy()
        return self.q_losses(self.td3_target()), self.td3_actor(actions[tree.query(key, k=[1])[1][:, 0]])

    def iql(self) -> tuple[Tensor, Tensor, Tensor]:
        options = given.OPTIONS["iql"]
        known = torch.min(*(q(self.states, self.actions) for q in self.targets)).detach()
        advantage = known - self.value(self.states)
        value_loss = ((options["expectile"] - (advantage < 0).float()).abs() * advantage**2).mean()
        target = self.rewards + self.not_done * GAMMA * self.value(self.next_states)
        weight = (options["beta"] * advantage.detach()).exp().clamp(max=options["most_weight"])
        policy = torch.distributions.Normal(self.actor(self.states).tanh(), math.exp(given.LOG_STD))
        actor_loss = -(weight * policy.log_prob(self.actions).sum(-1, keepdim=True)).mean()
        return self.q_losses(target) / 2, actor_loss, value_loss

    def sampled(self, states: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """An action of the squashed Gaussian and its log-density."""
        raw = self.actor(states) + math.exp(given.LOG_STD) * noise
        log_prob = torch.distributions.Normal(self.actor(states), math.exp(given.LOG_STD)).log_prob(raw)
        return raw.tanh(), (log_prob - torch.log(1 - raw.tanh() ** 2 + 1e-12)).sum(-1, keepdim=True)

    def cql(self) -> tuple[Tensor, Tensor]:
        following, _ = self.sampled(self.next_states, torch.zeros_like(self.actions))
        target = self.rewards + self.not_done * GAMMA * torch.min(
            *(q(self.next_states, following) for q in self.targets)
        )
        loss, count = self.q_losses(target), given.COUNT
        states = self.states[:, None].expand(-1, count, -1)
        now = self.sampled(states, self.noise["current"])
        then = self.sampled(self.next_states[:, None].expand(-1, count, -1), self.noise["following"])
        uniform = 2 * self.noise["uniform"] - 1
        for q in self.critics:
            parts = [q(states, uniform) - math.log(0.5**given.ACTION)]
            parts += [q(states, action.detach()) - density.detach() for action, density in (then, now)]
            gap = torch.cat(parts, 1).logsumexp(1) - q(self.states, self.actions)
            loss = loss + given.OPTIONS["cql"]["conservatism"] * gap.mean()
        own, log_pi = self.sampled(self.states, self.noise["own"])
        actor_loss = (log_pi - torch.min(*(q(self.states, own) for q in self.critics))).mean()  # temperature 1
        return loss, actor_loss


def same(found: list[Tensor], place: int, wanted: list[Tensor], factor: float = 1.0) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        width = theirs.shape[-1]
        own = ours[place][..., :width].reshape(theirs.shape)
        torch.testing.assert_close(own, factor * theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["td3-bc", "prdc", "iql", "cql"])
def test_losses_and_gradients(name: str) -> None:
    learner, gradients = made(name)
    told: Mapping[str, Any] = learner.update(batch_of(), Noise(), 0)
    theirs = Theirs()
    critic, actor, *value = getattr(theirs, name.replace("-", "_"))()
    factor = 2.0 if name == "iql" else 1.0
    for number, net in enumerate(theirs.critics):
        same(gradients["critic"], number, net.gradients(critic), factor)
    log_std = gradients["actor"].pop() if name == "iql" else None
    assert log_std is None or log_std.shape == (1, 1, given.ACTION)
    same(gradients["actor"], 0, theirs.actor.gradients(actor))
    if value:
        same(gradients["value"], 0, theirs.value.gradients(value[0]))
    if name != "cql":
        assert float(told["critic"]) == pytest.approx(factor * critic.item(), rel=1e-5)
    if name in ("iql", "cql"):
        assert float(told["actor"]) == pytest.approx(actor.item(), rel=1e-4)


def test_cql_s_temperature() -> None:
    """-log alpha (log pi + target entropy), the density a constant."""
    learner, gradients = made("cql")
    learner.update(batch_of(), Noise(), 0)
    theirs = Theirs()
    _, log_pi = theirs.sampled(theirs.states, theirs.noise["own"])
    wanted = -(log_pi + TARGET_ENTROPY).mean().detach()
    torch.testing.assert_close(gradients["temperature"][0].squeeze(), wanted, atol=1e-4, rtol=1e-4)
