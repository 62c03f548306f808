"""A training run from names to a folder: load the model, read the data, train, save the model with its card and report.

This is what `paperworks train` does; from Python it is `train_job(TrainJob(...))`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from paperworks.core.errors import DataError, OptionError, PaperworksError, RunError, TrainingDiverged
from paperworks.core.options import build, check_ranges, load_yaml, option, plain, to_mapping
from paperworks.core.progress import Progress
from paperworks.core.runs import Run, RunStore, read_metrics
from paperworks.language.data import Dataset, read
from paperworks.language.data.schemas import Forget, PromptRow, Text
from paperworks.language.data.sources import is_here
from paperworks.language.degrees.options import DegreeOptions
from paperworks.language.model_card import write_card
from paperworks.language.models import check_name
from paperworks.language.objectives import load_objective_file, objective_class
from paperworks.language.objectives.degrees import with_degrees
from paperworks.language.objectives.objective import Objective
from paperworks.language.policy import LoraOptions, Policy, Precision
from paperworks.language.text_model import TextModel, template_of
from paperworks.language.train_report import write_report
from paperworks.language.training import Evaluator, TrainOptions, TrainResult, train
from paperworks.language.unlearning.setup import UnlearningSetup

if TYPE_CHECKING:
    from paperworks.language.objectives.unlearning import UnlearningObjective


@dataclass(frozen=True)
class DataSource:
    """Where rows come from and how they are read."""

    path: str
    format: str = "auto"
    mapping: Mapping[str, str] = field(default_factory=dict)
    split: str | None = None
    bad_rows: Literal["error", "skip"] = "error"
    limit: int | None = None

    def read(self, schema: type[Any]) -> Dataset[Any]:
        """The rows as `schema`. Raises DataError."""
        return read(
            self.path,
            schema,
            format=self.format,
            mapping=self.mapping,
            split=self.split,
            bad_rows=self.bad_rows,
            limit=self.limit,
        )

    @property
    def is_here(self) -> bool:
        """Whether it can be read again and again without a network: a file or folder, or what would be one."""
        return is_here(self.path)

    def prompt_rows(self) -> tuple[PromptRow, ...]:
        """The same records as prompts with all else they have, for rewards that compare an answer with a field of its row.

        Raises DataError.
        """
        prompt_alone = {field: column for field, column in self.mapping.items() if field == "prompt"}
        return tuple(dataclasses.replace(self, mapping=prompt_alone).read(PromptRow).rows)


@dataclass(frozen=True)
class ValidationOptions:
    """Choosing the weights to keep by the reward of the policy's own answers, in place of the held-out loss."""

    reward: str | None = option(None, "keep the weights whose greedy answers this reward likes most")
    prompts: str | None = option(
        None, "a file of prompts to answer (default: those of the held-out rows)", metavar="FILE"
    )
    max_new_tokens: int = option(128, "most tokens of an answer", low=1)
    limit: int = option(128, "most prompts answered: the first ones", low=1)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class TrainJob:
    """Everything that decides a training run; written to its run.yaml."""

    objective: Objective
    model: str
    data: DataSource  # of unlearning: the rows to forget
    training: TrainOptions = TrainOptions()
    lora: LoraOptions | None = None
    degrees: DegreeOptions | None = None  # an auxiliary loss beside a preference objective
    unlearning: UnlearningSetup | None = None
    validation: ValidationOptions | None = None
    held_out: float = 0.1  # share of rows kept for evaluation, or a number of rows; 0: none
    eval_data: str | None = None  # a file of rows to evaluate on instead
    objective_file: str | None = None
    precision: Precision = "float32"
    device: str = "auto"
    gradient_checkpointing: bool = False
    chat_template: str | None = None

    def config(self) -> dict[str, Any]:
        """The job as run.yaml has it; `job_from_config` reads it back."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["objective"] = self.objective.name
        return {"objective": values.pop("objective"), "options": to_mapping(self.objective), **plain(values)}


@dataclass(frozen=True)
class _Settings:
    """The job's settings beside objective, model and data, as run.yaml has them."""

    training: TrainOptions = field(default_factory=TrainOptions)
    lora: LoraOptions | None = None
    degrees: DegreeOptions | None = None
    unlearning: UnlearningSetup | None = None
    validation: ValidationOptions | None = None
    held_out: float = 0.1
    eval_data: str | None = None
    objective_file: str | None = None
    precision: Precision = "float32"
    device: str = "auto"
    gradient_checkpointing: bool = False
    chat_template: str | None = None


def job_from_config(values: Mapping[str, Any]) -> TrainJob:
    """The job that a run.yaml describes. Raises OptionError for unknown or missing names."""
    rest = dict(values)
    try:
        name, options = rest.pop("objective"), rest.pop("options", {})
        data, model = rest.pop("data"), rest.pop("model")
    except KeyError as error:
        raise OptionError(f"the configuration names no {error.args[0]}; a run.yaml of a training run has it") from None
    if rest.get("objective_file"):
        load_objective_file(rest["objective_file"])
    return TrainJob(
        objective=build(objective_class(name), options or {}, what=f"objective {name}"),
        model=str(model),
        data=build(DataSource, data if isinstance(data, Mapping) else {"path": data}, what="data"),
        **vars(build(_Settings, {key: value for key, value in rest.items() if value is not None}, what="train")),
    )


