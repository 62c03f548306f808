"""Rewards that compare an answer with what its prompt's row says it should be: exact, a number, a pattern, your own rule.

A reward sees prompts and responses only, so a `RowReward` is built for the rows of a prompts file and finds the row of a
prompt again: by its text, or, where a chat template's messages were put around it, by the user's last message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

from paperworks.core.errors import DataError, OptionError, RewardError
from paperworks.language.data.conversation import plain_text
from paperworks.language.data.problems import BadRow, shown
from paperworks.language.data.schemas import PromptRow, Text
from paperworks.language.data.task_formats import ANSWER_MARK
from paperworks.language.rewards.reward import CheckedReward, Reward, checked


class Verifier(Protocol):
    """Responses against what their rows expect."""

    @property
    def name(self) -> str: ...

    def expected(self, row: PromptRow) -> Any:
        """What `score` needs of a row. Raises BadRow where the row does not have it."""

    def score(self, prompts: list[str], responses: list[str], expected: list[Any]) -> Any:
        """One number a response."""


class RowReward:
    """A reward made of a verifier and the rows that hold what it expects.

    Raises DataError (file, line, field) for a row without it, and for a prompt whose rows expect different things;
    RewardError at a call with a prompt that no row has.
    """

    def __init__(self, verifier: Verifier, rows: Sequence[PromptRow]) -> None:
        self.verifier, self.name = verifier, verifier.name
        self._expected: dict[str, Any] = {}
        self._by_last_message: dict[str, Any] = {}
        places: dict[str, PromptRow] = {}
        ambiguous = set()
        for row in rows:
            try:
                expected = verifier.expected(row)
            except BadRow as problem:
                raise DataError(problem.what, **_place(row), field=problem.field) from None
            text, last = plain_text(row.prompt), last_message(row.prompt)
            if self._expected.setdefault(text, expected) != expected:
                raise DataError(
                    f"the prompt stands at {places[text].where} too, where {self.name} expects something else: "
                    f"{shown(plain_text(row.prompt))}; keep one of the rows",
                    **_place(row),
                )
            places.setdefault(text, row)
            if self._by_last_message.setdefault(last, expected) != expected:
                ambiguous.add(last)
        for last in ambiguous:
            del self._by_last_message[last]

    def __call__(self, prompts: Sequence[Text], responses: Sequence[Text]) -> list[float]:
        if len(prompts) != len(responses):
            raise RewardError(f"{self.name}: got {len(prompts)} prompts and {len(responses)} responses")
        if not responses:
            return []
        asked, texts = [plain_text(prompt) for prompt in prompts], [plain_text(response) for response in responses]
        expected = [self._find(prompt, number) for number, prompt in enumerate(prompts, start=1)]
        return checked(self.name, self.verifier.score(asked, texts, expected), texts)

    def notes(self) -> list[str]:
        """What a reader may want to know of the responses scored so far, a line each."""
        lines: list[str] = getattr(self.verifier, "notes", list)()
        return lines

    def _find(self, prompt: Text, number: int) -> Any:
        for found, key in (
            (self._expected, plain_text(prompt)),
            (self._by_last_message, last_message(prompt)),
        ):
            if key in found:
                return found[key]
        raise RewardError(
            f"{self.name}: no row has prompt {number} ({plain_text(prompt)[:60]!a}), so what it expects is not known"
        )


# ---------------------------------------------------------------------------------------------------------- verifiers


@dataclass(frozen=True)
class NumberAnswer:
    """1 where the response's final number equals the one in `field`, else 0 (see `final_number`).

    `field` may hold a number, or text with one as its final number, as GSM8K's solutions do.
    """

    field: str = "answer"
    tolerance: float = 0.0  # largest relative difference that still counts as equal

    @property
    def name(self) -> str:
        return f"number:{self.field}"

    def expected(self, row: PromptRow) -> Decimal:
        value = field_of(row, self.field, self.name)
        found = None if isinstance(value, bool) else final_number(str(value))
        if found is None:
            raise BadRow(
                "no number", f"expected a number, or text that ends with one; found {shown(value)}", self.field
            )
        return found

    def score(self, prompts: list[str], responses: list[str], expected: list[Decimal]) -> list[float]:
        return [float(self._equal(final_number(text), value)) for text, value in zip(responses, expected, strict=True)]

    def _equal(self, found: Decimal | None, value: Decimal) -> bool:
        if found is None or found == value or not self.tolerance:
            return found == value
        return abs(float(found) - float(value)) <= self.tolerance * abs(float(value))


@dataclass(frozen=True)
class ExactAnswer:
    """1 where the response's final answer is the text in `field`, else 0; runs of white space count as one blank.

    Both sides are taken by `final_answer`.
    """

    field: str = "answer"
    ignores_case: bool = False

    @property
    def name(self) -> str:
        return f"exact:{self.field}"

    def expected(self, row: PromptRow) -> str:
        value = field_of(row, self.field, self.name)
        if isinstance(value, list | dict | bool):
            raise BadRow("wrong type", f"expected text or a number; found {shown(value)}", self.field)
        return self._normal(str(value))

    def score(self, prompts: list[str], responses: list[str], expected: list[str]) -> list[float]:
        return [float(self._normal(text) == value) for text, value in zip(responses, expected, strict=True)]

    def _normal(self, text: str) -> str:
        answer = " ".join(final_answer(text).split())
        return answer.casefold() if self.ignores_case else answer


@dataclass(frozen=True)
class RowFunction:
    """A function `(prompts, responses, rows) -> numbers`: `rows` are what the prompts' records have beside the prompt."""

    name: str
    function: Callable[[list[str], list[str], list[Mapping[str, Any]]], Any]

    def expected(self, row: PromptRow) -> Mapping[str, Any]:
        return row.fields

    def score(self, prompts: list[str], responses: list[str], expected: list[Mapping[str, Any]]) -> Any:
        return self.function(prompts, responses, expected)


