"""Unlearning where everything is known: logistic regression on random features, with data to forget and data to keep.

The model before unlearning is fitted to all data, the gold one to the data to keep alone; how well a model has
forgotten is its divergence from the gold one on fresh inputs (Zhang et al. 2024, arXiv 2404.05868, synthetic study).
Gradients are written down, not recorded; all seeds and learning rates move as one tensor. Nothing is sampled while
unlearning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from paperworks.core.errors import OptionError, did_you_mean
from paperworks.core.seeding import torch_generator

ForgetTerm = Literal["ga", "npo", "idk", "dpo", "kto"]
RetainTerm = Literal["none", "rt", "kl"]

DIMENSIONS, FEATURES = 16, 128
RETAIN, FORGET, FRESH = 1000, 200, 1000  # examples of each kind; FRESH of each distribution measure
RIDGE = 5e-4
"""What keeps the two fits finite. The paper's code fits by 20000 gradient steps of 0.05, which leave directions of little
curvature where they began, about as this ridge does: the fits' norms are the same to 3%, and Newton's method has them at
once."""


@dataclass(frozen=True)
class Examples:
    """Inputs after the fixed random features, and their labels as signs: log p(label | input) = log sigmoid(sign * logit)."""

    features: Float[Tensor, "seeds examples features"]
    sign: Float[Tensor, "seeds examples"]

    def logits(self, weights: Float[Tensor, "seeds rates features"]) -> Float[Tensor, "seeds rates examples"]:
        """The model's logit of every example, at every learning rate."""
        return weights @ self.features.mT  # weights as rows: with them as columns this is several times slower

    def gradient(self, slopes: Float[Tensor, "seeds rates examples"]) -> Float[Tensor, "seeds rates features"]:
        """The gradient with respect to the weights of a mean over examples whose slopes in the logit are these."""
        return slopes @ self.features / slopes.shape[-1]


@dataclass(frozen=True)
class ForgetProblem:
    """One world a seed: data, the model fitted to all of them, and the one fitted as if `forget` had never been there."""

    forget: Examples
    retain: Examples
    alternative: Float[Tensor, "seeds forget"]  # a fair coin's label for each example to forget: "I don't know"
    fresh_forget: Examples
    fresh_retain: Examples
    start: Float[Tensor, "seeds features"]
    retrained: Float[Tensor, "seeds features"]

    def divergence(
        self, fresh: Examples, weights: Float[Tensor, "seeds rates features"]
    ) -> Float[Tensor, "seeds rates"]:
        """Mean KL(retrained || model) over fresh inputs, nats."""
        return bernoulli_kl(fresh.logits(self.retrained[:, None]), fresh.logits(weights)).mean(-1)


@dataclass(frozen=True)
class Method:
    """An unlearning loss: what is done with the examples to forget, and what holds the rest."""

    forget: ForgetTerm
    retain: RetainTerm = "none"
    beta: float = 1.0  # of npo, dpo and kto

    def __post_init__(self) -> None:
        for name, value, known in (
            ("forget", self.forget, get_args(ForgetTerm)),
            ("retain", self.retain, get_args(RetainTerm)),
        ):
            if value not in known:
                raise OptionError(f"option {name}={value!r}: no such term{did_you_mean(value, known)}")
        if not self.beta > 0:
            raise OptionError(f"option beta={self.beta}: expected a number above 0")


@dataclass(frozen=True)
class Trajectory:
    """Records along the way of unlearning, the start first."""

    steps: Float[Tensor, " records"]
    forget_kl: Float[Tensor, "records seeds rates"]  # KL(retrained || model) on fresh inputs to forget, nats
    retain_kl: Float[Tensor, "records seeds rates"]
    forget_nll: Float[Tensor, "records seeds rates"]  # of the labels to forget
    distance: Float[Tensor, "records seeds rates"]  # ||a - a0||, how far the weights have moved

    @property
    def total(self) -> Float[Tensor, "records seeds rates"]:
        """Forget KL + retain KL: 0 for the retrained model."""
        return self.forget_kl + self.retain_kl


