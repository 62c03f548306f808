"""Gaussian policies squashed by tanh into [-1, 1]: samples with their log-density."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

LOG_STD = (-5.0, 2.0)


def gaussian_log_prob(mean: Tensor, log_std: Tensor, value: Tensor) -> Tensor:
    """log N(value; mean, exp(log_std)^2), summed over the last dimension."""
    normalised = (value - mean) * (-log_std).exp()
    return (-0.5 * normalised.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


def squashed(mean: Tensor, log_std: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """(tanh(raw), its log-density) where raw is Gaussian; the density is summed over the last dimension."""
    return raw.tanh(), gaussian_log_prob(mean, log_std, raw) - _log_slope(raw)


class TanhGaussian:
    """tanh(mean + exp(log_std) noise), from the output of a net that gives mean and log_std side by side."""

    def __init__(self, output: Float[Tensor, "*shape twice_action"]) -> None:
        self.mean, log_std = output.chunk(2, -1)
        low, high = LOG_STD
        self.log_std = low + (high - low) * 0.5 * (log_std.tanh() + 1)

    def sample(self, noise: Float[Tensor, "*shape action"]) -> tuple[Tensor, Tensor]:
        """(action, its log-density) for standard normal noise, differentiable."""
        return squashed(self.mean, self.log_std, self.mean + self.log_std.exp() * noise)

    def log_prob(self, action: Float[Tensor, "*shape action"]) -> Tensor:
        """The log-density of a given action; at the very ends of the range it is taken a little inside."""
        raw = torch.atanh(action.clamp(-1 + 1e-5, 1 - 1e-5))
        return gaussian_log_prob(self.mean, self.log_std, raw) - _log_slope(raw)


def _log_slope(raw: Tensor) -> Tensor:
    """log |d tanh / d raw|, summed over dimensions, without cancellation."""
    return (2 * (math.log(2) - raw - functional.softplus(-2 * raw))).sum(-1)
