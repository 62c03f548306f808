"""A comparison from names to a report: which objective works best on these preferences, for this model.

Every configuration is an arm, the untrained model is one more; arms of a seed share data order, adapters' start and the
random numbers of sampling. This is what `paperworks compare` does; from Python it is `compare_job(CompareJob(...))`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paperworks.core.devices import cores, pick_device
from paperworks.core.errors import OptionError, RunError
from paperworks.core.files import read_json, write_json_atomic
from paperworks.core.options import plain
from paperworks.core.progress import Progress
from paperworks.core.runs import RunStore
from paperworks.experiment import Experiment, Metric, Part, run_experiment
from paperworks.experiment.results import Failure
from paperworks.language.comparison.cell import (
    ROLES,
    SHOWN_PROMPTS,
    arm_of,
    compare_cell,
    load_policy,
    online_options,
    planned_steps,
    rows_for,
)
from paperworks.language.comparison.findings import Findings, find
from paperworks.language.comparison.grid import Point, points_of
from paperworks.language.comparison.job import (
    CompareJob,
    SharedRows,
    file_digest,
    halves,
    prompt_key,
    read_rows,
)
from paperworks.language.comparison.measures import PLAN, Measures, Plan, plan_values, read_cells
from paperworks.language.comparison.report import write_report
from paperworks.language.data import Demonstration, Feedback
from paperworks.language.items import tokenise
from paperworks.language.online.methods import METHODS, trainable_class
from paperworks.language.online.requirements import check_options
from paperworks.language.rewards import load_reward
from paperworks.language.rewards.function import check_name
from paperworks.language.sampling import check_room
from paperworks.language.train_job import check_model

MOST_WORKERS = 4  # models in memory at once, unless --workers says otherwise


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a run of `compare_job` left: its findings, its folder and id, and the cells that failed."""

    findings: Findings
    plan: Plan
    folder: Path
    run_id: str
    failures: tuple[Failure, ...]

    def raise_failures(self) -> None:
        """Raises RunError in one line where a cell failed."""
        if self.failures:
            raise RunError(_failure_line(self.failures))


