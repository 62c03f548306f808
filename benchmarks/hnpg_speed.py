"""HNPG's iteration for five seeds at once against the form of its release: net after net, values a transition at a time.

The peer is written here in the release's shape (torch modules, one net a step of the horizon, one call of the networks for
the value of each transition, Fisher products by differentiating the KL twice). Both sides learn from the same rows with the
same noise, and what they reach is compared. Prints seconds of an iteration for five seeds, and the ratio.
"""

from __future__ import annotations

import itertools
import math
import time

import torch
from torch import Tensor, nn

from paperworks.control.hybrid.episodes import Episodes, Logged, Streams
from paperworks.control.hybrid.hnpg import HNPG, HNPGOptions
from paperworks.control.testbeds.comblock import LATENT_ACTIONS, Comblock
from paperworks.control.testbeds.comblock_trial import logged

HORIZON, SEEDS, EPISODES, REPEATS = 5, (0, 1, 2, 3, 4), 200, 2
flat = nn.utils.parameters_to_vector


def rows() -> tuple[Episodes, Logged]:
    """Fresh episodes (of the behaviour policy: the rows' content costs nothing) and logged rows, float64."""
    played = logged(Comblock.drawn(HORIZON, SEEDS), SEEDS, EPISODES)
    log = played.draw(EPISODES, Streams(SEEDS, 0, torch.zeros(1, dtype=torch.float64)))
    rewards = played.rewards.double()
    return Episodes(played.states[:, :-1].double(), played.actions.double(), rewards, torch.ones_like(rewards)), log


class Peer:
    """One seed: modules of one policy and one critic a step, started from the rows of ours."""

    def __init__(self, ours: HNPG, place: int) -> None:
        self.options, self.place = ours.options, place
        state = ours.policies.nets.sizes[0]
        actors, critics = (each.detach().view(len(SEEDS), HORIZON, -1)[place] for each in (ours.actor, ours.critic))
        count = ours.policies.nets.count
        self.means = [_module((state, *self.options.hidden, LATENT_ACTIONS), row[:count]) for row in actors]
        self.log_stds = [nn.Parameter(row[count:].clone()) for row in actors]
        self.critics = [_module((state + LATENT_ACTIONS, *self.options.critic_hidden, 1), row) for row in critics]

    def iterate(self, fresh: Episodes, log: Logged, streams: Streams) -> None:
        """One iteration on this seed's rows."""
        at, shape = self.place, (HORIZON, EPISODES, LATENT_ACTIONS)
        following = streams.normal("next action", *shape)[at]
        samples = {
            name: streams.normal(f"{name} values", self.options.value_samples, *shape)[at]
            for name in ("fresh", "logged")
        }
        drawn = streams.normal("logged action", *shape)[at]
        returns = fresh.returns_to_go(1.0)[at]
        for step in reversed(range(HORIZON)):
            self._fit(step, fresh, log, returns[step], following[step])
        values = torch.stack(
            [self._value_each(step, fresh.states[at, step], samples["fresh"]) for step in range(HORIZON)]
        )
        advantages = fresh.advantages(values.expand(len(SEEDS), -1, -1), 1.0, self.options.gae_lambda)
        for step in range(HORIZON):
            states, mean = log.states[at, step], self.means[step]
            with torch.no_grad():
                actions = mean(states) + self.log_stds[step].exp() * drawn[step]
                own = self.critics[step](torch.cat([states, actions], -1))[:, 0]
            gains = own - self._value_each(step, states, samples["logged"])
            self._step(
                step,
                torch.cat([fresh.states[at, step], states]),
                torch.cat([fresh.actions[at, step], actions]),
                torch.cat([advantages[at, step], gains]),
            )

    def _fit(self, step: int, fresh: Episodes, log: Logged, returns: Tensor, noise: Tensor) -> None:
        at, critic = self.place, self.critics[step]
        target = log.rewards[at, step]
        if step + 1 < HORIZON:
            with torch.no_grad():
                states = log.next_states[at, step]
                action = self.means[step + 1](states) + self.log_stds[step + 1].exp() * noise
                target = target + self.critics[step + 1](torch.cat([states, action], -1))[:, 0]
        adam = torch.optim.Adam(critic.parameters(), lr=self.options.critic_rate)
        for _ in range(self.options.critic_steps):
            adam.zero_grad()
            online = critic(torch.cat([fresh.states[at, step], fresh.actions[at, step]], -1))[:, 0]
            offline = critic(torch.cat([log.states[at, step], log.actions[at, step]], -1))[:, 0]
            ((online - returns).square().mean() + (offline - target).square().mean()).backward()
            adam.step()

    @torch.no_grad()
    def _value_each(self, step: int, states: Tensor, noise: Tensor) -> Tensor:
        """V of each state, one call a transition."""
        found = []
        for row, state in enumerate(states):
            repeated = state.expand(len(noise), -1)
            actions = self.means[step](repeated) + self.log_stds[step].exp() * noise[:, step, row]
            found.append(self.critics[step](torch.cat([repeated, actions], -1)).mean())
        return torch.stack(found)

    def _step(self, step: int, states: Tensor, actions: Tensor, advantages: Tensor) -> None:
        mean, log_std, options = self.means[step], self.log_stds[step], self.options
        parameters = [*mean.parameters(), log_std]

        def log_prob() -> Tensor:
            return torch.distributions.Normal(mean(states), log_std.exp()).log_prob(actions).sum(-1)

        before = log_prob().detach()
        old = torch.distributions.Normal(mean(states).detach(), log_std.detach().exp())
        gradient = flat(torch.autograd.grad((advantages * (log_prob() - before).exp()).mean(), parameters))

        def product(direction: Tensor) -> Tensor:
            kl = torch.distributions.kl_divergence(old, torch.distributions.Normal(mean(states), log_std.exp()))
            slope = torch.cat(
                [g.flatten() for g in torch.autograd.grad(kl.sum(-1).mean(), parameters, create_graph=True)]
            )
            again = torch.autograd.grad(slope @ direction, parameters)
            return torch.cat([each.flatten() for each in again]) + options.damping * direction

        x, residual, direction = torch.zeros_like(gradient), gradient.clone(), gradient.clone()
        for _ in range(options.gradient_steps):
            size = residual @ residual
            along = product(direction)
            rate = size / (direction @ along)
            x, residual = x + rate * direction, residual - rate * along
            direction = residual + (residual @ residual) / size * direction
        full, start = x * math.sqrt(2 * options.max_kl / float(x @ product(x))), flat(parameters).detach().clone()
        for halvings in range(10):
            nn.utils.vector_to_parameters(start + 0.5**halvings * full, parameters)
            gain = (advantages * ((log_prob() - before).exp() - 1)).mean()
            if gain > 0 and gain > 0.1 * 0.5**halvings * (gradient @ full):
                return
        nn.utils.vector_to_parameters(start, parameters)


