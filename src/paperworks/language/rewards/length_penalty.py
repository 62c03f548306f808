"""A reward less a price for each token or character of the response: against rewards that like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from paperworks.core.errors import OptionError
from paperworks.language.data.conversation import plain_text
from paperworks.language.data.schemas import Text
from paperworks.language.rewards.reward import Reward

LengthIn = Literal["tokens", "characters"]
CountTokens = Callable[[Sequence[Text]], list[int]]


@dataclass(frozen=True)
class LengthPenalised:
    """reward - price * length, the length being the response's tokens or characters. Build it with `length_penalised`."""

    reward: Reward
    price: float
    unit: LengthIn
    count_tokens: CountTokens | None = None

    @property
    def name(self) -> str:
        return f"{self.reward.name} - {self.price:g}*{self.unit}"

    def __call__(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
        values = self.reward(prompts, responses)
        return [value - self.price * length for value, length in zip(values, self._lengths(responses), strict=True)]

    def _lengths(self, responses: Sequence[Text]) -> list[int]:
        if self.unit == "characters":
            return [len(plain_text(response)) for response in responses]
        assert self.count_tokens is not None  # `length_penalised` asks for it
        return self.count_tokens(responses) if responses else []


def length_penalised(
    reward: Reward, price: float, unit: LengthIn = "tokens", *, count_tokens: CountTokens | None = None
) -> Reward:
    """The reward less `price` for each token or character. `count_tokens` counts them for a list of responses.

    Raises OptionError for a negative price, or tokens with nothing to count them.
    """
    if not 0 <= price < float("inf"):
        raise OptionError(f"length penalty {price}: expected a finite number of at least 0")
    if unit == "tokens" and count_tokens is None:
        raise OptionError("length penalty in tokens: there is no model here whose tokens to count; give characters")
    return LengthPenalised(reward, float(price), unit, count_tokens)
