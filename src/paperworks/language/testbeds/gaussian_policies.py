"""Policy gradient on a reward of points: many diagonal Gaussian policies trained as one tensor, away from a standard start.

The reward of an update is R(a) - beta log(pi(a) / pi_0(a)), as a reward in a trainer with a KL penalty; nothing is
differentiated but log pi.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.seeding import torch_generator

Reward = Callable[[Tensor], Tensor]  # answers [policies, samples, dimensions] -> [policies, samples]


@dataclass(frozen=True)
class Course:
    """What was measured before the first update and at every evaluation after it, [evaluations, policies]."""

    updates: Sequence[int]
    proxy: Float[Tensor, "evaluations policies"]
    gold: Float[Tensor, "evaluations policies"]
    kl: Float[Tensor, "evaluations policies"]  # KL(pi || pi_0), exact
    distance: Float[Tensor, "evaluations policies"]  # E_pi[(log pi/pi_0)^2 / 2], what the paper reports


def train_gaussian(
    reward: Reward,
    gold: Callable[[Tensor], Tensor],
    betas: Sequence[float],
    *,
    dimensions: int,
    seed: int,
    updates: int = 300,
    samples: int = 128,
    rate: float = 0.02,
    every: int = 10,
    evaluation_samples: int = 512,
) -> Course:
    """Policies from N(0, I), one a `beta`, by REINFORCE with the batch's leave-one-out mean as baseline and Adam.

    Random numbers are common to all policies of a call and to calls of the same seed. `gold` is only measured.
    """
    mean = torch.zeros(len(betas), dimensions, requires_grad=True)
    log_deviation = torch.zeros(len(betas), dimensions, requires_grad=True)
    weight = torch.tensor(betas)[:, None]
    optimiser = torch.optim.Adam([mean, log_deviation], lr=rate)
    draw, judged = torch_generator(seed, "policy samples"), torch_generator(seed, "evaluation")
    fixed = torch.randn(evaluation_samples, dimensions, generator=judged)
    rows: list[tuple[Tensor, ...]] = []
    taken = []
    for update in range(updates + 1):
        if update % every == 0 or update == updates:
            with torch.no_grad():
                answers = mean[:, None] + log_deviation.exp()[:, None] * fixed
                ratio = _log_ratio(answers, mean, log_deviation)
                kl = 0.5 * ((2 * log_deviation).exp() + mean**2 - 1 - 2 * log_deviation).sum(-1)
                rows.append((reward(answers).mean(1), gold(answers).mean(1), kl, ratio.square().mean(1) / 2))
            taken.append(update)
        if update == updates:
            break
        noise = torch.randn(samples, dimensions, generator=draw)
        with torch.no_grad():
            answers = mean[:, None] + log_deviation.exp()[:, None] * noise
            value = reward(answers) - weight * _log_ratio(answers, mean, log_deviation)
            advantage = (value - value.mean(1, keepdim=True)) * samples / (samples - 1)
        logp = _log_probability(answers, mean, log_deviation)
        optimiser.zero_grad()
        (-(advantage * logp).mean(1)).sum().backward()
        optimiser.step()
    columns = [torch.stack(column) for column in zip(*rows, strict=True)]
    return Course(taken, *columns)


def _log_probability(answers: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """log pi up to a constant."""
    scaled = (answers - mean[:, None]) * (-log_deviation).exp()[:, None]
    return -0.5 * scaled.square().sum(-1) - log_deviation.sum(-1)[:, None]


def _log_ratio(answers: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    return _log_probability(answers, mean, log_deviation) + 0.5 * answers.square().sum(-1)