def make_problem(seeds: Sequence[int], *, alpha: float = 1.0) -> ForgetProblem:
    """Worlds whose inputs to keep are N(-alpha, I) and to forget N(alpha, I): alpha 0 lets them overlap.

    A label is class 0 (sign +1) with logit (x - mean) . 1/sqrt(d) + 1 for data to keep; for data to forget that is the
    logit of class 1.
    """
    worlds = [_world(seed, alpha) for seed in seeds]
    retain, forget, fresh_retain, fresh_forget = (
        Examples(torch.cat([part.features for part in parts]), torch.cat([part.sign for part in parts]))
        for parts in zip(*(sets for sets, _ in worlds), strict=True)
    )
    coin = torch.stack([labels for _, labels in worlds])
    together = Examples(
        torch.cat([retain.features, forget.features], dim=1), torch.cat([retain.sign, forget.sign], dim=1)
    )
    return ForgetProblem(forget, retain, coin, fresh_forget, fresh_retain, _fit(together), _fit(retain))


def unlearn(
    problem: ForgetProblem,
    method: Method,
    rates: Sequence[float],
    *,
    steps: int = 2000,
    record_every: int = 25,
) -> Trajectory:
    """Full-batch gradient descent from the model fitted to all data, at every learning rate beside the others.

    Recorded are every `record_every`-th step and the last.
    """
    rate = torch.tensor(list(rates), dtype=torch.float64)[:, None]
    weights = problem.start[:, None].expand(-1, len(rate), -1).clone()
    slope = _Slopes(problem, method)
    at, records = [], []
    for step in range(steps + 1):
        if step % record_every == 0 or step == steps:
            at.append(step)
            records.append(_record(problem, weights))
        if step < steps:
            weights = weights - rate * slope.at(weights)
    columns = (torch.stack(parts) for parts in zip(*records, strict=True))
    return Trajectory(torch.tensor(at, dtype=torch.float64), *columns)


def forget_slope(
    method: Method, sign: Tensor, alternative: Tensor, reference: Tensor, logit: Tensor
) -> Float[Tensor, ...]:
    """d(loss of an example to forget) / d(its logit), the examples' mean being the loss.

    With l = log p(label), l' its slope and l_ref before unlearning: GA l'; NPO 2 sigmoid(beta (l - l_ref)) l'; IDK minus
    the alternative label's slope; DPO 2 sigmoid(-beta margin) (l' - alternative's); KTO as NPO with the mean
    KL(model || reference) of the examples, held constant, subtracted from l - l_ref.
    """
    towards = sign * torch.sigmoid(-sign * logit)  # raises the label's probability
    if method.forget == "ga":
        return towards
    elsewhere = alternative * torch.sigmoid(-alternative * logit)
    if method.forget == "idk":
        return -elsewhere
    log_ratio = logsigmoid(sign * logit) - logsigmoid(sign * reference)
    if method.forget == "dpo":
        other = logsigmoid(alternative * logit) - logsigmoid(alternative * reference)
        return 2 * torch.sigmoid(-method.beta * (other - log_ratio)) * (towards - elsewhere)
    anchor = bernoulli_kl(logit, reference).mean(-1, keepdim=True) if method.forget == "kto" else 0.0
    return 2 * torch.sigmoid(method.beta * (log_ratio - anchor)) * towards


def bernoulli_kl(of: Tensor, to: Tensor) -> Tensor:
    """KL(sigmoid(of) || sigmoid(to)) of two logits, nats; exact however large they are."""
    yes, no = logsigmoid(of), logsigmoid(-of)
    return yes.exp() * (yes - logsigmoid(to)) + no.exp() * (no - logsigmoid(-to))


