"""Making a tiny model forget invented people: a trial an objective, measured by the protocol before it and every epoch.

What small unlearning experiments share. A seed fixes the world, its two models and the order of rows; an objective and a
learning rate make the rest. Everything goes through the parts that users use: `assemble`, `train`, `evaluate_unlearning`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paperworks.core.files import file_lock, read_json, write_json_atomic
from paperworks.core.options import to_mapping
from paperworks.language.data import Dataset
from paperworks.language.objectives.unlearning import UnlearningObjective
from paperworks.language.policy import Policy
from paperworks.language.testbeds import facts
from paperworks.language.testbeds.fact_models import FactModels, FactSpec, make_models
from paperworks.language.testbeds.facts import FactWorld
from paperworks.language.training import TrainOptions, train
from paperworks.language.unlearning.data import assemble
from paperworks.language.unlearning.logs import UnlearningLog, read_log, write_log
from paperworks.language.unlearning.outcome import UnlearningReport
from paperworks.language.unlearning.protocol import UnlearningOptions, UnlearningSets, evaluate_unlearning

UTILITY_FLOOR = 0.9  # of the start's: below it an epoch does not count

CURVES = ("step", "utility", "log10_forget_quality", "forget_nll", "held_out_utility")
Values = Mapping[str, float]  # numbers of one evaluation: `step`, and those of `UnlearningReport.values`


@dataclass(frozen=True)
class TrialSpec:
    """Sizes of a trial, the same for every objective."""

    models: FactSpec = field(default_factory=FactSpec)
    epochs: int = 10
    batch_size: int = 21  # rows to forget a step, each with one to keep
    retain_every: int = 9  # every so many-th question is measured; prime to the 14 of a person, so that all kinds are
    held_out_every: int = 5
    rouge: bool = True
    max_new_tokens: int = 32
    rates: tuple[float, ...] = (3e-4, 6e-4, 1e-3, 2e-3)
    tuning_seed: int = 1_000_000  # the world that only chooses learning rates

    @property
    def has_choice(self) -> bool:
        """Whether there is anything to tune."""
        return len(self.rates) > 1

    @property
    def key(self) -> str:
        """Names the spec in file names."""
        return _digest(to_mapping(self))


@dataclass(frozen=True)
class Trial:
    """What unlearning did, evaluation by evaluation: `history[0]` is before it."""

    history: Sequence[Values]
    log_s: Sequence[float]  # of every question to forget, at the end
    retain_only: UnlearningReport

    @property
    def start(self) -> Values:
        return self.history[0]

    @property
    def end(self) -> Values:
        return self.history[-1]

    @property
    def best(self) -> Values:
        """The evaluation of highest forget quality among those whose utility is at least 0.9 of the start's.

        The start is one of them: who never forgets without losing utility has the quality of not having begun.
        """
        floor = UTILITY_FLOOR * self.start["utility"]
        allowed = [values for values in self.history if values["utility"] >= floor]
        return max(allowed, key=lambda values: values["log10_forget_quality"])

    def as_dict(self) -> dict[str, Any]:
        """The trial as JSON values: numbers of its best and last epochs, and a `NAME_curve` of each of `CURVES`."""
        start, best, end = self.start, self.best, self.end
        return {
            "quality": best["log10_forget_quality"],
            "utility": best["utility"],
            "best_epoch": float(self.history.index(best)),
            "end_quality": end["log10_forget_quality"],
            "end_utility": end["utility"],
            "end_held_out": end["held_out_utility"],
            "end_nll": end["forget_nll"],
            "start_quality": start["log10_forget_quality"],
            "start_utility": start["utility"],
            "retain_only_utility": self.retain_only.utility,
            "retain_only_log_s": self.retain_only.forget.log_s.tolist(),
            "end_log_s": list(self.log_s),
            **{f"{name}_curve": [values[name] for values in self.history] for name in CURVES},
        }


def prepare(folder: Path, seed: int, spec: TrialSpec) -> tuple[FactModels, UnlearningLog]:
    """The models of a seed and the log of the retain-only one, made on first use and kept in `folder`."""
    models = make_models(folder, seed, spec.models)
    place = folder / f"retain-only-{spec.key}-{seed}.json"
    with file_lock(place.with_suffix(".lock")):
        if not place.is_file():
            _, report = _measure(models.retain_only(), models.world, spec)
            write_log(report, place)
    return models, read_log(place)


def unlearn(
    folder: Path, objective: UnlearningObjective, rate: float, seed: int, spec: TrialSpec, *, held_out: bool = True
) -> Trial:
    """Unlearn the people to forget of a seed's world at one learning rate; `held_out`: measure those people too."""
    models, log = prepare(folder, seed, spec)
    world = models.world
    rows = assemble(
        facts.forget_rows(world.forget), facts.retain_rows(world.retain), None, seed=seed, objective=objective
    )
    options = TrainOptions(
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        micro_batch=spec.batch_size,
        learning_rate=rate,
        schedule="linear",
        weight_decay=0.01,
        eval_every=math.ceil(len(world.forget) / spec.batch_size),
        select="last",
        seed=seed,
    )
    evaluator = _Evaluator(world, spec, log, held_out)
    found = train(models.target(), objective, rows, options, evaluator=evaluator)
    last = evaluator.reports[-1]
    return Trial(found.history, last.forget.log_s.tolist(), log.report(log))


