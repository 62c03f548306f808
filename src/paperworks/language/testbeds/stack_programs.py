"""Short programs for a stack machine, written from a specification and judged by hidden tests.

A specification names a function of two integers x and y, g(u(a), v(b)): two of eight unary functions, each of x or y, joined
by one of six binary ones. A program is a sequence of ten instructions that leaves one number on the stack. Its score is the
share of hidden tests, pairs (x, y), on which that number is the specification's. Many programs are right in part: max(x, y)
is x half of the time. All programs run together, one instruction a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from paperworks.core.seeding import torch_generator
from paperworks.language.testbeds.decoders import END

INSTRUCTIONS = ("x", "y", "0", "1", "+", "-", "*", "max", "min", "dup")  # tokens 1 to 10; token 0 ends a program
UNARY = {
    "same": "{}",
    "double": "{} dup +",
    "square": "{} dup *",
    "next": "{} 1 +",
    "previous": "{} 1 -",
    "positive": "{} 0 max",
    "minus": "0 {} -",
    "absolute": "{} 0 {} - max",
}
BINARY = {"sum": "+", "difference": "-", "product": "*", "larger": "max", "smaller": "min", "excess": "- 0 max"}
MISTAKEN = {
    "double": "{} dup *",
    "square": "{} dup +",
    "next": "{} 1 -",
    "previous": "{} 1 +",
    "positive": "{}",
    "minus": "{} 0 -",
    "absolute": "{} 0 max",
    "sum": "max",
    "difference": "- 0 max",
    "product": "+",
    "larger": "min",
    "smaller": "max",
    "excess": "-",
}
"""What a programmer takes for the operation by mistake; some of it is right on part of the tests."""
VOCABULARY = 1 + len(INSTRUCTIONS) + len(UNARY) + len(BINARY)
PROMPT, STEPS = 5, 14  # tokens of a specification; the most of a program, its END included
LARGEST = 10**6  # numbers are held within +- this
_X, _DUP, _FIRST_BINARY = 1, len(INSTRUCTIONS), 1 + INSTRUCTIONS.index("+")


@dataclass(frozen=True)
class Specifications:
    """Functions to program: their prompts, and a program that is right for each."""

    prompts: Int[Tensor, "specifications prompt"]
    programs: Int[Tensor, "specifications steps"]

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, rows: Tensor | Sequence[int]) -> Specifications:
        """These of them, in this order."""
        index = torch.as_tensor(rows)
        return Specifications(self.prompts[index], self.programs[index])


def all_specifications() -> Specifications:
    """The 1536 functions. A prompt reads: binary, unary, argument, unary, argument."""
    unary = {name: 1 + len(INSTRUCTIONS) + place for place, name in enumerate(UNARY)}
    binary = {name: 1 + len(INSTRUCTIONS) + len(UNARY) + place for place, name in enumerate(BINARY)}
    prompts, programs = [], []
    for joined, first, a, second, b in product(BINARY, UNARY, "xy", UNARY, "xy"):
        prompts.append([binary[joined], unary[first], _token(a), unary[second], _token(b)])
        words = [UNARY[first].replace("{}", a), UNARY[second].replace("{}", b), BINARY[joined]]
        tokens = [_token(word) for word in " ".join(words).split()]
        programs.append(tokens + [END] * (STEPS - len(tokens)))
    return Specifications(torch.tensor(prompts), torch.tensor(programs))


@dataclass(frozen=True)
class Habits:
    """How often a programmer mistakes each operation, by its place and its argument, and how often a finger slips."""

    unary: Float[Tensor, "places operations arguments"]
    binary: Float[Tensor, " operations"]
    slip: float = 0.02  # a token

    @classmethod
    def of(cls, seed: int, *, seldom: float = 0.15, often: float = 0.6, slip: float = 0.02) -> Habits:
        """Each mistake is made seldom or often, by a coin."""
        coin = torch_generator(seed, "habits")
        chance = [
            torch.where(torch.rand(shape, generator=coin) < 0.5, seldom, often)
            for shape in ((2, len(UNARY), 2), (len(BINARY),))
        ]
        chance[0][:, list(UNARY).index("same")] = 0
        return cls(chance[0], chance[1], slip)

    def written(self, wanted: Specifications, generator: torch.Generator) -> Int[Tensor, "specifications steps"]:
        """A program for each, mistakes and slips included."""
        programs = torch.full_like(wanted.programs, END)
        slips = torch.rand(programs.shape, generator=generator) < self.slip
        other = torch.randint(1, 1 + len(INSTRUCTIONS), programs.shape, generator=generator)
        draws = torch.rand(len(wanted), 3, generator=generator)
        for row, (prompt, draw) in enumerate(zip(wanted.prompts.tolist(), draws, strict=True)):
            words: list[str] = []
            for place, (operation, argument) in enumerate((prompt[1:3], prompt[3:5])):
                index = operation - 1 - len(INSTRUCTIONS)
                name, mistaken = list(UNARY)[index], bool(draw[place] < self.unary[place, index, argument - _X])
                words += (MISTAKEN[name] if mistaken else UNARY[name]).replace("{}", "xy"[argument - _X]).split()
            index = prompt[0] - 1 - len(INSTRUCTIONS) - len(UNARY)
            name = list(BINARY)[index]
            words += (MISTAKEN[name] if bool(draw[2] < self.binary[index]) else BINARY[name]).split()
            programs[row, : len(words)] = torch.tensor([_token(word) for word in words])
        return torch.where(slips & (programs != END), other, programs)


def hidden_tests(seed: int, *, a_quadrant: int = 2) -> Int[Tensor, "tests two"]:
    """Inputs (x, y) with all combinations of signs, sizes from 1 to 5."""
    sizes = torch.randint(1, 6, (a_quadrant, 4, 2), generator=torch_generator(seed, "hidden tests"))
    return (sizes * torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]])).reshape(-1, 2)


def run_programs(
    programs: Int[Tensor, "*rows steps"], tests: Int[Tensor, "*any tests two"]
) -> tuple[Int[Tensor, "*rows tests"], Bool[Tensor, " *rows"]]:
    """What programs leave on the stack for each test, and which of them run: no operand missing, one number left, ended.

    Tests before their last two dimensions are broadcast to the rows.
    """
    rows, steps, inputs = programs.shape[:-1], programs.shape[-1], tests.shape[-2]
    flat = programs.reshape(-1, steps)
    count = len(flat)
    stack = torch.zeros(count, inputs, steps + 1, dtype=torch.long)
    size = torch.zeros(count, dtype=torch.long)
    runs, ended = torch.ones(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)
    x, y = (tests[..., place].expand(*rows, -1).reshape(count, inputs) for place in (0, 1))
    everywhere = (-1, inputs, 1)
    for step in range(steps):
        token = flat[:, step]
        ended = ended | (token == END)
        joins, copies = (token >= _FIRST_BINARY) & (token < _DUP), token == _DUP
        needed = 2 * joins + copies.long()
        runs = runs & (ended | ((token <= _DUP) & (size >= needed)))
        works = runs & ~ended
        under, top = (
            stack.gather(2, (size - back).clamp(min=0)[:, None, None].expand(everywhere)).squeeze(2) for back in (2, 1)
        )
        zero = torch.zeros_like(x)
        made = torch.stack(
            [x, y, zero, zero + 1, under + top, under - top, under * top, under.maximum(top), under.minimum(top), top]
        ).clamp(-LARGEST, LARGEST)
        value = made.gather(0, (token - 1).clamp(0, _DUP - 1)[None, :, None].expand(1, -1, inputs))[0]
        place = torch.where(joins, size - 2, size).clamp(min=0)[:, None, None].expand(everywhere)
        value = torch.where(works[:, None], value, stack.gather(2, place).squeeze(2))
        stack.scatter_(2, place, value[:, :, None])
        size = torch.where(works, torch.where(joins, size - 1, size + 1), size)
        if bool((ended | ~runs).all()):
            break
    runs = runs & ended & (size == 1)
    return stack[:, :, 0].reshape(*rows, -1), runs.reshape(rows)


def passed_share(
    programs: Int[Tensor, "*rows steps"], right: Int[Tensor, "*rows steps"], tests: Int[Tensor, "*any tests two"]
) -> Float[Tensor, " *rows"]:
    """The share of tests on which each program gives what the right one gives; 0 for programs that do not run."""
    found, runs = run_programs(programs, tests)
    expected, _ = run_programs(right, tests)
    return ((found == expected) & runs[..., None]).float().mean(-1)


def edit_distances(first: Int[Tensor, "rows steps"], second: Int[Tensor, "rows steps"]) -> Int[Tensor, " rows"]:
    """Levenshtein's distance of programs, row by row, what follows their END left out."""
    lengths = [(tokens == END).long().cumsum(1).eq(0).sum(1) for tokens in (first, second)]
    rows, steps = first.shape
    table = torch.zeros(rows, steps + 1, steps + 1, dtype=torch.long)
    table[:, :, 0] = table[:, 0, :] = torch.arange(steps + 1)
    for i, j in product(range(1, steps + 1), range(1, steps + 1)):
        changed = table[:, i - 1, j - 1] + (first[:, i - 1] != second[:, j - 1]).long()
        table[:, i, j] = torch.minimum(changed, torch.minimum(table[:, i - 1, j], table[:, i, j - 1]) + 1)
    return table[torch.arange(rows), lengths[0], lengths[1]]


def as_text(program: Int[Tensor, " steps"]) -> str:
    """A program as words, up to its END."""
    words = []
    for token in program.tolist():
        if token == END:
            break
        words.append(INSTRUCTIONS[token - 1] if token <= len(INSTRUCTIONS) else "?")
    return " ".join(words)


def _token(word: str) -> int:
    return _X + INSTRUCTIONS.index(word)
