"""Token MDPs small enough to enumerate: every response is one row of a tensor, so theory is tested to 1e-6.

A response is a string over a small vocabulary that ends with the end token or at the horizon. The policy is a table
of logits, one row a prefix, and can represent every distribution over responses; the optimum of the KL-regularised
reward, its value, KL and regret have closed forms. There is one prompt. Nothing is sampled here, and float64 is used
throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.language.objectives.objective import (
    FeedbackLogps,
    FeedbackObjective,
    PairLogps,
    PairObjective,
    ResponseLogps,
)

LARGEST = 5000  # responses; beyond that the dense tables below stop being small


@dataclass(frozen=True)
class TokenMDP:
    """A vocabulary of `vocabulary` words and an end token (the last id), responses of at most `horizon` tokens."""

    vocabulary: int
    responses: tuple[tuple[int, ...], ...]  # token ids; ends with the end token unless cut at the horizon
    prefixes: tuple[tuple[int, ...], ...]
    visits: Float[Tensor, "responses prefixes tokens"]  # 1 where the response takes that token after that prefix
    reference_logits: Float[Tensor, "prefixes tokens"]
    reward: Float[Tensor, " responses"]

    @property
    def tokens(self) -> Float[Tensor, " responses"]:
        """How many tokens each response has, its end token included."""
        return self.visits.sum((-1, -2))

    def log_probabilities(self, logits: Float[Tensor, "*batch prefixes tokens"]) -> Float[Tensor, "*batch responses"]:
        """log pi(y) of every response under the policy with these logits; differentiable."""
        return torch.log_softmax(logits, dim=-1).flatten(-2) @ self.visits.flatten(1).T

    @property
    def reference(self) -> Float[Tensor, " responses"]:
        """log pi_ref(y) of every response."""
        return self.log_probabilities(self.reference_logits)

    def table(self, log_probabilities: Float[Tensor, " responses"]) -> Float[Tensor, "prefixes tokens"]:
        """The logits whose policy has these response probabilities (conditional masses of every prefix)."""
        mass = torch.einsum("r,rpt->pt", log_probabilities.exp(), self.visits)
        return mass.clamp(min=torch.finfo(mass.dtype).tiny).log()

    def optimum(self, beta: float, reward: Float[Tensor, " responses"] | None = None) -> Float[Tensor, " responses"]:
        """log pi* of the policy that maximises E[reward] - beta KL(pi || pi_ref): pi* is pi_ref exp(reward / beta) / Z."""
        tilted = self.reference + (self.reward if reward is None else reward) / beta
        return tilted - torch.logsumexp(tilted, dim=-1)

    def kl(self, log_probabilities: Float[Tensor, "*batch responses"]) -> Float[Tensor, "*batch"]:
        """KL(pi || pi_ref) in nats a response."""
        return (log_probabilities.exp() * (log_probabilities - self.reference)).sum(-1)

    def value(self, log_probabilities: Float[Tensor, "*batch responses"], beta: float) -> Float[Tensor, "*batch"]:
        """J = E[reward] - beta KL(pi || pi_ref)."""
        return (log_probabilities.exp() * self.reward).sum(-1) - beta * self.kl(log_probabilities)

    def best_value(self, beta: float) -> Float[Tensor, ""]:
        """The largest J any policy has: beta log Z."""
        return beta * torch.logsumexp(self.reference + self.reward / beta, dim=-1)

    def regret(self, log_probabilities: Float[Tensor, "*batch responses"], beta: float) -> Float[Tensor, "*batch"]:
        """best_value - value; equals beta KL(pi || pi*)."""
        return self.best_value(beta) - self.value(log_probabilities, beta)

    def preference(self, scale: float = 1.0) -> Float[Tensor, "responses responses"]:
        """Bradley-Terry P(row preferred to column) = sigmoid(scale (r_row - r_column))."""
        return torch.sigmoid(scale * (self.reward[:, None] - self.reward[None, :]))


def random_token_mdp(seed: int, *, vocabulary: int = 3, horizon: int = 4, reward_scale: float = 1.0) -> TokenMDP:
    """A token MDP with Gaussian reference logits and Gaussian response rewards (standard deviation `reward_scale`).

    vocabulary=3, horizon=4 has 121 responses and 40 prefixes. Raises OptionError where there would be too many
    responses.
    """
    if vocabulary < 1 or horizon < 1 or vocabulary**horizon > LARGEST:
        raise OptionError(
            f"vocabulary={vocabulary}, horizon={horizon}: expected at least 1 each and vocabulary^horizon <= {LARGEST}"
        )
    words, end = range(vocabulary), vocabulary
    prefixes = tuple(prefix for length in range(horizon) for prefix in product(words, repeat=length))
    responses = (*((*prefix, end) for prefix in prefixes), *product(words, repeat=horizon))
    row = {prefix: index for index, prefix in enumerate(prefixes)}
    visits = torch.zeros(len(responses), len(prefixes), vocabulary + 1, dtype=torch.float64)
    for index, response in enumerate(responses):
        for position, token in enumerate(response):
            visits[index, row[response[:position]], token] = 1.0
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(prefixes), vocabulary + 1, generator=generator, dtype=torch.float64)
    reward = reward_scale * torch.randn(len(responses), generator=generator, dtype=torch.float64)
    return TokenMDP(vocabulary, responses, prefixes, visits, logits, reward)


def flipped(preference: Float[Tensor, "rows columns"], flip_rate: float) -> Float[Tensor, "rows columns"]:
    """P(row preferred) after each label is swapped with probability `flip_rate`, independently."""
    return (1 - flip_rate) * preference + flip_rate * (1 - preference)


def population_pair_loss(
    mdp: TokenMDP,
    objective: PairObjective,
    preference: Float[Tensor, "responses responses"],
) -> Callable[[Float[Tensor, "problems unknowns"]], Float[Tensor, " problems"]]:
    """The objective's expected loss over pairs and labels, as a function of flattened policy logits.

    preference[i, j] is P(i is labelled chosen | pair i, j); the two responses of a pair are independent draws from the
    reference (a response beside itself says nothing and is left out). The function it returns takes logits
    [problems, prefixes * tokens].
    """
    reference = mdp.reference
    mass = (reference[:, None] + reference[None, :]).exp() * preference
    first, second = torch.nonzero(~torch.eye(len(reference), dtype=torch.bool), as_tuple=True)
    weight = mass[first, second] / mass[first, second].sum()

    def loss(flat: Float[Tensor, "problems unknowns"]) -> Float[Tensor, " problems"]:
        logps = mdp.log_probabilities(flat.unflatten(-1, mdp.reference_logits.shape))
        problems = len(logps)

        def scores(index: Tensor) -> ResponseLogps:
            return ResponseLogps(
                logps[:, index].flatten(), mdp.tokens[index].repeat(problems), reference[index].repeat(problems)
            )

        chosen, rejected = scores(first), scores(second)
        values = objective.loss(PairLogps(chosen, rejected, torch.ones_like(chosen.policy)))
        return values.unflatten(0, (problems, -1)) @ weight

    return loss


def population_feedback_loss(
    mdp: TokenMDP, objective: FeedbackObjective, desirable: Bool[Tensor, " responses"], kl: float = 0.0
) -> Callable[[Float[Tensor, "problems unknowns"]], Float[Tensor, " problems"]]:
    """The expected loss on single responses drawn from the reference, marked desirable or not, at a fixed KL estimate."""
    reference = mdp.reference
    weight = reference.exp()

    def loss(flat: Float[Tensor, "problems unknowns"]) -> Float[Tensor, " problems"]:
        logps = mdp.log_probabilities(flat.unflatten(-1, mdp.reference_logits.shape))
        problems = len(logps)
        scores = ResponseLogps(logps.flatten(), mdp.tokens.repeat(problems), reference.repeat(problems))
        marks = desirable.to(scores.policy.dtype).repeat(problems)
        values = objective.loss(
            FeedbackLogps(scores, marks, torch.ones_like(marks), torch.tensor(kl, dtype=marks.dtype))
        )
        return values.unflatten(0, (problems, -1)) @ weight

    return loss
