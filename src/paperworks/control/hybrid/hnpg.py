"""HNPG (arXiv 2311.08384, algorithms 3 to 5 and appendix E): natural policy gradient on fresh episodes and a log at once.

One critic fits two means: the temporal difference on the log, whose next actions are the current policy's, and the return
that followed on fresh episodes, without bootstrap:

    f_h = argmin E_log (f(s,a) - r - f_{h+1}(s', a'))^2 + lam E_fresh (f(s,a) - y)^2        backward from the last step

The actor takes TRPO's step on the union of states: fresh ones with generalised advantages, logged ones with actions drawn
again from the policy. Without a log both terms lose their first half, and the iteration is TRPO's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from paperworks.control.hybrid.episodes import Episodes, Logged, Streams
from paperworks.control.hybrid.natural_gradient import TrustRegion, natural_step
from paperworks.control.hybrid.policies import CategoricalPolicies, FlatPerceptrons, GaussianPolicies, Policies
from paperworks.core.options import check_ranges, option

MOST_NETS = 50  # steps up to which each has a net of its own, unless told


@dataclass(frozen=True)
class TRPOOptions:
    """Natural policy gradient on fresh episodes: networks, critic, and how far a step goes."""

    hidden: tuple[int, ...] = option((16, 16), "widths of the policies' hidden layers (tanh)")
    critic_hidden: tuple[int, ...] = option((64, 64), "widths of the critics' hidden layers (tanh)")
    per_step_nets: bool | None = option(
        None, "a policy and a critic for each step (true), or one, which is told the step (false); none: up to 50 steps"
    )
    gamma: float = option(1.0, "discount", low=0, high=1)
    gae_lambda: float = option(0.97, "of generalised advantages", low=0, high=1)
    critic_steps: int = option(30, "of a fresh Adam, each iteration", low=1)
    critic_rate: float = option(3e-4, "learning rate of the critics", above=0)
    value_samples: int = option(10, "actions that a state's value is the mean of; discrete ones are all counted", low=1)
    max_kl: float = option(1e-2, "KL between policies before and after a step, nats", above=0)
    damping: float = option(0.1, "added to the Fisher matrix's diagonal", low=0)
    gradient_steps: int = option(10, "of conjugate gradient", low=1)
    initial_std: float = option(1.0, "of actions that are numbers, [-1, 1] being the bounds", above=0)
    precision: Literal["float32", "float64"] = option("float64", "of all numbers")

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def region(self) -> TrustRegion:
        return TrustRegion(self.max_kl, self.damping, self.gradient_steps)


@dataclass(frozen=True)
class HNPGOptions(TRPOOptions):
    """The same on fresh episodes and a log."""

    lam: float = option(1.0, "weight of fresh episodes against the log; 0: the log alone", low=0)
    critic_rounds: int = option(
        1, "one net for all steps: fits an iteration, each to the targets of the one before", low=1
    )


class HNPG(nn.Module):
    """Policies and critics of every seed, and one iteration of learning: [seeds * nets, parameters], seed after seed."""

    def __init__(
        self, state: int, action: int, horizon: int, options: TRPOOptions, seeds: Sequence[int], *, is_discrete: bool
    ) -> None:
        super().__init__()
        self.options, self.seeds, self.horizon = options, tuple(seeds), horizon
        given = options.per_step_nets
        self.has_net_a_step = horizon <= MOST_NETS if given is None else given
        self.copies = horizon if self.has_net_a_step else 1
        width = state + (not self.has_net_a_step)
        self.policies: Policies
        if is_discrete:
            self.policies = CategoricalPolicies(width, action, options.hidden)
            self.critics = FlatPerceptrons((width, *options.critic_hidden, action))
        else:
            self.policies = GaussianPolicies(width, action, options.hidden, deviation=options.initial_std)
            self.critics = FlatPerceptrons((width + action, *options.critic_hidden, 1))
        dtype = getattr(torch, options.precision)
        self.actor = nn.Parameter(self.policies.start(seeds, "actor", copies=self.copies).to(dtype))
        self.critic = nn.Parameter(self.critics.start(seeds, "critic", copies=self.copies).to(dtype))

    @torch.no_grad()
    def act(self, states: Float[Tensor, "seeds rows state"], step: int, noise: Tensor | None) -> Tensor:
        """Actions at a step (from 0), drawn with standard normal noise [seeds, rows, action]; None: the likeliest ones."""
        inputs, rows = self._timed(states[:, None], step)[:, 0], self._of_step(self.actor, step)
        if noise is None:
            return self.policies.likeliest(rows, inputs)
        return self.policies.sample(rows, inputs, noise)

    def improve(self, fresh: Episodes, log: Logged | None, streams: Streams) -> Mapping[str, Float[Tensor, " seeds"]]:
        """Fit the critics, take the actors' step; without a `log` TRPO's. Returns numbers to log, one a seed."""
        lam = self.options.lam if isinstance(self.options, HNPGOptions) else 1.0
        weight = (1.0, 0.0) if log is None else (lam / (1 + lam), 1 / (1 + lam))
        told = self.fit_critics(fresh, log, streams, weight)
        return told | self.step_actors(fresh, log, streams, weight)

    # ------------------------------------------------------------------------------------------------------------- critics

    def fit_critics(
        self, fresh: Episodes, log: Logged | None, streams: Streams, weight: tuple[float, float]
    ) -> dict[str, Float[Tensor, " seeds"]]:
        """Move the critics to both targets, weighted; returns each mean's squared error afterwards."""
        targets = fresh.returns_to_go(self.options.gamma)
        parts = [(self._timed(fresh.states), fresh.actions, targets, self._shares(fresh.alive) * weight[0])]
        errors = {}
        if log is None:
            self._fit(slice(None), parts)
        else:
            shares = self._shares(torch.ones_like(log.rewards)) * weight[1]
            logged = (self._timed(log.states), log.actions, torch.zeros_like(log.rewards), shares)
            noise = streams.normal("next action", *log.rewards.shape[1:], self.policies.action)
            for steps in self._rounds():
                logged[2][:, steps] = self._backed_up(log, noise, steps)
                self._fit(steps, [*parts, logged])
            errors["offline_loss"] = self._error(*logged[:3], torch.ones_like(log.rewards))
        return {"online_loss": self._error(*parts[0][:3], fresh.alive), **errors}

    def _rounds(self) -> list[slice]:
        """The steps whose critics are fitted together, in order: backward where each has its own."""
        if self.copies > 1:
            return [slice(step, step + 1) for step in reversed(range(self.horizon))]
        return [slice(None)] * (self.options.critic_rounds if isinstance(self.options, HNPGOptions) else 1)

    @torch.no_grad()
    def _backed_up(self, log: Logged, noise: Tensor, steps: slice) -> Float[Tensor, "seeds some rows"]:
        """r + gamma f_{h+1}(s', a'), a' of the current policy; nothing behind the horizon or a termination."""
        found = log.rewards[:, steps].clone()
        for place, step in enumerate(range(*steps.indices(self.horizon))):
            if step + 1 < self.horizon:
                inputs = self._timed(log.next_states[:, step : step + 1], step + 1)[:, 0]
                actor, critic = self._of_step(self.actor, step + 1), self._of_step(self.critic, step + 1)
                value = self._values(actor, critic, inputs, noise[:, None, step])
                found[:, place] += self.options.gamma * log.goes_on[:, step] * value
        return found

    def _fit(self, steps: slice, parts: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> None:
        """Adam, made anew, on the weighted squared error of (inputs, actions, targets, weights) at some steps' critics."""
        chosen = steps if self.copies > 1 else slice(None)
        rows = self.critic.detach().view(len(self.seeds), self.copies, -1)[:, chosen].flatten(0, 1)
        rows = rows.clone().requires_grad_()
        inputs, actions, targets, weights = (
            torch.cat([self._folded(part[number][:, steps]) for part in parts], 1) for number in range(4)
        )
        optimiser = torch.optim.Adam([rows], lr=self.options.critic_rate, fused=True)
        for _ in range(self.options.critic_steps):
            loss = (weights * (self._q(rows, inputs, actions) - targets).square()).sum()
            (rows.grad,) = torch.autograd.grad(loss, rows)
            optimiser.step()
        moved = rows.detach().view(len(self.seeds), -1, rows.shape[1])
        self.critic.data.view(len(self.seeds), self.copies, -1)[:, chosen] = moved

    @torch.no_grad()
    def _error(self, inputs: Tensor, actions: Tensor, targets: Tensor, alive: Tensor) -> Float[Tensor, " seeds"]:
        found = self._unfolded(self._q(self.critic, self._folded(inputs), self._folded(actions)), targets)
        return (alive * (found - targets).square()).sum((1, 2)) / alive.sum((1, 2))

    def _q(self, critic: Tensor, inputs: Tensor, actions: Tensor) -> Float[Tensor, "nets rows"]:
        if self.policies.is_discrete:
            return self.critics(critic, inputs).gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        return self.critics(critic, torch.cat([inputs, actions], -1)).squeeze(-1)

    def _values(self, actor: Tensor, critic: Tensor, inputs: Tensor, noise: Tensor) -> Float[Tensor, "nets rows"]:
        """E_{a~pi} f(s, a): exact for discrete actions, else the mean over noise [nets, samples, rows, action]."""
        if isinstance(self.policies, CategoricalPolicies):
            return (self.policies.probabilities(actor, inputs) * self.critics(critic, inputs)).sum(-1)
        nets, samples, rows = noise.shape[:3]
        repeated = inputs.repeat(1, samples, 1)
        actions = self.policies.sample(actor, repeated, noise.reshape(nets, samples * rows, -1))
        return self._q(critic, repeated, actions).view(nets, samples, rows).mean(1)

    # -------------------------------------------------------------------------------------------------------------- actors

    def step_actors(
        self, fresh: Episodes, log: Logged | None, streams: Streams, weight: tuple[float, float]
    ) -> dict[str, Float[Tensor, " seeds"]]:
        """TRPO's step of every net on its states, fresh and logged, weighted; returns KL and the share of steps accepted."""
        parts = [self._fresh_advantages(fresh, streams, weight[0])]
        if log is not None:
            parts.append(self._logged_advantages(log, streams, weight[1]))
        inputs, actions, advantages, weights = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        before = self.actor.detach()
        with torch.no_grad():
            reference = self.policies.log_prob(before, inputs, actions)

        def surrogate(rows: Tensor) -> Tensor:
            ratio = (self.policies.log_prob(rows, inputs, actions) - reference).exp()
            return (weights * ratio * advantages).sum(-1)

        rows = before.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(surrogate(rows).sum(), rows)
        fisher = self.policies.fisher(before, inputs, weights)
        step = natural_step(before, gradient, fisher, surrogate, self.options.region)
        with torch.no_grad():
            kl = (weights * self.policies.kl(before, step.parameters, inputs)).sum(-1).view(len(self.seeds), -1)
            self.actor.copy_(step.parameters)
        accepted = step.is_accepted.view(len(self.seeds), -1).to(kl.dtype)
        return {"kl": kl.mean(1), "kl_most": kl.amax(1), "accepted": accepted.mean(1)}

    @torch.no_grad()
    def _fresh_advantages(self, fresh: Episodes, streams: Streams, weight: float) -> tuple[Tensor, ...]:
        inputs = self._folded(self._timed(fresh.states))
        values = self._values(self.actor, self.critic, inputs, self._value_noise("fresh", fresh.rewards, streams))
        advantages = fresh.advantages(
            self._unfolded(values, fresh.rewards), self.options.gamma, self.options.gae_lambda
        )
        shares = self._shares(fresh.alive) * weight
        return inputs, self._folded(fresh.actions), self._folded(advantages), self._folded(shares)

    @torch.no_grad()
    def _logged_advantages(self, log: Logged, streams: Streams, weight: float) -> tuple[Tensor, ...]:
        """f(s, a) - V(s) at logged states, a drawn from the policy: the log's actions are the critic's alone."""
        inputs = self._folded(self._timed(log.states))
        values = self._values(self.actor, self.critic, inputs, self._value_noise("logged", log.rewards, streams))
        noise = streams.normal("logged action", *log.rewards.shape[1:], self.policies.action)
        actions = self.policies.sample(self.actor, inputs, self._folded(noise))
        advantages = self._q(self.critic, inputs, actions) - values
        return inputs, actions, advantages, self._folded(self._shares(torch.ones_like(log.rewards)) * weight)

    def _value_noise(self, name: str, rows: Tensor, streams: Streams) -> Float[Tensor, "nets samples rows action"]:
        samples = 0 if self.policies.is_discrete else self.options.value_samples
        noise = streams.normal(f"{name} values", samples, *rows.shape[1:], self.policies.action)
        if self.copies > 1:
            return noise.transpose(1, 2).flatten(0, 1)
        return noise.flatten(2, 3)

    # -------------------------------------------------------------------------------------------------------------- shapes

    def _timed(self, states: Float[Tensor, "seeds steps rows state"], first: int = 0) -> Tensor:
        """States as a net sees them: one net for all steps is told the step, as a share of the horizon."""
        if self.has_net_a_step:
            return states
        steps = torch.arange(first, first + states.shape[1], device=states.device, dtype=states.dtype) / self.horizon
        return torch.cat([states, steps[None, :, None, None].expand(*states.shape[:-1], 1)], -1)

    def _folded(self, values: Tensor) -> Tensor:
        """[seeds, steps, rows, ...] as [nets, rows, ...] (a net a step) or [seeds, steps * rows, ...]."""
        return values.flatten(0, 1) if self.has_net_a_step else values.flatten(1, 2)

    def _unfolded(self, values: Tensor, like: Tensor) -> Tensor:
        return values.reshape(like.shape)

    def _shares(self, alive: Float[Tensor, "seeds steps rows"]) -> Float[Tensor, "seeds steps rows"]:
        """Each row's share of its net's mean: the rows that are alive weigh the same and add up to 1."""
        over = 2 if self.has_net_a_step else (1, 2)
        return alive / alive.sum(over, keepdim=True).clamp(min=1)

    def _of_step(self, parameters: Tensor, step: int) -> Float[Tensor, "seeds parameters"]:
        """The rows of the nets that act at a step."""
        return parameters.detach().view(len(self.seeds), self.copies, -1)[:, step if self.copies > 1 else 0]
