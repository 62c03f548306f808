"""Programs in responses are found, put together with their rows' tests, run, scored and counted."""

from __future__ import annotations

import pytest

from paperworks.core.errors import DataError, OptionError
from paperworks.core.sandbox import Limits, Sandbox
from paperworks.language.data import PromptRow, Where
from paperworks.language.data.schemas import Message
from paperworks.language.rewards import load_reward
from paperworks.language.rewards.programs import UnitTests, extract_code, program_tests, split_checks
from paperworks.language.rewards.verifier import RowReward

PROMPT = '''import math


def half(x):
    """A helper that the tests do not call."""
    return x / 2


def area(r):
    """The area of a circle.
    >>> area(1)
    3.14
    """
'''
TEST = """
METADATA = {'author': 'us'}


def check(candidate):
    assert True, "always"
    assert candidate(0) == 0
    for r in (1, 2):
        assert abs(candidate(r) - 3.14159 * r * r) < 1e-3, r
    big = 10 ** 3
    assert candidate(big) > big
"""
BODY = "    return math.pi * r * r\n"
HUMANEVAL = PromptRow(PROMPT, {"test": TEST, "entry_point": "area"}, Where("he.jsonl", 1))
MBPP = PromptRow(
    "Write f.", {"test_list": ["assert f(2) == 4", "assert f(3) == N"], "test_setup_code": "N = 9", "test_imports": []}
)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(Limits(wall_seconds=5, cpu_seconds=1), allow_unsandboxed=True)


ANSWERS = {  # form: (response, all, share of the three checks)
    "a completion": (BODY, 1, 1),
    "a completion on a line of its own": ("\n" + BODY, 1, 1),
    "a completion with more behind it": (BODY + "\n\nprint(area(1))\ndef f(:\n", 1, 1),
    "a block with the function": (f"Sure:\n```python\ndef area(r):\n{BODY}```\nThat is it.", 1, 1),
    "a block with everything": (f"```py\n{PROMPT}{BODY}```", 1, 1),
    "the function among other blocks": (f"```\nx = 1\n```\nand\n```python\ndef area(r):\n{BODY}```", 1, 1),
    "a block cut by the length limit": (f"```python\ndef area(r):\n{BODY}", 1, 1),
    "a completion with a closing fence": (BODY + "```\n\nThis returns the area.", 1, 1),
    "wrong by part": ("    return r * 3.2 * r\n", 0, 2 / 3),
    "wrong": ("    return None\n", 0, 0),
    "empty": ("", 0, 0),
    "prose": ("The area is pi times r squared.", 0, 0),
}


@pytest.mark.parametrize("form", ANSWERS)
def test_humaneval_answers_of_every_form(sandbox: Sandbox, form: str) -> None:
    response, all_passed, share = ANSWERS[form]
    assert RowReward(UnitTests(sandbox), [HUMANEVAL])([PROMPT], [response]) == [all_passed]
    by_share = RowReward(UnitTests(sandbox, credit="share"), [HUMANEVAL])
    assert by_share([PROMPT], [response]) == [pytest.approx(share)]


def test_a_problem_may_be_a_users_message(sandbox: Sandbox) -> None:
    asked = (Message(role="user", content=PROMPT),)
    reward = RowReward(UnitTests(sandbox), [PromptRow(asked, HUMANEVAL.fields)])
    assert reward([asked] * 2, [BODY, f"```python\ndef area(r):\n{BODY}```"]) == [1, 1]


def test_mbpp_answers_run_with_setup_and_list_of_tests(sandbox: Sandbox) -> None:
    tests = UnitTests(sandbox, "test_list", "share")
    reward = RowReward(tests, [MBPP])
    good, half = "```python\ndef f(x): return x * x\n```", "def f(x): return x + x"
    assert reward(["Write f."] * 3, [good, half, good]) == [1, 0.5, 1]
    assert reward.name == "tests:test_list:share"
    assert tests.counts["passed"] == 2 and tests.counts["failed"] == 1
    assert reward.notes()[0] == "programs: passed 2, failed 1" and reward.notes()[1] == sandbox.description


def test_a_field_may_be_a_piece_of_python(sandbox: Sandbox) -> None:
    row = PromptRow("Set x to 3.", {"check": "assert x == 3"})
    assert RowReward(UnitTests(sandbox, "check"), [row])(["Set x to 3."] * 2, ["x = 3", "x = 4"]) == [1, 0]


def test_a_program_that_hangs_or_eats_memory_scores_0_and_is_counted(sandbox: Sandbox) -> None:
    tests = UnitTests(Sandbox(Limits(cpu_seconds=1, memory_megabytes=128), allow_unsandboxed=True), "test_list")
    endings = ["def f(x):\n  while True: pass", "def f(x): return 'x' * 10**10", "while True: print('x' * 10**5)"]
    assert RowReward(tests, [MBPP])(["Write f."] * 3, endings) == [0, 0, 0]
    assert tests.counts["timeout"] == tests.counts["memory"] == tests.counts["too much output"] == 1


def test_humanevals_check_is_taken_apart_by_what_asserts() -> None:
    checks = split_checks(TEST, "area")
    assert len(checks) == 3 and "always" not in "".join(checks)
    assert checks[0] == "METADATA = {'author': 'us'}\ncandidate = area\nassert candidate(0) == 0"
    assert checks[2].startswith("big = 10 ** 3\nassert")
    for odd in (
        "def check(candidate):\n    if not candidate(1):\n        return\n    assert candidate(2)",
        "check = len",
    ):
        assert split_checks(odd, "area") == (f"{odd}\ncheck(area)",)


def test_code_of_other_languages_is_not_taken() -> None:
    assert extract_code("```bash\nls\n```\n```python\nx = 1\n```") == "x = 1\n"
    assert extract_code("no fence: `x = 1`") == "no fence: `x = 1`"


def test_rows_without_tests_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"he.jsonl:1: field 'tests': missing; reward tests:tests .* has test, entry_point"
    ):
        load_reward("tests:tests", rows=[HUMANEVAL], allow_unsandboxed=True)
    with pytest.raises(DataError, match=r"field 'n': expected Python, or a list"):
        load_reward("tests:n", rows=[PromptRow("q", {"n": 3})], allow_unsandboxed=True)
    with pytest.raises(OptionError, match="expected tests:FIELD, tests:FIELD:all or tests:FIELD:share"):
        load_reward("tests:test:most", rows=[HUMANEVAL], allow_unsandboxed=True)
    reward = load_reward("tests", rows=[HUMANEVAL], allow_unsandboxed=True)
    assert reward.name == "tests:test" and reward([PROMPT], [BODY]) == [1]


def test_two_rows_of_one_prompt_need_the_same_tests() -> None:
    other = PromptRow(PROMPT, {"test": TEST.replace("== 0", "== 1"), "entry_point": "area"}, Where("he.jsonl", 2))
    with pytest.raises(DataError, match=r"he.jsonl:2: the prompt stands at he.jsonl:1 too"):
        load_reward("tests", rows=[HUMANEVAL, other], allow_unsandboxed=True)
    assert program_tests(HUMANEVAL) != program_tests(other)
