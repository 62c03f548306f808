"""What a reward is: prompts and responses in, one finite number a response out; and how rewards are combined.

Every reward is checked here, so that training never sees a NaN, a missing number or a user's traceback.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from paperworks.core.errors import OptionError, RewardError
from paperworks.language.data.conversation import plain_text
from paperworks.language.data.schemas import Text


@runtime_checkable
class Reward(Protocol):
    """A named function from prompts and responses (as many of each) to one number a response."""

    @property
    def name(self) -> str: ...

    def __call__(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]: ...


@dataclass(frozen=True)
class CheckedReward:
    """A reward made of any function `(prompts, responses) -> numbers`, its numbers checked.

    The function gets lists of str: messages are written as plain text, `role: content`, a blank line between turns.
    Raises RewardError for a wrong count, or for a result that is not a finite number; it names the response (1-based).
    """

    name: str
    function: Callable[[list[str], list[str]], Any]

    def __call__(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
        if len(prompts) != len(responses):
            raise RewardError(f"{self.name}: got {len(prompts)} prompts and {len(responses)} responses")
        if not responses:
            return []
        texts = [plain_text(response) for response in responses]
        return checked(self.name, self.function([plain_text(prompt) for prompt in prompts], texts), texts)


@dataclass(frozen=True)
class WeightedSum:
    """Σ weight · reward."""

    rewards: tuple[Reward, ...]
    weights: tuple[float, ...]

    @property
    def name(self) -> str:
        return " + ".join(f"{weight:g}*{reward.name}" for weight, reward in zip(self.weights, self.rewards))

    def __call__(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
        columns = [reward(prompts, responses) for reward in self.rewards]
        return [math.fsum(w * value for w, value in zip(self.weights, values)) for values in zip(*columns)]


@dataclass(frozen=True)
class Clipped:
    """A reward held within [low, high]."""

    reward: Reward
    low: float
    high: float

    @property
    def name(self) -> str:
        return f"clipped({self.reward.name}, {self.low:g}, {self.high:g})"

    def __call__(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
        return [min(max(value, self.low), self.high) for value in self.reward(prompts, responses)]


def sum_of(rewards: Sequence[Reward], weights: Sequence[float] | None = None) -> Reward:
    """The weighted sum of rewards (weights 1 where none are given). Raises OptionError for weights that do not fit."""
    weights = [1.0] * len(rewards) if weights is None else [float(weight) for weight in weights]
    if not rewards or len(weights) != len(rewards) or not all(map(math.isfinite, weights)):
        raise OptionError(f"sum of rewards: expected one finite weight a reward; got {len(rewards)} rewards, {weights}")
    return WeightedSum(tuple(rewards), tuple(weights))


def clipped(reward: Reward, low: float, high: float) -> Reward:
    """The reward held within [low, high]. Raises OptionError unless low < high."""
    if not low < high:
        raise OptionError(f"clipped reward: expected low < high; got {low} and {high}")
    return Clipped(reward, float(low), float(high))


def checked(name: str, numbers: Any, responses: Sequence[str]) -> list[float]:
    """What a reward returned, as one finite float a response. Raises RewardError."""
    try:
        values = None if isinstance(numbers, str | bytes | dict) else list(numbers)
    except TypeError:
        values = None
    if values is None:
        found = type(numbers).__name__
        raise RewardError(f"{name}: expected a list of {len(responses)} numbers, one a response; got {found}")
    if len(values) != len(responses):
        raise RewardError(f"{name}: expected {len(responses)} numbers, one a response; got {len(values)}")
    return [number(name, value, at, responses[at]) for at, value in enumerate(values)]


def number(name: str, value: Any, at: int, response: str) -> float:
    """One reward as a finite float (True counts as 1). Raises RewardError, naming response `at` (0-based)."""
    try:
        result = None if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of several numbers
        result = None
    if result is None:
        raise RewardError(f"{name}: expected a number; got {type(value).__name__} for {which(at, response)}")
    if not math.isfinite(result):
        raise RewardError(f"{name}: expected a finite number; got {result} for {which(at, response)}")
    return result


def which(at: int, response: str) -> str:
    """A response as an error names it: its number (1-based) and how it begins, on one line."""
    return f"response {at + 1} ({response[:40]!a}{'…' if len(response) > 40 else ''})"
