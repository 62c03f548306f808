"""The one training loop, for every objective: order of rows, optimiser, evaluation, checkpoints, interruption.

How a step's loss is averaged is said in `step_losses`; gradients are summed across processes once a step here.
What the reference says is computed before the first step by the policy itself (it is its own reference then) and kept, so a
full-weight run never holds a second model. What trains is the model and, where an objective brings some, its own heads; the
heads are in the checkpoints and not in the model that is saved. The model may be a policy or a reward model.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from paperworks.core import checkpoints
from paperworks.core.errors import DataError, OptionError, RunError, TrainingDiverged
from paperworks.core.interrupts import deferred_interrupt
from paperworks.core.seeding import seed_everything
from paperworks.language.data import Dataset
from paperworks.language.items import MISMATCHED, Items, tokenise
from paperworks.language.objectives.objective import Objective
from paperworks.language.optimisation import Optimisation, default_learning_rate
from paperworks.language.policy import Policy
from paperworks.language.reference_scores import Reference, ReferenceScores, by_role, hidden_states
from paperworks.language.step_losses import StepLosses
from paperworks.language.text_model import TextModel
from paperworks.language.train_options import Plan, TrainOptions, learning_rate
from paperworks.language.vocabulary import VocabularyHead

__all__ = [
    "Evaluator",
    "Interrupted",
    "Plan",
    "TrainOptions",
    "TrainResult",
    "default_learning_rate",
    "learning_rate",
    "train",
]


@dataclass(frozen=True)
class TrainResult:
    """What training did. `final` holds the last step's means, `held_out` the kept weights' (empty without rows)."""

    steps: int
    first: Mapping[str, float]
    final: Mapping[str, float]
    held_out: Mapping[str, float]
    history: Sequence[Mapping[str, float]]  # one mapping an evaluation, with its step
    best_step: int
    seconds: float
    warnings: Sequence[str]
    notes: Sequence[str]
    training_rows: int  # rows trained on and evaluated on: those too long and skipped are not counted
    held_out_rows: int
    held_out_values: Mapping[str, Sequence[float]]  # the objective's metrics, a value a row; runs with a folder
    stopped: str = ""  # why training ended before its last step; empty where it did not
    preparation: Mapping[str, Any] = field(default_factory=dict)  # what the objective settled before training
    response_tokens: int = 0  # trained on by this process, each time that it came


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after the step in progress was finished and saved."""


class Evaluator(Protocol):
    """What a run measures at its evaluations beside the held-out loss, and decides by."""

    def __call__(self, policy: Any) -> Mapping[str, float]:
        """Named numbers of the model as it is; `loss` is the held-out loss's name."""

    def quality(self, values: Mapping[str, float], step: int) -> float:
        """How good these values are: with select=best, the weights of the highest quality are kept."""

    def stop(self, history: Sequence[Mapping[str, float]]) -> str | None:
        """A reason to end training now, or None. `history[0]` is before training; entries have their `step`."""


OnStep = Callable[[int, int, Mapping[str, float]], None]  # step (1-based), steps in all, the step's means


def train(
    policy: TextModel,
    objective: Objective,
    dataset: Dataset[Any],
    options: TrainOptions = TrainOptions(),
    *,
    held_out: Dataset[Any] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_evaluation: OnStep | None = None,
    on_note: Callable[[str], None] | None = None,
    cache_reference: bool = False,
    evaluator: Evaluator | None = None,
) -> TrainResult:
    """Train `policy` (or a reward model) in place on `dataset`.

    `folder` receives checkpoints (`folder/checkpoints`); without one no checkpoint is written and a run cannot be resumed.
    `evaluator` measures at step 0 and at every evaluation; it decides which weights are kept, and may end training.
    Reference log-probabilities are kept on disk for other runs where there is a folder, or with `cache_reference`.
    With `resume` the newest checkpoint there is taken up; on a CPU the result is the uninterrupted run's bit for bit.
    Raises TrainingDiverged (the last checkpoint stays), Interrupted on Ctrl-C (a checkpoint is written first), DataError,
    OptionError, RunError where the rows are not those that the resumed run began with.
    """
    return _Loop(
        policy,
        objective,
        dataset,
        options,
        held_out,
        folder,
        resume,
        on_step,
        on_evaluation,
        on_note,
        cache_reference,
        evaluator,
    ).run()