def train_job(
    job: TrainJob,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[TrainResult, Path]:
    """Run the job in the folder `out` (default ./runs/train-OBJECTIVE-TIME): model/, report.html, metrics, checkpoints.

    Of several processes started by `accelerate launch` only the first writes. Returns the result and the folder.
    Raises PaperworksError; Interrupted on Ctrl-C, after saving.
    """
    is_main = int(os.environ.get("RANK", "0")) == 0
    shown = progress if progress is not None and is_main else Progress(quiet=True)
    if out is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise OptionError("several processes need one folder to meet in: give --out DIR")
    if resume and out is not None:
        same_job(job.config(), Path(out))
    objective = _objective(job)
    rows = _rows(job)
    for line in rows.report.lines():
        shown.say(line)
    training_rows, held_out = _held_out(job, rows)
    evaluator = _evaluator(job, held_out)
    policy = _model(job)

    def fit(folder: Path, run: Run | None) -> TrainResult:
        return _train(policy, objective, job, training_rows, held_out, evaluator, folder, resume, shown, run)

    if not is_main:
        return fit(Path(str(out)), None), Path(str(out))
    store = RunStore()
    run = store.start("train", job.objective.name, out, job.config(), job.training.seed, resume, overwrite=overwrite)
    try:
        with run:
            result = fit(run.folder, run)
            run.finish(_results(job, rows, result))
    except PaperworksError as error:
        if not isinstance(error, TrainingDiverged) and never_began(run.folder):
            store.delete(run.record)  # a row or an option to mend; the same --out is then free for the next try
        raise
    write_report(run.folder)
    return result, run.folder


def check_job(job: TrainJob, out: str | Path | None = None, *, resume: bool = False) -> None:
    """All that can be known of the job before a model is loaded; rows of files are read, a network is not asked.

    Raises PaperworksError, as the run would.
    """
    if resume and out is not None:
        same_job(job.config(), Path(out))
    _objective(job)
    check_model(job.model, job.chat_template)
    if job.data.is_here:
        held_out = _held_out(job, _rows(job))[1]
        if job.objective.schema is Forget:
            _evaluator(job, held_out)
        elif job.validation is not None and job.validation.reward is not None:
            _validation_prompts(job, job.validation, held_out)
    if job.validation is not None and job.validation.reward is not None:
        from paperworks.language.rewards.function import check_name as check_reward

        check_reward(job.validation.reward)


def check_model(name: str, chat_template: str | None) -> None:
    """Raises ModelError for a name that is no model, OptionError for a chat template that cannot be read. Loads nothing."""
    check_name(name)
    if chat_template is not None:
        template_of(chat_template)


def _objective(job: TrainJob) -> Objective:
    return job.objective if job.degrees is None else with_degrees(job.objective, job.degrees)


def _rows(job: TrainJob) -> Dataset[Any]:
    """The training rows; of unlearning also those to keep."""
    rows = job.data.read(job.objective.schema)
    if job.objective.schema is not Forget:
        return rows
    setup, objective = job.unlearning or UnlearningSetup(), cast("UnlearningObjective", job.objective)
    return setup.rows(rows, job.data, objective, job.training.seed)


def _model(job: TrainJob) -> TextModel:
    kind: type[TextModel] = Policy
    if job.objective.trains == "reward-model":
        from paperworks.language.rewards.model import RewardModel

        kind = RewardModel
    return kind.load(
        job.model,
        precision=job.precision,
        device=job.device,
        chat_template=job.chat_template,
        gradient_checkpointing=job.gradient_checkpointing,
        lora=job.lora,
        seed=job.training.seed,
    )


def _evaluator(job: TrainJob, held_out: Dataset[Any] | None) -> Evaluator | None:
    """What measures the model beside the held-out loss and chooses the weights to keep; None: that loss does."""
    if job.objective.schema is Forget:
        return None if job.unlearning is None else job.unlearning.evaluator(job.data)
    options = job.validation
    if options is None or options.reward is None:
        return None
    from paperworks.language.rewards import load_reward
    from paperworks.language.validation_reward import ValidationReward

    prompts = _validation_prompts(job, options, held_out)
    return ValidationReward(prompts, load_reward(options.reward, device=job.device), options.max_new_tokens)


def _validation_prompts(job: TrainJob, options: ValidationOptions, held_out: Dataset[Any] | None) -> list[Text]:
    """The prompts that are answered to choose the weights to keep. Raises OptionError where there are none, DataError."""
    from paperworks.language.values.reference_value import each_once

    if options.prompts is not None:
        asked: Dataset[Any] | None = dataclasses.replace(job.data, path=options.prompts, limit=None).read(PromptRow)
    else:
        asked = held_out
    if asked is None:
        raise OptionError("--validation-reward needs prompts: --validation-prompts FILE, or held-out rows")
    return each_once([row.prompt for row in asked])[: options.limit]


def never_began(folder: Path) -> bool:
    """Whether nothing was trained in the run's folder yet."""
    return not read_metrics(folder / "metrics.jsonl") and not any((folder / "checkpoints").glob("*"))


def _held_out(job: TrainJob, rows: Dataset[Any]) -> tuple[Dataset[Any], Dataset[Any] | None]:
    if job.eval_data is not None:
        return rows, dataclasses.replace(job.data, path=job.eval_data, limit=None).read(job.objective.schema)
    if job.held_out == 0 or job.objective.schema is Forget:
        return rows, None
    amount = int(job.held_out) if job.held_out >= 1 else job.held_out
    return rows.split(amount, job.training.seed)


def run_yaml(folder: str | Path) -> Path:
    """The run.yaml of a run to go on with. Raises RunError where there is none."""
    path = Path(folder) / "run.yaml"
    if not path.is_file():
        raise RunError(f"{folder}: nothing to resume there (no run.yaml); start it without --resume")
    return path


def same_job(config: Mapping[str, Any], folder: Path) -> None:
    """A resumed run must be the same run. Raises RunError naming what differs."""
    before, now = _flat(load_yaml(run_yaml(folder))), _flat(config)
    different = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if "method" in different or "objective" in different:
        different = [
            name for name in different if name in ("method", "objective")
        ]  # its options differ as a matter of course
    if different:
        listed = ", ".join(
            f"{name} was {before.get(name, 'not given')}, now {now.get(name, 'not given')}" for name in different[:6]
        )
        raise RunError(
            f"{folder}: the run there was started with other settings ({listed}); "
            "leave them out to go on with it, or start again with --overwrite"
        )


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings as `training.batch_size: 16`, without those that are not given."""
    out: dict[str, Any] = {}
    for name, value in plain(values).items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{above}{name}.")
        elif value is not None:
            out[f"{above}{name}"] = value
    return out


def _train(
    policy: TextModel,
    objective: Objective,
    job: TrainJob,
    rows: Dataset[Any],
    held_out: Dataset[Any] | None,
    evaluator: Evaluator | None,
    folder: Path,
    resume: bool,
    shown: Progress,
    run: Run | None,
) -> TrainResult:
    bars: dict[str, Any] = {}

    def on_step(step: int, steps: int, values: Mapping[str, float]) -> None:
        if step == 0:
            bar = bars.get("reference") or bars.setdefault("reference", shown.bar("reference log-probabilities", 1.0))
            bar.update(values["reference"])
            if values["reference"] >= 1:
                bar.finish()
            return
        bar = bars.get("train") or bars.setdefault("train", shown.bar(f"train {job.objective.name}", steps))
        note = f"loss {values['loss']:.4f}" + (f", accuracy {values['accuracy']:.2f}" if "accuracy" in values else "")
        bar.update(step, note)
        if step == steps:
            bar.finish()
        if run is not None:
            if "truncated" not in bars:
                bars["truncated"] = True
                run.truncate_metrics(step - 1)
            run.log(step=step, **values)

    def on_evaluation(step: int, steps: int, values: Mapping[str, float]) -> None:
        shown.say(f"held-out at step {step}: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items() if k in _SHOWN))

    result = train(
        policy,
        objective,
        rows,
        job.training,
        held_out=held_out,
        evaluator=evaluator,
        folder=folder,
        resume=resume,
        on_step=on_step,
        on_evaluation=on_evaluation,
        on_note=shown.say,
    )
    if run is not None:
        if job.objective.trains == "reward-model":
            _standardise(policy, rows, held_out, shown)
        policy.save(folder / "model")
        write_card(folder / "model", job, result, rows.fingerprint)
    return result


def _standardise(model: TextModel, rows: Dataset[Any], held_out: Dataset[Any] | None, shown: Progress) -> None:
    """Put the members of a reward ensemble on one scale, by rows that they were not trained on where there are any."""
    from paperworks.language.rewards.model import RewardModel
    from paperworks.language.rewards.model_reward import standardise_members

    if isinstance(model, RewardModel) and model.ensemble is not None:
        judged, what = (rows, "training pairs") if held_out is None else (held_out, "held-out pairs")
        try:
            shown.say(standardise_members(model, judged.rows, what=what))
        except DataError as error:  # after all that training the model is worth keeping
            shown.say(f"warning: the members are not standardised: {error}")


_SHOWN = (
    "loss", "accuracy", "debiased_accuracy", "margin", "reward", "logp", "utility", "forget_quality", "validation_reward",
)  # fmt: skip


def _results(job: TrainJob, rows: Dataset[Any], result: TrainResult) -> dict[str, Any]:
    return {
        "objective": job.objective.name,
        "options": to_mapping(job.objective),
        "data": {**rows.report.as_dict(), "fingerprint": rows.fingerprint},
        **{f.name: plain(getattr(result, f.name)) for f in dataclasses.fields(result)},
    }
