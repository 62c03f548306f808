"""Objectives on responses with a reward: imitate each in proportion to it. Nothing is generated, nothing compared.

All of them sum over a response's tokens, the end token included, and leave the mean over responses to the loop.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from paperworks.core.errors import DataError, OptionError
from paperworks.core.options import option
from paperworks.language.data.schemas import Scored
from paperworks.language.objectives.objective import (
    ByToken,
    Objective,
    Prepared,
    ResponseLogps,
    ScoredLogps,
    StepInputs,
    require,
)
from paperworks.language.objectives.row_rewards import RewardRule, Transform, reward_rule, rewards_of

if TYPE_CHECKING:
    from paperworks.language.data.dataset import Dataset
    from paperworks.language.items import Items
    from paperworks.language.policy import Policy

SamplingStrategy = Literal["priority", "uniform_positive", "shuffle"]


@dataclass(frozen=True)
class ScoredObjective(Objective):
    """Base of objectives on scored responses: loss = credit * negative log-likelihood, the credit being the reward.

    A row's reward is its `reward`, or the weighted sum of its `rewards`; preparing writes it into `reward`.
    """

    schema: ClassVar[type] = Scored
    needs_reference: ClassVar[bool] = False
    numbers: ClassVar[tuple[str, ...]] = ("reward",)
    compares_only: ClassVar[bool] = False  # whether only the order of rewards matters, so that they need no range
    takes_negative: ClassVar[bool] = False  # whether rewards below 0 make sense

    reward_weights: tuple[float, ...] = option(
        (), "factor on each of several rewards, in the rows' order; none: 1 each"
    )
    reward_transform: Transform = option("none", "sigmoid: of each reward, for the scores of a reward model")
    reward_range: tuple[float, float] | None = option(
        None, "lowest and highest possible reward LOW,HIGH; none: those of (weighted) rewards in [0, 1]"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.reward_transform in get_args(Transform), "reward_transform", self.reward_transform, "none or sigmoid"
        )
        require(all(map(math.isfinite, self.reward_weights)), "reward_weights", self.reward_weights, "finite numbers")
        if self.reward_range is not None:
            low, high = self.reward_range
            require(-math.inf < low < high < math.inf, "reward_range", self.reward_range, "LOW,HIGH with LOW < HIGH")

    @property
    def roles(self) -> tuple[str, ...]:
        return ("response",)

    def rule(self, rows: Sequence[Scored]) -> RewardRule:
        """How these rows' rewards become one number. Raises OptionError for weights of another length."""
        return reward_rule(rows, weights=self.reward_weights, transform=self.reward_transform, bounds=self.reward_range)

    def prepare(self, dataset: Dataset, policy: Policy, *, seed: int, held_out: bool = False) -> Prepared:
        """Write the one reward of each row. Raises DataError for rewards missing, not finite, out of range, constant."""
        rule = self.rule(dataset.rows)
        rewarded = self._rewarded(dataset, rule, held_out=held_out)
        rewards = [row.reward for row in rewarded.rows]
        facts = {"reward": {"formula": rule.formula, **_described(rewards)}}
        return Prepared(self, rewarded, facts=facts)

    def _rewarded(self, dataset: Dataset, rule: RewardRule, *, held_out: bool) -> Dataset:
        if not self.takes_negative and not self.compares_only and rule.low < 0:
            raise OptionError(
                f"objective {self.name} weights responses by their reward, which may be {rule.low:g} here: negative "
                "weights push likelihoods down without bound; use --reward-transform sigmoid, or shift the rewards"
            )
        rewards = rewards_of(rule, dataset.rows, check_range=not self.compares_only)
        if not held_out and len(rewards) > 1 and max(rewards) - min(rewards) <= 1e-9 * (1 + abs(rewards[0])):
            raise DataError(
                f"all {len(rewards)} responses have the reward {rewards[0]:g}: no positive advantage, nothing to "
                "learn from; give rewards that differ (sft imitates all alike)",
                file=dataset.report.source or None,
                field="rewards" if rule.names else "reward",
            )
        return dataset.with_rows(
            [dataclasses.replace(row, reward=reward) for row, reward in zip(dataset.rows, rewards, strict=True)]
        )

    def batch(self, scores: Mapping[str, ResponseLogps], inputs: StepInputs) -> ScoredLogps:
        reward = inputs.numbers["reward"]
        advantage = inputs.numbers.get("advantage", torch.full_like(reward, math.nan))
        return ScoredLogps(scores["response"], reward, advantage, inputs.weight)

    def credit(self, batch: ScoredLogps) -> Float[Tensor, " items"]:
        """What each response's likelihood is weighted by."""
        return batch.reward

    def loss(self, batch: ScoredLogps) -> Float[Tensor, " items"]:
        return self.credit(batch) * -batch.response.policy

    def worth(self, batch: ScoredLogps) -> Float[Tensor, " items"]:
        """The credit of each response, whether the loss or the sampling of rows applies it."""
        return self.credit(batch)

    @torch.no_grad()
    def metrics(self, batch: ScoredLogps) -> dict[str, Any]:
        """`weighted_nll`: credit * negative log-likelihood, without the factors that change as the policy does."""
        logp = batch.response.policy.detach()
        return {"reward": batch.reward, "logp": logp, "weighted_nll": self.worth(batch) * -logp}

    def quality(self, held_out: Mapping[str, float]) -> float:
        """How good weights are by means over held-out rows; the highest are kept.

        Not by the loss: where it is multiplied by a ratio or a probability without gradient, it rises as the policy
        learns, and the start would be kept.
        """
        return -held_out["weighted_nll"]


