"""Generated word problems are right, and their steps and answers can be checked; so can GSM8K's."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from paperworks.core.errors import DataError, OptionError
from paperworks.language.rewards import load_reward
from paperworks.language.testbeds.arithmetic import (
    check_steps,
    first_wrong_step,
    generate_problems,
    is_solved,
    read_gsm8k,
    value_of,
)


def test_generated_solutions_are_right_in_every_step() -> None:
    problems = generate_problems(300, 0, steps=(2, 5))
    for problem in problems:
        checks = check_steps(problem.solution)
        assert 2 <= len(checks) <= 5 and all(checks)
        assert is_solved(problem.solution, problem.answer) and int(problem.answer) >= 1
    assert {len(check_steps(problem.solution)) for problem in problems} == {2, 3, 4, 5}
    assert len({problem.question for problem in problems}) > 290


def test_the_question_and_the_solution_tell_the_same_numbers() -> None:
    for problem in generate_problems(50, 1, steps=(1, 1)):
        start = problem.question.split()[2]
        assert problem.solution.split("<<")[1].startswith(start)


def test_problems_follow_from_the_seed() -> None:
    assert generate_problems(5, 3) == generate_problems(5, 3) != generate_problems(5, 4)
    assert generate_problems(5, 3) == generate_problems(9, 3)[:5]
    with pytest.raises(OptionError, match="expected 1 ≤ fewest ≤ most ≤ 8"):
        generate_problems(1, 0, steps=(3, 2))


def test_a_wrong_step_is_found() -> None:
    solution = "6 - 3 = <<6-3=3>>3\n3 * 4 = <<3*4=13>>13\n13 + 1 = <<13+1=14>>14\n#### 14"
    assert check_steps(solution) == [True, False, True] and first_wrong_step(solution) == 1
    assert first_wrong_step("no steps\n#### 14") is None
    assert is_solved(solution, "14.0") and not is_solved(solution, "13")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("16-3-4", 9),
        ("$1,000 * 2", 2000),
        ("20%*50", 10),
        ("(1/2 + 1/3) * 6", 5),
        (".1+.2", Fraction(3, 10)),
        ("-5+05", 0),
        ("7//2", 3),
        ("1/0", None),
        ("2**9**9", None),
        ("__import__('os')", None),
        ("", None),
        ("(" * 90 + "1" + ")" * 90, 1),
        ("1+" * 500 + "1", None),
    ],
)
def test_values_are_exact(expression: str, value: object) -> None:
    assert value_of(expression) == value


def test_results_may_be_rounded_to_the_digits_they_show() -> None:
    assert check_steps("<<2/3=0.67>> <<2/3=.666>> <<2/3=0.7>> <<2/3=0.6>> <<2/3=0.9>> <<2/3=1>>") == [
        True, True, True, True, False, False,
    ]  # fmt: skip


def test_gsm8k_files_are_read_and_rows_go_with_the_verifier(tmp_path: Path) -> None:
    made = generate_problems(3, 0)
    path = tmp_path / "gsm8k.jsonl"
    path.write_text("".join(json.dumps(problem.as_record()) + "\n" for problem in made))
    assert read_gsm8k(path) == made and read_gsm8k(path, limit=1) == made[:1]
    reward = load_reward("number", rows=[problem.as_row() for problem in made])
    assert reward([problem.question for problem in made], [problem.solution for problem in made]) == [1, 1, 1]
    path.write_text('{"question": "a", "answer": "b"}\n')
    with pytest.raises(DataError, match=r"gsm8k.jsonl:1: field 'answer'"):
        read_gsm8k(path)
