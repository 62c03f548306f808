"""Log-linear policies on noisy preferences: the setting in which the theory of DPO is proved.

A policy is softmax(phi . theta) over the actions of a context; the reference is uniform; the reward is linear, so
that the optimum of the KL-regularised value is in the family and every policy's value is a finite sum. All seeds are
one batched tensor program, and fits are exact (Newton). What an objective sees are ordinary ResponseLogps, as in a
language model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.core.seeding import torch_generator
from paperworks.language.objectives.objective import PairLogps, PairObjective, ResponseLogps
from paperworks.language.testbeds.independent import losses_of_problems
from paperworks.language.testbeds.newton import minimise

GRADIENT_TOLERANCE = 1e-8  # largest entry of the gradient at which a fit counts as exact


@dataclass(frozen=True)
class LogLinearWorld:
    """Contexts, actions and the reward's direction, one world a seed.

    The reward is beta * phi . theta_star, so that theta_star is also the optimal policy's parameter at that beta.
    """

    features: Float[Tensor, "seeds contexts actions dimensions"]
    theta_star: Float[Tensor, "seeds dimensions"]
    beta: float

    @property
    def reward(self) -> Float[Tensor, "seeds contexts actions"]:
        """The true reward of every action."""
        return self.beta * self._linear(self.theta_star)

    def log_policy(self, theta: Float[Tensor, "seeds dimensions"]) -> Float[Tensor, "seeds contexts actions"]:
        """log pi(action | context) with these parameters."""
        return torch.log_softmax(self._linear(theta), dim=-1)

    def log_reference(self) -> Float[Tensor, "seeds contexts actions"]:
        """The uniform reference."""
        seeds, contexts, actions, _ = self.features.shape
        return self.features.new_full((seeds, contexts, actions), -math.log(actions))

    def value(self, theta: Float[Tensor, "seeds dimensions"]) -> Float[Tensor, " seeds"]:
        """J = E[reward] - beta KL(pi || uniform), the mean over contexts."""
        logp = self.log_policy(theta)
        per_action = self.reward - self.beta * (logp - self.log_reference())
        return (logp.exp() * per_action).sum(-1).mean(-1)

    def value_gap(self, theta: Float[Tensor, "seeds dimensions"]) -> Float[Tensor, " seeds"]:
        """J of the optimal policy minus J of this one; never negative."""
        return self.value(self.theta_star) - self.value(theta)

    def parameter_error(self, theta: Float[Tensor, "seeds dimensions"]) -> Float[Tensor, " seeds"]:
        """Euclidean distance of theta from theta_star."""
        return (theta - self.theta_star).norm(dim=-1)

    def _linear(self, theta: Tensor) -> Tensor:
        return torch.einsum("scad,sd->sca", self.features, theta)


@dataclass(frozen=True)
class ActionPairs:
    """Preference pairs: two actions of a context, with the true (Bradley-Terry) order and whether the label is flipped."""

    context: Int[Tensor, "seeds pairs"]
    preferred: Int[Tensor, "seeds pairs"]
    other: Int[Tensor, "seeds pairs"]
    flip_threshold: Float[
        Tensor, "seeds pairs"
    ]  # uniform in [0, 1): the label is flipped where it is below the flip rate

    def labelled(self, flip_rate: float) -> tuple[Int[Tensor, "seeds pairs"], Int[Tensor, "seeds pairs"]]:
        """(chosen, rejected) after flips. A pair flipped at a lower rate is also flipped at every higher one."""
        if not 0 <= flip_rate < 1:
            raise OptionError(f"option flip_rate={flip_rate}: expected a number in [0, 1)")
        flip = self.flip_threshold < flip_rate
        return torch.where(flip, self.other, self.preferred), torch.where(flip, self.preferred, self.other)


def make_world(
    seeds: Sequence[int],
    *,
    contexts: int = 200,
    actions: int = 16,
    dimensions: int = 8,
    norm: float = 4.0,
    beta: float = 1.0,
) -> LogLinearWorld:
    """Worlds with features N(0, I / dimensions) and theta_star in a uniform direction with the given norm."""
    features, directions = [], []
    for seed in seeds:
        generator = torch_generator("log-linear world", seed)
        shape = (contexts, actions, dimensions)
        features.append(torch.randn(shape, generator=generator, dtype=torch.float64) / dimensions**0.5)
        directions.append(torch.randn(dimensions, generator=generator, dtype=torch.float64))
    theta_star = torch.stack(directions)
    return LogLinearWorld(torch.stack(features), norm * theta_star / theta_star.norm(dim=-1, keepdim=True), beta)


def draw_pairs(world: LogLinearWorld, seeds: Sequence[int], count: int, *, stream: str = "training") -> ActionPairs:
    """`count` pairs a seed: a uniform context, two different uniform actions, a Bradley-Terry label on the true reward.

    Streams with different names are independent; the first pairs of a longer draw are not those of a shorter one.
    """
    drawn = []
    contexts, actions = world.features.shape[1:3]
    for index, seed in enumerate(seeds):
        generator = torch_generator("log-linear pairs", stream, seed)
        context = torch.randint(contexts, (count,), generator=generator)
        first = torch.randint(actions, (count,), generator=generator)
        second = (first + 1 + torch.randint(actions - 1, (count,), generator=generator)) % actions
        reward = world.reward[index]
        margin = reward[context, first] - reward[context, second]
        uniform = torch.rand(2, count, generator=generator, dtype=torch.float64)
        first_wins = uniform[0] < torch.sigmoid(margin)
        preferred = torch.where(first_wins, first, second)
        other = torch.where(first_wins, second, first)
        drawn.append((context, preferred, other, uniform[1]))
    return ActionPairs(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))


def mean_loss(
    world: LogLinearWorld,
    theta: Float[Tensor, "seeds dimensions"],
    objective: PairObjective,
    pairs: ActionPairs,
    flip_rate: float,
) -> Float[Tensor, " seeds"]:
    """The objective's mean over each seed's labelled pairs."""
    seed = torch.arange(len(theta))[:, None]
    logp, reference = world.log_policy(theta), world.log_reference()

    def scores(action: Tensor) -> ResponseLogps:  # an action is a response of one token
        policy = logp[seed, pairs.context, action].flatten()
        return ResponseLogps(policy, torch.ones_like(policy), reference[seed, pairs.context, action].flatten())

    chosen, rejected = (scores(action) for action in pairs.labelled(flip_rate))
    batch = PairLogps(chosen, rejected, torch.ones_like(chosen.policy))
    return losses_of_problems(objective, batch, len(theta))


@dataclass(frozen=True)
class Fit:
    """Parameters that minimise the regularised loss, and how exactly they do."""

    theta: Float[Tensor, "seeds dimensions"]
    gradient_norm: Float[Tensor, " seeds"]


def fit(
    world: LogLinearWorld, objective: PairObjective, pairs: ActionPairs, *, flip_rate: float = 0.0, ridge: float = 1e-4
) -> Fit:
    """Minimise mean loss + ridge / 2 |theta|^2 from theta = 0, to a gradient of at most 1e-8 where there is a minimum."""

    def loss(theta: Tensor) -> Tensor:
        return mean_loss(world, theta, objective, pairs, flip_rate) + 0.5 * ridge * theta.square().sum(-1)

    minimum = minimise(loss, torch.zeros_like(world.theta_star), tolerance=GRADIENT_TOLERANCE)
    return Fit(minimum.point, minimum.gradient_norm)


def best_by(
    world: LogLinearWorld,
    candidates: Sequence[Fit],
    criterion: PairObjective,
    validation: ActionPairs,
    flip_rate: float,
) -> tuple[Fit, Int[Tensor, " seeds"]]:
    """For each seed the candidate with the lowest mean criterion on (noisy) validation pairs, and its index."""
    losses = torch.stack(
        [mean_loss(world, candidate.theta, criterion, validation, flip_rate) for candidate in candidates]
    )
    index = losses.argmin(0)
    seeds = torch.arange(len(index))
    theta = torch.stack([candidate.theta for candidate in candidates])[index, seeds]
    gradient_norm = torch.stack([candidate.gradient_norm for candidate in candidates])[index, seeds]
    return Fit(theta, gradient_norm), index


def calibration_error(world: LogLinearWorld, theta: Float[Tensor, "seeds dimensions"]) -> Float[Tensor, " seeds"]:
    """Mean |predicted - true| preference probability over all pairs of actions; prediction: the implicit reward at beta."""
    predicted = world.beta * (world.log_policy(theta) - world.log_reference())
    return (_preference(predicted) - _preference(world.reward)).abs().mean((-1, -2, -3))


def pair_accuracy(world: LogLinearWorld, theta: Float[Tensor, "seeds dimensions"]) -> Float[Tensor, " seeds"]:
    """Share of pairs of different actions that the policy ranks as the true reward does."""
    first, second = torch.triu_indices(world.features.shape[2], world.features.shape[2], offset=1)
    ranked, true = world.log_policy(theta), world.reward
    agree: Bool[Tensor, "seeds contexts pairs"] = (ranked[..., first] > ranked[..., second]) == (
        true[..., first] > true[..., second]
    )
    return agree.double().mean((-1, -2))


def _preference(score: Tensor) -> Tensor:
    return torch.sigmoid(score[..., :, None] - score[..., None, :])
