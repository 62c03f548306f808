"""A policy over a few items with known rewards: what a sampler accepts is compared with what it promises.

Candidates are drawn from pi, some of them are accepted, and over many prompts (all alike) the accepted items have a law. The
law that is promised, pi_r proportional to pi exp(r / beta), is known. An item may be drawn, and accepted, several times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from paperworks.core.seeding import derive_seed, torch_generator
from paperworks.language.sources.rejection import Indices

AT_ONCE = 1_000_000  # candidates in memory at a time
TABLE = 2**18  # entries that items are drawn from: probabilities are right to 1 in 260,000

Accept = Callable[
    [Indices, NDArray[np.float64], int], Indices
]  # items and rewards [prompts, candidates], seed -> indices


@dataclass(frozen=True)
class ItemPolicy:
    """One world a seed."""

    log_policy: Float[Tensor, "seeds items"]
    reward: Float[Tensor, "seeds items"]  # mean 0, deviation 1 over the items

    def target(self, beta: float) -> Float[Tensor, "seeds items"]:
        """pi_r: the law that maximises E[r] - beta KL(. || pi)."""
        return torch.softmax(self.log_policy + self.reward / beta, dim=-1)


@dataclass(frozen=True)
class Accepted:
    """The law of accepted items, and that of as many independent draws from the target: what chance alone leaves."""

    law: Float[Tensor, " items"]
    chance: Float[Tensor, " items"]


def make_item_policy(seeds: Sequence[int], *, items: int = 50) -> ItemPolicy:
    """Worlds with standard normal logits and rewards."""
    logits, rewards = [], []
    for seed in seeds:
        generator = torch_generator("rejection bandit", seed)
        logits.append(torch.randn(items, generator=generator, dtype=torch.float64))
        reward = torch.randn(items, generator=generator, dtype=torch.float64)
        rewards.append((reward - reward.mean()) / reward.std(correction=0))
    return ItemPolicy(torch.log_softmax(torch.stack(logits), -1), torch.stack(rewards))


def accepted_law(
    world: ItemPolicy, place: int, seed: int, accept: Accept, *, candidates: int, prompts: int, beta: float
) -> Accepted:
    """The law of what `accept` takes from `candidates` draws for each of `prompts` prompts, in the world at `place`.

    The candidates depend on the seed and their number alone, so that samplers are compared on the same draws.
    """
    rng = np.random.default_rng(derive_seed("rejection bandit candidates", seed, candidates))
    policy, reward = world.log_policy[place].exp().numpy(), world.reward[place].numpy()
    items, counts, accepted = len(policy), np.zeros(len(policy)), 0
    by_number = np.searchsorted(np.cumsum(policy), (np.arange(TABLE) + 0.5) / TABLE).clip(max=items - 1)
    for start in range(0, prompts, max(1, AT_ONCE // candidates)):
        rows = min(max(1, AT_ONCE // candidates), prompts - start)
        drawn = by_number[rng.integers(TABLE, size=(rows, candidates), dtype=np.int32)]
        taken = accept(drawn, reward[drawn], derive_seed(seed, "accept", start))
        counts += np.bincount(np.take_along_axis(drawn, taken, 1).ravel(), minlength=items)
        accepted += taken.size
    chance = np.random.default_rng(derive_seed("rejection bandit chance", seed, candidates))
    ideal = chance.multinomial(accepted, world.target(beta)[place].numpy())
    return Accepted(torch.from_numpy(counts / accepted), torch.from_numpy(ideal / accepted))


def total_variation(one: Float[Tensor, " items"], other: Float[Tensor, " items"]) -> float:
    """Half the sum of absolute differences: the largest difference in the probability of any event."""
    return 0.5 * float((one - other).abs().sum())