def tuned_rate(folder: Path, objective: UnlearningObjective, spec: TrialSpec) -> float:
    """The learning rate with the best epoch (see `Trial.best`) in the tuning world; the lowest of equals.

    Found once for an objective and spec, by whoever asks first, and kept in `folder`. A single rate is not tried.
    """
    if not spec.has_choice:
        return spec.rates[0]
    place = folder / f"rate-{objective.name}-{_digest([to_mapping(spec), to_mapping(objective)])}.json"
    with file_lock(place.with_suffix(".lock")):
        if not place.is_file():
            quality = [
                unlearn(folder, objective, rate, spec.tuning_seed, spec, held_out=False).best["log10_forget_quality"]
                for rate in spec.rates
            ]
            best = spec.rates[max(range(len(quality)), key=quality.__getitem__)]
            write_json_atomic(place, {"rate": best, "rates": spec.rates, "log10_forget_quality": quality})
    return float(read_json(place)["rate"])


@dataclass
class _Evaluator:
    """The protocol at every evaluation; training goes on to its end whatever it finds."""

    world: FactWorld
    spec: TrialSpec
    retain_log: UnlearningLog
    held_out: bool
    reports: list[UnlearningReport] = field(default_factory=list)

    def __call__(self, policy: Policy) -> Mapping[str, float]:
        values, report = _measure(policy, self.world, self.spec, self.retain_log, self.held_out)
        self.reports.append(report)
        return values

    def quality(self, values: Mapping[str, float], step: int) -> float:
        return float(step)

    def stop(self, history: Sequence[Mapping[str, float]]) -> str | None:
        return None


def _measure(
    policy: Policy, world: FactWorld, spec: TrialSpec, retain_log: UnlearningLog | None = None, held_out: bool = False
) -> tuple[dict[str, float], UnlearningReport]:
    """The protocol with the retain set for utility; `held_out_utility` is over people whom unlearning never sees."""
    retain = world.retain.rows[:: spec.retain_every]
    unseen = world.held_out.rows[:: spec.held_out_every] if held_out else ()
    options = UnlearningOptions(limit=10_000, rouge=spec.rouge, max_new_tokens=spec.max_new_tokens, batch_rows=256)
    sets = UnlearningSets(world.forget, Dataset((*retain, *unseen)))
    whole = evaluate_unlearning(policy, sets, options, retain_log=retain_log)  # both kinds at once: it is faster
    report = _with_retain(whole, slice(len(retain)))
    values = dict(report.values)
    if unseen:
        values["held_out_utility"] = _with_retain(whole, slice(len(retain), None)).values["utility"]
    return values, report


def _with_retain(report: UnlearningReport, items: slice) -> UnlearningReport:
    retain = report.sets["retain"]
    return replace(report, sets={**report.sets, "retain": replace(retain, items=retain.items[items])})


def _digest(content: Any) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:10]
