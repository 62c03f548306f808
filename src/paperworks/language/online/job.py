"""An online training run from names to a folder: what `paperworks train METHOD --prompts FILE --reward R` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paperworks.core.errors import OptionError, PaperworksError, TrainingDiverged
from paperworks.core.options import build, option, plain, to_mapping
from paperworks.core.progress import Progress
from paperworks.core.runs import Run, RunStore
from paperworks.language.chat_default import as_message, texts_are_messages
from paperworks.language.data import Dataset
from paperworks.language.data.schemas import Preference, PromptRow
from paperworks.language.objectives.objective import Objective
from paperworks.language.online.judges import Judge, RewardJudge, load_judge
from paperworks.language.online.loop import OnlineResult, OnSamples, train_online
from paperworks.language.online.methods import online_method
from paperworks.language.online.model_card import write_card
from paperworks.language.online.options import OnlineOptions
from paperworks.language.online.report import write_report
from paperworks.language.online.requirements import check_options
from paperworks.language.policy import LoraOptions, Policy, Precision
from paperworks.language.rewards.function import check_name
from paperworks.language.rewards.options import RewardOptions, check_specs, reward_from_options
from paperworks.language.rewards.reward import Reward
from paperworks.language.sources.token_rewards import check_vocabularies
from paperworks.language.train_job import DataSource, ValidationOptions, check_model, never_began, same_job
from paperworks.language.train_options import TrainOptions
from paperworks.language.validation_reward import ValidationReward
from paperworks.language.vllm_engine import VllmEngine
from paperworks.language.vllm_server import VllmServer

# What of TrainOptions an online run reads; the rest is said by OnlineOptions.
TRAINING = (
    "micro_batch", "learning_rate", "schedule", "warmup", "weight_decay", "max_grad_norm", "max_length", "autocast",
    "eval_every", "select", "save_every", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class JudgeOptions:
    """How answers are compared, for methods that learn from pairs."""

    judge: str | None = option(
        None, "P(first is better) in place of a reward: FILE.py:function(prompts, firsts, seconds), or judge:MODEL@URL"
    )
    judge_slope: float = option(
        1.0, "of a reward: P(first better) = sigmoid(slope * difference); inf: the higher one wins"
    )
    symmetrise: bool = option(True, "ask a judge both orders and average")

    def __post_init__(self) -> None:
        if not self.judge_slope > 0:
            raise OptionError(f"option judge_slope={self.judge_slope}: expected a positive number, or inf")


@dataclass(frozen=True)
class OnlineJob:
    """Everything that decides an online run; written to its run.yaml."""

    method: str
    objective: Objective
    model: str
    prompts: DataSource  # prompts, or for methods that need them pairs
    reward: tuple[str, ...] = ()
    gold_reward: tuple[str, ...] = ()  # measured, never trained on
    rewards: RewardOptions = RewardOptions()
    judging: JudgeOptions = JudgeOptions()
    online: OnlineOptions = OnlineOptions()
    training: TrainOptions = TrainOptions()
    validation: ValidationOptions | None = None
    vllm_url: str | None = None  # a vLLM server that samples
    vllm: bool = False  # vLLM samples in this process
    chat: bool | None = None  # take bare prompts as a user's message; None: where the model has a chat template
    lora: LoraOptions | None = None
    precision: Precision = "float32"
    device: str = "auto"
    gradient_checkpointing: bool = False
    chat_template: str | None = None

    def config(self) -> dict[str, Any]:
        """The job as run.yaml has it; `online_job_from_config` reads it back."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["objective"]
        return {"method": values.pop("method"), "options": to_mapping(self.objective), **plain(values)}


@dataclass(frozen=True)
class _Settings:
    reward: tuple[str, ...] = ()
    gold_reward: tuple[str, ...] = ()
    rewards: RewardOptions = field(default_factory=RewardOptions)
    judging: JudgeOptions = field(default_factory=JudgeOptions)
    training: TrainOptions = field(default_factory=TrainOptions)
    validation: ValidationOptions | None = None
    vllm_url: str | None = None
    vllm: bool = False
    chat: bool | None = None
    lora: LoraOptions | None = None
    precision: Precision = "float32"
    device: str = "auto"
    gradient_checkpointing: bool = False
    chat_template: str | None = None


def online_job_from_config(values: Mapping[str, Any]) -> OnlineJob:
    """The job that a run.yaml describes. Raises OptionError for unknown or missing names."""
    rest = dict(values)
    try:
        name, model, prompts = rest.pop("method"), rest.pop("model"), rest.pop("prompts")
    except KeyError as error:
        raise OptionError(f"the configuration names no {error.args[0]}; a run.yaml of an online run has it") from None
    method = online_method(name)
    options, online = rest.pop("options", None) or {}, rest.pop("online", None) or {}
    return OnlineJob(
        method=method.name,
        objective=build(method.objective, options, what=f"method {name}"),
        model=str(model),
        prompts=build(DataSource, prompts if isinstance(prompts, Mapping) else {"path": prompts}, what="prompts"),
        online=build(OnlineOptions, {**method.defaults, **online}, what="online"),
        **vars(build(_Settings, {key: value for key, value in rest.items() if value is not None}, what="train")),
    )