class _Slopes:
    """The gradient of a method's loss with respect to the weights; what unlearning does not change is kept."""

    def __init__(self, problem: ForgetProblem, method: Method) -> None:
        self.problem, self.method = problem, method
        start = problem.start[:, None]
        self.forget_reference = problem.forget.logits(start)
        self.retain_reference = problem.retain.logits(start)
        self.sign = problem.forget.sign[:, None]
        self.alternative = problem.alternative[:, None]
        self.retain_sign = problem.retain.sign[:, None]

    def at(self, weights: Float[Tensor, "seeds rates features"]) -> Float[Tensor, "seeds rates features"]:
        forget, retain = self.problem.forget, self.problem.retain
        logit = forget.logits(weights)
        slope = forget_slope(self.method, self.sign, self.alternative, self.forget_reference, logit)
        total = forget.gradient(slope)
        if self.method.retain == "none":
            return total
        logit = retain.logits(weights)
        if self.method.retain == "rt":
            slope = -self.retain_sign * torch.sigmoid(-self.retain_sign * logit)
        else:
            slope = torch.sigmoid(logit) - torch.sigmoid(self.retain_reference)  # of KL(reference || model)
        return total + retain.gradient(slope)


def _record(problem: ForgetProblem, weights: Float[Tensor, "seeds rates features"]) -> tuple[Tensor, ...]:
    logit = problem.forget.logits(weights)
    return (
        problem.divergence(problem.fresh_forget, weights),
        problem.divergence(problem.fresh_retain, weights),
        -logsigmoid(problem.forget.sign[:, None] * logit).mean(-1),
        (weights - problem.start[:, None]).norm(dim=-1),
    )


def _world(seed: int, alpha: float) -> tuple[list[Examples], Float[Tensor, " forget"]]:
    """Examples to retain, to forget, and fresh ones of each; then the coin's labels."""
    generator = torch_generator("forget logistic", seed)
    projection = torch.randn(DIMENSIONS, FEATURES, generator=generator, dtype=torch.float64) / DIMENSIONS**0.5
    sets = [
        _examples(generator, projection, count, mean, direction)
        for count, mean, direction in (
            (RETAIN, -alpha, 1.0),
            (FORGET, alpha, -1.0),
            (FRESH, -alpha, 1.0),
            (FRESH, alpha, -1.0),
        )
    ]
    return sets, _signs(torch.rand(FORGET, generator=generator, dtype=torch.float64) < 0.5)


def _examples(generator: torch.Generator, projection: Tensor, count: int, mean: float, direction: float) -> Examples:
    noise = torch.randn(count, DIMENSIONS, generator=generator, dtype=torch.float64)
    logit = direction * (noise.sum(-1) / DIMENSIONS**0.5 + 1)
    is_first = torch.rand(count, generator=generator, dtype=torch.float64) < torch.sigmoid(logit)
    return Examples(((noise + mean) @ projection).relu()[None], _signs(is_first)[None])


def _signs(is_first: Tensor) -> Tensor:
    return torch.where(is_first, 1.0, -1.0).double()


def _fit(examples: Examples) -> Float[Tensor, "seeds features"]:
    """Minimises each seed's mean loss plus RIDGE / 2 * ||a||^2 by Newton's method, to rounding."""
    features, sign = examples.features, examples.sign
    weights = torch.zeros(len(features), features.shape[-1], dtype=features.dtype)
    ridge = RIDGE * torch.eye(features.shape[-1], dtype=features.dtype)
    for _ in range(20):  # from zero, some eight steps reach rounding
        probability = torch.sigmoid(sign * examples.logits(weights[:, None])[:, 0])
        gradient = examples.gradient((-sign * (1 - probability))[:, None])[:, 0] + RIDGE * weights
        spread = (probability * (1 - probability) / sign.shape[-1])[..., None] * features
        weights = weights - torch.linalg.solve(features.mT @ spread + ridge, gradient)
    return weights
