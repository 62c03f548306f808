"""One cell of a comparison: train one configuration with one seed, measure it on the shared rows and prompts.

Runs in a process of its own. What it returns is kept row by row, so that the report can pair arms and choose halves.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from paperworks.core.errors import DataError, OptionError, TrainingDiverged
from paperworks.core.options import build
from paperworks.core.seeding import derive_seed
from paperworks.experiment.definition import Arm, Budget, Workspace
from paperworks.language.comparison.grid import START, Point
from paperworks.language.comparison.job import CompareJob, SharedRows, job_from_config, read_rows
from paperworks.language.data import Dataset, Demonstration, Feedback, Preference
from paperworks.language.data.conversions import preferences_to_demonstrations, preferences_to_feedback
from paperworks.language.evaluation import ScoredRows, sample_report, score_rows
from paperworks.language.objectives.objective import Objective, PairLogps, PairObjective, ResponseLogps
from paperworks.language.online.job import other_models
from paperworks.language.online.loop import OnlineResult, train_online
from paperworks.language.online.methods import METHODS
from paperworks.language.online.options import OnlineOptions
from paperworks.language.policy import Policy
from paperworks.language.reference_scores import ReferenceScores
from paperworks.language.rewards import load_reward
from paperworks.language.rewards.options import reward_from_options
from paperworks.language.rewards.reward import Reward
from paperworks.language.training import TrainOptions, TrainResult, train

SHOWN_PROMPTS = 3
SHOWN_CHARACTERS = 1500
ROLES = ("chosen", "rejected")


def arm_of(job: CompareJob, point: Point | None, fingerprints: Mapping[str, str], shown: Sequence[int]) -> Arm:
    """The arm of a point (None: the untrained model), with everything its cell needs.

    `shown` are the prompts whose answers are kept as text.
    """
    options = {"job": job.shared(), "fingerprints": dict(fingerprints), "shown": list(shown)}
    if point is None:
        return Arm(START, "untrained model", "control", options)
    options["point"] = {"objective": point.objective, "options": dict(point.options), "swept": list(point.swept)}
    return Arm(point.name, options=options)


def compare_cell(arm: Arm, setting: str, seed: int, budget: Budget, workspace: Workspace) -> dict[str, Any]:
    """Trains and measures one arm. A training that diverges gives {"diverged": why} and no measures."""
    given = arm.options.get("point")
    job = job_from_config({**arm.options["job"], "objectives": []})
    point = None if given is None else Point(given["objective"], given["options"], tuple(given["swept"]))
    job.load_objectives()
    rows = read_rows(job)
    if rows.fingerprint() != arm.options["fingerprints"]["rows"]:
        raise DataError("the rows have changed since this comparison began; start it again", file=job.data.path)
    policy = load_policy(job, seed, with_adapters=point is not None)
    began, trained = time.perf_counter(), None
    if point is not None:
        try:
            trained = train_point(job, point, policy, rows, seed)
        except TrainingDiverged as error:
            seconds = time.perf_counter() - began
            return {"diverged": str(error), "train_seconds": seconds, "fingerprints": arm.options["fingerprints"]}
    policy.model.requires_grad_(False)
    start = policy if point is None else policy.reference() if policy.has_adapters else load_policy(job, seed)
    return {
        "fingerprints": arm.options["fingerprints"],
        "diverged": "",
        "train_seconds": 0.0 if trained is None else trained.seconds,
        **({} if trained is None else _training_figures(trained)),
        **_held_out_figures(job, None if point is None else point.make(), policy, start, rows),
        **_sample_figures(job, policy, start, rows, seed, arm.options["shown"]),
    }


def measured_rewards(job: CompareJob, rows: SharedRows) -> list[Reward]:
    """The rewards of the answers that every arm is judged by."""
    unsandboxed = job.rewarding.allow_unsandboxed
    return [
        load_reward(name, device=job.device, rows=rows.records, allow_unsandboxed=unsandboxed) for name in job.rewards
    ]


def load_policy(job: CompareJob, seed: int, *, with_adapters: bool = False) -> Policy:
    """The model at its start; `with_adapters` where the job trains adapters, drawn from the seed."""
    policy = Policy.load(
        job.model,
        lora=job.lora if with_adapters else None,
        precision=job.precision,
        device=job.device,
        chat_template=job.chat_template,
        gradient_checkpointing=job.gradient_checkpointing and with_adapters,
        seed=seed,
    )
    if policy.has_adapters and not (with_adapters and job.lora):
        raise OptionError(f"{job.model} is an adapter: merge it into its model first, so that every arm has one start")
    return policy


# -------------------------------------------------------------------------------------------------------------- training


def train_point(
    job: CompareJob, point: Point, policy: Policy, rows: SharedRows, seed: int
) -> TrainResult | OnlineResult:
    """Trains `policy` in place on the pairs, on what the objective's schema makes of them, or on its own answers."""
    if point.is_online:
        return _train_online(job, point, policy, rows, seed)
    objective, pairs = point.make(), rows.training
    dataset = rows_for(objective, pairs)
    options = training_options(job, type(objective), len(pairs), seed)
    options = dataclasses.replace(options, **point.training())
    return train(policy, objective, dataset, options, cache_reference=True)


