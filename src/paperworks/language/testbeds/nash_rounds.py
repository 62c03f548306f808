"""Self-improvement in rounds on a preference game: direct Nash optimisation's regression, and rounds by a scalar reward.

Every round makes the next policy from the last one; what counts is how exploitable the uniform mixture of all rounds is.
DNO regresses on win rates against the current policy (`regressed_round` by its objective over all pairs of answers,
`soft_policy_iteration` in closed form). The rounds by reward fit Bradley-Terry rewards to the judge, once or on each
round's own pairs, and take gradient steps of DPO on labels by those rewards. Grid points (eta) are one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.language.objectives.objective import PairObjective, ResponseLogps
from paperworks.language.objectives.soft_preferences import JudgedPairLogps
from paperworks.language.testbeds.newton import minimise
from paperworks.language.testbeds.preference_games import PreferenceGames, divergence

OWN_PAIRS = 0.9  # share of the policy's own pairs among those a refitted reward sees; the rest are uniform
RIDGE = 1e-4  # on refitted rewards, of which the policy's own pairs may say next to nothing

Policies = Float[Tensor, "*points games actions"]


@dataclass(frozen=True)
class Rounds:
    """The policies of all rounds, the initial one first."""

    log_policies: Float[Tensor, "rounds *points games actions"]

    def averages(self) -> Float[Tensor, "rounds *points games actions"]:
        """log of the uniform mixture of the first t policies, for every t: draw a round, then answer as it does."""
        count = torch.arange(1, len(self.log_policies) + 1, dtype=self.log_policies.dtype)
        total = self.log_policies.exp().cumsum(0)
        return (total / count.reshape(-1, *[1] * (total.ndim - 1))).log()

    def improvements(self, games: PreferenceGames) -> Float[Tensor, "rounds *points games"]:
        """P(pi_{t+1} > pi_t) of every round."""
        return games.win_rate(self.log_policies[1:], self.log_policies[:-1])

    def divergences(self) -> Float[Tensor, "rounds *points games"]:
        """KL(pi_{t+1} || pi_t) of every round, in nats."""
        return divergence(self.log_policies[1:], self.log_policies[:-1])


def run_rounds(start: Policies, next_policy: Callable[[Policies], Policies], rounds: int) -> Rounds:
    """`rounds` policies beginning with `start`: each made from the one before."""
    policies = [start]
    while len(policies) < rounds:
        policies.append(next_policy(policies[-1]))
    return Rounds(torch.stack(policies))


def regressed_round(
    games: PreferenceGames, log_current: Float[Tensor, "games actions"], objective: PairObjective
) -> Float[Tensor, "games actions"]:
    """The policy that minimises the objective over all pairs of answers, the reference being the current policy.

    The pairs carry the win rates of their answers against the current policy (`chosen_reward`, `rejected_reward`) and
    the judge's probability. Fitted to a gradient of 1e-12 (Newton).
    """
    games_count, actions = log_current.shape
    first, second = torch.triu_indices(actions, actions, offset=1)
    win_rates = games.against(log_current)

    def of(values: Tensor, index: Tensor) -> Tensor:
        return values[:, index].flatten()

    probability = games.preference[:, first, second].flatten()
    tokens = torch.ones_like(probability)
    rewards = of(win_rates, first), of(win_rates, second)

    def loss(logits: Float[Tensor, "problems unknowns"]) -> Float[Tensor, " problems"]:
        log_policy = torch.log_softmax(logits, dim=-1)
        chosen, rejected = (
            ResponseLogps(of(log_policy, index), tokens, of(log_current, index)) for index in (first, second)
        )
        batch = JudgedPairLogps(chosen, rejected, tokens, None, probability, *rewards)
        return objective.loss(batch).reshape(games_count, -1).mean(-1)

    return torch.log_softmax(minimise(loss, log_current, tolerance=1e-12, max_steps=50).point, dim=-1)


def soft_policy_iteration(
    games: PreferenceGames,
    log_current: Policies,
    eta: Float[Tensor, "*points 1 1"] | float,
    *,
    tau: Float[Tensor, "*points 1 1"] | float = 0.0,
) -> Policies:
    """DNO's round in closed form: pi_t(y) exp(P(y > pi_t) / eta) / Z.

    With tau > 0 the regularised round (appendix A of arXiv 2404.03715, from memory): the geometric mixture
    pi_t^(1 - tau/eta) pi_ref^(tau/eta) stands in for pi_t, as opponent and as reference.
    """
    anchor = log_current
    if not isinstance(tau, float) or tau > 0:
        anchor = torch.log_softmax((1 - tau / eta) * log_current + tau / eta * games.log_reference, dim=-1)
    return torch.log_softmax(anchor + games.against(anchor) / eta, dim=-1)


def refitted_reward(
    games: PreferenceGames, log_current: Policies, start: Float[Tensor, "*points games actions"] | None = None
) -> Float[Tensor, "*points games actions"]:
    """Bradley-Terry rewards fitted to the judge's probabilities on pairs of the current policy (and a tenth uniform)."""
    policy, actions = log_current.exp(), log_current.shape[-1]
    own = policy[..., :, None] * policy[..., None, :]
    own = own * (1 - torch.eye(actions, dtype=own.dtype))  # an answer beside itself says nothing
    own = own / own.sum((-1, -2), keepdim=True).clamp(min=1e-12)
    return games.bradley_terry(OWN_PAIRS * own + (1 - OWN_PAIRS) / actions**2, ridge=RIDGE, start=start)


def hard_label_round(
    log_current: Policies,
    reward: Float[Tensor, "*points games actions"],
    eta: Float[Tensor, "*points 1 1"] | float,
    *,
    steps: int = 20,
) -> Policies:
    """`steps` gradient steps of DPO (beta = eta, reference pi_t) on all pairs, the higher reward chosen.

    Hard labels have no finite minimum, so that the number of steps bounds a round. The step size 4 / eta^2 is the inverse
    of the largest curvature that a pair's loss has in the margin of log-ratios.
    """
    wins = (reward[..., :, None] > reward[..., None, :]).to(log_current.dtype)
    pairs = wins.sum((-1, -2), keepdim=True)[..., 0].clamp(min=1)
    moved = torch.zeros_like(log_current + reward)
    for _ in range(steps):
        margin = _for_pairs(eta) * (moved[..., :, None] - moved[..., None, :])
        push = wins * torch.sigmoid(-margin)  # -d loss / d margin of the pair (winner, loser)
        moved = moved + 4 / eta * (push.sum(-1) - push.sum(-2)) / pairs
    return torch.log_softmax(log_current + moved, dim=-1)


def _for_pairs(eta: Tensor | float) -> Tensor | float:
    """eta with one more axis, as tables of pairs have."""
    return eta[..., None] if isinstance(eta, Tensor) else eta
