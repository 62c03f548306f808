"""A language model behind an OpenAI-compatible endpoint as the judge of responses: a score of each, or which of two is better.

A score is a reward like any other; P(first better) is what methods that learn from preferences take. See endpoint for
how it is asked: retries, rate, cache, cost.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paperworks.core.errors import OptionError, RewardError
from paperworks.core.options import build, load_yaml, option
from paperworks.language.data.conversation import plain_text
from paperworks.language.data.schemas import Text
from paperworks.language.rewards.endpoint import Endpoint, EndpointOptions, Unusable
from paperworks.language.rewards.reward import checked

SCORE_TEMPLATE = """\
Rate how good the answer to the prompt is, from {low} (useless) to {high} (perfect). Consider whether it is correct, \
helpful and to the point; do not favour length.

<prompt>
{prompt}
</prompt>

<answer>
{response}
</answer>

Reply with the number alone."""

PAIR_TEMPLATE = """\
Which answer to the prompt is better? Consider whether it is correct, helpful and to the point; do not favour length, nor \
the place where an answer stands.

<prompt>
{prompt}
</prompt>

<answer A>
{first}
</answer A>

<answer B>
{second}
</answer B>

Reply with A, with B, or with "tie" where neither is better."""

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_NAMED_NUMBER = re.compile(rf"(?i:score|rating)[^\w-]{{0,9}}(?:is )?({_NUMBER.pattern})")
_VERDICT = re.compile(r"\b(A|B|[Tt][Ii][Ee])\b")
_P_FIRST = {"A": 1.0, "B": 0.0, "TIE": 0.5}


@dataclass(frozen=True, kw_only=True)
class JudgeOptions(EndpointOptions):
    """A judge: where it is, what it is asked, and the scale of its scores."""

    low: float = option(1.0, "lowest score")
    high: float = option(10.0, "highest score")
    score_template: str = option(SCORE_TEMPLATE, "what it is asked for a score: {prompt}, {response}, {low}, {high}")
    pair_template: str = option(PAIR_TEMPLATE, "what it is asked about two: {prompt}, {first}, {second}")
    system: str = option("", "a system message before the question")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low < self.high:
            raise OptionError(f"judge: low={self.low:g} and high={self.high:g}; expected low < high")
        for name, needed in (
            ("score_template", ("{prompt}", "{response}")),
            ("pair_template", ("{first}", "{second}")),
        ):
            missing = [mark for mark in needed if mark not in getattr(self, name)]
            if missing:
                raise OptionError(f"judge: {name} lacks {' and '.join(missing)}")


def judge_options(text: str) -> JudgeOptions:
    """The options of `MODEL@URL`, or of a YAML file that names any of them. Raises OptionError."""
    if text.endswith((".yaml", ".yml")) and "@" not in text:
        return build(JudgeOptions, load_yaml(Path(text).expanduser()), what=f"judge {text}")
    model, at, url = text.partition("@http")
    model, at, url = (model, at, "http" + url) if at else text.rpartition("@")
    if not at or not model or not url:
        raise OptionError(f"reward judge:{text}: expected judge:MODEL@URL, as judge:my-model@http://localhost:8000/v1")
    return JudgeOptions(model=model, url=url)


class ScoringJudge:
    """A reward: the judge's score of each response, from `low` to `high`.

    Raises RewardError where no usable answer comes; what was answered is kept.
    """

    def __init__(self, options: JudgeOptions) -> None:
        self.options, self.name = options, f"judge:{options.model}@{options.url}"
        self.endpoint = Endpoint(self.name, options, self._read)

    def __call__(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
        if len(prompts) != len(responses):
            raise RewardError(f"{self.name}: got {len(prompts)} prompts and {len(responses)} responses")
        scale = {"low": f"{self.options.low:g}", "high": f"{self.options.high:g}"}
        texts = [plain_text(response) for response in responses]
        questions = [
            _question(self.options, self.options.score_template, prompt=plain_text(prompt), response=text, **scale)
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        return checked(self.name, self.endpoint.ask(questions), texts)

    def notes(self) -> list[str]:
        """What was asked so far, and what it cost."""
        return self.endpoint.notes()

    def _read(self, answer: str) -> float:
        """The number behind "score" or "rating", else the last one; in "8/10" and "8 out of 10" it is the 8."""
        text = re.sub(rf"(?:/|out of)\s*{self.options.high:g}\b", "", answer)
        named, found = _NAMED_NUMBER.search(text), _NUMBER.findall(text)
        if not found:
            raise Unusable(f"expected a number; got {answer[:60]!a}")
        score = float(named[1] if named else found[-1])
        if not self.options.low <= score <= self.options.high:
            low, high = self.options.low, self.options.high
            raise Unusable(f"expected a number from {low:g} to {high:g}; got {score:g} in {answer[:60]!a}")
        return score


class PairJudge:
    """P(first better than second) of each pair, in [0, 1]: both orders are asked and averaged, a tie counts 1/2.

    Raises RewardError where no usable answer comes; what was answered is kept.
    """

    def __init__(self, options: JudgeOptions) -> None:
        self.options, self.name = options, f"judge:{options.model}@{options.url}"
        self.endpoint = Endpoint(self.name, options, _verdict)

    def __call__(self, prompts: Sequence[Text], firsts: Sequence[Text], seconds: Sequence[Text]) -> list[float]:
        if not len(prompts) == len(firsts) == len(seconds):
            raise RewardError(
                f"{self.name}: got {len(prompts)} prompts, {len(firsts)} first and {len(seconds)} second answers"
            )
        questions = []
        for prompt, first, second in zip(prompts, firsts, seconds, strict=True):
            asked, one, two = plain_text(prompt), plain_text(first), plain_text(second)
            for a, b in ((one, two), (two, one)):
                questions.append(_question(self.options, self.options.pair_template, prompt=asked, first=a, second=b))
        answers = self.endpoint.ask(questions)
        return [(forward + 1 - backward) / 2 for forward, backward in zip(answers[::2], answers[1::2], strict=True)]

    def notes(self) -> list[str]:
        """What was asked so far, and what it cost."""
        return self.endpoint.notes()


def _verdict(answer: str) -> float:
    """P(A better) of an answer: its last A, B or tie."""
    found = _VERDICT.findall(answer)
    if not found:
        raise Unusable(f"expected A, B or tie; got {answer[:60]!a}")
    return _P_FIRST[found[-1].upper()]


def _question(options: JudgeOptions, template: str, **parts: Any) -> list[dict[str, str]]:
    # Not str.format: a template may hold braces of its own, and no part may be filled into another.
    text = re.sub(r"\{(\w+)\}", lambda found: str(parts.get(found[1], found[0])), template)
    system = [{"role": "system", "content": options.system}] if options.system else []
    return [*system, {"role": "user", "content": text}]
