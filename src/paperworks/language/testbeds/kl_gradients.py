"""Estimators of the gradient of a sequence's KL to its reference, their bias and variance by enumeration.

Every response of a token MDP is enumerated, so that expectations are sums: nothing is sampled, and the variance of an
estimator from k samples is that of a U-statistic. Gradients are in the policy's table of logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.language.testbeds.exact import TokenMDP

Estimator = Literal["rloo", "none", "token-exact", "token-score", "detached-mean"]
"""`rloo`: score times the log-ratio less the mean of the other samples'. `none`: the same without baseline.
`token-exact`: gradient of the sum of the tokens' KLs over the vocabulary along a sample, its prefixes as given.
`token-score`: each token's score times its own log-ratio alone. `detached-mean`: gradient of the mean log-ratio itself."""


@dataclass(frozen=True)
class Quality:
    """How an estimator does, relative to the size of the exact gradient."""

    bias: float  # |expected - exact| / |exact|
    variance: float  # total variance / |exact|^2


def exact_gradient(mdp: TokenMDP, logits: Float[Tensor, "prefixes tokens"]) -> Float[Tensor, " parameters"]:
    """d KL(pi || pi_ref) / d logits, by differentiating the enumerated sum."""
    logits = logits.detach().clone().requires_grad_()
    return torch.autograd.grad(mdp.kl(mdp.log_probabilities(logits)), logits)[0].flatten()


def scores(mdp: TokenMDP, logits: Float[Tensor, "prefixes tokens"]) -> Float[Tensor, "responses prefixes tokens"]:
    """d log pi(y) / d logits of every response."""
    visited = mdp.visits.sum(-1, keepdim=True)
    return mdp.visits - visited * torch.softmax(logits, dim=-1)


def quality(mdp: TokenMDP, logits: Float[Tensor, "prefixes tokens"], estimator: Estimator, k: int) -> Quality:
    """Bias and variance of the estimate from k samples. Raises OptionError for k < 1, or k < 2 with rloo."""
    if k < (2 if estimator == "rloo" else 1):
        raise OptionError(f"k={k} samples: {estimator} needs {2 if estimator == 'rloo' else 1} or more")
    logits = logits.detach()
    probability = mdp.log_probabilities(logits).exp()
    exact = exact_gradient(mdp, logits)
    if estimator == "rloo":
        expected, variance = _of_pairs(mdp, logits, probability, k)
    else:
        each = SINGLE[estimator](mdp, logits).flatten(1)  # an estimate a response
        expected = probability @ each
        variance = float(probability @ (each - expected).square().sum(-1)) / k
    size = float(exact.square().sum())
    return Quality(float((expected - exact).norm()) / size**0.5, variance / size)


def _of_pairs(mdp: TokenMDP, logits: Tensor, probability: Tensor, k: int) -> tuple[Tensor, float]:
    """Expectation and variance of RLOO, the mean over pairs of samples of g = (s_a - s_b)(h_a - h_b) / 2.

    For a mean over pairs of k samples, Hoeffding: Var = 2 / (k (k-1)) (2 (k-2) Var E[g | a] + Var g).
    """
    score, ratio = scores(mdp, logits).flatten(1), mdp.log_probabilities(logits) - mdp.reference
    centred = ratio - probability @ ratio
    of_one = 0.5 * (score * centred[:, None] + probability @ (score * centred[:, None]))  # E[g | a]; E[s] = 0
    expected = probability @ of_one
    of_first = float(probability @ (of_one - expected).square().sum(-1))
    # E|g|^2 = E[|s_a - s_b|^2 (h_a - h_b)^2] / 4
    squares = score.square().sum(-1)
    distance = squares[:, None] + squares[None, :] - 2 * score @ score.T
    gaps = (ratio[:, None] - ratio[None, :]).square()
    of_pair = float(probability @ (distance * gaps) @ probability) / 4 - float(expected.square().sum())
    return expected, 2 / (k * (k - 1)) * (2 * (k - 2) * of_first + of_pair)


def _without_baseline(mdp: TokenMDP, logits: Tensor) -> Tensor:
    return scores(mdp, logits) * (mdp.log_probabilities(logits) - mdp.reference)[:, None, None]


def _token_exact(mdp: TokenMDP, logits: Tensor) -> Tensor:
    logits = logits.clone().requires_grad_()
    logp = torch.log_softmax(logits, dim=-1)
    of_prefix = (logp.exp() * (logp - torch.log_softmax(mdp.reference_logits, dim=-1))).sum(-1)
    gradient = torch.autograd.grad(of_prefix.sum(), logits)[0]
    return mdp.visits.sum(-1, keepdim=True) * gradient


def _token_score(mdp: TokenMDP, logits: Tensor) -> Tensor:
    ratio = torch.log_softmax(logits, dim=-1) - torch.log_softmax(mdp.reference_logits, dim=-1)
    taken = (mdp.visits * ratio).sum(-1, keepdim=True)  # the log-ratio of the token taken after each prefix
    return taken * scores(mdp, logits)


SINGLE: Mapping[str, Callable[[TokenMDP, Tensor], Tensor]] = {
    "none": _without_baseline,
    "token-exact": _token_exact,
    "token-score": _token_score,
    "detached-mean": scores,
}
"""What one sample gives, of the estimators that average over samples."""
