"""How many programming problems a model solves: programs drawn, run with the problems' tests, pass@k with intervals.

This is what `paperworks evaluate programs` does; from Python it is `evaluate_programs(ProgramJob(...), policy)`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paperworks.core.errors import DataError, OptionError
from paperworks.core.files import json_value, write_atomic
from paperworks.core.options import build, check_ranges, option, plain
from paperworks.core.progress import Progress
from paperworks.core.runs import RunStore
from paperworks.core.sandbox import Limits, Outcome, Sandbox, counted
from paperworks.core.statistics import bootstrap_mean
from paperworks.language.data import PromptRow, plain_text
from paperworks.language.data.problems import BadRow
from paperworks.language.data.schemas import Message, Text
from paperworks.language.evaluate_job import Figure
from paperworks.language.policy import Policy
from paperworks.language.rewards.programs import STOPS, ProgramTests, program_tests
from paperworks.language.train_job import DataSource

COMPLETE = "Complete this Python function. Reply with the whole function in one code block.\n\n```python\n{}\n```"
SOLVE = "{}\n\nReply with the Python code in one code block."


@dataclass(frozen=True)
class ProgramOptions:
    """How programs are drawn and run."""

    n: int = option(1, "programs drawn for each problem", low=1)
    k: tuple[int, ...] = option((1,), "pass@k for each of these, at most n")
    temperature: float = option(0.0, "of the draws; 0 is greedy decoding", low=0)
    top_p: float = option(1.0, "keep this probability mass", above=0, high=1)
    max_new_tokens: int = option(512, "most tokens of a program", low=1)
    tests: str = option("test", "the field that holds a problem's tests")
    canonical: bool = option(False, "run the data's own solutions in place of a model's: all should pass")
    allow_unsandboxed: bool = option(False, "run programs where there is no sandbox: under limits alone")
    workers: int | None = option(None, "programs run at a time (default: the machine's cores)", low=1)
    seed: int = option(0, "of the draws")

    def __post_init__(self) -> None:
        check_ranges(self)
        for k in self.k:
            if not 1 <= k <= self.n:
                raise OptionError(f"k={k}: expected between 1 and n={self.n}; draw more with --n")
        if self.temperature == 0 and self.n > 1 and not self.canonical:
            raise OptionError(f"n={self.n}: greedy draws would all be the same; give a --temperature, for example 0.8")


@dataclass(frozen=True)
class ProgramJob:
    """Everything that decides an evaluation on programming problems; written to its run.yaml."""

    data: DataSource
    model: str = ""
    chat: bool = False  # a problem is a user's message, not text to continue
    options: ProgramOptions = dataclasses.field(default_factory=ProgramOptions)
    limits: Limits = dataclasses.field(default_factory=Limits)

    def config(self) -> dict[str, Any]:
        """The job as run.yaml has it; `job_from_config` reads it back."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


def job_from_config(values: Mapping[str, Any]) -> ProgramJob:
    """The job that a run.yaml describes. Raises OptionError for unknown or missing names."""
    job: ProgramJob = build(ProgramJob, values, what="evaluate programs")
    return job


@dataclass(frozen=True)
class Attempt:
    """One program: its problem, the response it was taken from, and what became of it."""

    task: str
    response: str
    tokens: int
    is_cut: bool  # by the length limit
    outcome: Outcome

    def as_dict(self) -> dict[str, Any]:
        """The attempt as JSON values."""
        outcome = {"status": self.outcome.status, "detail": self.outcome.detail, "seconds": self.outcome.seconds}
        passed = sum(self.outcome.checks)
        tests = {"tests_passed": passed, "tests": len(self.outcome.checks)}
        about = {"task": self.task, **outcome, **tests, "tokens": self.tokens, "cut": self.is_cut}
        return {**about, "response": self.response, "output": self.outcome.output[:2000]}


