"""Online policy gradient on a learned reward, in the coverage bandit: what RLHF does there, without sampling noise.

The reward model is linear in the features and fitted to the same pairs that preference losses train on; beyond the
covered responses it extrapolates, and is wrong. The policy climbs E[learned reward] - beta KL(pi || pi_ref) by exact
gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.language.objectives.dpo import logistic
from paperworks.language.testbeds.coverage_bandit import (
    Course,
    CoverageBandit,
    CoveredPairs,
    descend,
    draw_covered_pairs,
    make_bandit,
)
from paperworks.language.testbeds.newton import minimise


def fit_reward(bandit: CoverageBandit, pairs: CoveredPairs, *, ridge: float = 1e-3) -> Float[Tensor, "seeds responses"]:
    """The linear reward of lowest mean Bradley-Terry loss + ridge / 2 |w|^2. Raises OptionError for ridge <= 0."""
    if not ridge > 0:
        raise OptionError(f"option ridge={ridge}: expected a positive number, or separable pairs have no fit")
    seed = torch.arange(len(pairs.chosen))[:, None]
    gap = bandit.features[seed, pairs.chosen] - bandit.features[seed, pairs.rejected]

    def loss(weights: Float[Tensor, "problems unknowns"]) -> Float[Tensor, " problems"]:
        margins = (gap @ weights[..., None])[..., 0]
        return logistic(margins).mean(-1) + 0.5 * ridge * weights.square().sum(-1)

    start = torch.zeros(len(gap), gap.shape[-1], dtype=torch.float64)
    weights = minimise(loss, start, tolerance=1e-8).point
    return (bandit.features @ weights[..., None])[..., 0]


def run(
    betas: Sequence[float],
    seeds: Sequence[int],
    *,
    ridge: float = 1e-3,
    covered: int = 30,
    pairs: int = 200,
    steps: int = 1500,
) -> Course:
    """Fit the seeds' reward models and climb them, a grid point a beta; no held-out loss is recorded (NaN)."""
    bandit = make_bandit(seeds, covered=covered)
    training = draw_covered_pairs(bandit, seeds, pairs)
    learned = fit_reward(bandit, training, ridge=ridge)
    return descend(
        bandit,
        len(betas),
        lambda _, logp: -(logp.exp() * learned).sum(-1),
        kl_penalties=betas,
        logp_chosen=lambda logp: logp.gather(-1, training.chosen.expand(len(logp), -1, -1)).mean(-1),
        held_out=lambda logp: torch.full(logp.shape[:2], math.nan, dtype=torch.float64),
        steps=steps,
    )