def online_job(
    job: OnlineJob,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[OnlineResult, Path]:
    """Run the job in the folder `out` (default ./runs/train-METHOD-TIME): model/, report.html, samples.jsonl, checkpoints.

    Returns the result and the folder. Raises PaperworksError; Interrupted on Ctrl-C, after saving.
    """
    shown = progress if progress is not None else Progress(quiet=True)
    _check_options(job, out, resume)
    method, rows = online_method(job.method), _rows(job)
    for line in rows.report.lines():
        shown.say(line)
    policy = _policy(job)
    rows, chat = _laid_out(job, rows, policy, shown)
    asked = None if method.takes_pairs else rows.rows
    reward, gold = (_reward(job, specs, policy, shown, asked) for specs in (job.reward, job.gold_reward))
    judge = _judge(job, reward)
    evaluator = _evaluator(job, reward, chat)
    if (job.vllm or job.vllm_url is not None) and not policy.has_adapters:
        raise OptionError("--vllm and --vllm-url go with --lora: vLLM is brought adapters alone")
    store = RunStore()
    run = store.start("train", job.method, out, job.config(), job.training.seed, resume, overwrite=overwrite)
    try:
        with run:
            result = train_online(
                policy, method, job.objective, rows, job.online, job.training,
                reward=reward, judge=judge, gold=gold, evaluator=evaluator,
                others=other_models(job.objective, policy, job.device), folder=run.folder, resume=resume,
                server=_sampler(job, run.folder / "adapters"),
                on_iteration=_Shown(job, run, shown),
                on_samples=_some_answers(job, shown), on_note=shown.say,
            )  # fmt: skip
            policy.save(run.folder / "model")
            write_card(run.folder / "model", job, result, rows.fingerprint)
            for line in [*getattr(reward, "notes", list)(), *getattr(judge, "notes", list)()]:
                shown.say(line)
            run.finish(_results(job, rows, result, reward, chat))
    except PaperworksError as error:
        if not isinstance(error, TrainingDiverged) and never_began(run.folder):
            store.delete(run.record)  # a row or an option to mend; the same --out is then free for the next try
        raise
    write_report(run.folder)
    return result, run.folder


def check_job(job: OnlineJob, out: str | Path | None = None, *, resume: bool = False) -> None:
    """All that can be known of the job before a model is loaded; rows of files are read, a network is not asked.

    Raises PaperworksError, as the run would.
    """
    _check_options(job, out, resume)
    check_model(job.model, job.chat_template)
    check_specs(job.reward, job.rewards)
    for spec in (*job.reward, *job.gold_reward):
        check_name(spec, allow_unsandboxed=job.rewards.allow_unsandboxed)
    if job.prompts.is_here:
        _rows(job)


def _check_options(job: OnlineJob, out: str | Path | None, resume: bool) -> None:
    if resume and out is not None:
        same_job(job.config(), Path(out))
    has_judge = job.judging.judge is not None
    check_options(online_method(job.method), job.online, has_reward=bool(job.reward), has_judge=has_judge)
    if job.vllm and job.vllm_url is not None:
        raise OptionError("--vllm and --vllm-url are two ways to sample; give one of them")


def _rows(job: OnlineJob) -> Dataset[Any]:
    return job.prompts.read(Preference if online_method(job.method).takes_pairs else PromptRow)


class _Shown:
    """Shows and logs each iteration."""

    def __init__(self, job: OnlineJob, run: Run, shown: Progress) -> None:
        self._bar: Any = None
        self._job, self._run, self._shown = job, run, shown

    def __call__(self, iteration: int, total: int, values: Mapping[str, float]) -> None:
        if self._bar is None:
            self._bar = self._shown.bar(f"train {self._job.method}", total)
            self._run.truncate_metrics(iteration - 1)
        said = [f"{name} {values[name]:.3f}" for name in ("reward", "gold_reward", "kl", "loss") if name in values]
        self._bar.update(iteration, ", ".join([*said, f"{values['length']:.0f} tokens"]))
        if iteration == total:
            self._bar.finish()
        self._run.log(step=iteration, **values)


def _some_answers(job: OnlineJob, shown: Progress) -> OnSamples:
    """Shows two answers with their rewards, five times in a run."""
    every = max(1, job.online.iterations // 5)

    def show(iteration: int, lines: Sequence[Mapping[str, Any]]) -> None:
        if iteration % every and iteration != 1:
            return
        for line in lines[:2]:
            prompt, answer = (" ".join(str(line[part]).split()) for part in ("prompt", "answer"))
            reward = f", reward {line['reward']:.3g}" if "reward" in line else ""
            shown.say(f"iteration {iteration}{reward}: …{prompt[-40:]} → {answer[:100]}{'…' * (len(answer) > 100)}")

    return show


def other_models(objective: Objective, policy: Policy, device: str) -> dict[str, Policy]:
    """The models that an objective has answers scored by beside policy and reference; frozen, of the same vocabulary.

    Raises OptionError where none is named or the vocabulary is another, ModelError for one that does not load.
    """
    named: dict[str, str] = getattr(objective, "other_models", dict)()
    found = {name: Policy.load(path, device=device) for name, path in named.items()}
    for other in found.values():
        other.model.requires_grad_(False)
    check_vocabularies({"the policy": policy, **found})
    return found


def _sampler(job: OnlineJob, folder: Path) -> VllmServer | VllmEngine | None:
    """What samples in the policy's place; None where it samples itself."""
    if job.vllm:
        return VllmEngine(job.model, folder, rank=LoraOptions().rank if job.lora is None else job.lora.rank)
    return None if job.vllm_url is None else VllmServer(job.vllm_url, folder)


def _policy(job: OnlineJob) -> Policy:
    return Policy.load(
        job.model,
        precision=job.precision,
        device=job.device,
        chat_template=job.chat_template,
        gradient_checkpointing=job.gradient_checkpointing,
        lora=job.lora,
        seed=job.training.seed,
    )


def _laid_out(job: OnlineJob, rows: Dataset[Any], policy: Policy, shown: Progress) -> tuple[Dataset[Any], bool]:
    """The rows with bare prompts as messages where that is how the model takes them."""
    chat = texts_are_messages(job.model, policy.tokenizer) if job.chat is None else job.chat
    if chat and not policy.tokenizer.chat_template:
        raise OptionError(
            f"--chat: the tokenizer of {job.model} has no chat template; give one with --chat-template FILE"
        )
    bare = sum(isinstance(row.prompt, str) for row in rows)
    if bare and policy.tokenizer.chat_template and job.chat is None:
        taken = (
            "taken as a user's message (--no-chat: continued)" if chat else "continued as they stand (--chat: answered)"
        )
        shown.say(f"prompts are {taken}")
    if not chat or not bare:
        return rows, chat or bare < len(rows)
    return rows.with_rows([dataclasses.replace(row, prompt=as_message(row.prompt)) for row in rows.rows]), True


def _reward(
    job: OnlineJob, specs: tuple[str, ...], policy: Policy, shown: Progress, rows: Sequence[PromptRow] | None
) -> Reward | None:
    if not specs:
        return None
    return reward_from_options(
        specs,
        job.rewards if specs is job.reward else _for_gold(job.rewards, several=len(specs) > 1),
        device=job.device,
        count_tokens=lambda texts: [len(ids) for ids in policy.encode_responses(list(texts))],
        on_note=shown.say,
        rows=rows,
    )


def _for_gold(options: RewardOptions, *, several: bool) -> RewardOptions:
    """How a reward is run, without what is made of it: a gold reward is measured as it is."""
    return RewardOptions(
        combine="sum" if several else None,
        reward_timeout=options.reward_timeout,
        allow_unsandboxed=options.allow_unsandboxed,
    )


def _judge(job: OnlineJob, reward: Reward | None) -> Judge | None:
    if job.judging.judge is not None:
        return load_judge(job.judging.judge, symmetrise=job.judging.symmetrise)
    return None if reward is None else RewardJudge(reward, job.judging.judge_slope)


def _evaluator(job: OnlineJob, reward: Reward | None, chat: bool) -> ValidationReward | None:
    """The reward of answers to held-out prompts, where some are given."""
    options = job.validation
    if options is None or (options.reward is None and options.prompts is None):
        return None
    if options.prompts is None:
        raise OptionError("--validation-reward goes with --validation-prompts FILE: prompts that are not trained on")
    from paperworks.language.rewards import load_reward
    from paperworks.language.values.reference_value import each_once

    asked = dataclasses.replace(job.prompts, path=options.prompts, limit=None).read(PromptRow)
    if options.reward is None and reward is None:
        raise OptionError("--validation-prompts needs a reward: --validation-reward R")
    judged_by = load_reward(
        options.reward or job.reward[0],
        device=job.device,
        rows=asked.rows,
        allow_unsandboxed=job.rewards.allow_unsandboxed,
    )
    prompts = each_once([as_message(row.prompt) if chat else row.prompt for row in asked])[: options.limit]
    return ValidationReward(prompts, judged_by, options.max_new_tokens)


def _results(
    job: OnlineJob, rows: Dataset[Any], result: OnlineResult, reward: Reward | None, chat: bool
) -> dict[str, Any]:
    return {
        "chat": chat,  # whether bare prompts were messages: so they are then in `generate` and `evaluate`
        "method": job.method,
        "options": to_mapping(job.objective),
        "reward": None if reward is None else reward.name,
        "data": {**rows.report.as_dict(), "fingerprint": rows.fingerprint},
        **{f.name: plain(getattr(result, f.name)) for f in dataclasses.fields(result)},
    }
