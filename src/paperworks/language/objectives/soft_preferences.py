"""Objectives on pairs that a judge gave a probability, not only an order: for online training and preference games.

A row's `probability` is P(chosen preferred to rejected | prompt) by the judge. Where only the order is known it is NaN,
and the label is a hard one: probability 1. A pair then counts exactly as in the objective's offline form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.core.options import option
from paperworks.language.objectives.dpo import DPO, logistic
from paperworks.language.objectives.ipo import IPO
from paperworks.language.objectives.objective import PairLogps, PairObjective, ResponseLogps, StepInputs, require
from paperworks.language.objectives.slic import hinge

SCALES = ("tau", "square")
TARGETS = ("soft", "hard", "probability")


@dataclass(frozen=True)
class JudgedPairLogps(PairLogps):
    """Pairs with what a judge said of them."""

    probability: Float[Tensor, " items"] | None = None  # P(chosen > rejected); NaN or None: a hard label
    chosen_reward: Float[Tensor, " items"] | None = None  # of each response; NaN or None where unknown
    rejected_reward: Float[Tensor, " items"] | None = None

    @property
    def soft_label(self) -> Float[Tensor, " items"]:
        """The judge's probability, 1 where only the order is known."""
        margin = self.chosen.policy
        if self.probability is None:
            return torch.ones_like(margin).detach()
        return torch.where(self.probability.isnan(), 1.0, self.probability).to(margin.dtype)


class JudgedPairObjective(PairObjective):
    """A pair objective that reads the judge's probability."""

    numbers: ClassVar[tuple[str, ...]] = ("probability",)

    def batch(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> JudgedPairLogps:
        numbers = (inputs.numbers.get(name) for name in ("probability", "chosen_reward", "rejected_reward"))
        return JudgedPairLogps(scores["chosen"], scores["rejected"], inputs.weight, None, *numbers)

    @torch.no_grad()
    def metrics(self, batch: PairLogps) -> dict[str, Any]:
        """Those of any pair objective, and the mean probability that the judge gave the chosen responses."""
        return super().metrics(batch) | {"probability": _soft_label(batch)}


@dataclass(frozen=True)
class OnlineIPO(JudgedPairObjective, IPO):
    """IPO on pairs of the policy's own samples (Calandriello et al. 2024, arXiv 2403.08635).

    loss = tau * [d - (2p - 1)/(2 tau)]^2, d = h_chosen - h_rejected, h the log-ratio, p the judge's probability. Up to a
    constant that is the p-weighted loss of either order, -d + tau d^2 and d + tau d^2, and its gradient is that of a
    hard label drawn with probability p, on average. scale=square leaves out the factor tau: IPO's own scale.

    On independent pairs of the current policy its gradient is that of self-play in the preference game regularised by
    tau KL(pi || pi_ref), so that it rests at that game's Nash equilibrium. That holds for h summed over the response;
    average=True (TRL's offline form) is outside of it.
    """

    name: ClassVar[str] = "online-ipo"

    tau: float = option(1.0, "strength of the pull to the reference: p = 1 has the target 1/(2 tau)", above=0)
    scale: Literal["tau", "square"] = option("tau", "factor on the square: tau (paper's implementation) or 1 (square)")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.scale in SCALES, "scale", self.scale, ", ".join(SCALES))

    def option_notes(self) -> list[str]:
        """One where log-ratios are averaged, which the paper's result does not cover."""
        if not self.average:
            return []
        return [
            f"{self.name} averages log-ratios over tokens (average=true): tau is per token, and no equilibrium is meant"
        ]

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        gap = self._log_ratio(batch.chosen) - self._log_ratio(batch.rejected)
        target = (2 * _soft_label(batch) - 1) / (2 * self.tau)
        return (self.tau if self.scale == "tau" else 1.0) * (gap - target) ** 2


@dataclass(frozen=True)
class IPOMD(OnlineIPO):
    """The same loss on pairs sampled from a mixture of policy and reference (Calandriello et al. 2024, arXiv 2403.08635).

    Both responses come from pi^b, proportional to pi_theta^(1-b) pi_ref^b; h stays that of pi_theta. b = 0 is
    online-ipo, b = 1 offline IPO on the reference's samples. At the fixed point it is the mixture pi^b that is the Nash
    equilibrium, of the game with regularisation tau / (1 - b), and pi_theta is the soft best response to it. In a
    language model the mixture is one of next tokens, prefix by prefix, softmax((1 - b) logits + b logits_ref), which is
    pi^b itself for responses of one token only.
    """

    name: ClassVar[str] = "ipo-md"

    mix: float = option(0.125, "share of the reference in the mixture that pairs are sampled from", low=0, high=1)


