"""Generated functions pass their own tests in the sandbox, in HumanEval's shape and in MBPP's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paperworks.core.errors import OptionError
from paperworks.core.sandbox import Sandbox
from paperworks.language.data import PromptRow, read
from paperworks.language.rewards.programs import UnitTests
from paperworks.language.rewards.verifier import RowReward
from paperworks.language.testbeds.programs import KINDS, generate_tasks


@pytest.mark.parametrize("shape", ["humaneval", "mbpp"])
def test_every_kind_passes_its_own_tests_and_a_wrong_body_does_not(tmp_path: Path, shape: str) -> None:
    tasks = generate_tasks(len(KINDS), 0)
    records = [getattr(task, f"{shape}_record")(number) for number, task in enumerate(tasks)]
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    rows = read(path, PromptRow).rows
    reward = RowReward(UnitTests(Sandbox(allow_unsandboxed=True)), rows)
    prompts = [row.prompt for row in rows]
    assert reward(prompts, [row.fields["response"] for row in rows]) == [1] * len(KINDS)
    wrong = [f"```python\ndef {task.name}(numbers):\n    return 'no'\n```" for task in tasks[:4]]
    assert reward(prompts[:4], wrong) == [0] * 4


def test_tasks_differ_are_of_every_kind_and_follow_from_the_seed() -> None:
    tasks = generate_tasks(100, 0)
    assert len({task.name for task in tasks}) == 100
    assert len({task.expression for task in generate_tasks(len(KINDS), 5)}) == len(KINDS)
    assert generate_tasks(9, 1) == generate_tasks(9, 1) != generate_tasks(9, 2)
    assert all(len(task.cases) == 3 for task in generate_tasks(4, 0, tests=3))
    with pytest.raises(OptionError, match="expected at most"):
        generate_tasks(10_000, 0)