def compare_job(
    job: CompareJob,
    out: str | Path | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Train and measure every arm with every seed; write report.html and results.json into `out`.

    The default folder is named by the command, so that the same command goes on with the cells that are missing (also
    with more seeds). `workers`: trainings at once (default: up to 4 on processors, 1 on a GPU). A training that diverges
    is recorded as such; one that fails is in `failures`, and the others go on.
    Raises PaperworksError before training for whatever can be known then; RunError where no cell finished;
    KeyboardInterrupt on Ctrl-C, which says how to go on.
    """
    shown = progress if progress is not None else Progress(quiet=True)
    points = job.points()
    rows = read_rows(job)
    for line in rows.source.report.lines():
        shown.say(line)
    _try_rewards(job, rows)
    plan = make_plan(job, points, rows)
    folder = Path(out) if out is not None else default_folder(job)
    _check_folder(folder, job)
    _try_points(job, points, rows)
    _try_model(job, rows)
    name = "-".join(plan.objectives)
    with RunStore().start("compare", name, folder, job.config(), resume=True) as run:
        for old in ("results.json", "report.html"):
            (run.folder / old).unlink(missing_ok=True)
        write_json_atomic(run.folder / PLAN, plan_values(plan))
        results = run_experiment(
            experiment_of(job, points, plan),
            budget="small",
            folder=run.folder,
            workers=_workers(job, workers),
            progress=shown,
        )
        cells = read_cells(run.folder, plan)
        if not cells:
            raise RunError(_failure_line(results.failures))
        findings = find(Measures(plan, cells))
        failures = [{**vars(failure), "log": str(failure.log)} for failure in results.failures]
        write_json_atomic(
            run.folder / "results.json", {**plain(findings), "plan": plan_values(plan), "failures": failures}
        )
        write_report(run.folder)
        if results.failures:
            run.end("failed", _failure_line(results.failures))
    return Comparison(findings, plan, folder, run.id, results.failures)


def check_job(job: CompareJob, out: str | Path | None = None, *, workers: int | None = None) -> None:
    """All that can be known of the job before a model is loaded; rows of files are read, a network is not asked.

    Raises PaperworksError, as the run would.
    """
    points = job.points()
    _check_rewards(job)
    for name in {*job.rewards, *job.train_rewards}:
        check_name(name, allow_unsandboxed=job.rewarding.allow_unsandboxed)
    check_model(job.model, job.chat_template)
    _check_folder(Path(out) if out is not None else default_folder(job), job)
    _workers(job, workers)
    if job.data.is_here or job.data.path == "-":  # which is refused
        rows = read_rows(job)
        make_plan(job, points, rows)
        _try_points(job, points, rows)


def experiment_of(job: CompareJob, points: tuple[Point, ...], plan: Plan) -> Experiment:
    """The comparison as an experiment of one part: the untrained model, then every point."""
    shown = [int(index) for index in plan.shown]
    arms = tuple(arm_of(job, point, plan.fingerprints, shown) for point in (None, *points))
    part = Part(
        name="A",
        title=f"{len(points)} settings of {len(plan.objectives)} objectives, and the untrained model",
        arms=arms,
        seeds=dict.fromkeys(("smoke", "small", "full"), job.measure.seeds),
        cell=compare_cell,
        metrics=(Metric("train_seconds", unit="s", higher_is_better=False),),
    )
    return Experiment("compare", "Comparison of objectives", (part,))


def default_folder(job: CompareJob) -> Path:
    """./runs/compare-OBJECTIVES-DIGEST: the same for the same command, whatever the number of seeds."""
    return Path("runs") / f"compare-{'-'.join(job.objectives)[:60]}-{job.digest()}"


def make_plan(job: CompareJob, points: tuple[Point, ...], rows: SharedRows) -> Plan:
    """What will be compared and measured. Raises DataError where there are too few prompts to choose on half of them."""
    has_choice = len(points) > len({point.objective for point in points})
    row_keys = [prompt_key(row.prompt) for row in rows.held_out]
    prompt_keys = [prompt_key(prompt) for prompt in rows.prompts]
    number = {key: place for place, key in enumerate(dict.fromkeys(row_keys))}
    choosing_prompts = halves(prompt_keys) if has_choice else [False] * len(prompt_keys)
    reported = [index for index, to_choose in enumerate(choosing_prompts) if not to_choose]
    user_files = [
        job.objective_file or "",
        *(name.rpartition(":")[0] or name for name in (*job.rewards, *job.train_rewards)),
    ]
    return Plan(
        job=job.config(),
        points=tuple({"objective": p.objective, "options": dict(p.options), "swept": list(p.swept)} for p in points),
        seeds=job.measure.seeds,
        rewards=job.rewards,
        samples=job.measure.samples,
        fingerprints={"rows": rows.fingerprint(), "code": " ".join(file_digest(file) for file in user_files if file)},
        rows={
            "data": job.data.path,
            "fingerprint": rows.source.fingerprint[:16],
            "rows": len(rows.source),
            "training_rows": len(rows.training),
            "held_out_rows": len(rows.held_out),
            "prompts": len(rows.prompts),
            "warnings": rows.source.report.warnings,
        },
        row_prompts=tuple(number[key] for key in row_keys),
        choosing_rows=tuple(halves(row_keys) if has_choice else [False] * len(row_keys)),
        choosing_prompts=tuple(choosing_prompts),
        shown={str(index): rows.prompts[index] for index in reported[:SHOWN_PROMPTS]},
        steps=planned_steps(job, len(rows.training)),
        notes=tuple(_notes(job, points, rows)),
    )


def _notes(job: CompareJob, points: tuple[Point, ...], rows: SharedRows) -> list[str]:
    """What is equal between arms, and what is not."""
    lines = []
    for name in dict.fromkeys(point.objective for point in points):
        schema = trainable_class(name).schema
        if schema is Feedback:
            lines.append(f"{name} trains on single responses: each step takes both responses of as many pairs")
        if schema is Demonstration:
            lines.append(
                f"{name} imitates the chosen response of each pair: as many pairs a step, the rejected ones unused"
            )
    online = [name for name in dict.fromkeys(point.objective for point in points) if name in METHODS]
    if online:
        learnt = ", ".join(job.train_rewards or job.rewards[:1]) or "no reward"
        lines.append(
            f"{', '.join(online)} learn from their own answers to the training prompts, by {learnt}: as many optimiser "
            "steps as the others, as many prompts a step as those have pairs; what they sample is reported beside"
        )
        if not job.train_rewards:
            lines.append(
                "They are judged by the reward that they were trained on, which flatters them: keep a gold reward from "
                "training by --train-reward PROXY --reward GOLD"
            )
    counts = {p.objective: len(points_of(points, p.objective)) for p in points}
    if len(set(counts.values())) > 1:
        tried = ", ".join(f"{name} {count}" for name, count in counts.items())
        lines.append(f"Unequal tuning: settings tried are {tried}; more tries give a better best")
    if job.training.learning_rate is None and "sft" in counts and len(counts) > 1:
        lines.append("sft has a larger default learning rate than the others; --learning-rate gives all the same")
    trained = {prompt_key(row.prompt) for row in rows.training}
    seen = sum(prompt_key(prompt) in trained for prompt in rows.prompts)
    if seen:
        lines.append(f"{seen} of {len(rows.prompts)} evaluation prompts also stand among the training rows")
    return lines


# --------------------------------------------------------------------------------------------------- checks before training


def _try_rewards(job: CompareJob, rows: SharedRows) -> None:
    """Every reward on two responses: one that raises or returns something else is known before hours of training."""
    _check_rewards(job)
    row = rows.held_out[0]
    for name in {*job.rewards, *job.train_rewards}:
        reward = load_reward(name, rows=rows.records, allow_unsandboxed=job.rewarding.allow_unsandboxed)
        reward([row.prompt, row.prompt], [row.chosen, row.rejected])


def _check_rewards(job: CompareJob) -> None:
    if len(set(job.rewards)) < len(job.rewards):
        raise OptionError(f"a reward is given twice: {' '.join(job.rewards)}")


def _try_points(job: CompareJob, points: tuple[Point, ...], rows: SharedRows) -> None:
    """Makes every configuration's objective and rows: options or a schema that does not fit shows here."""
    for point in points:
        if point.is_online:
            online = online_options(job, point, len(rows.training))
            has_reward = bool(job.train_rewards or job.rewards)
            check_options(METHODS[point.objective], online, has_reward=has_reward, has_judge=False)
            point.make()
        else:
            rows_for(point.make(), rows.training)


def _try_model(job: CompareJob, rows: SharedRows) -> None:
    """Loads the model once and lays out all rows: a model, template or length that does not fit shows here."""
    pick_device(job.device)
    policy = load_policy(dataclasses.replace(job, device="cpu"), 0)  # a GPU's memory is the trainings'
    cutting: dict[str, Any] = {"max_length": job.training.max_length, "long_prompts": job.training.long_prompts}
    for dataset in (rows.training, rows.held_out):
        tokenise(dataset, policy, ROLES, **cutting)
    for number, prompt in enumerate(rows.prompts):
        check_room(policy, policy.encode_prompt(prompt), f"evaluation prompt {number + 1}")


def _workers(job: CompareJob, workers: int | None) -> int:
    if workers is not None and workers < 1:
        raise OptionError(f"--workers {workers}: expected at least 1")
    if workers is not None:
        return workers
    return min(MOST_WORKERS, cores()) if pick_device(job.device).type == "cpu" else 1


def _check_folder(folder: Path, job: CompareJob) -> None:
    """Refuses a folder of other things: its cells would be mixed with those of another model or data."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / PLAN).is_file():
        info: Any = read_json(folder / "run.json") if (folder / "run.json").is_file() else None
        if isinstance(info, Mapping) and info.get("verb") == "compare":
            return  # stopped before its plan was written
        raise RunError(f"{folder}: has something in it that is no comparison; give --out another folder")
    before = read_json(folder / PLAN).get("job", {})
    now = plain(job.shared())
    was = {**before, "measure": {k: v for k, v in before.get("measure", {}).items() if k != "seeds"}}
    different = sorted(name for name in now if now[name] != was.get(name))
    if different:
        raise RunError(
            f"{folder}: holds a comparison with other settings ({', '.join(different)}); give --out another folder"
        )


def _failure_line(failures: tuple[Failure, ...]) -> str:
    if not failures:
        return "no training of this comparison finished"
    first, more = failures[0], len(failures) - 1
    others = f" (and {more} more)" if more else ""
    return f"{first.arm} seed {first.seed} failed{others}: {first.error}; see {first.log}; the same command tries again"