def pattern_reward(pattern: str) -> Reward:
    """1 where the regular expression is found in a response, else 0; `^` and `$` are its ends, (?m) those of lines.

    Raises OptionError for a pattern that is none. A pattern that backtracks without end holds up the run: prefer simple ones.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise OptionError(f"reward regex:{pattern}: not a regular expression ({error})") from None
    if not pattern:
        raise OptionError("reward regex: expected regex:PATTERN, for example regex:####\\s*-?[0-9]+")
    return CheckedReward(
        f"regex:{pattern}", lambda _, responses: [compiled.search(text) is not None for text in responses]
    )


# ------------------------------------------------------------------------------------------------------ final answers

_NUMBER = re.compile(
    r"(?<![\w.])"  # not inside a word or a number
    r"(?P<sign>[-+\u2212])?\s?(?P<currency>[$€£¥]|US\$)?\s?(?P<inner>[-+\u2212])?"
    r"(?P<digits>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?P<fraction>\.[0-9]+)?(?P<exponent>[eE][-+]?[0-9]{1,4}(?!\w))?"
    r"|(?<![\w.])(?P<bare>[-+\u2212]?\.[0-9]+)"
)
_BOX = r"\boxed{"


def final_answer(text: str) -> str:
    r"""The part of a response that is its answer: what follows the last `####`, else the last `\boxed{…}`, else all."""
    _, mark, after = text.rpartition(ANSWER_MARK)
    if mark and after.strip():
        return after.strip()
    boxed = _last_box(text)
    return text.strip() if boxed is None else boxed.strip()


def final_number(text: str) -> Decimal | None:
    r"""The number that a response ends with: the first behind the last `####`, else in the last `\boxed{…}`, else the last.

    Understands signs, thousands commas, decimals, exponents and currency signs ("-$1,234.50" is -1234.5); a fraction or
    a percentage counts by its digits alone. None where there is no number.
    """
    _, mark, after = text.rpartition(ANSWER_MARK)
    if mark and (found := _NUMBER.search(after)):
        return _decimal(found, after)
    boxed = _last_box(text)
    if boxed is not None and (found := _NUMBER.search(boxed)):
        return _decimal(found, boxed)
    numbers = list(_NUMBER.finditer(text))
    return _decimal(numbers[-1], text) if numbers else None


def _decimal(found: re.Match[str], text: str) -> Decimal | None:
    if found["bare"] is not None:
        return Decimal(found["bare"].replace("\u2212", "-"))
    sign = found["inner"] or found["sign"] or ""
    before = text[: found.start()].rstrip(" ")
    if sign and not found["inner"] and before and (before[-1].isalnum() or before[-1] in ")]"):
        sign = ""  # "10 - 5": a difference, not a negative number
    digits = found["digits"].replace(",", "") + (found["fraction"] or "") + (found["exponent"] or "")
    try:
        return Decimal(sign.replace("\u2212", "-") + digits)
    except InvalidOperation:
        return None


def _last_box(text: str) -> str | None:
    r"""What stands in the last \boxed{…}, braces in it matched; None where there is none or it is not closed."""
    start = text.rfind(_BOX)
    if start < 0:
        return None
    start += len(_BOX)
    depth = 1
    for at in range(start, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return text[start:at]
    return None


def field_of(row: PromptRow, field: str, reward: str) -> Any:
    """A field of a row. Raises BadRow where the row has none, saying what it has."""
    value = row.fields.get(field)
    if value is None or value == "" or value == []:
        kind = ", ".join(list(row.fields)[:12]) or "nothing beside its prompt"
        raise BadRow("missing field", f"missing; reward {reward} compares with it, and the row has {kind}", field)
    return value


def _place(row: PromptRow) -> dict[str, Any]:
    return {"file": row.where.file or None, "line": row.where.line or None}


def last_message(prompt: Text) -> str:
    """What a prompt asks, without what a chat puts around it: the text, or the user's last message."""
    if isinstance(prompt, str):
        return prompt
    return next((turn["content"] for turn in reversed(prompt) if turn["role"] == "user"), plain_text(prompt))
