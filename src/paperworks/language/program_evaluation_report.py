"""report.html of an evaluation on programming problems: pass@k, how programs ended, which problems were solved."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from paperworks.core import plots
from paperworks.core.report import Page
from paperworks.language.program_evaluation import ProgramEvaluation

_SHOWN = 12  # programs that failed
_LONGEST = 1200  # characters of one


def write_report(folder: str | Path, found: ProgramEvaluation) -> Path:
    """Write `folder/report.html` with its figures beside it; returns the path."""
    folder = Path(folder)
    (folder / "figures").mkdir(exist_ok=True)
    job, options = found.job, found.job.options
    who = "the data's own solutions" if options.canonical else job.model
    page = Page("Programs", f"{who} on {job.data.path}")
    page.callout("Answer", answer(found))
    for note in found.notes:
        page.note(note)
    page.section("Result", "Intervals resample problems. pass@k is the unbiased estimate from all draws of a problem.")
    rows = [[each.label, each.interval.format(".3f"), each.unit, each.of] for each in found.figures]
    page.table(["measure", "mean [95% interval]", "unit", "of"], rows, right=["mean [95% interval]"])
    measured = [each for each in found.figures if each.name.startswith("pass@")]
    if len(measured) > 1:
        svg = plots.intervals([plots.IntervalRow(each.label, each.interval) for each in measured], "share of problems")
        plots.save(svg, folder / "figures" / "pass-at-k.svg")
        page.figure(svg, "Share of problems solved by one of k draws.")
    page.section("How programs ended")
    total = len(found.attempts)
    page.table(
        ["ending", "programs", "share"],
        [[status, count, f"{count / total:.1%}"] for status, count in found.endings.items()],
        right=["programs", "share"],
    )
    _failures(page, found)
    page.section("Problems")
    tries = {
        task: sum(each.outcome.status == "passed" for each in each_try) for task, each_try in found.by_task.items()
    }
    counts = Counter(tries.values())
    draws = len(found.attempts) // len(tries)
    page.table(
        [f"passed of {draws}", "problems"],
        [[passed, counts[passed]] for passed in sorted(counts, reverse=True)],
        right=[f"passed of {draws}", "problems"],
    )
    page.section("What was measured")
    facts: dict[str, object] = {"model": who, "data": job.data.path}
    facts |= {} if options.canonical else {"prompts": "as user messages" if job.chat else "continued as they stand"}
    facts |= {} if options.canonical else {"temperature": options.temperature, "draws": options.n, "seed": options.seed}
    limits = job.limits
    facts["programs ran in"] = found.ran_in
    facts["limits"] = f"{limits.wall_seconds:g} s, {limits.cpu_seconds} s of processor, {limits.memory_megabytes} MB"
    page.facts(facts)
    return page.save(folder / "report.html")


def answer(found: ProgramEvaluation) -> list[str]:
    """What was found, in a sentence or two."""
    first = found.figures[0]
    solved = sum(any(each.outcome.status == "passed" for each in tries) for tries in found.by_task.values())
    total = len(found.by_task)
    lines = [
        f"{first.label} is {first.interval.format('.1%')}; {solved} of {total} problems were solved at least once."
    ]
    others = {status: count for status, count in found.endings.items() if count and status not in ("passed", "failed")}
    if others:
        lines.append(
            "Ended for other reasons than a failed test: " + ", ".join(f"{k} {v}" for k, v in others.items()) + "."
        )
    return lines


def _failures(page: Page, found: ProgramEvaluation) -> None:
    failed = [each for each in found.attempts if each.outcome.status != "passed"]
    if not failed:
        return
    kinds = Counter(each.outcome.detail.split(":")[0].split(" (")[0] or each.outcome.status for each in failed)
    page.section("Why programs failed")
    page.table(["what went wrong", "programs"], kinds.most_common(12), right=["programs"])
    page.section("Some that failed", f"The first {min(_SHOWN, len(failed))} of {len(failed)}.")
    rows = [[each.task, each.outcome.status, each.outcome.detail, each.response[:_LONGEST]] for each in failed[:_SHOWN]]
    page.table(["problem", "ending", "detail", "response"], rows)
