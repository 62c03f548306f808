"""Which of two answers is better: the probability that the first is, from a reward, a user's function or an endpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from paperworks.core.errors import OptionError, RewardError
from paperworks.language.data.conversation import plain_text
from paperworks.language.data.schemas import Text
from paperworks.language.rewards.reward import Reward, checked

ENDPOINT = "judge:"


class Judge(Protocol):
    """A named function to P(first is better than second), one a pair."""

    @property
    def name(self) -> str: ...

    def __call__(self, prompts: Sequence[Text], firsts: Sequence[Text], seconds: Sequence[Text]) -> list[float]: ...


@dataclass(frozen=True)
class RewardJudge:
    """Bradley-Terry on a reward: sigmoid(slope * (r_first - r_second)); an infinite slope gives 1, 0, or 1/2 for ties."""

    reward: Reward
    slope: float = 1.0

    @property
    def name(self) -> str:
        return f"preference by {self.reward.name}"

    def __call__(self, prompts: Sequence[Text], firsts: Sequence[Text], seconds: Sequence[Text]) -> list[float]:
        both = self.reward([*prompts, *prompts], [*firsts, *seconds])
        return [self.of(a, b) for a, b in zip(both[: len(firsts)], both[len(firsts) :], strict=True)]

    def of(self, first: float, second: float) -> float:
        """P(first better) of two rewards."""
        if math.isinf(self.slope):
            return 0.5 if first == second else float(first > second)
        exponent = self.slope * (first - second)
        return 1 / (1 + math.exp(-exponent)) if exponent >= 0 else math.exp(exponent) / (1 + math.exp(exponent))


@dataclass(frozen=True)
class FunctionJudge:
    """A user's function (prompts, firsts, seconds) -> probabilities; both orders are asked and averaged.

    Raises RewardError for a wrong count, a value outside [0, 1], or, without `symmetrise`, orders that disagree.
    """

    name: str
    function: Callable[[list[str], list[str], list[str]], Any]
    symmetrise: bool = True
    most_asymmetry: float = 0.05

    def __call__(self, prompts: Sequence[Text], firsts: Sequence[Text], seconds: Sequence[Text]) -> list[float]:
        asked = [plain_text(prompt) for prompt in prompts]
        one, two = [plain_text(text) for text in firsts], [plain_text(text) for text in seconds]
        forward, backward = self._ask(asked, one, two), self._ask(asked, two, one)
        gap = sum(abs(a + b - 1) for a, b in zip(forward, backward, strict=True)) / max(1, len(forward))
        if not self.symmetrise and gap > self.most_asymmetry:
            raise RewardError(
                f"{self.name}: p(a, b) + p(b, a) is off 1 by {gap:.3f} on average; expected at most "
                f"{self.most_asymmetry}: leave --symmetrise on"
            )
        if not self.symmetrise:
            return forward
        return [(a + 1 - b) / 2 for a, b in zip(forward, backward, strict=True)]

    def _ask(self, prompts: list[str], firsts: list[str], seconds: list[str]) -> list[float]:
        values = checked(self.name, self.function(prompts, firsts, seconds), firsts)
        for at, value in enumerate(values):
            if not 0 <= value <= 1:
                raise RewardError(f"{self.name}: expected a probability in [0, 1]; got {value:g} for pair {at + 1}")
        return values


def load_judge(spec: str, *, symmetrise: bool = True) -> Judge:
    """The judge of a text: `FILE.py:function`, or `judge:MODEL@URL`, a model behind an OpenAI-compatible endpoint.

    A function takes (prompts, firsts, seconds), lists of str, and gives probabilities. A model is always asked both orders.
    Raises OptionError for another form, RewardError where the file or the function is missing or fails.
    """
    if spec.startswith(ENDPOINT):
        if not symmetrise:
            raise OptionError(f"--judge {spec}: a model is asked both orders; leave --symmetrise on")
        from paperworks.language.rewards.judge import PairJudge, judge_options

        return PairJudge(judge_options(spec.removeprefix(ENDPOINT)))
    from paperworks.language.rewards.function import described, load_module

    file, colon, function = spec.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise OptionError(f"--judge {spec}: expected FILE.py:function or judge:MODEL@URL")
    path = Path(file)
    if not path.is_file():
        raise RewardError(f"{file}: no such file; expected FILE.py:function")
    found = getattr(load_module(path), function, None)
    if not callable(found):
        raise RewardError(f"{file}: no function {function!r}")

    def asked(prompts: list[str], firsts: list[str], seconds: list[str]) -> Any:
        try:
            return found(prompts, firsts, seconds)
        except Exception as error:  # whatever a user's function raises
            raise RewardError(f"{spec}: {described(error, path)}") from error

    return FunctionJudge(spec, asked, symmetrise)
