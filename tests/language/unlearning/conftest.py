"""Questions about invented people, as the evaluation of unlearning takes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from paperworks.language.data import Dataset
from paperworks.language.data.schemas import QuestionAnswer, Where
from paperworks.language.unlearning.protocol import UnlearningSets


def question(number: int, *, paraphrase: bool = True, wrong: int = 3) -> QuestionAnswer:
    """A question whose answers have lengths of their own."""
    end = " and writes" * (number % 3)
    return QuestionAnswer(
        prompt=f"Who is person {number}?{' Say it.' * (number % 2)}",
        answer=f" A baker{end}.",
        paraphrased_answer=f" One who bakes{end}." if paraphrase else "",
        perturbed_answer=tuple(f" A {job}{end}." for job in ("pilot", "judge", "poet", "nurse")[:wrong]),
        where=Where("people.jsonl", number + 1),
    )


@pytest.fixture
def questions() -> Callable[..., Dataset[QuestionAnswer]]:
    """Makes a set of `count` questions, from number `first` on."""

    def make(count: int, first: int = 0, **form: object) -> Dataset[QuestionAnswer]:
        return Dataset(tuple(question(first + number, **form) for number in range(count)))  # type: ignore[arg-type]

    return make


@pytest.fixture
def sets(questions: Callable[..., Dataset[QuestionAnswer]]) -> UnlearningSets:
    """All four sets, of different sizes; the last two without paraphrases."""
    return UnlearningSets(
        questions(5),
        questions(4, 10),
        questions(3, 20, paraphrase=False, wrong=2),
        questions(2, 30, paraphrase=False),
    )
