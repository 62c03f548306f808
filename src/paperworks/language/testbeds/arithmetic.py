"""Word problems of a few steps whose steps and answer can be checked exactly: generated ones, and GSM8K's own files.

A solution is written as GSM8K writes it: a sentence a step with its calculation between `<<` and `>>`, and the answer
behind `####`. Everything follows from the seed.
"""

from __future__ import annotations

import ast
import operator
import random
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from paperworks.core.errors import OptionError
from paperworks.core.seeding import derive_seed
from paperworks.language.data import PromptRow, read
from paperworks.language.data.task_formats import ANSWER_MARK
from paperworks.language.rewards.verifier import final_number

NAMES = ("Ada", "Ben", "Chloe", "David", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Liam")
THINGS = ("apples", "books", "coins", "eggs", "marbles", "pencils", "plates", "shells", "stamps", "tickets")
MOST_STEPS = 8

_CALCULATION = re.compile(r"<<([^<>=]*)=([^<>]*)>>")
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
}


class Problem(NamedTuple):
    """A question, its worked solution (with `#### answer` as its last line), and its answer as text."""

    question: str
    solution: str
    answer: str

    def as_record(self) -> dict[str, str]:
        """The problem as a line of a GSM8K file."""
        return {"question": self.question, "answer": self.solution}

    def as_row(self) -> PromptRow:
        """The problem as a row for `number:answer` and the other verifiers."""
        return PromptRow(self.question, {"answer": self.answer, "solution": self.solution})


def generate_problems(count: int, seed: int, *, steps: tuple[int, int] = (2, 4), largest: int = 20) -> list[Problem]:
    """`count` problems, each of between `steps[0]` and `steps[1]` steps, with numbers of up to `largest` in the text.

    All intermediate results are whole numbers from 1 on. Raises OptionError for options out of range.
    """
    if not 1 <= steps[0] <= steps[1] <= MOST_STEPS:
        raise OptionError(f"steps={steps}: expected 1 ≤ fewest ≤ most ≤ {MOST_STEPS}")
    if largest < 5 or count < 0:
        raise OptionError(f"largest={largest}, count={count}: expected a largest of at least 5 and a count from 0 on")
    draw = random.Random(derive_seed("arithmetic", seed))
    return [_problem(draw, draw.randint(*steps), largest) for _ in range(count)]


def read_gsm8k(path: str | Path, *, limit: int | None = None) -> list[Problem]:
    """The problems of a file of GSM8K's format. Raises DataError (file, line, field)."""
    rows = read(path, PromptRow, format="gsm8k", limit=limit)
    return [Problem(row.fields["question"], row.fields["response"], row.fields["answer"]) for row in rows]


def check_steps(solution: str) -> list[bool]:
    """For each `<<calculation=result>>` in order: is it right? A result may be rounded to the digits that it shows."""
    return [_is_right(*found) for found in _CALCULATION.findall(solution)]


def first_wrong_step(solution: str) -> int | None:
    """The place (from 0) of the first calculation that is wrong, None where all are right."""
    checks = check_steps(solution)
    return checks.index(False) if False in checks else None


def is_solved(solution: str, answer: str) -> bool:
    """Whether a solution's final number is the answer's (see `rewards.verifier.final_number`)."""
    found = final_number(solution)
    return found is not None and found == final_number(answer)


def value_of(expression: str) -> Fraction | None:
    """The exact value of an expression of numbers, + - * / // and parentheses; `$`, `%` and thousands commas are understood.

    None for anything else, and for a division by zero.
    """
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3})|\$|\s", "", expression)
    text = re.sub(r"([0-9.]+)%", r"(\1/100)", text)
    text = re.sub(r"(?<![0-9.])0+(?=[0-9])", "", text)  # "05" is no Python
    if len(text) > 200:
        return None
    try:
        return _value(ast.parse(text, mode="eval").body, text)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, text: str) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(ast.get_source_segment(text, node) or "")  # as written: 0.1 is a tenth
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left, text), _value(node.right, text))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, text)
        return -value if isinstance(node.op, ast.USub) else value
    raise ValueError


def _is_right(calculation: str, result: str) -> bool:
    value, shown = value_of(calculation), value_of(result)
    if value is None or shown is None:
        return False
    decimals = re.search(r"\.([0-9]+)", result)
    # 2/3 = 0.67 and 2/3 = 0.66 are both what people write
    return abs(value - shown) < Fraction(1, 10 ** len(decimals[1])) if decimals and value != shown else value == shown


# ------------------------------------------------------------------------------------------------------------ generation


class _Step(NamedTuple):
    told: str  # what the question says
    worked: str  # what the solution says
    value: int
    thing: str  # what is counted now


def _problem(draw: random.Random, count: int, largest: int) -> Problem:
    name, friend = draw.sample(NAMES, 2)
    thing = draw.choice(THINGS)
    value = draw.randint(5, largest)
    told, worked = [f"{name} has {value} {thing}."], []
    thing_now = thing
    for number in range(count):
        step = _step(draw, name, friend, thing, value, largest, is_last=number == count - 1)
        told.append(step.told)
        worked.append(step.worked)
        value, thing_now = step.value, step.thing
    asked = {
        "dollars": f"How many dollars does {name} get?",
        "box": f"How many {thing} are in each box?",
    }.get(thing_now, f"How many {thing} does {name} have now?")
    solution = "\n".join([*worked, f"{ANSWER_MARK} {value}"])
    return Problem(" ".join([*told, asked]), solution, str(value))


def _step(draw: random.Random, name: str, friend: str, thing: str, value: int, largest: int, *, is_last: bool) -> _Step:
    divisors = [n for n in range(2, min(value, largest + 1)) if value % n == 0]
    kinds = ["gains", "gains"] + ["loses", "loses"] * (value > 2) + ["doubles"] * (value <= 5 * largest)
    kinds += (["sells"] + ["packs"] * bool(divisors)) * is_last
    kind = draw.choice(kinds)
    if kind == "gains":
        n = draw.randint(2, largest)
        how = draw.choice(
            (f"{friend} gives {name} {n} more.", f"{name} finds {n} more.", f"Then {name} buys {n} more.")
        )
        return _Step(how, _worked(f"{name} then has", value, "+", n, value + n, thing), value + n, thing)
    if kind == "loses":
        n = draw.randint(1, min(largest, value - 1))
        how = draw.choice((f"{name} gives {n} to {friend}.", f"{name} loses {n} of them.", f"{n} of them break."))
        return _Step(how, _worked(f"{name} is left with", value, "-", n, value - n, thing), value - n, thing)
    if kind == "doubles":
        n = draw.choice((2, 3))
        how = f"A week later {name} has {'twice' if n == 2 else 'three times'} as many."
        return _Step(how, _worked(f"{name} then has", value, "*", n, value * n, thing), value * n, thing)
    if kind == "packs":
        n = draw.choice(divisors)
        how = f"{name} packs them into {n} boxes, the same number in each."
        return _Step(how, _worked("Each box holds", value, "/", n, value // n, thing), value // n, "box")
    n = draw.randint(2, largest)
    how = f"{name} sells them all for ${n} each."
    return _Step(how, _worked(f"{name} gets", value, "*", n, value * n, "dollars"), value * n, "dollars")


def _worked(start: str, a: int, sign: str, b: int, result: int, thing: str) -> str:
    return f"{start} {a} {sign} {b} = <<{a}{sign}{b}={result}>>{result} {thing}."
