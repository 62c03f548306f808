"""Learning a preference game by gradient descent on tabular policies: exact expected gradients, or sampled pairs.

A rule says where the two answers of a pair are drawn and what their frequencies mean for the loss. Exact training gives
it the expected frequencies of all pairs, sampled training counts of a batch: the same loss, the same code. Drawing
carries no gradient. What pair objectives see are ordinary ResponseLogps, an answer being a response of one token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.seeding import torch_generator
from paperworks.language.objectives.objective import PairObjective, ResponseLogps
from paperworks.language.objectives.soft_preferences import JudgedPairLogps
from paperworks.language.testbeds.preference_games import PreferenceGames

BLOCK = 50  # steps whose random numbers are drawn at once

Policies = Float[Tensor, "*points games actions"]
Frequencies = Float[Tensor, "*points games actions actions"]  # of (first answer, second answer); sums to 1


class Rule(Protocol):
    """How a policy learns from pairs."""

    @property
    def hard_labels(self) -> bool:
        """Whether the rule sees only who won; frequencies are then of (winner, loser)."""
        ...

    def samplers(self, games: PreferenceGames, log_policy: Policies) -> tuple[Policies, Policies]:
        """The policies that the first and the second answer are drawn from."""
        ...

    def loss(
        self, games: PreferenceGames, log_policy: Policies, frequency: Frequencies
    ) -> Float[Tensor, "*points games"]:
        """The loss of every game; its gradient is that of the log-policy alone."""
        ...


@dataclass(frozen=True)
class PairRule:
    """A pair objective on two independent answers of the mixture policy^(1 - b) reference^b: b = 0 online, 1 offline."""

    objective: PairObjective
    mixture: float = 0.0
    hard_labels: bool = False

    def samplers(self, games: PreferenceGames, log_policy: Policies) -> tuple[Policies, Policies]:
        both = games.mixture(log_policy, self.mixture)
        return both, both

    def loss(
        self, games: PreferenceGames, log_policy: Policies, frequency: Frequencies
    ) -> Float[Tensor, "*points games"]:
        def scores(first: bool) -> ResponseLogps:
            policy, reference = (
                (each[..., :, None] if first else each[..., None, :]).expand_as(frequency).flatten()
                for each in (log_policy, games.log_reference)
            )
            return ResponseLogps(policy, torch.ones_like(policy).detach(), reference)

        label = None if self.hard_labels else games.preference.expand_as(frequency).flatten()
        chosen = scores(True)
        batch = JudgedPairLogps(chosen, scores(False), torch.ones_like(chosen.policy).detach(), None, label)
        return (frequency * self.objective.loss(batch).reshape(frequency.shape)).sum((-1, -2))


@dataclass(frozen=True)
class NashMDPG:
    """Nash-MD's policy gradient (arXiv 2312.00886): y of the policy against y' of the mixture with the reference.

    Ascends sg[P(y > y') - 1/2 - tau h(y)] log pi(y), h the log-ratio to the reference. mixture=0 is self-play.
    """

    tau: float
    mixture: float = 0.0
    hard_labels: bool = False

    def samplers(self, games: PreferenceGames, log_policy: Policies) -> tuple[Policies, Policies]:
        return log_policy, games.mixture(log_policy, self.mixture)

    def loss(
        self, games: PreferenceGames, log_policy: Policies, frequency: Frequencies
    ) -> Float[Tensor, "*points games"]:
        log_ratio = (log_policy - games.log_reference).detach()
        value = games.preference - 0.5 - self.tau * log_ratio[..., :, None]
        return -(frequency * value * log_policy[..., :, None]).sum((-1, -2))


@dataclass(frozen=True)
class RewardPG:
    """RLHF's policy gradient on a reward model: ascends E[r] - beta KL, with the batch's mean return as the baseline."""

    reward: Float[Tensor, "games actions"]
    beta: float
    hard_labels: bool = False

    def samplers(self, games: PreferenceGames, log_policy: Policies) -> tuple[Policies, Policies]:
        return log_policy, log_policy

    def loss(
        self, games: PreferenceGames, log_policy: Policies, frequency: Frequencies
    ) -> Float[Tensor, "*points games"]:
        frequency = 0.5 * (frequency.sum(-1) + frequency.sum(-2))  # both answers of a pair count
        returns = (self.reward - self.beta * (log_policy - games.log_reference)).detach()
        advantage = returns - (frequency * returns).sum(-1, keepdim=True)
        return -(frequency * advantage * log_policy).sum(-1)


class SampleStream:
    """Random numbers for `batch` pairs a step, a stream a game and replicate, the same whatever the policy is.

    Games are those of `PreferenceGames.repeated(replicates)`: a seed's replicates stand beside one another.
    """

    def __init__(self, seeds: Sequence[int], batch: int, replicates: int) -> None:
        self._generators = [torch_generator("preference game samples", seed) for seed in seeds]
        self._shape = (replicates, 3, batch)
        self._block: list[Tensor] = []
        self.batch = batch

    def uniform(self) -> Float[Tensor, "3 games batch"]:
        """The next step's numbers: for the first answers, the second ones, and who wins."""
        if not self._block:
            drawn = [torch.rand(BLOCK, *self._shape, generator=each) for each in self._generators]
            self._block = list(torch.cat(drawn, dim=1).permute(0, 2, 1, 3).double())[::-1]
        return self._block.pop()

    def frequencies(self, games: PreferenceGames, rule: Rule, log_policy: Policies) -> Frequencies:
        """Shares of the pairs drawn for one step."""
        to_first, to_second, to_label = self.uniform()
        first, second = (
            _drawn(sampler, uniform)
            for sampler, uniform in zip(rule.samplers(games, log_policy), (to_first, to_second), strict=True)
        )
        actions = log_policy.shape[-1]
        if rule.hard_labels:
            table = games.preference.flatten(1).expand(*first.shape[:-1], -1)
            first_wins = to_label < table.gather(-1, first * actions + second)
            first, second = torch.where(first_wins, first, second), torch.where(first_wins, second, first)
        counts = torch.zeros(*first.shape[:-1], actions**2, dtype=log_policy.dtype)
        counts.scatter_add_(-1, first * actions + second, torch.ones(first.shape, dtype=counts.dtype))
        return counts.unflatten(-1, (actions, actions)) / self.batch


def _drawn(log_sampler: Policies, uniform: Float[Tensor, "games batch"]) -> Tensor:
    cumulative = log_sampler.exp().cumsum(-1)
    uniform = uniform.expand(*cumulative.shape[:-1], -1).contiguous()
    return torch.searchsorted(cumulative, uniform).clamp(max=cumulative.shape[-1] - 1)


def expected_frequencies(games: PreferenceGames, rule: Rule, log_policy: Policies) -> Frequencies:
    """The probability of every (first, second) answer, or with hard labels of every (winner, loser)."""
    first, second = (sampler.exp() for sampler in rule.samplers(games, log_policy))
    both = first[..., :, None] * second[..., None, :]
    return games.preference * (both + both.mT) if rule.hard_labels else both


def exact_gradient(games: PreferenceGames, rule: Rule, logits: Policies) -> Policies:
    """The expected gradient of the rule's loss with respect to the policy's logits."""
    return _gradient(games, rule, logits, expected_frequencies)


def _gradient(
    games: PreferenceGames,
    rule: Rule,
    logits: Policies,
    frequencies: Callable[[PreferenceGames, Rule, Policies], Frequencies],
) -> Policies:
    logits = logits.detach().requires_grad_(True)
    log_policy = torch.log_softmax(logits, dim=-1)
    with torch.no_grad():
        frequency = frequencies(games, rule, log_policy)
    (gradient,) = torch.autograd.grad(rule.loss(games, log_policy, frequency).sum(), logits)
    return gradient


@dataclass(frozen=True)
class Course:
    """Log-policies over training, one a checkpoint; grid points are learning rates."""

    steps: tuple[int, ...]
    log_policies: Float[Tensor, "checkpoints rates games actions"]

    @property
    def last(self) -> Float[Tensor, "rates games actions"]:
        return self.log_policies[-1]


def learn(
    games: PreferenceGames,
    rule: Rule,
    learning_rates: Sequence[float],
    *,
    steps: int,
    samples: SampleStream | None = None,
    checkpoints: int = 20,
) -> Course:
    """Gradient descent on the logits from the reference, at every learning rate, falling linearly to 0.

    Exact expected gradients, or those of pairs drawn from `samples`, a new batch every step. Policies are kept at the
    start and at `checkpoints` evenly spaced steps. One that diverges is NaN.
    """
    rates = torch.tensor(learning_rates, dtype=games.preference.dtype)[:, None, None]
    logits = games.log_reference.expand(len(learning_rates), -1, -1).clone()
    frequencies = expected_frequencies if samples is None else samples.frequencies
    at = sorted({round(index * steps / checkpoints) for index in range(checkpoints + 1)})
    kept = []
    for step in range(steps + 1):
        if step in at:
            kept.append(torch.log_softmax(logits, dim=-1))
        if step < steps:
            logits = logits - (1 - step / steps) * rates * _gradient(games, rule, logits, frequencies)
    return Course(tuple(at), torch.stack(kept))
