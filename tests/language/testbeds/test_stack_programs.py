"""The stack machine: what programs compute, which do not run, how far apart they are, and how often a programmer errs."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from paperworks.language.testbeds import stack_programs
from paperworks.language.testbeds.decoders import END
from paperworks.language.testbeds.stack_programs import INSTRUCTIONS, STEPS, Habits

EVERY = stack_programs.all_specifications()
TESTS = torch.tensor([[3, -2], [-1, 4], [5, 5]])


def program(text: str) -> torch.Tensor:
    tokens = [1 + INSTRUCTIONS.index(word) for word in text.split()]
    return torch.tensor(tokens + [END] * (STEPS - len(tokens)))


@pytest.mark.parametrize(
    ("text", "results"),
    [
        ("x", [3, -1, 5]),
        ("x y -", [5, -5, 0]),
        ("x y max dup *", [9, 16, 25]),
        ("0 y - 1 + x min", [3, -3, -4]),
        ("x 0 x - max y +", [1, 5, 10]),
    ],
)
def test_programs_by_hand(text: str, results: list[int]) -> None:
    found, runs = stack_programs.run_programs(program(text), TESTS)
    assert bool(runs)
    assert found.tolist() == results


@pytest.mark.parametrize("text", ["", "x y", "+", "x +", "dup", "x dup dup +", " ".join(["x", *["dup +"] * 6, "1"])])
def test_programs_that_leave_no_single_number_do_not_run(text: str) -> None:
    assert not stack_programs.run_programs(program(text), TESTS)[1]


def test_a_program_has_to_end_and_to_be_made_of_instructions() -> None:
    endless = torch.tensor([1] + [10, 5] * 6 + [10])  # x, then "dup +" until there is no room for END
    assert not stack_programs.run_programs(endless, TESTS)[1]
    assert not stack_programs.run_programs(torch.tensor([15] + [END] * (STEPS - 1)), TESTS)[1]


def test_the_machine_does_what_python_does_on_random_programs() -> None:
    draw = random.Random(0)
    programs = torch.tensor([[draw.randrange(11) for _ in range(STEPS)] for _ in range(3000)])
    programs[:, -1] = END
    programs[: len(EVERY)] = EVERY.programs
    found, runs = stack_programs.run_programs(programs, TESTS)
    for row, tokens in enumerate(programs.tolist()):
        expected = [_by_python(tokens, x, y) for x, y in TESTS.tolist()]
        assert bool(runs[row]) == (None not in expected)
        if bool(runs[row]):
            assert found[row].tolist() == expected


def _by_python(tokens: list[int], x: int, y: int) -> int | None:
    stack: list[int] = []
    joined = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "max": max,
        "min": min,
    }
    for token in itertools.takewhile(lambda token: token != END, tokens):
        word = INSTRUCTIONS[token - 1]
        try:
            if word in joined:
                second, first = stack.pop(), stack.pop()
                stack.append(joined[word](first, second))
            else:
                stack.append(stack[-1] if word == "dup" else {"x": x, "y": y, "0": 0, "1": 1}[word])
        except IndexError:
            return None
        stack[-1] = max(-stack_programs.LARGEST, min(stack_programs.LARGEST, stack[-1]))
    return stack[0] if len(stack) == 1 else None


def test_every_specification_has_a_right_program_and_a_prompt_of_its_own() -> None:
    assert len(EVERY) == 1536
    assert len({tuple(prompt) for prompt in EVERY.prompts.tolist()}) == 1536
    assert (EVERY.programs != END).sum(1).max() < STEPS
    assert (stack_programs.passed_share(EVERY.programs, EVERY.programs, stack_programs.hidden_tests(0)) == 1).all()


def test_a_program_may_be_right_in_part() -> None:
    score = stack_programs.passed_share(
        program("x"), program("x y max"), torch.tensor([[3, -2], [-1, 4], [5, 5], [0, 1]])
    )
    assert score.item() == 0.5
    assert stack_programs.passed_share(program("x y"), program("x y max"), TESTS).item() == 0


def test_tests_may_be_of_each_row_s_own() -> None:
    programs = torch.stack([program("x y +"), program("x y -")])
    tests = torch.stack([TESTS, TESTS + 1])
    found, _ = stack_programs.run_programs(programs[:, None], tests[:, None])
    assert found[0, 0].tolist() == [1, 3, 10]
    assert found[1, 0].tolist() == [5, -5, 0]


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [
        ("x y +", "x y +", 0),
        ("x y +", "x y -", 1),
        ("x y +", "y x +", 2),
        ("x", "x dup + 1 +", 4),
        ("x 1 + y max", "1 y max", 2),
    ],
)
def test_edit_distances_by_hand(first: str, second: str, distance: int) -> None:
    rows = program(first)[None], program(second)[None]
    assert (
        stack_programs.edit_distances(*rows).tolist()
        == stack_programs.edit_distances(*rows[::-1]).tolist()
        == [distance]
    )


def test_hidden_tests_have_all_signs_and_differ_by_seed() -> None:
    tests = stack_programs.hidden_tests(3)
    assert {tuple(row) for row in tests.sign().tolist()} == set(itertools.product((-1, 1), repeat=2))
    assert len(tests) == 8
    assert not torch.equal(tests, stack_programs.hidden_tests(4))


def test_a_programmer_without_habits_is_right_and_one_with_them_as_often_as_they_say() -> None:
    draw = torch.Generator().manual_seed(0)
    perfect = Habits(torch.zeros(2, 8, 2), torch.zeros(6), slip=0.0)
    assert torch.equal(perfect.written(EVERY, draw), EVERY.programs)
    half = Habits(torch.zeros(2, 8, 2), torch.full((6,), 0.5), slip=0.0)
    right = (half.written(EVERY, draw) == EVERY.programs).all(1).float().mean()
    assert right.item() == pytest.approx(0.5, abs=0.05)
    wrong = stack_programs.passed_share(half.written(EVERY, draw), EVERY.programs, stack_programs.hidden_tests(0)) < 1
    assert 0.2 < wrong.float().mean().item() <= 0.55


def test_as_text_reads_back() -> None:
    assert stack_programs.as_text(program("x 0 x - max y +")) == "x 0 x - max y +"
