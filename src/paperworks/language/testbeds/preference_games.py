"""Preference games small enough to solve: a judge's win probabilities between a few answers, a reference policy.

Two players answer, the judge says who wins. Where preferences run in circles no scalar reward explains them, and the
natural solution is the Nash equilibrium, plain or regularised by the divergence from the reference. Here equilibria are
computed to 1e-10 and a policy's exploitability is a finite sum. All games (and grid points before them) are one batched
program in float64. Policies are tables of log-probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.core.seeding import torch_generator
from paperworks.language.testbeds.newton import minimise

Kind = Literal["transitive", "cycle", "random", "random-cycle"]
KINDS: tuple[Kind, ...] = get_args(Kind)

CYCLE_STRENGTH = 0.4  # in a planted cycle each answer beats the next with probability 1/2 + this
COMPLEMENTARY = 1e-6  # how far P + P^T may be from 1
MAX_ITERATIONS = 100_000


@dataclass(frozen=True)
class PreferenceGames:
    """Symmetric games, one a row. Raises OptionError where P + P^T is not 1 or shapes do not fit.

    Policies have shape [*points, games, actions], so that grid points share the games.
    """

    preference: Float[Tensor, "games actions actions"]  # P(row answer preferred to column answer)
    log_reference: Float[Tensor, "games actions"]

    def __post_init__(self) -> None:
        p, reference = self.preference, self.log_reference
        if p.ndim != 3 or p.shape[1] != p.shape[2] or reference.shape != p.shape[:2]:
            raise OptionError(
                f"preference games: expected matrices [games, n, n] and references [games, n], found {tuple(p.shape)} "
                f"and {tuple(reference.shape)}"
            )
        gap = (p + p.mT - 1).abs().max().item()
        if not gap <= COMPLEMENTARY:
            raise OptionError(
                f"preference games: P(a > b) + P(b > a) is {gap:.3g} away from 1; average the judge over both orders"
            )

    def repeated(self, times: int) -> PreferenceGames:
        """Every game `times` over, copies beside one another."""
        return PreferenceGames(
            self.preference.repeat_interleave(times, dim=0), self.log_reference.repeat_interleave(times, dim=0)
        )

    def against(self, log_opponent: Float[Tensor, "*points games actions"]) -> Float[Tensor, "*points games actions"]:
        """P(y > opponent), the win rate of every answer."""
        return (self.preference @ log_opponent.exp()[..., None])[..., 0]

    def win_rate(
        self, log_policy: Float[Tensor, "*points games actions"], log_opponent: Float[Tensor, "*points games actions"]
    ) -> Float[Tensor, "*points games"]:
        """P(policy > opponent)."""
        return (log_policy.exp() * self.against(log_opponent)).sum(-1)

    def kl(self, log_policy: Float[Tensor, "*points games actions"]) -> Float[Tensor, "*points games"]:
        """KL(policy || reference) in nats."""
        return divergence(log_policy, self.log_reference)

    def mixture(
        self, log_policy: Float[Tensor, "*points games actions"], weight: float
    ) -> Float[Tensor, "*points games actions"]:
        """The geometric mixture, proportional to policy^(1 - weight) reference^weight."""
        return torch.log_softmax((1 - weight) * log_policy + weight * self.log_reference, dim=-1)

    def soft_best_response(
        self, log_opponent: Float[Tensor, "*points games actions"], tau: float
    ) -> Float[Tensor, "*points games actions"]:
        """The policy that maximises P(policy > opponent) - tau KL(policy || reference)."""
        return torch.log_softmax(self.log_reference + self.against(log_opponent) / tau, dim=-1)

    def exploitability(self, log_policy: Float[Tensor, "*points games actions"]) -> Float[Tensor, "*points games"]:
        """max_y P(y > policy) - 1/2: 0 at the equilibrium of the plain game, never negative."""
        return self.against(log_policy).amax(-1) - 0.5

    def regularised_exploitability(
        self, log_policy: Float[Tensor, "*points games actions"], tau: float
    ) -> Float[Tensor, "*points games"]:
        """max_pi' p_tau(pi' > policy) - 1/2 with p_tau(pi > pi') = P(pi > pi') - tau KL(pi) + tau KL(pi'); 0 at the Nash."""
        best = tau * torch.logsumexp(self.log_reference + self.against(log_policy) / tau, dim=-1)
        return best + tau * self.kl(log_policy) - 0.5

    def equilibrium(self, tau: float, *, tolerance: float = 1e-10) -> Float[Tensor, "games actions"]:
        """log of the regularised Nash equilibrium, pi = pi_ref exp(P(y > pi) / tau) / Z.

        Extragradient with entropic proximal steps (Cen et al. 2021, arXiv 2105.15186), until every log-probability is
        within `tolerance` of that of the soft best response. Raises OptionError where it does not get there.
        """
        step = 1.0  # 1 / (2 max|P - 1/2|), the largest for which it contracts
        policy = self.log_reference

        def proximal(win_rates: Tensor) -> Tensor:
            return torch.log_softmax(
                (policy + step * (win_rates + tau * self.log_reference)) / (1 + step * tau), dim=-1
            )

        for _ in range(MAX_ITERATIONS):
            if (policy - self.soft_best_response(policy, tau)).abs().max() <= tolerance:
                return policy
            policy = proximal(self.against(proximal(self.against(policy))))
        raise OptionError(f"preference games: no equilibrium at tau={tau:g} within {tolerance:g}; use a larger tau")

    def bradley_terry(
        self,
        weight: Float[Tensor, "*points games actions actions"] | None = None,
        *,
        ridge: float = 0.0,
        start: Float[Tensor, "*points games actions"] | None = None,
    ) -> Float[Tensor, "*points games actions"]:
        """Rewards (mean 0) whose sigmoid of differences fits the judge best on pairs drawn with frequency `weight`.

        All pairs alike by default. The fit is the logistic regression of a reward model with the judge's probabilities
        as labels, exact (Newton); `ridge` / 2 |r|^2 is added.
        """
        actions = self.preference.shape[-1]
        first, second = torch.triu_indices(actions, actions, offset=1)
        label = self.preference[..., first, second]
        frequency = torch.ones_like(label) if weight is None else (weight + weight.mT)[..., first, second]
        frequency = frequency / frequency.sum(-1, keepdim=True)
        shape = (*frequency.shape[:-1], self.preference.shape[-1])
        label, frequency = (each.expand(*shape[:-1], -1).reshape(-1, len(first)) for each in (label, frequency))

        def loss(reward: Float[Tensor, "problems unknowns"]) -> Float[Tensor, " problems"]:
            margin = reward[:, first] - reward[:, second]
            likelihood = torch.nn.functional.softplus(margin) - label * margin
            return (frequency * likelihood).sum(-1) + 0.5 * ridge * reward.square().sum(-1)

        begin = torch.zeros(shape, dtype=label.dtype) if start is None else start
        found = minimise(loss, begin.reshape(-1, shape[-1]), tolerance=1e-9, max_steps=100).point.reshape(shape)
        return found - found.mean(-1, keepdim=True)

    def tilted(
        self, reward: Float[Tensor, "*points games actions"], beta: float
    ) -> Float[Tensor, "*points games actions"]:
        """log of the optimum of E[reward] - beta KL: pi_ref exp(reward / beta) / Z, what RLHF aims at."""
        return torch.log_softmax(self.log_reference + reward / beta, dim=-1)


def divergence(
    log_policy: Float[Tensor, "*points actions"], log_other: Float[Tensor, "*points actions"]
) -> Float[Tensor, "*points"]:
    """KL(policy || other) in nats, where the policy may have answers of probability 0."""
    return torch.where(log_policy > -torch.inf, log_policy.exp() * (log_policy - log_other), 0.0).sum(-1)


def make_games(seeds: Sequence[int], kind: Kind, *, actions: int = 10) -> PreferenceGames:
    """A game a seed, with a reference of Gaussian logits.

    `transitive`: Bradley-Terry on Gaussian rewards. `random`: P = 1/2 + A, A antisymmetric, uniform in [-1/2, 1/2].
    `cycle` and `random-cycle`: those with the three answers of highest mean win rate planted in a circle. Raises
    OptionError for another kind or fewer than three actions.
    """
    if kind not in KINDS:
        raise OptionError(f"option kind={kind}: expected one of {', '.join(KINDS)}")
    if actions < 3:
        raise OptionError(f"option actions={actions}: expected 3 or more; with two, no opponent changes which one wins")
    preferences, references = [], []
    for seed in seeds:
        generator = torch_generator("preference game", seed)
        reference, reward = torch.randn(2, actions, generator=generator, dtype=torch.float64)
        uniform = torch.rand(actions, actions, generator=generator, dtype=torch.float64)
        if kind in ("transitive", "cycle"):
            preference = torch.sigmoid(reward[:, None] - reward[None, :])
        else:
            upper = torch.triu(uniform - 0.5, diagonal=1)
            preference = 0.5 + upper - upper.T
        if kind in ("cycle", "random-cycle"):
            preference = planted_cycle(preference)
        preferences.append(preference)
        references.append(torch.log_softmax(reference, dim=-1))
    return PreferenceGames(torch.stack(preferences), torch.stack(references))


def planted_cycle(
    preference: Float[Tensor, "actions actions"], strength: float = CYCLE_STRENGTH
) -> Float[Tensor, "actions actions"]:
    """The matrix with its three best answers (by mean win rate) beating one another in a circle."""
    best = preference.mean(-1).argsort(descending=True)[:3]
    changed = preference.clone()
    for winner, loser in zip(best, best.roll(-1), strict=True):
        changed[winner, loser], changed[loser, winner] = 0.5 + strength, 0.5 - strength
    return changed
