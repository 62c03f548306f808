"""Small Python functions to write from a description, with unit tests: rows in HumanEval's and in MBPP's shape.

Twenty kinds of functions of a list of whole numbers, each with numbers in it where it has places for them. Everything
follows from the seed. Programs run in the sandbox (rewards/programs); for a machine whose programs run without one, and
many at a time, see stack_programs.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from paperworks.core.errors import OptionError
from paperworks.core.seeding import derive_seed


class _Kind(NamedTuple):
    name: str
    text: str  # what it returns
    expression: str  # of `numbers`


KINDS = (
    _Kind("sum_of_evens", "the sum of the even numbers", "sum(n for n in numbers if n % 2 == 0)"),
    _Kind("sum_of_odds", "the sum of the odd numbers", "sum(n for n in numbers if n % 2 == 1)"),
    _Kind("count_above_{a}", "how many of the numbers are greater than {a}", "sum(n > {a} for n in numbers)"),
    _Kind("sum_below_{a}", "the sum of the numbers that are less than {a}", "sum(n for n in numbers if n < {a})"),
    _Kind("largest_plus_{a}", "the largest number plus {a}", "max(numbers) + {a}"),
    _Kind("smallest_times_{a}", "the smallest number times {a}", "min(numbers) * {a}"),
    _Kind("spread", "the largest number minus the smallest", "max(numbers) - min(numbers)"),
    _Kind("sum_of_squares", "the sum of the squares of the numbers", "sum(n * n for n in numbers)"),
    _Kind("multiples_of_{a}", "the list of the numbers that {a} divides", "[n for n in numbers if n % {a} == 0]"),
    _Kind("times_{a}_plus_{b}", "each number times {a} plus {b}, as a list", "[n * {a} + {b} for n in numbers]"),
    _Kind("at_most_{a}", "each number, or {a} where it is greater, as a list", "[min(n, {a}) for n in numbers]"),
    _Kind("remainders_of_{a}", "the remainder of each number divided by {a}, as a list", "[n % {a} for n in numbers]"),
    _Kind("without_{a}", "the list of the numbers that are not {a}", "[n for n in numbers if n != {a}]"),
    _Kind("in_steps_of_{a}", "the list of the numbers at places 0, {a}, 2 * {a} and so on", "numbers[::{a}]"),
    _Kind("last_{a}_reversed", "the last {a} numbers, from the back", "numbers[::-1][:{a}]"),
    _Kind(
        "differences",
        "the list of each number minus the one before it",
        "[b - a for a, b in zip(numbers, numbers[1:])]",
    ),
    _Kind("different", "how many different numbers there are", "len(set(numbers))"),
    _Kind("in_order", "whether no number is less than the one before it", "numbers == sorted(numbers)"),
    _Kind("smallest_{a}", "the {a} smallest numbers in rising order", "sorted(numbers)[:{a}]"),
    _Kind(
        "sum_between_{a}_and_{c}",
        "the sum of the numbers from {a} to {c}",
        "sum(n for n in numbers if {a} <= n <= {c})",
    ),
)


class PythonTask(NamedTuple):
    """A function to write: its name, what it returns, a right body, and calls with what they should give."""

    name: str
    text: str
    expression: str
    cases: tuple[tuple[list[int], Any], ...]

    @property
    def solution(self) -> str:
        """The whole function."""
        return f"def {self.name}(numbers):\n    return {self.expression}\n"

    def humaneval_record(self, number: int = 0) -> dict[str, Any]:
        """The task as a line of a file of HumanEval's shape."""
        shown, expected = self.cases[0]
        example = f"    >>> {self.name}({shown})\n    {expected}\n"
        checks = "".join(f"    assert candidate({given}) == {result!r}\n" for given, result in self.cases)
        return {
            "task_id": f"functions/{number}",
            "prompt": f'def {self.name}(numbers):\n    """Returns {self.text}.\n{example}    """\n',
            "entry_point": self.name,
            "canonical_solution": f"    return {self.expression}\n",
            "test": f"def check(candidate):\n{checks}",
        }

    def mbpp_record(self, number: int = 0) -> dict[str, Any]:
        """The task as a line of a file of MBPP's shape."""
        return {
            "task_id": number,
            "text": f"Write a function {self.name} that takes a list of whole numbers and returns {self.text}.",
            "code": self.solution,
            "test_list": [f"assert {self.name}({given}) == {result!r}" for given, result in self.cases],
            "test_setup_code": "",
        }


def generate_tasks(count: int, seed: int, *, tests: int = 6) -> list[PythonTask]:
    """`count` tasks, no two of one name, kinds as even as they can be, each with so many tests.

    Raises OptionError for more than there are.
    """
    draw = random.Random(derive_seed("python tasks", seed))
    by_kind = [draw.sample(tasks, len(tasks)) for tasks in map(_tasks_of, KINDS)]
    most = sum(map(len, by_kind))
    if not 0 <= count <= most or tests < 1:
        raise OptionError(f"count={count}, tests={tests}: expected at most {most} tasks and at least 1 test")
    chosen: list[tuple[str, str, str]] = []
    while len(chosen) < count:
        chosen += [tasks.pop() for tasks in draw.sample(by_kind, len(by_kind)) if tasks]
    return [_with_cases(draw, tests, *task) for task in chosen[:count]]


def _tasks_of(kind: _Kind) -> list[tuple[str, str, str]]:
    """(name, text, expression) with every choice of numbers, once each."""
    choices = ({"a": a, "b": b, "c": a + b} for a in range(2, 10) for b in range(1, 10))
    return sorted({(kind.name.format(**c), kind.text.format(**c), kind.expression.format(**c)) for c in choices})


def _with_cases(draw: random.Random, tests: int, name: str, text: str, expression: str) -> PythonTask:
    names: dict[str, Any] = {}
    exec(f"def function(numbers):\n    return {expression}\n", names)  # our own words, from KINDS above
    cases = []
    for _ in range(tests):
        given = [draw.randint(-9, 20) for _ in range(draw.randint(3, 8))]
        if draw.random() < 0.2:
            given.sort()
        cases.append((given, names["function"](list(given))))
    return PythonTask(name, text, expression, tuple(cases))