@dataclass(frozen=True)
class OnlineDPO(JudgedPairObjective, DPO):
    """DPO with the judge's probability as a soft label; a baseline of Calandriello et al. 2024, arXiv 2403.08635.

    loss = -p log sigmoid(m) - (1 - p) log sigmoid(-m), m = beta * [log-ratio of chosen - log-ratio of rejected].
    On the policy's own pairs it is no solver of the preference game, unless the judge is indifferent.
    """

    name: ClassVar[str] = "online-dpo"

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        margin, label = self.margin(batch), _soft_label(batch)
        return label * logistic(margin) + (1 - label) * logistic(-margin)


@dataclass(frozen=True)
class OnlineSLiC(JudgedPairObjective, DPO):
    """The hinge with the judge's probability as a soft label; a baseline of Calandriello et al. 2024, arXiv 2403.08635.

    loss = p max(0, 1 - m) + (1 - p) max(0, 1 + m), m = beta * [log-ratio of chosen - log-ratio of rejected].
    """

    name: ClassVar[str] = "online-slic"

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        margin, label = self.margin(batch), _soft_label(batch)
        return label * hinge(margin, 1.0) + (1 - label) * hinge(-margin, 1.0)


@dataclass(frozen=True)
class DNO(JudgedPairObjective):
    """Direct Nash optimisation's regression of one round (Rosset et al. 2024, arXiv 2404.03715, algorithm 1).

    loss = -z log sigmoid(D) - (1 - z) log sigmoid(-D), D = eta * [log-ratio of chosen - log-ratio of rejected]; the
    reference is the policy pi_t that the round began with, refreshed every round. The target z, without gradient, is

    `soft`: sigmoid(r_chosen - r_rejected), r the win rates in [0, 1] against samples of pi_t (the rows' `chosen_reward`
    and `rejected_reward`); the minimiser is pi_t exp(r / eta) / Z, and the mean of all rounds nears the equilibrium;
    `hard`: 1, the practical form on pairs with large margins, which is DPO with beta = eta;
    `probability`: the judge's word on the two alone, which is another algorithm (online DPO with a moving reference).

    Raises OptionError where target=soft and a pair has no rewards.
    """

    name: ClassVar[str] = "dno"
    numbers: ClassVar[tuple[str, ...]] = ("probability", "chosen_reward", "rejected_reward")

    eta: float = option(0.1, "reward per nat: how little a round may move", above=0)
    target: Literal["soft", "hard", "probability"] = option(
        "soft", "what is fitted: win rates against the round's policy, the order alone, or the judge's probability"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.target in TARGETS, "target", self.target, ", ".join(TARGETS))

    def implicit_reward(self, response: ResponseLogps) -> Float[Tensor, " items"]:
        return self.eta * response.log_ratio

    def loss(self, batch: PairLogps) -> Float[Tensor, " items"]:
        margin, target = self.margin(batch), self._targets(batch)
        return target * logistic(margin) + (1 - target) * logistic(-margin)

    @torch.no_grad()
    def metrics(self, batch: PairLogps) -> dict[str, Any]:
        """Those of judged pairs, and the mean target."""
        return super().metrics(batch) | {"target": self._targets(batch)}

    def _targets(self, batch: PairLogps) -> Float[Tensor, " items"]:
        if self.target == "hard":
            return torch.ones_like(batch.chosen.policy).detach()
        if self.target == "probability":
            return _soft_label(batch)
        chosen, rejected = getattr(batch, "chosen_reward", None), getattr(batch, "rejected_reward", None)
        if chosen is None or rejected is None or bool((chosen - rejected).isnan().any()):
            raise OptionError(
                "objective dno: target=soft takes a chosen_reward and a rejected_reward (win rates against the round's "
                "policy) of every pair, and a pair has none; train with target=hard or target=probability"
            )
        return torch.sigmoid(chosen - rejected).to(batch.chosen.policy.dtype)


def _soft_label(batch: PairLogps) -> Float[Tensor, " items"]:
    """The judge's probability where the batch has one; plain pairs have hard labels."""
    return batch.soft_label if isinstance(batch, JudgedPairLogps) else torch.ones_like(batch.chosen.policy).detach()
