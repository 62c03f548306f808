"""File layouts of tasks whose answers can be verified: GSM8K, HumanEval, MBPP.

Each makes of a record one plain row with `prompt` and `response` (the data's own solution), and with what a verifier
needs beside them: `answer`, the final answer; or `test`, unit tests (see rewards/programs).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paperworks.language.data import values
from paperworks.language.data.problems import BadRow, shown

ANSWER_MARK = "####"  # before the final answer in GSM8K's solutions


def gsm8k(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """{question, answer: "steps … #### 42"} as {prompt, response: the whole solution, answer: "42"}. Raises BadRow."""
    question, solution = _string(record, "question", "gsm8k"), _string(record, "answer", "gsm8k")
    _, mark, answer = solution.rpartition(ANSWER_MARK)
    if not mark or not answer.strip():
        raise BadRow(
            "no final answer", f"expected a solution that ends with `#### ANSWER`; found {shown(solution)}", "answer"
        )
    return [{**record, "prompt": question, "response": solution, "answer": answer.strip()}]


def humaneval(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """{prompt, entry_point, test, canonical_solution} as {prompt: without its last line end, response: the solution}.

    The line end is the response's to write: tokens that hold it together with what follows are what models have learnt.
    Raises BadRow.
    """
    for field in ("prompt", "entry_point", "test"):
        _string(record, field, "humaneval")
    solution = record.get("canonical_solution")
    response = f"\n{solution}" if isinstance(solution, str) else solution
    return [{**record, "prompt": record["prompt"].rstrip(), "response": response}]


def mbpp(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """{text or prompt, test_list, code} as {prompt: the text and its tests, response: code, test: test_list}.

    The tests stand in the prompt as in the paper (arXiv 2108.07732): without them no one could know the function's name.
    Raises BadRow.
    """
    text = _string(record, "text" if "text" in record else "prompt", "mbpp")
    tests = record.get("test_list")
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise BadRow("wrong type", f"expected a list of strings (--format mbpp); found {shown(tests)}", "test_list")
    prompt = "\n".join([text.strip(), "Your code should pass these tests:", "", *tests, ""])
    return [{**record, "prompt": prompt, "response": record.get("code"), "test": tests}]


def task_format(record: Mapping[str, Any]) -> str | None:
    """The layout that a record shows the marks of, None for another."""
    if all(isinstance(record.get(field), str) for field in ("prompt", "entry_point", "test")):
        return "humaneval"
    if isinstance(record.get("test_list"), list) and isinstance(record.get("code"), str):
        return "mbpp"
    answer = record.get("answer")
    if isinstance(record.get("question"), str) and isinstance(answer, str) and ANSWER_MARK in answer:
        return "gsm8k"
    return None


def _string(record: Mapping[str, Any], field: str, format: str) -> str:
    if record.get(field) is None:
        raise BadRow("missing field", f"missing; expected text (--format {format})", field)
    text = values.filled_text(record[field], field)
    if not isinstance(text, str):
        raise BadRow("wrong type", f"expected a string (--format {format}); found {shown(text)}", field)
    return text