def _train_online(job: CompareJob, point: Point, policy: Policy, rows: SharedRows, seed: int) -> OnlineResult:
    """The method on the pairs' prompts: as many optimiser steps as the others, as many prompts a step as they have pairs."""
    online, objective = online_options(job, point, len(rows.training)), point.make()
    options = dataclasses.replace(job.training, **point.training(), select="last", tracker="none", seed=seed)
    names = job.train_rewards or job.rewards[:1]
    reward = reward_from_options(
        names,
        job.rewarding,
        device=job.device,
        count_tokens=lambda texts: list(map(len, policy.encode_responses(texts))),
        rows=rows.records,
    )
    gold = measured_rewards(job, rows)[0] if job.train_rewards and job.rewards else None
    trajectory: list[dict[str, float]] = []
    result = train_online(
        policy, METHODS[point.objective], objective, rows.training, online, options, reward=reward, gold=gold,
        others=other_models(objective, policy, job.device),
        on_iteration=lambda iteration, total, values: trajectory.append(
            {name: values[name] for name in ("kl", "reward", "gold_reward") if name in values}
        ),
    )  # fmt: skip
    return dataclasses.replace(result, history=trajectory)


def online_options(job: CompareJob, point: Point, pairs: int) -> OnlineOptions:
    """How a point samples. Raises OptionError."""
    given = {"max_new_tokens": job.measure.max_new_tokens, **point.online()}
    prompts = min(job.training.batch_size, pairs)
    online = build(OnlineOptions, {**given, "iterations": 1, "prompts_per_iteration": prompts}, what=point.objective)
    iterations = max(1, planned_steps(job, pairs) // (online.updates * online.minibatches))
    return dataclasses.replace(online, iterations=iterations)


def rows_for(objective: Objective | type[Objective], pairs: Dataset[Preference]) -> Dataset[Any]:
    """The pairs as the rows an objective trains on. Raises OptionError where they cannot be made into those."""
    if objective.schema is Preference:
        return pairs
    if objective.schema is Feedback:
        return Dataset(tuple(preferences_to_feedback(pairs)), pairs.report)
    if objective.schema is Demonstration:
        return Dataset(tuple(preferences_to_demonstrations(pairs)), pairs.report)
    raise OptionError(
        f"objective {objective.name} trains on {objective.schema.__name__} rows, which preference pairs cannot be made "
        "into; it cannot be compared on pairs"
    )


def training_options(job: CompareJob, objective: type[Objective], pairs: int, seed: int) -> TrainOptions:
    """The same number of steps and of pairs a step for every objective.

    One that takes single responses gets twice the rows a step: both responses of each pair.
    """
    each, steps = (2 if objective.schema is Feedback else 1), planned_steps(job, pairs)
    batch, micro = each * job.training.batch_size, each * job.training.micro_batch
    fixed: dict[str, Any] = {"select": "last", "tracker": "none", "seed": seed}
    return dataclasses.replace(job.training, steps=steps, batch_size=batch, micro_batch=micro, **fixed)


def planned_steps(job: CompareJob, pairs: int) -> int:
    """Optimiser steps of every arm."""
    per_epoch = math.ceil(pairs / job.training.batch_size)
    return job.training.steps or max(1, round(job.training.epochs * per_epoch))


def _training_figures(trained: TrainResult | OnlineResult) -> dict[str, Any]:
    if isinstance(trained, OnlineResult):
        return {
            "steps": trained.iterations,
            "final_loss": trained.final["loss"],
            "sampled_tokens": trained.sampled_tokens,
            "trained_tokens": trained.trained_tokens,
            "trajectory": list(trained.history),
            "warnings": list(trained.warnings),
            "notes": list(trained.notes),
        }
    return {
        "steps": trained.steps,
        "final_loss": trained.final["loss"],
        "sampled_tokens": 0,
        "trained_tokens": trained.response_tokens,
        "warnings": list(trained.warnings),
        "notes": list(trained.notes),
    }


# ------------------------------------------------------------------------------------------------------------- measuring


def _held_out_figures(
    job: CompareJob, objective: Objective | None, policy: Policy, start: Policy, rows: SharedRows
) -> dict[str, Any]:
    """By held-out row: accuracy and margin by the objective's own implicit reward, and by yardsticks common to all.

    Common ones: summed log-ratio to the start, log-ratio a token, log-probability a token.
    """
    cutting: dict[str, Any] = {"max_length": job.training.max_length, "long_prompts": job.training.long_prompts}
    scored = with_start(score_rows(policy, rows.held_out, ROLES, **cutting), start)
    by_probability = dataclasses.replace(scored, reference_logps=None)
    figures: dict[str, Any] = {
        "kept_rows": kept_rows(scored, rows.held_out),
        "accuracy_log_ratio": list(scored.accuracy().values),
        "accuracy_token_log_ratio": list(scored.accuracy(normalise=True).values),
        "accuracy_token_logp": list(by_probability.accuracy(normalise=True).values),
        "logp_chosen": scored.logps[:, 0].tolist(),
    }
    if objective is not None:
        assert scored.reference_logps is not None
        at_start = dataclasses.replace(scored, logps=scored.reference_logps)
        figures |= {"margin": own_margins(objective, scored), "margin_at_start": own_margins(objective, at_start)}
    return figures


def with_start(scored: ScoredRows, start: Policy) -> ScoredRows:
    """The rows with the start's log-probabilities, from the cache where an earlier cell left them."""
    trees = [item.tree() for item in scored.items.items]
    scores = ReferenceScores(start, trees, model_hash=start.content_hash())
    missing = scores.missing(range(len(trees)))
    if missing:
        scores.compute(missing)
        scores.save()
    return dataclasses.replace(scored, reference_logps=scores.sums.double().numpy())


def kept_rows(scored: ScoredRows, held_out: Dataset[Preference]) -> list[int]:
    """Indices of the held-out rows that were scored: all, unless `long_prompts` is skip."""
    if len(scored.items) == len(held_out):
        return list(range(len(held_out)))
    places = {f"{row.where}": index for index, row in enumerate(held_out)}
    return [places[item.where] for item in scored.items.items]


@torch.no_grad()
def own_margins(objective: Objective, scored: ScoredRows) -> list[float]:
    """The objective's implicit reward of chosen minus that of rejected, a row each."""
    reference = scored.reference_logps if objective.needs_reference else None
    chosen, rejected = (
        ResponseLogps(
            torch.tensor(scored.logps[:, column]),
            torch.tensor(scored.counts[:, column]),
            None if reference is None else torch.tensor(reference[:, column]),
        )
        for column in range(2)
    )
    if isinstance(objective, PairObjective):
        margins = objective.margin(PairLogps(chosen, rejected, torch.ones_like(chosen.policy)))
    else:
        margins = objective.implicit_reward(chosen) - objective.implicit_reward(rejected)
    return list(map(float, margins))


def _sample_figures(
    job: CompareJob, policy: Policy, start: Policy, rows: SharedRows, seed: int, shown: Sequence[int]
) -> dict[str, Any]:
    """By drawn response, prompt after prompt: rewards, log-ratio to the start, tokens, whether it ended by itself."""
    report = sample_report(
        policy,
        None if policy is start else start,
        rows.prompts,
        measured_rewards(job, rows),
        job.measure.samples,
        derive_seed("compare", seed),
        job.measure.max_new_tokens,
    )
    ratios = [0.0 if row.log_ratio is None else row.log_ratio for row in report.rows]
    if not np.isfinite(ratios).all():
        return {"diverged": "the trained model gives samples without a finite log-probability"}
    first = {row.prompt_index: row for row in report.rows if row.sample_index == 0}
    return {
        "rewards": {name: [row.rewards[name] for row in report.rows] for name in job.rewards},
        "log_ratio": ratios,
        "tokens": [row.tokens for row in report.rows],
        "finished": [row.finished for row in report.rows],
        "texts": {str(index): first[index].text[:SHOWN_CHARACTERS] for index in shown},
    }