class _Loop:
    def __init__(
        self,
        policy: TextModel,
        objective: Objective,
        dataset: Dataset[Any],
        options: TrainOptions,
        held_out: Dataset[Any] | None,
        folder: str | Path | None,
        resume: bool,
        on_step: OnStep | None,
        on_evaluation: OnStep | None,
        on_note: Callable[[str], None] | None,
        cache_reference: bool,
        evaluator: Evaluator | None,
    ) -> None:
        if options.tracker != "none" and importlib.util.find_spec(options.tracker) is None:
            raise OptionError(f"--tracker {options.tracker}: it is not installed; pip install {options.tracker}")
        seed_everything(options.seed)
        self.accelerator = Accelerator(
            cpu=policy.device.type == "cpu",
            log_with=None if options.tracker == "none" else options.tracker,
            project_dir=None if folder is None else str(folder),
        )
        if self.accelerator.num_processes > 1:
            policy.model.to(self.accelerator.device)
        self.policy, self.options, self.resume = policy, options, resume
        self.folder = None if folder is None else Path(folder)
        self.on_step, self.on_evaluation, self.on_note = on_step, on_evaluation, on_note
        self.fingerprint = "" if self.folder is None else dataset.fingerprint
        self.evaluator = evaluator
        prepared = objective.prepare(dataset, cast(Policy, policy), seed=options.seed)
        self.objective, self.preparation = prepared.objective, prepared.facts
        self.notes: list[str] = []
        for line in (*self.objective.option_notes(), *prepared.notes):
            self._note(line)
        if prepared.save is not None and self.folder is not None and self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            prepared.save(self.folder)
        if policy.method_note():
            self._note(policy.method_note())
        self.data = self._tokenise(prepared.dataset)
        self.held_out = self._tokenise_held_out(held_out)
        for line in self.data.notes():
            self._note(line)
        companions = self.data.companions
        self.plan = Plan(
            len(self.data) - companions, options, companions=companions, sampling=self.objective.sampling(self.data)
        )
        self.model_hash = ""
        if self.objective.needs_reference and (cache_reference or self.folder is not None):
            self.model_hash = cast(Policy, policy).start().content_hash()
        self.model = policy.model
        self.modules = {
            name: module.to(policy.device) for name, module in self.objective.modules(cast(Policy, policy)).items()
        }
        self.losses = StepLosses(policy, self.objective, options, self._reduced, self.modules)
        self.reference = self._reference(self.data, self.plan.planned())
        self.held_out_reference = self._reference(self.held_out, range(len(self.held_out or ())))
        self.optimisation = Optimisation(policy, self.objective, self.modules, options, self.accelerator)
        self.trained = self.optimisation.trained
        self.first: dict[str, float] = {}
        self.final: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self.warnings: list[str] = []
        self.best_step, self.best_quality = 0, -math.inf
        self.stopped = ""
        self.response_tokens = 0
        self.best_weights: dict[str, Tensor] | None = None

    # ------------------------------------------------------------------------------------------------------ preparing

    def _note(self, line: str) -> None:
        self.notes.append(line)
        if self.on_note is not None and self.accelerator.is_main_process:
            self.on_note(line)

    def _tokenise(self, dataset: Dataset[Any]) -> Items:
        read = (*self.objective.roles, *self.objective.reference_roles)  # some are only compared with the reference
        return tokenise(
            dataset,
            self.policy,
            tuple(role for role in dict.fromkeys(read) if role != MISMATCHED),
            numbers=self.objective.numbers,
            response_numbers=self.objective.response_numbers,
            max_length=self.options.max_length,
            long_prompts=self.options.long_prompts,
            mismatched=self.objective.step_kl_role == MISMATCHED,
            seed=self.options.seed,
        )

    def _tokenise_held_out(self, held_out: Dataset[Any] | None) -> Items | None:
        if held_out is None or not len(held_out):
            return None
        try:
            prepared = self.objective.prepare(
                held_out, cast(Policy, self.policy), seed=self.options.seed, held_out=True
            ).dataset
        except DataError as error:
            self._note(f"no evaluation: the held-out rows do not serve this objective ({error})")
            return None
        return self._tokenise(prepared)

    def _reference(self, data: Items | None, rows: Sequence[int]) -> Reference:
        """What the start of the policy says about these rows; empty where nothing is asked of it."""
        objective = self.objective
        if data is None or not (objective.reference_roles or objective.kl_roles):
            return Reference()
        start = cast(Policy, self.policy).start()
        tokens = {}
        if objective.reference_roles:
            trees = [item.tree(objective.reference_roles) for item in data.items]
            scores = ReferenceScores(start, trees, model_hash=self.model_hash, on_disk=bool(self.model_hash))
            self._complete(scores, rows)
            known = [scores.tokens(row) for row in range(len(trees))]
            tokens = by_role(data.items, objective.reference_roles, known)
        if not objective.kl_roles:
            return Reference(tokens)
        hidden = hidden_states(start, data.items, objective.kl_roles, rows)
        return Reference(tokens, hidden, VocabularyHead.of(start.model).frozen())

    def _complete(self, scores: ReferenceScores, rows: Sequence[int]) -> None:
        """Compute what is missing for these rows, each process its share."""
        missing = self._missing_anywhere(scores, rows)
        if not missing:
            return
        mine = missing[self.accelerator.process_index :: self.accelerator.num_processes]
        for start in range(0, len(mine), 256):
            scores.compute(mine[start : start + 256])
            if self.on_step is not None and self.accelerator.is_main_process:
                self.on_step(0, self.plan.steps, {"reference": min(1.0, (start + 256) / len(mine))})
        if self.accelerator.num_processes > 1:
            own, all_missing = (torch.zeros_like(scores.values, dtype=torch.bool) for _ in range(2))
            scores.mark(own, mine)
            scores.mark(all_missing, missing)
            summed = self._reduced(torch.where(own, scores.values, 0.0))
            scores.values[all_missing] = summed[all_missing]
        if self.accelerator.is_main_process:
            scores.save()

    def _missing_anywhere(self, scores: ReferenceScores, rows: Sequence[int]) -> list[int]:
        """The rows that any process lacks: each has a cache of its own, and all must take the same path."""
        here = torch.zeros(len(scores))
        here[scores.missing(rows)] = 1.0
        return [int(row) for row in self._reduced(here).nonzero().squeeze(1)]

    def _reduced(self, values: Tensor) -> Tensor:
        """Sum over processes."""
        if self.accelerator.num_processes == 1:
            return values
        return cast(Tensor, self.accelerator.reduce(values.to(self.accelerator.device), reduction="sum")).cpu()

    # ----------------------------------------------------------------------------------------------------------- step

    def _step(self, step: int) -> dict[str, float]:
        """One optimiser step; the means over its rows."""
        began = time.perf_counter()
        rows = self.plan.rows(step)
        mine = rows[self.accelerator.process_index :: self.accelerator.num_processes]
        self.model.train()
        values = self.losses.means(self.data, mine, self.reference, backward=True)
        self.response_tokens += sum(len(ids) for row in mine for ids in self.data.items[row].responses_in())
        values["grad_norm"] = self.optimisation.gradient_norm()
        if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
            self.optimisation.forget()
            raise TrainingDiverged(self._divergence(step, rows, values))
        rate = learning_rate(step, self.plan.steps, self.optimisation.peak, self.options)
        self.optimisation.step(rate)
        seconds = time.perf_counter() - began
        return {**values, "learning_rate": rate, "rows_per_second": len(rows) / seconds}

    def _divergence(self, step: int, rows: Sequence[int], values: Mapping[str, float]) -> str:
        what = "the loss" if not math.isfinite(values["loss"]) else "the gradient"
        where = ", ".join(self.data.items[row].where for row in rows[:8]) + (", ..." if len(rows) > 8 else "")
        kept = "; the last checkpoint is kept" if self._has_checkpoint() else ""
        return (
            f"{what} became {values['loss' if what == 'the loss' else 'grad_norm']} at step {step + 1} on rows {where}"
            f"{kept}: lower --learning-rate, or look at those rows"
        )

    def _has_checkpoint(self) -> bool:
        return self.folder is not None and any((self.folder / "checkpoints").glob("step-*"))

    # ----------------------------------------------------------------------------------------------------- evaluation

    @property
    def _evaluates(self) -> bool:
        return self.held_out is not None or self.evaluator is not None

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        self.model.eval()
        values: dict[str, float] = {}
        if self.held_out is not None:
            mine = range(self.accelerator.process_index, len(self.held_out), self.accelerator.num_processes)
            values = self.losses.means(self.held_out, mine, self.held_out_reference, backward=False)
        if self.evaluator is not None:
            values |= self.evaluator(self.policy)
        return values

    def _consider(self, step: int) -> None:
        """Evaluate, keep the weights when they are the best so far, and see whether to go on."""
        values = self._evaluate()
        self.history.append({"step": step, **values})
        if self.on_evaluation is not None and self.accelerator.is_main_process:
            self.on_evaluation(step, self.plan.steps, values)
        quality = self.objective.quality(values) if self.evaluator is None else self.evaluator.quality(values, step)
        if quality > self.best_quality:
            self.best_step, self.best_quality = step, quality
            if self.options.select == "best" and step < self.plan.steps:
                self._keep_best()
        if self.evaluator is not None and step < self.plan.steps:
            self.stopped = self.evaluator.stop(self.history) or ""
            if self.stopped:
                self._note(f"stopped at step {step}: {self.stopped}")

    def _keep_best(self) -> None:
        if self.folder is None:
            self.best_weights = {name: value.clone() for name, value in checkpoints.trainable(self.trained).items()}
        elif self.accelerator.is_main_process:
            checkpoints.save_weights(self.folder / "checkpoints" / "best", self.trained)

    def _take_best(self) -> None:
        if self.folder is None:
            assert self.best_weights is not None
            checkpoints.load_trainable(self.trained, self.best_weights)
        else:
            self.accelerator.wait_for_everyone()
            checkpoints.load_weights(self.folder / "checkpoints" / "best", self.trained)

    # ------------------------------------------------------------------------------------------------------------ run

    def run(self) -> TrainResult:
        began = time.perf_counter()
        start = self._take_up() if self.resume else 0
        every = self.options.eval_every or max(1, math.ceil(self.plan.steps / 4))
        if self.evaluator is not None and self.options.eval_every is None:
            every = min(every, self.plan.per_epoch)
        if self.options.tracker != "none":
            self.accelerator.init_trackers("paperworks", config={"objective": self.objective.name})
        if start == 0 and self._evaluates:
            self._consider(0)
        saved = done = start
        with deferred_interrupt() as interrupted:
            for step in range(start, self.plan.steps):
                if self.stopped:
                    break
                self.final = self._step(step)
                self.first = self.first or self.final
                done = step + 1
                self._report(done, self.final)
                if self._evaluates and (done % every == 0 or done == self.plan.steps):
                    self._consider(done)
                is_last = done == self.plan.steps or bool(self.stopped)
                if done % self.options.save_every == 0 or interrupted() or is_last:
                    self._save(done)
                    saved = done
                if interrupted() and not is_last:
                    kept = (
                        f"saved at step {saved} of {self.plan.steps}; go on with --resume"
                        if self.folder
                        else "not saved"
                    )
                    raise Interrupted(f"interrupted: {kept}")
        if self.options.tracker != "none":
            self.accelerator.end_training()
        held_out: Mapping[str, float] = {}
        if self.history:
            held_out = self.history[-1]
            if self.options.select == "best" and self.best_step < done:
                self._take_best()
                held_out = next(entry for entry in self.history if entry["step"] == self.best_step)
        self.model.eval()
        kept_step = self.best_step if self.history and self.options.select == "best" else done
        return TrainResult(
            steps=done,
            first=self.first,
            final=self.final,
            held_out=held_out,
            history=self.history,
            best_step=kept_step,
            seconds=time.perf_counter() - began,
            warnings=self.warnings,
            notes=self.notes,
            training_rows=len(self.data),
            held_out_rows=0 if self.held_out is None else len(self.held_out),
            held_out_values=self._held_out_values(),
            stopped=self.stopped,
            preparation=self.preparation,
            response_tokens=self.response_tokens,
        )

    def _held_out_values(self) -> dict[str, list[float]]:
        if self.folder is None or self.held_out is None:
            return {}
        return self.losses.row_metrics(self.held_out, self.held_out_reference)

    def _report(self, done: int, values: Mapping[str, float]) -> None:
        for line in self.objective.warnings(self.first, values):
            kind = line.split(":")[0].split(" is ")[0][:24]
            if not any(known.startswith(kind) for known in self.warnings):
                self.warnings.append(f"{line} (first at step {done})")
                self._note(f"warning: {self.warnings[-1]}")
        if self.accelerator.is_main_process and self.on_step is not None:
            self.on_step(done, self.plan.steps, values)
        if self.options.tracker != "none":
            self.accelerator.log(dict(values), step=done)

    def _save(self, step: int) -> None:
        if self.folder is None or not self.accelerator.is_main_process:
            return
        state = {
            "step": step,
            "data": self.fingerprint,
            "first": self.first,
            "final": self.final,
            "history": self.history,
            "best_step": self.best_step,
            "best_quality": self.best_quality,
            "stopped": self.stopped,
            "warnings": self.warnings,
            "response_tokens": self.response_tokens,
        }
        checkpoints.save_checkpoint(self.folder / "checkpoints", self.trained, self.optimisation.optimiser, state)

    def _take_up(self) -> int:
        if self.folder is None:
            raise OptionError("resume needs the run's folder")
        state = checkpoints.load_checkpoint(self.folder / "checkpoints", self.trained, self.optimisation.optimiser)
        if state is None:
            return 0
        if state["data"] != self.fingerprint:
            raise RunError(
                f"{self.folder}: the training rows are not those that the run began with; "
                "put them back, or start again with --overwrite"
            )
        self.first, self.final = state["first"], state["final"]
        self.history, self.warnings = state["history"], state["warnings"]
        self.best_step, self.stopped = state["best_step"], state["stopped"]
        self.response_tokens = state.get("response_tokens", 0)
        self.best_quality = -math.inf if state["best_quality"] is None else state["best_quality"]
        if self.evaluator is not None and self.history:
            self.evaluator.stop(self.history)  # shows it what was measured before it began
        return int(state["step"])
