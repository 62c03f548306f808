"""The combination lock in tables: discrete actions, latent states that are seen; logs and fresh episodes as counts.

A state's number is 3 x step + latent state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.control.hybrid.hac import Cells, TabularLog
from paperworks.control.testbeds.comblock import ABSORBING, LATENT_ACTIONS, Comblock
from paperworks.core.seeding import torch_generator

LATENTS = 3


@dataclass(frozen=True)
class Episodes:
    """Episodes of every lock: numbers of states, actions and rewards."""

    states: Int[Tensor, "locks horizon episodes"]
    actions: Int[Tensor, "locks horizon episodes"]
    rewards: Float[Tensor, "locks horizon episodes"]


@dataclass(frozen=True)
class TabularLock:
    """Locks side by side."""

    lock: Comblock
    seeds: tuple[int, ...]

    @classmethod
    def drawn(cls, horizon: int, seeds: Sequence[int], *, twin: bool = False) -> TabularLock:
        """A lock a seed."""
        return cls(Comblock.drawn(horizon, seeds, twin=twin), tuple(seeds))

    @property
    def states(self) -> int:
        return LATENTS * self.lock.horizon

    def uniform(self) -> Float[Tensor, "locks states actions"]:
        """The policy that HAC begins with."""
        return torch.full((len(self.seeds), self.states, LATENT_ACTIONS), 1 / LATENT_ACTIONS, dtype=torch.float64)

    def behaviour(self) -> Float[Tensor, "locks states actions"]:
        """The log's policy: the right action with probability 1 - 1/H, else any; any in the absorbing state."""
        horizon = self.lock.horizon
        sure = torch.nn.functional.one_hot(self.lock.correct, LATENT_ACTIONS).double()
        mixed = (1 - 1 / horizon) * sure + 1 / (horizon * LATENT_ACTIONS)
        lost = torch.full((len(self.seeds), horizon, 1, LATENT_ACTIONS), 1 / LATENT_ACTIONS, dtype=torch.float64)
        return torch.cat([mixed, lost], 2).flatten(1, 2)

    def success(self, policy: Float[Tensor, "locks states actions"]) -> Float[Tensor, " locks"]:
        """The probability that an episode passes every step, exactly."""
        by_step = policy.view(len(self.seeds), self.lock.horizon, LATENTS, LATENT_ACTIONS)[:, :, :ABSORBING]
        passed = by_step.gather(-1, self.lock.correct.unsqueeze(-1)).squeeze(-1)
        return passed.mean(-1).prod(-1)

    def play(self, policy: Float[Tensor, "locks states actions"], episodes: int, *name: int | str) -> Episodes:
        """Episodes of a policy; random numbers are each seed's own, of that name."""
        draws = [torch_generator(seed, *name) for seed in self.seeds]
        latent, found = self.lock.start(episodes, draws), []
        below = policy.cumsum(-1)
        for step in range(self.lock.horizon):
            chance = torch.stack([torch.rand(3, episodes, generator=draw, dtype=torch.float64) for draw in draws])
            state = LATENTS * step + latent
            chosen = below.gather(1, state.unsqueeze(-1).expand(-1, -1, LATENT_ACTIONS))
            action = (chance[:, 0, :, None] > chosen).sum(-1).clamp(max=LATENT_ACTIONS - 1)
            latent, reward = self.lock.turn(latent, step, action, chance[:, 1:])
            found.append((state, action, reward))
        states, actions, rewards = (torch.stack(part, 1) for part in zip(*found, strict=True))
        return Episodes(states, actions, rewards.double())

    def returned(self, played: Episodes) -> Cells:
        """Mean returns that followed each state and action."""
        to_go = played.rewards.flip(1).cumsum(1).flip(1)
        count, total = self._summed(played, torch.ones_like(to_go)), self._summed(played, to_go)
        return Cells(_shares(count), total / count.clamp(min=1))

    def logged(self, played: Episodes) -> TabularLog:
        """Counts of a log."""
        count = self._summed(played, torch.ones_like(played.rewards))
        reward = self._summed(played, played.rewards) / count.clamp(min=1)
        following = torch.cat([played.states[:, 1:], torch.full_like(played.states[:, :1], self.states)], 1)
        places = self._places(played) * (self.states + 1) + following
        onward = count.new_zeros(len(self.seeds), self.states * LATENT_ACTIONS * (self.states + 1))
        onward.scatter_add_(1, places.flatten(1), torch.ones_like(places, dtype=onward.dtype).flatten(1))
        onward = onward.view(*count.shape, self.states + 1)[..., : self.states]
        return TabularLog(_shares(count), reward, onward / count.clamp(min=1).unsqueeze(-1))

    def _places(self, played: Episodes) -> Int[Tensor, "locks horizon episodes"]:
        return played.states * LATENT_ACTIONS + played.actions

    def _summed(
        self, played: Episodes, values: Float[Tensor, "locks horizon episodes"]
    ) -> Float[Tensor, "locks states actions"]:
        found = values.new_zeros(len(self.seeds), self.states * LATENT_ACTIONS)
        found.scatter_add_(1, self._places(played).flatten(1), values.flatten(1))
        return found.view(len(self.seeds), self.states, LATENT_ACTIONS)


def _shares(count: Tensor) -> Tensor:
    return count / count.sum((-2, -1), keepdim=True)
