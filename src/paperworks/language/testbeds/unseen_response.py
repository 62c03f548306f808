"""Three responses, of which the data only ever compare two: where preference losses leave the third one free.

The features of the third lie beyond the better of the two on the line through both, so that a log-linear policy which
fits the pairs better and better moves probability to it, though the reference hardly ever says it and no pair holds it.
Everything is an exact sum; seeds and grid points train as one batched program.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.core.seeding import torch_generator
from paperworks.language.objectives.objective import PairLogps, PairObjective, ResponseLogps
from paperworks.language.testbeds.independent import losses_of_problems

MASS = 1e-3  # of the third response under the reference
DIMENSIONS = 4


def log_reference(seeds: Sequence[int], mass: float = MASS) -> Float[Tensor, "seeds responses"]:
    """log pi_ref of the three: `mass` the unseen one, the better one 0.2 to 0.8 of the rest, at random."""
    if not 0 < mass < 1:
        raise OptionError(f"option mass={mass}: expected a number in (0, 1)")
    share = torch.tensor([torch.rand((), generator=torch_generator("unseen reference", seed)) for seed in seeds])
    first = (1 - mass) * (0.2 + 0.6 * share.double())
    return torch.stack([first, 1 - mass - first, torch.full_like(first, mass)], dim=-1).log()


def features(seeds: Sequence[int]) -> Float[Tensor, "seeds responses dimensions"]:
    """phi of the three: two random directions, and phi_3 = 2 phi_1 - phi_2."""
    drawn = torch.stack(
        [
            torch.randn(2, DIMENSIONS, generator=torch_generator("unseen response", seed), dtype=torch.float64)
            for seed in seeds
        ]
    )
    return torch.cat([drawn, (2 * drawn[:, 0] - drawn[:, 1])[:, None]], dim=1)


def train(
    objectives: Sequence[PairObjective],
    seeds: Sequence[int],
    *,
    kl_penalties: Sequence[float],
    steps: int = 3000,
    learning_rate: float = 0.02,
    records: int = 60,
) -> tuple[list[int], Float[Tensor, "records points seeds"], Float[Tensor, "records points seeds"]]:
    """Adam from the reference on the one pair (first preferred to second), plus each point's penalty times the exact KL.

    Returns the steps looked at (the last one included), pi of the unseen response, and KL(pi || pi_ref), there.
    """
    phi, reference = features(seeds), log_reference(seeds)
    penalties = torch.tensor(list(kl_penalties), dtype=torch.float64)[:, None]
    theta = torch.zeros(len(objectives), len(seeds), DIMENSIONS, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([theta], lr=learning_rate)
    one = torch.ones(len(seeds), dtype=torch.float64)
    at, unseen, divergence = [], [], []
    for step in range(steps + 1):
        logp = torch.log_softmax(reference + (phi @ theta[..., None])[..., 0], dim=-1)
        kl = (logp.exp() * (logp - reference)).sum(-1)
        if step % max(1, steps // records) == 0 or step == steps:
            at.append(step)
            unseen.append(logp[..., 2].detach().exp())
            divergence.append(kl.detach())
        if step == steps:
            break
        losses = []
        for objective, of_point in zip(objectives, logp, strict=True):
            chosen, rejected = (ResponseLogps(of_point[:, i], one, reference[:, i]) for i in (0, 1))
            losses.append(losses_of_problems(objective, PairLogps(chosen, rejected, one), len(seeds)))
        adam.zero_grad()
        (torch.stack(losses) + penalties * kl).sum().backward()
        adam.step()
    return at, torch.stack(unseen), torch.stack(divergence)