def _module(sizes: tuple[int, ...], row: Tensor) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out).double()
        linear.weight.data = row[: fan_in * fan_out].clone().view(fan_in, fan_out).T.contiguous()
        linear.bias.data = row[fan_in * fan_out : (fan_in + 1) * fan_out].clone()
        row, layers = row[(fan_in + 1) * fan_out :], [*layers, linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def main() -> None:
    torch.set_num_threads(1)
    fresh, log = rows()
    state = fresh.states.shape[-1]
    learners = {
        name: HNPG(state, LATENT_ACTIONS, HORIZON, HNPGOptions(precision=name), SEEDS, is_discrete=False)  # type: ignore[arg-type]
        for name in ("float64", "float32")
    }
    peers = [Peer(learners["float64"], place) for place in range(len(SEEDS))]
    seconds: dict[str, list[float]] = {name: [] for name in (*learners, "peer")}
    for iteration in range(REPEATS):
        for name, learner in learners.items():
            streams = Streams(SEEDS, iteration, learner.actor)
            parts = [type(each)(*(v.to(learner.actor.dtype) for v in vars(each).values())) for each in (fresh, log)]
            began = time.perf_counter()
            learner.improve(*parts, streams)  # type: ignore[arg-type]
            seconds[name].append(time.perf_counter() - began)
        streams = Streams(SEEDS, iteration, learners["float64"].actor)
        began = time.perf_counter()
        for peer in peers:
            peer.iterate(fresh, log, streams)
        seconds["peer"].append(time.perf_counter() - began)
    rows_of = learners["float64"].actor.detach().view(len(SEEDS), HORIZON, -1)
    apart = max(
        float((_row(peer.means[step], peer.log_stds[step]) - rows_of[place, step]).abs().max())
        for place, peer in enumerate(peers)
        for step in range(HORIZON)
    )
    best = {name: min(values) for name, values in seconds.items()}
    print(f"HNPG, H={HORIZON}, {len(SEEDS)} seeds, {HORIZON * EPISODES} fresh and logged steps, one thread")
    print(f"  an iteration in the release's form (float64): {best['peer']:.2f} s")
    for name in learners:
        print(f"  ours, {name}: {best[name]:.2f} s, {best['peer'] / best[name]:.1f} x")
    print(f"  largest difference of a policy's parameter after {REPEATS} iterations (float64): {apart:.1e}")


def _row(mean: nn.Sequential, log_std: Tensor) -> Tensor:
    layers = [part for layer in mean if isinstance(layer, nn.Linear) for part in (layer.weight.T, layer.bias)]
    return torch.cat([part.detach().flatten() for part in (*layers, log_std)])


if __name__ == "__main__":
    main()
