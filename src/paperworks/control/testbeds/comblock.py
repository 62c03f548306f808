"""The continuous combination lock of HNPG (arXiv 2311.08384, section 6.1 and appendix E): many locks, many episodes at once.

Latent states 0 and 1 are good, 2 absorbs. In each good state of each step one of ten latent actions is right: it leads to a
good state, another to the absorbing one. An action is ten numbers, the logits of the latent one. The right action of the
last step pays 1; leaving the good states pays 0.1 half of the time, which draws a learner away from what pays. What is seen
is the latent state and the step, one-hot with noise, turned by a Hadamard matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paperworks.core.seeding import torch_generator

LATENT_ACTIONS = 10
ABSORBING = 2
Draws = Sequence[torch.Generator]  # one a lock


@dataclass(frozen=True)
class Comblock:
    """Locks side by side, `correct` naming the right latent action of each step and good state."""

    correct: Int[Tensor, "locks horizon good"]
    temperature: float = 0.1  # latent action ~ softmax(action / temperature)
    noise: float = 0.1  # deviation of what is added to the one-hot code
    lure: float = 0.1  # what leaving the good states pays, half of the time
    lure_at: Literal["leaving", "end"] = "leaving"  # as the paper defines it, or as its release pays it
    blind: bool = False  # what is seen does not tell latent states apart: no function of it is complete

    @classmethod
    def drawn(cls, horizon: int, seeds: Sequence[int], *, twin: bool = False, blind: bool = False) -> Comblock:
        """A lock a seed. In a `twin` lock the right action of a step is the same in both good states."""
        shape = (horizon, 2)
        correct = torch.stack(
            [torch.randint(LATENT_ACTIONS, shape, generator=torch_generator(seed, "lock")) for seed in seeds]
        )
        return cls(correct[..., :1].expand_as(correct) if twin else correct, blind=blind)

    @property
    def horizon(self) -> int:
        return self.correct.shape[1]

    @property
    def state(self) -> int:
        """Numbers seen."""
        return 2 ** math.ceil(math.log2(self.horizon + 4))

    def start(self, episodes: int, draws: Draws) -> Int[Tensor, "locks episodes"]:
        """Latent states 0 and 1, each half of the time."""
        return torch.stack([torch.randint(2, (episodes,), generator=draw) for draw in draws])

    def observe(
        self, latent: Int[Tensor, "locks episodes"], step: int, draws: Draws
    ) -> Float[Tensor, "locks episodes state"]:
        """What is seen of these latent states at a step (from 0; the horizon itself is what is seen behind the last)."""
        code = torch.zeros(*latent.shape, self.horizon + 3)
        if not self.blind:
            code.scatter_(-1, latent.unsqueeze(-1), 1.0)
        if step < self.horizon:
            code[..., 3 + step] = 1.0
        noise = [torch.randn(*code.shape[1:], generator=draw) for draw in draws]
        return (code + self.noise * torch.stack(noise)) @ hadamard(self.state)[: self.horizon + 3]

    def step(
        self,
        latent: Int[Tensor, "locks episodes"],
        step: int,
        action: Float[Tensor, "locks episodes logits"],
        draws: Draws,
    ) -> tuple[Int[Tensor, "locks episodes"], Float[Tensor, "locks episodes"]]:
        """(next latent states, rewards)."""
        chance = torch.stack([torch.rand(3, *latent.shape[1:], generator=draw) for draw in draws])
        below = (action.float() / self.temperature).softmax(-1).cumsum(-1)
        taken = (chance[:, 0, :, None] > below).sum(-1).clamp(max=LATENT_ACTIONS - 1)
        return self.turn(latent, step, taken, chance[:, 1:])

    def turn(
        self,
        latent: Int[Tensor, "locks episodes"],
        step: int,
        taken: Int[Tensor, "locks episodes"],
        chance: Float[Tensor, "locks 2 episodes"],
    ) -> tuple[Int[Tensor, "locks episodes"], Float[Tensor, "locks episodes"]]:
        """The same for latent actions; `chance` is uniform in [0, 1): the next good state, and whether the lure pays."""
        is_good = latent != ABSORBING
        right = self.correct[:, step].gather(1, latent.clamp(max=1)) == taken
        following = torch.where(is_good & right, (chance[:, 0] < 0.5).long(), ABSORBING)
        is_last = step + 1 == self.horizon
        lured = is_good & ~right if self.lure_at == "leaving" else (following == ABSORBING) & is_last
        reward = self.lure * (lured & (chance[:, 1] < 0.5)).float() + (is_good & right & is_last).float()
        return following, reward

    def behave(
        self, latent: Int[Tensor, "locks episodes"], step: int, draws: Draws
    ) -> Float[Tensor, "locks episodes logits"]:
        """The log's policy: the right action one-hot with probability 1 - 1/H, else ten uniform numbers."""
        right = self.correct[:, step].gather(1, latent.clamp(max=1))
        sure = torch.nn.functional.one_hot(right, LATENT_ACTIONS).float()
        chance = torch.stack([torch.rand(latent.shape[1], LATENT_ACTIONS + 1, generator=draw) for draw in draws])
        is_sure = (chance[..., :1] >= 1 / self.horizon) & (latent != ABSORBING).unsqueeze(-1)
        return torch.where(is_sure, sure, chance[..., 1:])


def hadamard(size: int) -> Float[Tensor, "size size"]:
    """Sylvester's matrix of +1 and -1, `size` a power of 2: R R' = size x identity."""
    found = torch.ones(1, 1)
    while len(found) < size:
        found = torch.cat([torch.cat([found, found], 1), torch.cat([found, -found], 1)])
    return found


def pass_probability(temperature: float = 0.1) -> float:
    """Probability that a one-hot action is taken as its latent one: e^(1/t) / (e^(1/t) + 9)."""
    return 1 / (1 + (LATENT_ACTIONS - 1) * math.exp(-1 / temperature))
