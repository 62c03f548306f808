"""Rewards by unit tests: the program in a response is run in the sandbox with the tests of its prompt's row.

Understands HumanEval's rows (a prompt that is the beginning of a function, `test` with `check(candidate)`,
`entry_point`), MBPP's (`test_list`, `test_setup_code`), and any row with a piece of Python or a list of pieces.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from paperworks.core.sandbox import Outcome, Program, Sandbox, counted
from paperworks.language.data.problems import BadRow, shown
from paperworks.language.data.schemas import PromptRow
from paperworks.language.rewards.verifier import field_of, last_message

Credit = Literal["all", "share"]

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@", "\nassert", "\n```")
"""Where the completion of a function is over (HumanEval's own stops, arXiv 2107.03374, and three more)."""

_FENCE = re.compile(
    r"^[ \t]*```[ \t]*(?P<language>[\w+.-]*)[^\n]*\n(?P<code>.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class ProgramTests:
    """What a program must do: `checks`, pieces of Python run one after another behind `setup` and the program.

    `beginning` is code that a response continues (HumanEval's prompt), `entry_point` the function that is called.
    """

    checks: tuple[str, ...]
    setup: str = ""
    beginning: str = ""
    entry_point: str = ""

    def program(self, response: str) -> Program:
        """A response as a program with its tests."""
        code = extract_code(response, self.entry_point)
        if self.beginning:
            defines = _definition(self.entry_point)
            start = defines.search(self.beginning)
            if defines.search(code):
                code = self.beginning[: start.start() if start else None] + "\n" + code
            else:
                code = self.beginning.rstrip() + "\n" + cut_at(code, STOPS)
        return Program("\n".join(filter(None, (self.setup, code))), self.checks)


@dataclass
class UnitTests:
    """1 where the program in a response passes all tests of its row, else 0; with credit "share" the share it passes.

    `field` holds HumanEval's `test`, MBPP's `test_list`, or Python to run behind the program. Whatever a program does,
    it ends in a number; `counts` says how programs ended, by status.
    """

    sandbox: Sandbox
    field: str = "test"
    credit: Credit = "all"
    counts: Counter[str] = dataclasses.field(default_factory=Counter)

    @property
    def name(self) -> str:
        return f"tests:{self.field}{'' if self.credit == 'all' else ':' + self.credit}"

    def expected(self, row: PromptRow) -> ProgramTests:
        return program_tests(row, self.field, splits=self.credit == "share", reward=self.name)

    def score(self, prompts: list[str], responses: list[str], expected: list[ProgramTests]) -> list[float]:
        outcomes = self.outcomes(responses, expected)
        return [outcome.share if self.credit == "share" else float(outcome.status == "passed") for outcome in outcomes]

    def outcomes(self, responses: list[str], expected: list[ProgramTests]) -> list[Outcome]:
        """How each program ended; equal ones run once."""
        programs = [tests.program(response) for response, tests in zip(responses, expected, strict=True)]
        different = list(dict.fromkeys(programs))
        found = dict(zip(different, self.sandbox.run(different), strict=True))
        outcomes = [found[program] for program in programs]
        self.counts.update(counted(outcomes))
        return outcomes

    def notes(self) -> list[str]:
        """How the programs ended so far."""
        ended = ", ".join(f"{status} {count}" for status, count in self.counts.items() if count)
        return [f"programs: {ended}", self.sandbox.description] if ended else []


def program_tests(row: PromptRow, name: str = "test", *, splits: bool = False, reward: str = "tests") -> ProgramTests:
    """The tests in the field `name` of a row; with `splits` HumanEval's `check` is taken apart, a check an assert.

    Raises BadRow where the row has none.
    """
    tests, entry_point = field_of(row, name, reward), row.fields.get("entry_point")
    if isinstance(tests, str) and isinstance(entry_point, str) and entry_point:
        checks = split_checks(tests, entry_point) if splits else (f"{tests}\ncheck({entry_point})",)
        return ProgramTests(checks, "", last_message(row.prompt), entry_point)
    checks = (tests,) if isinstance(tests, str) else tuple(tests) if isinstance(tests, list) else ()
    if not checks or not all(isinstance(check, str) for check in checks):
        raise BadRow("wrong type", f"expected Python, or a list of pieces of Python; found {shown(tests)}", name)
    setup = [row.fields.get("test_setup_code"), *_strings(row.fields.get("test_imports"))]
    return ProgramTests(checks, "\n".join(each for each in setup if isinstance(each, str) and each))


def extract_code(response: str, entry_point: str = "") -> str:
    """The Python in a response: its fenced block (the one that defines `entry_point`, else the first), else all of it.

    A block that is not closed, as in an answer that was cut, goes to the end. A response that begins with an indented
    line goes on with a function: then it is what stands before the first fence.
    """
    fences = list(_FENCE.finditer(response))
    before = response[: fences[0].start()] if fences else response
    if before.strip() and before.lstrip("\n")[:1] in (" ", "\t"):
        return before
    blocks = [found["code"] for found in fences if found["language"].lower() in ("", "python", "py", "python3")]
    if not blocks:
        return response
    wanted = _definition(entry_point) if entry_point else None
    return next((block for block in blocks if wanted is not None and wanted.search(block)), blocks[0])


def cut_at(text: str, stops: tuple[str, ...]) -> str:
    """The text before the first of `stops`."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def split_checks(test: str, entry_point: str) -> tuple[str, ...]:
    """HumanEval's `def check(candidate): …` as one check a statement that asserts, what stands between put before them.

    Asserts of a constant, which nothing can fail, are left out. A test of another shape stays whole.
    """
    whole = (f"{test}\ncheck({entry_point})",)
    try:
        module = ast.parse(test)
    except SyntaxError:
        return whole
    check = next((each for each in module.body if isinstance(each, ast.FunctionDef) and each.name == "check"), None)
    if check is None or len(check.args.args) != 1:
        return whole
    if any(isinstance(node, ast.Return | ast.Global | ast.Nonlocal | ast.Yield) for node in ast.walk(check)):
        return whole
    before = [ast.unparse(each) for each in module.body if each is not check]
    before.append(f"{check.args.args[0].arg} = {entry_point}")
    checks: list[str] = []
    for statement in check.body:
        asserts = [node for node in ast.walk(statement) if isinstance(node, ast.Assert)]
        if asserts and all(isinstance(node.test, ast.Constant) and node.test.value for node in asserts):
            continue
        before.append(ast.unparse(statement))
        if asserts:
            checks.append("\n".join(before))
            before = []
    return tuple(checks) or whole


def _definition(function: str) -> re.Pattern[str]:
    return re.compile(rf"^(async[ \t]+)?def[ \t]+{re.escape(function)}\b", re.MULTILINE)


def _strings(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