@dataclass(frozen=True)
class WeightedBC(ScoredObjective):
    """Weighted behaviour cloning: loss = R * NLL (the baseline wBC of arXiv 2305.14718)."""

    name: ClassVar[str] = "wbc"


@dataclass(frozen=True)
class RewardGOLD(ScoredObjective):
    """GOLD (Pang and He 2021, arXiv 2009.07839) with a sequence reward, as arXiv 2305.14718 compares with it.

    loss = R * sum_t max(pi_theta(y_t), floor) * -log pi_theta(y_t), the probability being a weight without gradient.
    """

    name: ClassVar[str] = "r-gold"
    needs_tokens: ClassVar[bool] = True

    floor: float = option(0.1, "lowest weight of a token", low=0, high=1)

    def loss(self, batch: ScoredLogps) -> Float[Tensor, " items"]:
        tokens = tokens_of(batch, self.name)
        weight = tokens.policy.detach().exp().clamp(min=self.floor)
        return self.credit(batch) * tokens.summed(weight * -tokens.policy)


@dataclass(frozen=True)
class FilteredNLL(ScoredObjective):
    """Imitate the responses of highest reward, all alike: the simple baseline that reward weighting has to beat.

    The share is of all rows together, not of each prompt's. Of rows with the same reward at its edge the first stay.
    """

    name: ClassVar[str] = "filtered-nll"
    compares_only: ClassVar[bool] = True

    keep_share: float = option(0.5, "share of the rows to imitate, those of highest reward", above=0, high=1)

    def prepare(self, dataset: Dataset, policy: Policy, *, seed: int, held_out: bool = False) -> Prepared:
        prepared = super().prepare(dataset, policy, seed=seed, held_out=held_out)
        rows = prepared.dataset.rows
        amount = max(1, round(self.keep_share * len(rows)))
        best = sorted(range(len(rows)), key=lambda index: -rows[index].reward)[:amount]
        kept = [rows[index] for index in sorted(best)]
        lowest = min(row.reward for row in kept)
        note = f"kept {amount} of {len(rows)} rows, those of reward {lowest:.4g} or more; an epoch is those rows"
        facts = {**prepared.facts, "rows": len(rows), "kept": amount, "lowest_kept_reward": lowest}
        return dataclasses.replace(
            prepared, dataset=dataset.with_rows(kept), notes=() if held_out else (note,), facts=facts
        )

    def credit(self, batch: ScoredLogps) -> Float[Tensor, " items"]:
        return torch.ones_like(batch.reward)


@dataclass(frozen=True)
class PrioritySampled(ScoredObjective):
    """Rows drawn with replacement in proportion to their credit.

    Drawing by credit and multiplying the loss by it, as the released code does, weights a row by credit^2 / sum of
    credits in expectation; `double_weight` False leaves the factor in the loss out.
    """

    credited: ClassVar[Literal["reward", "advantage"]] = "reward"  # what a response's credit is

    sampling_strategy: SamplingStrategy = option(
        "priority", "draw rows by their credit; all with a positive credit alike; or each once an epoch, shuffled"
    )
    double_weight: bool = option(True, "also multiply the loss by the credit when sampling by it (as released)")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.sampling_strategy in get_args(SamplingStrategy),
            "sampling_strategy",
            self.sampling_strategy,
            ", ".join(get_args(SamplingStrategy)),
        )
        require(
            self.double_weight or self.sampling_strategy == "priority",
            "double_weight",
            self.double_weight,
            "true where sampling_strategy is not priority",
            "else neither sampling nor loss knows the credit",
        )

    def importance(self, credit: Float[Tensor, " items"]) -> Float[Tensor, " items"] | None:
        """Weights to draw rows by, given their credits; None: each once an epoch."""
        if self.sampling_strategy == "shuffle":
            return None
        positive = credit.clamp(min=0)
        return positive if self.sampling_strategy == "priority" else (positive > 0).to(credit.dtype)

    def sampling(self, items: Items) -> Tensor | None:
        return self.importance(items.number(self.credited))

    def worth(self, batch: ScoredLogps) -> Float[Tensor, " items"]:
        credited: Tensor = getattr(batch, self.credited)
        return credited.clamp(min=0)

    def credit(self, batch: ScoredLogps) -> Float[Tensor, " items"]:
        worth = self.worth(batch)
        return worth if self.double_weight else (worth > 0).to(worth.dtype)


def tokens_of(batch: ScoredLogps, name: str) -> ByToken:
    """The scores by token. Raises OptionError where the batch has none."""
    if batch.response.by_token is None:
        raise OptionError(f"objective {name} takes scores token by token, the batch has only their sums")
    return batch.response.by_token


def _described(values: Sequence[float]) -> dict[str, float]:
    found = torch.tensor(values, dtype=torch.float64)
    return {"mean": float(found.mean()), "lowest": float(found.min()), "highest": float(found.max())}
