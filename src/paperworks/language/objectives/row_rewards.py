"""How the rewards of scored rows become one number a row, and how reward functions become the same number.

Data that brings rewards and a function that scores new responses must agree: both go through the same rule here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from paperworks.core.errors import DataError, OptionError
from paperworks.language.data.schemas import Scored, Text
from paperworks.language.rewards.reward import Reward

Transform = Literal["none", "sigmoid"]


@dataclass(frozen=True)
class RewardRule:
    """R = sum of weight * transform(reward): over the rewards `names` of a row, or its one `reward` where there are none.

    R lies in [low, high].
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    transform: Transform
    low: float
    high: float

    @property
    def rounding(self) -> float:
        """Differences of R no larger than this are rounding: sums of rounded numbers, values in float32."""
        return 1e-6 * (self.high - self.low)

    @property
    def formula(self) -> str:
        """The rule as one line for users: `R = fluency + 0.5 * safety`."""
        shown = [f"sigmoid({name})" if self.transform == "sigmoid" else name for name in self.names or ("reward",)]
        return "R = " + " + ".join(n if w == 1 else f"{w:g} * {n}" for w, n in zip(self.weights, shown, strict=True))

    def total(self, rewards: Sequence[float]) -> float:
        """R from one number a weight."""
        seen = [_sigmoid(reward) for reward in rewards] if self.transform == "sigmoid" else rewards
        return math.fsum(weight * reward for weight, reward in zip(self.weights, seen, strict=True))

    def of_row(self, row: Scored, number: int, *, check_range: bool = True) -> float:
        """R of a row, the `number`-th (1-based). Raises DataError where a reward is missing, no number or out of range."""
        given = {name: row.rewards.get(name) for name in self.names} or {"reward": row.reward}
        for name, reward in given.items():
            field = f"rewards.{name}" if self.names else name
            if reward is None:
                raise _row_error("missing; expected a number, as the first row has", row, number, field)
            if not math.isfinite(reward):
                raise _row_error(f"expected a finite number; found {reward}", row, number, field)
        total = self.total([reward for reward in given.values() if reward is not None])
        if check_range and not self.low - self.rounding <= total <= self.high + self.rounding:
            raise _row_error(
                f"the reward {total:g} is out of range: expected {self.low:g} to {self.high:g}; give the range of your "
                "rewards with --reward-range LOW,HIGH, or --reward-transform sigmoid for a reward model's scores",
                row,
                number,
                "rewards" if self.names else "reward",
            )
        return total

    def of_functions(self, rewards: Sequence[Reward]) -> Reward:
        """R of new responses: one function a name, in that order, or one that returns the sum over several.

        Raises OptionError for another number of functions.
        """
        several = len(self.names) > 1
        if len(rewards) == 1 and several and self.transform == "none":
            return _Total(rewards[0])
        if len(rewards) != len(self.weights):
            names = ", ".join(self.names) or "reward"
            raise OptionError(
                f"option reward names {len(rewards)} reward{'s' * (len(rewards) != 1)}, the rows have "
                f"{len(self.weights)} ({names}): expected one each, in that order"
                + (", or one that returns their weighted sum" if several and self.transform == "none" else "")
            )
        return _Combined(self, tuple(rewards))


@dataclass(frozen=True)
class _Combined:
    rule: RewardRule
    rewards: tuple[Reward, ...]

    @property
    def name(self) -> str:
        return " + ".join(reward.name for reward in self.rewards)

    def __call__(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
        columns = [reward(prompts, responses) for reward in self.rewards]
        return [self.rule.total(values) for values in zip(*columns, strict=True)]


@dataclass(frozen=True)
class _Total:
    reward: Reward

    @property
    def name(self) -> str:
        return self.reward.name

    def __call__(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
        return self.reward(prompts, responses)


def reward_rule(
    rows: Sequence[Scored],
    *,
    weights: Sequence[float] = (),
    transform: Transform = "none",
    bounds: tuple[float, float] | None = None,
) -> RewardRule:
    """The rule for these rows: their `rewards` by name where the first row has some, else their one `reward`.

    `weights`: one a reward, in the order of the first row; 1 each where none are given. `bounds` of R: by default those
    of rewards in [0, 1]. Raises OptionError for weights of another length.
    """
    names = tuple(rows[0].rewards) if rows else ()
    count = len(names) or 1
    factors = tuple(float(weight) for weight in weights) or (1.0,) * count
    if len(factors) != count:
        raise OptionError(
            f"option reward_weights has {len(factors)} weights, the rows have {count} rewards "
            f"({', '.join(names) or 'reward'}): give one weight each, in that order"
        )
    low, high = bounds or (sum(min(factor, 0.0) for factor in factors), sum(max(factor, 0.0) for factor in factors))
    if not low < high:
        raise OptionError(f"option reward_weights={list(factors)}: expected at least one that is not 0")
    return RewardRule(names, factors, transform, low, high)


def rewards_of(rule: RewardRule, rows: Sequence[Scored], *, check_range: bool = True) -> list[float]:
    """R of every row. Raises DataError naming the first row whose reward is missing, no number or out of range."""
    return [rule.of_row(row, number, check_range=check_range) for number, row in enumerate(rows, start=1)]


def _row_error(what: str, row: Any, number: int, field: str) -> DataError:
    if row.where.file:
        return DataError(what, file=row.where.file, line=row.where.line or None, field=field)
    return DataError(f"row {number}: field {field!r}: {what}")


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
