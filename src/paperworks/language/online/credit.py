"""Credit for each token: per-token rewards with a KL penalty, and the advantages of PPO, RLOO, GRPO and REINFORCE.

Pure functions on flat tensors: values of [tokens], responses one after another, `response` the response of each token,
`group` the prompt of each response. A reward is given for a whole response and lies on its last token. gamma is 1 unless
said otherwise. Padding does not exist here, so nothing can leak from it.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

KlEstimator = Literal["k1", "k2", "k3"]


def kl_terms(log_ratio: Float[Tensor, " tokens"], estimator: KlEstimator) -> Float[Tensor, " tokens"]:
    """A token's share of KL(pi || pi_ref) from log pi - log pi_ref at a token drawn from pi (Schulman 2020).

    k1 = log r: unbiased; k2 = (log r)^2 / 2: biased, never negative; k3 = 1/r - 1 + log r: unbiased, never negative.
    """
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return 0.5 * log_ratio.square()
    return torch.expm1(-log_ratio) + log_ratio


def last_of(response: Int[Tensor, " tokens"]) -> Bool[Tensor, " tokens"]:
    """Whether a token is the last of its response."""
    ends = torch.ones_like(response, dtype=torch.bool)
    ends[:-1] = response[1:] != response[:-1]
    return ends


def token_rewards(
    rewards: Float[Tensor, " responses"],
    response: Int[Tensor, " tokens"],
    penalty: Float[Tensor, " tokens"] | None = None,
) -> Float[Tensor, " tokens"]:
    """The response's reward on its last token, minus a penalty on every token."""
    out = torch.where(last_of(response), rewards[response], torch.zeros((), dtype=rewards.dtype))
    return out if penalty is None else out - penalty


def generalised_advantages(
    rewards: Float[Tensor, " tokens"],
    values: Float[Tensor, " tokens"],
    response: Int[Tensor, " tokens"],
    *,
    gamma: float = 1.0,
    decay: float | Float[Tensor, " responses"] = 0.95,
    bootstrap: Float[Tensor, " responses"] | None = None,
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
    """GAE (arXiv 1506.02438, Eq. 16): advantages and returns (advantage + value) of every token.

    delta_t = r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma decay A_{t+1}; after the last token V is 0, or `bootstrap`
    (for responses that the length limit cut). All responses advance together, one step a token of the longest.
    """
    counts = torch.bincount(response, minlength=int(response.max()) + 1 if len(response) else 0)
    rows, width = len(counts), int(counts.max()) if len(counts) else 0
    place = torch.arange(len(response)) - (counts.cumsum(0) - counts)[response]
    padded_rewards = rewards.new_zeros(rows, width + 1)
    padded_values = rewards.new_zeros(rows, width + 1)
    padded_rewards[response, place], padded_values[response, place] = rewards, values
    if bootstrap is not None:
        padded_values[torch.arange(rows), counts] = bootstrap.to(rewards.dtype)
    advantages = rewards.new_zeros(rows, width + 1)
    for at in reversed(range(width)):
        inside = (at < counts).to(rewards.dtype)
        delta = padded_rewards[:, at] + gamma * padded_values[:, at + 1] - padded_values[:, at]
        advantages[:, at] = inside * (delta + gamma * decay * advantages[:, at + 1])
    found = advantages[response, place]
    return found, found + values


def whitened(
    values: Float[Tensor, " n"], *, shift: bool = True, mask: Bool[Tensor, " n"] | None = None
) -> Float[Tensor, " n"]:
    """Values with variance 1 (biased), and mean 0 where `shift`; statistics over `mask` (all by default)."""
    counted = values if mask is None else values[mask]
    if not len(counted):
        return values
    mean, variance = counted.mean(), counted.var(correction=0)
    out = (values - mean) * torch.rsqrt(variance + 1e-8)
    return out if shift else out + mean


def leave_one_out(
    rewards: Float[Tensor, " responses"], group: Int[Tensor, " responses"]
) -> Float[Tensor, " responses"]:
    """RLOO (arXiv 2402.14740): the reward minus the mean of the prompt's other responses; 0 for a lone response."""
    count, total = _of_groups(rewards, group)
    others = (count[group] - 1).clamp(min=1)
    return torch.where(count[group] > 1, rewards - (total[group] - rewards) / others, torch.zeros_like(rewards))


def group_normalised(
    rewards: Float[Tensor, " responses"], group: Int[Tensor, " responses"], *, scale: bool = True, epsilon: float = 1e-4
) -> Float[Tensor, " responses"]:
    """GRPO (arXiv 2402.03300): the reward minus its prompt's mean, over the prompt's standard deviation (n - 1)."""
    count, total = _of_groups(rewards, group)
    centred = rewards - (total / count.clamp(min=1))[group]
    if not scale:
        return centred
    squares = torch.zeros_like(total).index_add(0, group, centred.square())
    deviation = (squares / (count - 1).clamp(min=1)).sqrt()
    return centred / (deviation[group] + epsilon)


def silent_groups(rewards: Float[Tensor, " responses"], group: Int[Tensor, " responses"]) -> Bool[Tensor, " groups"]:
    """The prompts with several responses whose rewards are all equal: their advantage is zero."""
    groups = int(group.max()) + 1 if len(group) else 0
    low = rewards.new_full((groups,), torch.inf).scatter_reduce(0, group, rewards, "amin")
    high = rewards.new_full((groups,), -torch.inf).scatter_reduce(0, group, rewards, "amax")
    return (torch.bincount(group, minlength=groups) > 1) & (low == high)


def _of_groups(values: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    groups = int(group.max()) + 1 if len(group) else 0
    count = torch.bincount(group, minlength=groups).to(values.dtype)
    return count, values.new_zeros(groups).index_add(0, group, values)