@dataclass(frozen=True)
class ProgramEvaluation:
    """What was found: the figures of the table, programs by how they ended, where they ran, notes, every attempt."""

    job: ProgramJob
    figures: tuple[Figure, ...]
    endings: Mapping[str, int]
    ran_in: str
    notes: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    data: Mapping[str, Any]

    @property
    def by_task(self) -> dict[str, list[Attempt]]:
        """The attempts at each problem, in the data's order."""
        found: dict[str, list[Attempt]] = {}
        for attempt in self.attempts:
            found.setdefault(attempt.task, []).append(attempt)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Everything but the attempts, as JSON values."""
        return {
            "model": "canonical solutions" if self.job.options.canonical else self.job.model,
            "figures": [figure.as_dict() for figure in self.figures],
            "endings": dict(self.endings),
            "passed": {task: sum(_passed(each) for each in tries) for task, tries in self.by_task.items()},
            "ran_in": self.ran_in,
            "notes": list(self.notes),
            "data": dict(self.data),
        }


def pass_at_k(n: int, passed: int, k: int) -> float:
    """The chance that of k of n draws, `passed` of which pass, at least one does: 1 - C(n - c, k) / C(n, k).

    Its mean over draws is what k fresh draws would give (arXiv 2107.03374, eq. 1). Raises OptionError.
    """
    if not 0 <= passed <= n or not 1 <= k <= n:
        raise OptionError(f"pass@k: expected 0 ≤ passed ≤ n and 1 ≤ k ≤ n; got passed={passed}, n={n}, k={k}")
    return 1 - math.comb(n - passed, k) / math.comb(n, k)


def evaluate_programs(
    job: ProgramJob,
    policy: Policy | None = None,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ProgramEvaluation:
    """Draw, run, count; where `out` is given keep results.json, attempts.jsonl and report.html in that run folder.

    `policy` may be left out for the data's own solutions. Raises PaperworksError.
    """
    shown = Progress(quiet=True) if progress is None else progress
    if out is None:
        return _evaluate(job, policy, shown)
    name = "programs-canonical" if job.options.canonical else f"programs-{Path(job.model).name}"
    with RunStore().start("evaluate", name, out, job.config(), job.options.seed, overwrite=overwrite) as run:
        found = _evaluate(job, policy, shown)
        lines = (json.dumps(json_value(each.as_dict()), ensure_ascii=False, allow_nan=False) for each in found.attempts)
        write_atomic(run.folder / "attempts.jsonl", "".join(f"{line}\n" for line in lines))
        from paperworks.language.program_evaluation_report import write_report

        write_report(run.folder, found)
        run.finish(found.as_dict())
    return found


def _evaluate(job: ProgramJob, policy: Policy | None, shown: Progress) -> ProgramEvaluation:
    sandbox = Sandbox(job.limits, workers=job.options.workers, allow_unsandboxed=job.options.allow_unsandboxed)
    dataset = job.data.read(PromptRow)
    for line in dataset.report.lines():
        shown.say(line)
    rows: Sequence[PromptRow] = dataset.rows
    tests = [_tests(row, job.options.tests) for row in rows]
    names = _names(rows)
    if job.options.canonical:
        drawn = [[(_solution(row), 0, False)] for row in rows]
    elif policy is None:
        raise OptionError("give the model to measure: --model ID, FOLDER, smollm2-135m or tiny; or --canonical")
    else:
        drawn = _draw(job, policy, rows, shown)
    programs = [each.program(text) for each, tries in zip(tests, drawn, strict=True) for text, _, _ in tries]
    bar = shown.bar("running programs", len(programs))
    outcomes = iter(sandbox.run(programs, bar.update))
    bar.finish()
    attempts = tuple(
        Attempt(name, text, tokens, is_cut, next(outcomes))
        for name, tries in zip(names, drawn, strict=True)
        for text, tokens, is_cut in tries
    )
    notes = (*_notes(job, attempts), *([] if sandbox.is_contained else [sandbox.description]))
    data = {**dataset.report.as_dict(), "fingerprint": dataset.fingerprint}
    endings = counted(each.outcome for each in attempts)
    figures = _figures(job.options, names, attempts)
    return ProgramEvaluation(job, figures, endings, sandbox.description, notes, attempts, data)


def _draw(
    job: ProgramJob, policy: Policy, rows: Sequence[PromptRow], shown: Progress
) -> list[list[tuple[str, int, bool]]]:
    """(text, tokens, whether it was cut) of each draw for each row."""
    from paperworks.language.sampling import check_room, sample

    options = job.options
    prompts = [_asked(row, chat=job.chat) for row in rows]
    for row, prompt in zip(rows, prompts, strict=True):
        check_room(policy, policy.encode_prompt(prompt), f"{row.where}: the prompt")
    completes = not job.chat and all(row.fields.get("entry_point") for row in rows)
    bar = shown.bar("drawing programs", len(rows))
    found = sample(
        policy, prompts, n=options.n, seed=options.seed, max_new_tokens=options.max_new_tokens,
        temperature=options.temperature, top_p=options.top_p, stop=STOPS if completes else (),
        on_prompt=lambda index, samples: bar.advance(),
    )  # fmt: skip
    bar.finish()
    return [[(each.text, len(each.ids), not each.finished) for each in samples.samples] for samples in found]


def _asked(row: PromptRow, *, chat: bool) -> Text:
    """The problem as the model gets it."""
    if not chat or not isinstance(row.prompt, str):
        return row.prompt
    form = COMPLETE if row.fields.get("entry_point") else SOLVE
    return (Message(role="user", content=form.format(row.prompt.rstrip("\n"))),)


def _tests(row: PromptRow, field: str) -> ProgramTests:
    try:
        return program_tests(row, field, reward="of the programs")
    except BadRow as problem:
        raise DataError(problem.what, file=row.where.file or None, line=row.where.line, field=problem.field) from None


def _solution(row: PromptRow) -> str:
    solution = row.fields.get("canonical_solution") or row.fields.get("code") or row.fields.get("response")
    if not isinstance(solution, str):
        what = "missing; --canonical runs the data's own solutions (canonical_solution, code or response)"
        raise DataError(what, file=row.where.file or None, line=row.where.line, field="canonical_solution")
    return solution


def _names(rows: Sequence[PromptRow]) -> list[str]:
    """What each problem is called: its task_id, where those are there and differ, else its place."""
    names = [str(row.fields.get("task_id", "")) for row in rows]
    return (
        names
        if all(names) and len(set(names)) == len(names)
        else [f"row {number}" for number in range(1, len(rows) + 1)]
    )


def _figures(options: ProgramOptions, names: Sequence[str], attempts: Sequence[Attempt]) -> tuple[Figure, ...]:
    n = 1 if options.canonical else options.n
    passed = dict.fromkeys(names, 0)
    for attempt in attempts:
        passed[attempt.task] += _passed(attempt)
    problems = f"{len(names)} problems"
    figures = [
        Figure(
            f"pass@{k}", f"pass@{k}", "share", problems, bootstrap_mean([pass_at_k(n, c, k) for c in passed.values()])
        )
        for k in (options.k if not options.canonical else (1,))
    ]
    if not options.canonical:
        lengths = bootstrap_mean([attempt.tokens for attempt in attempts])
        figures.append(Figure("tokens", "tokens a response", "tokens", f"{len(attempts)} responses", lengths))
    return tuple(figures)


def _notes(job: ProgramJob, attempts: Sequence[Attempt]) -> list[str]:
    cut = sum(attempt.is_cut for attempt in attempts)
    notes = []
    if cut:
        limit = job.options.max_new_tokens
        notes.append(f"{cut} of {len(attempts)} responses were cut at {limit} tokens; --max-new-tokens gives them more")
    empty = sum(not plain_text(attempt.response).strip() for attempt in attempts)
    if empty:
        notes.append(f"{empty} of {len(attempts)} responses are empty")
    return notes


def _passed(attempt: Attempt) -> bool:
    return attempt.outcome.status == "passed"
