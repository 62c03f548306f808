"""`paperworks evaluate programs`: pass@k from programs that ran, the data's own solutions, one line for mistakes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.cli import evaluate_programs_cmd
from paperworks.cli.main import main
from paperworks.core.errors import PaperworksError
from paperworks.core.runs import RunStore
from paperworks.language.policy import Policy
from paperworks.language.program_evaluation import ProgramJob, ProgramOptions, evaluate_programs, pass_at_k
from paperworks.language.sampling import Sample, Samples
from paperworks.language.testbeds.programs import PythonTask, generate_tasks
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy
from paperworks.language.train_job import DataSource

torch.set_num_threads(1)
Evaluate = Callable[..., dict[str, Any]]
TASKS = generate_tasks(4, 0)


def file_of(folder: Path, tasks: list[PythonTask], shape: str = "humaneval") -> Path:
    path = folder / f"{shape}.jsonl"
    records = [getattr(task, f"{shape}_record")(number) for number, task in enumerate(tasks)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Runs the command and returns its JSON, figures by name."""

    def run(*words: object) -> dict[str, Any]:
        args = evaluate_programs_cmd.parse([*map(str, words), "--json", "--quiet", "--allow-unsandboxed"])
        assert evaluate_programs_cmd.run(args) == 0
        found = json.loads(capsys.readouterr().out)
        return {**found, "figures": {figure["name"]: figure for figure in found["figures"]}}

    return run


def test_pass_at_k_is_the_mean_over_all_choices_of_k_draws() -> None:
    for n, passed in ((5, 2), (4, 0), (3, 3), (6, 1)):
        draws = [1] * passed + [0] * (n - passed)
        for k in range(1, n + 1):
            chances = [max(chosen) for chosen in combinations(draws, k)]
            assert pass_at_k(n, passed, k) == pytest.approx(sum(chances) / len(chances))
    with pytest.raises(PaperworksError, match=r"expected 0 ≤ passed ≤ n"):
        pass_at_k(3, 4, 1)


@pytest.mark.parametrize("shape", ["humaneval", "mbpp"])
def test_the_datas_own_solutions(evaluate: Evaluate, tmp_path: Path, shape: str) -> None:
    out = tmp_path / "run"
    found = evaluate("--canonical", "--data", file_of(tmp_path, TASKS, shape), "--out", out)
    assert found["figures"]["pass@1"]["mean"] == 1 and found["endings"]["passed"] == 4
    assert found["data"]["format"] == shape and found["model"] == "canonical solutions"
    assert RunStore().get(out).results()["endings"] == found["endings"]
    attempts = [json.loads(line) for line in (out / "attempts.jsonl").read_text().splitlines()]
    assert [attempt["status"] for attempt in attempts] == ["passed"] * 4 and attempts[0]["tests"] >= 1
    assert "4 of 4 problems" in (out / "report.html").read_text()


def test_a_model_that_knows_no_python_solves_nothing(evaluate: Evaluate, tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer([p + r for p, r in generate_reviews(50, 0)], 300)
    policy = fresh_policy(TinySpec(layers=1, width=32, heads=2, context=512), tokenizer)
    model = policy.save(tmp_path / "model")
    draws = ("--n", 2, "--k", "1,2", "--temperature", 1, "--max-new-tokens", 6, "--device", "cpu")
    out = tmp_path / "run"
    found = evaluate("--model", model, "--data", file_of(tmp_path, TASKS), *draws, "--out", out)
    assert found["figures"]["pass@2"]["mean"] == 0 and sum(found["endings"].values()) == 8
    assert any("were cut at 6 tokens" in note for note in found["notes"])
    page = (out / "report.html").read_text()
    assert "Why programs failed" in page and "pass@2" in page


def test_draws_of_known_programs_give_the_known_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two of four draws are right for the first problem, none for the second."""
    drawn = [
        [TASKS[0].solution, "    return 'no'\n", "", f"    return {TASKS[0].expression}\n"],
        ["    return 'no'\n"] * 4,
    ]

    def sample(policy: Policy, prompts: list[str], **_: Any) -> list[Samples]:
        return [
            Samples(prompt, tuple(Sample(text, (1, 2), 0.0, True) for text in texts))
            for prompt, texts in zip(prompts, drawn, strict=True)
        ]

    monkeypatch.setattr("paperworks.language.sampling.sample", sample)
    monkeypatch.setattr("paperworks.language.sampling.check_room", lambda *_: None)
    options = ProgramOptions(n=4, k=(1, 2), temperature=0.8, allow_unsandboxed=True)
    job = ProgramJob(DataSource(str(file_of(tmp_path, TASKS[:2]))), "m", options=options)
    stand_in: Any = type("Stub", (), {"encode_prompt": lambda self, prompt: [1]})()
    found = evaluate_programs(job, stand_in)
    means = {figure.name: figure.interval.mean for figure in found.figures}
    assert means == {"pass@1": pytest.approx(0.25), "pass@2": pytest.approx((1 - 1 / 6) / 2), "tokens": 2}
    assert found.endings["passed"] == 2 and found.endings["failed"] == 6
    assert "1 of 8 responses are empty" in found.notes
    assert found.as_dict()["passed"] == {"functions/0": 2, "functions/1": 0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give the model to measure"),
        (("--model", "tiny", "--n", "4"), "n=4: greedy draws would all be the same; give a --temperature"),
        (("--model", "tiny", "--k", "2"), "k=2: expected between 1 and n=1"),
        (("--canonical", "--tests", "checks"), "humaneval.jsonl:1: field 'checks': missing; .* the row has task_id"),
        (("--canonical", "--wall-seconds", "0"), "wall_seconds=0"),
        (("--canonical", "--formt", "mbpp"), "unknown option --formt .*--format"),
    ],
)
def test_mistakes_cost_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    data = file_of(tmp_path, TASKS)
    assert main(["evaluate", "programs", "--data", str(data), "--quiet", "--allow-unsandboxed", *words]) == 2
    line = capsys.readouterr().err
    assert re.search(message, line) and line.count("\n") == 1


def test_without_a_sandbox_the_command_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from paperworks.core.sandbox import sandbox_problem

    monkeypatch.setenv("PATH", "/nowhere")
    sandbox_problem.cache_clear()
    try:
        assert main(["evaluate", "programs", "--canonical", "--data", str(file_of(tmp_path, TASKS)), "--quiet"]) == 2
    finally:
        sandbox_problem.cache_clear()
    assert "--allow-unsandboxed" in capsys.readouterr().err


def test_a_run_is_repeated_from_its_run_yaml(evaluate: Evaluate, tmp_path: Path) -> None:
    first = evaluate("--canonical", "--data", file_of(tmp_path, TASKS), "--cpu-seconds", 2, "--out", tmp_path / "one")
    again = evaluate("--config", tmp_path / "one" / "run.yaml", "--out", tmp_path / "two")
    assert again["figures"] == first["figures"] and again["endings"] == first["endings"]
    assert "cpu_seconds: 2" in (tmp_path / "two" / "run.yaml").read_text()
