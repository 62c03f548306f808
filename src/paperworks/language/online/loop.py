"""The online loop: sample, score, learn, again. One iteration is one set of rollouts and the optimiser steps on it.

What a method draws and how its rollouts become rows is in `methods`; how a step's loss is averaged in `step_losses`. All
draws are functions of the seed and the iteration, so that a run killed anywhere goes on from its last checkpoint to the
same result (bit for bit on a CPU). The reference is the policy at its start, and stays.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from paperworks.core import checkpoints
from paperworks.core.errors import OptionError, RunError, TrainingDiverged
from paperworks.core.interrupts import deferred_interrupt
from paperworks.core.seeding import seed_everything, torch_generator
from paperworks.language.data import Dataset
from paperworks.language.data.conversation import plain_text
from paperworks.language.objectives.dr_po import DRPO
from paperworks.language.objectives.objective import Objective
from paperworks.language.objectives.policy_gradient import Penalty
from paperworks.language.online import kept_samples, replay
from paperworks.language.online.batches import Batch, joined
from paperworks.language.online.collecting import Models, Spent, collect
from paperworks.language.online.control import KlController, collapse
from paperworks.language.online.credit import kl_terms, silent_groups
from paperworks.language.online.judges import Judge, RewardJudge
from paperworks.language.online.methods import Method
from paperworks.language.online.offline_pairs import pair_rows
from paperworks.language.online.options import OnlineOptions
from paperworks.language.online.requirements import check_options, check_room_for_answers, option_notes
from paperworks.language.online.rollouts import Rollouts
from paperworks.language.online.rounds import Context
from paperworks.language.optimisation import Optimisation
from paperworks.language.policy import Policy
from paperworks.language.rewards.reward import Reward
from paperworks.language.sources.resets import ResetBank, Resets
from paperworks.language.step_losses import StepLosses
from paperworks.language.train_options import Plan, TrainOptions, learning_rate
from paperworks.language.training import Evaluator, Interrupted
from paperworks.language.values.critic import Critic
from paperworks.language.values.head import ValueHead
from paperworks.language.vllm_engine import VllmEngine
from paperworks.language.vllm_server import VllmServer

OnIteration = Callable[[int, int, Mapping[str, float]], None]  # iteration (1-based), of how many, its numbers
OnSamples = Callable[[int, Sequence[Mapping[str, Any]]], None]  # iteration (1-based), a few of its answers


@dataclass(frozen=True)
class OnlineResult:
    """What training did. `first` and `final` are the numbers of the first and the last iteration."""

    iterations: int
    first: Mapping[str, float]
    final: Mapping[str, float]
    history: Sequence[Mapping[str, float]]  # one mapping an evaluation, with its iteration under "step"
    best_step: int
    seconds: float
    sampled_tokens: int
    trained_tokens: int
    warnings: Sequence[str]
    notes: Sequence[str]
    stopped: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)  # answers and prompts that taught nothing, by reason


def train_online(
    policy: Policy,
    method: Method,
    objective: Objective,
    prompts: Dataset[Any],
    online: OnlineOptions = OnlineOptions(),
    options: TrainOptions = TrainOptions(),
    *,
    reward: Reward | None = None,
    judge: Judge | None = None,
    gold: Reward | None = None,
    reference: Policy | None = None,
    others: Mapping[str, Policy] | None = None,
    evaluator: Evaluator | None = None,
    server: VllmServer | VllmEngine | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    on_iteration: OnIteration | None = None,
    on_samples: OnSamples | None = None,
    on_note: Callable[[str], None] | None = None,
) -> OnlineResult:
    """Train `policy` in place on its own answers to `prompts` (rows with a `prompt`).

    `reward` scores answers, `judge` compares them in its place (Bradley-Terry on the reward where none is given); `gold`
    is only measured. `folder` receives checkpoints and samples.jsonl. `options.learning_rate`, schedule, clipping,
    micro_batch (prompts a forward pass), eval_every and save_every (iterations) apply; epochs, steps and batch_size do not.
    Raises TrainingDiverged, Interrupted on Ctrl-C (saved first), DataError, OptionError, RewardError, RunError.
    """
    return _Loop(
        policy, method, objective, prompts, online, options, reward, judge, gold, reference, others or {},
        evaluator, server, None if folder is None else Path(folder), resume, on_iteration,
        on_samples, on_note,
    ).run()  # fmt: skip


class _Loop:
    def __init__(
        self,
        policy: Policy,
        method: Method,
        objective: Objective,
        prompts: Dataset[Any],
        online: OnlineOptions,
        options: TrainOptions,
        reward: Reward | None,
        judge: Judge | None,
        gold: Reward | None,
        reference: Policy | None,
        others: Mapping[str, Policy],
        evaluator: Evaluator | None,
        server: VllmServer | VllmEngine | None,
        folder: Path | None,
        resume: bool,
        on_iteration: OnIteration | None,
        on_samples: OnSamples | None,
        on_note: Callable[[str], None] | None,
    ) -> None:
        check_options(method, online, has_reward=reward is not None, has_judge=judge is not None)
        check_room_for_answers(policy, prompts)
        if method.by_likelihood and online.temperature != 1:
            policy = policy.at_temperature(online.temperature)
            others = {name: other.at_temperature(online.temperature) for name, other in others.items()}
            reference = None if reference is None else reference.at_temperature(online.temperature)
        seed_everything(options.seed)
        accelerator = Accelerator(cpu=policy.device.type == "cpu")
        if accelerator.num_processes > 1:
            raise OptionError(f"train {method.name}: online methods run in one process; start it without torchrun")
        self.policy, self.method, self.objective = policy, method, objective
        self.prompts, self.online, self.options = prompts, online, options
        self.reward, self.gold, self.evaluator = reward, gold, evaluator
        self.judge: Judge = judge if judge is not None else RewardJudge(cast(Reward, reward))
        self.folder, self.resume = folder, resume
        self.on_iteration, self.on_samples, self.on_note = on_iteration, on_samples, on_note
        self.notes: list[str] = []
        for line in (*objective.option_notes(), *option_notes(method, online)):
            self._note(line)
        self.plan = Plan(
            len(prompts), TrainOptions(batch_size=online.prompts_per_iteration, seed=options.seed, steps=1)
        )
        self.modules: dict[str, nn.Module] = {
            name: module.to(policy.device) for name, module in objective.modules(policy).items()
        }
        needs_reference = method.needs_reference or method.takes_pairs or online.kl_stop is not None
        if reference is None and needs_reference:
            reference = policy.reference()
        self.models = Models(
            policy, reference, cast("ValueHead | Critic | None", self.modules.get("critic")), others, server
        )
        missing = set(getattr(objective, "other_models", dict)()) - set(others)
        if missing:
            raise OptionError(
                f"train {method.name}: answers are to be scored by models that are not given: {', '.join(missing)}"
            )
        self.bank: ResetBank | None = None
        if isinstance(objective, DRPO) and objective.reset_share:
            self.bank = objective.bank(prompts.rows, policy, online.max_new_tokens)
            self._note(
                "reward, length and KL are of answers that may begin with logged tokens, whose KL is not counted"
            )
            for line in self.bank.notes():
                self._note(line)
        self.optimisation = Optimisation(policy, objective, self.modules, options, accelerator)
        self.controller = KlController(online)
        self.steps = online.iterations * online.updates * online.minibatches
        self.past: list[Batch] = []
        self.first: dict[str, float] = {}
        self.final: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self.warnings: list[str] = []
        self.left_out: dict[str, int] = {}
        self.best_step, self.best_quality = 0, -math.inf
        self.best_weights: dict[str, Tensor] | None = None
        self.sampled = self.trained = 0
        self.stopped = ""
        self.undone = False  # the last iteration's update was taken back

    def _note(self, line: str) -> None:
        self.notes.append(line)
        if self.on_note is not None:
            self.on_note(line)

    def _warn(self, line: str, iteration: int) -> None:
        kind = line.split(":")[0]
        if not any(known.startswith(kind) for known in self.warnings):
            self.warnings.append(f"{line} (first at iteration {iteration + 1})")
            self._note(f"warning: {self.warnings[-1]}")

    # ------------------------------------------------------------------------------------------------------ iteration

    def _iteration(self, iteration: int) -> dict[str, float] | None:
        """One iteration's numbers; None where the hold on the reference is lost and the run must stop."""
        began = time.perf_counter()
        objective = self._objective_of(iteration)
        rows = [self.prompts[row] for row in self.plan.rows(iteration)]
        spent = Spent()
        resets = self._resets(rows, iteration)
        rollouts = collect(
            self.models, rows, self.method.draws(objective, self.online), self.online,
            seed=self.options.seed, iteration=iteration, reward=self.reward, spent=spent,
            prefixes=None if resets is None else resets.prefixes,
        )  # fmt: skip
        values = self._measured(rollouts, iteration)
        if self.online.kl_stop is not None and values.get("kl", 0.0) > self.online.kl_stop:
            self.stopped = (
                f"the KL to the reference is {values['kl']:.3g} nats an answer, above kl_stop={self.online.kl_stop:g}; "
                "the weights before the last iteration are kept"
            )
            return None
        seed = (self.options.seed, "rows", iteration)
        context = Context(objective, Penalty(self.controller.weight, self.online.kl_estimator), self.judge, seed)
        batch = self.method.build(rollouts, self._with_offline(context, rows))
        for reason, count in batch.left_out.items():
            self.left_out[reason] = self.left_out.get(reason, 0) + count
        if self.method.replays:
            if self.folder is not None:
                replay.write(self.folder, iteration, batch)
            self.past.append(batch)
            batch = joined(self.past)
        updating = time.perf_counter()
        values |= self._updates(batch, objective, iteration)
        self.controller.see(values.get("kl", 0.0), len(rollouts))
        self.sampled += spent.tokens
        values |= {
            "rows": len(batch.items),
            "sampled_tokens": self.sampled,
            "trained_tokens": self.trained,
            "seconds_sampling": spent.sampling,
            "seconds_scoring": spent.scoring,
            "seconds_updating": time.perf_counter() - updating,
            "seconds": time.perf_counter() - began,
        }
        if resets is not None:
            values |= {"reset_share": resets.share, "reset_length": resets.mean_length}
        if self.method.penalises:
            values["kl_weight"] = context.penalty.weight
        self._show(rollouts, iteration)
        return values

    def _objective_of(self, iteration: int) -> Objective:
        at_round = getattr(self.objective, "at_round", None)
        return self.objective if at_round is None else cast(Objective, at_round(iteration))

    def _resets(self, rows: Sequence[Any], iteration: int) -> Resets | None:
        """The beginnings that answers go on from, for the method that has them."""
        if self.bank is None:
            return None
        keys = [plain_text(row.prompt) for row in rows]
        share = cast(DRPO, self.objective).reset_share
        return self.bank.draw(keys, share=share, seed=self.options.seed, step=iteration)

    def _with_offline(self, context: Context, rows: Sequence[Any]) -> Context:
        if not self.method.takes_pairs:
            return context
        reference = cast(Policy, self.models.reference)
        return Context(
            context.objective, context.penalty, context.judge, context.seed,
            lambda: pair_rows(self.prompts, rows, self.policy, reference, self.options),
        )  # fmt: skip

    def _measured(self, rollouts: Rollouts, iteration: int) -> dict[str, float]:
        """What the answers are like, before anything is learnt from them; those of the policy's own writing."""
        own = rollouts.of_policy()
        values = {"length": float(own.counts.mean()), "finished": float(own.finished.float().mean())}
        if len(own.rewards):
            values |= {"reward": float(own.rewards.mean()), "reward_std": float(own.rewards.std(correction=0))}
            silent = silent_groups(own.rewards, own.group)
            values["silent_groups"] = float(silent.float().mean())
            if iteration and bool(silent.all()) and self.method.least_samples > 1:
                self._warn(
                    "no signal: all samples of every prompt have the same reward, so that nothing is learnt", iteration
                )
        if own.reference is not None and not bool(own.from_reference.all()):
            values["kl"] = float(own.summed(own.log_ratio).mean())
            values["kl_k3"] = float(own.summed(kl_terms(own.log_ratio, "k3")).mean())
            values["kl_token"] = float(own.log_ratio.mean())
        if self.gold is not None:
            prompts = [own.prompts[group] for group in own.group.tolist()]
            found = self.gold(prompts, list(own.texts))
            values["gold_reward"] = math.fsum(found) / len(found)
        wrong = collapse(own.texts)
        if wrong is not None:
            self._warn(wrong, iteration)
        return values

    def _updates(self, batch: Batch, objective: Objective, iteration: int) -> dict[str, float]:
        """All optimiser steps on an iteration's rows; the means over the steps."""
        losses = StepLosses(self.policy, objective, self.options, lambda values: values, self.modules)
        sums: dict[str, list[float]] = {}
        rows = len(batch.items)
        self.policy.model.train()
        for update in range(self.online.updates):
            order = torch.randperm(
                rows, generator=torch_generator(self.options.seed, "minibatches", iteration, update)
            ).tolist()
            parts = max(1, min(self.online.minibatches, rows))
            for part in range(parts):
                chosen = order[part::parts]
                at = (iteration * self.online.updates + update) * self.online.minibatches + part
                if not chosen:
                    continue
                values = losses.means(batch.items, chosen, batch.reference, backward=True)
                values["grad_norm"] = self.optimisation.gradient_norm()
                if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
                    self.optimisation.forget()
                    raise TrainingDiverged(
                        f"the loss or its gradient became {values['loss']:g}, {values['grad_norm']:g} in iteration "
                        f"{iteration + 1}; the last checkpoint is kept: lower --learning-rate, or clip the reward"
                    )
                self.optimisation.step(learning_rate(at, self.steps, self.optimisation.peak, self.options))
                for name, value in values.items():
                    sums.setdefault(name, []).append(value)
                self.trained += sum(
                    len(response) for row in chosen for response in batch.items.items[row].responses_in()
                )
        self.policy.model.eval()
        return {name: math.fsum(values) / len(values) for name, values in sums.items()}

    def _show(self, rollouts: Rollouts, iteration: int) -> None:
        """Keeps some of an iteration's answers, and hands them to who shows them."""
        if not self.online.samples_shown:
            return
        lines = kept_samples.lines_of(rollouts, iteration + 1, self.online.samples_shown)
        if self.folder is not None:
            kept_samples.append(self.folder, lines)
        if self.on_samples is not None:
            self.on_samples(iteration + 1, lines)

    # ------------------------------------------------------------------------------------------------------------ run

    def run(self) -> OnlineResult:
        began = time.perf_counter()
        start = self._take_up() if self.resume else 0
        total = self.online.iterations
        every = self.options.eval_every or max(1, math.ceil(total / 4))
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            kept_samples.cut(self.folder, start)
        if start == 0 and self.evaluator is not None:
            self._consider(0)
        done = start
        good = self._last_good(start)
        with deferred_interrupt() as interrupted:
            for iteration in range(start, total):
                if self.stopped:
                    break
                before = self._weights() if self.online.kl_stop is not None else None
                values = self._iteration(iteration)
                if values is None:
                    if good is not None:
                        checkpoints.load_trainable(self.optimisation.trained, good)
                        self.undone = True
                        self._save(done)
                    self._note(f"stopped at iteration {iteration + 1}: {self.stopped}")
                    break
                good = before
                self.final, done = values, iteration + 1
                self.first = self.first or values
                for line in self.objective.warnings(self.first, values):
                    self._warn(line, iteration)
                if self.on_iteration is not None:
                    self.on_iteration(done, total, values)
                if self.evaluator is not None and (done % every == 0 or done == total):
                    self._consider(done)
                is_last = done == total or bool(self.stopped)
                if done % self.options.save_every == 0 or interrupted() or is_last:
                    self._save(done, good)
                if interrupted() and not is_last:
                    kept = f"saved at iteration {done} of {total}; go on with --resume" if self.folder else "not saved"
                    raise Interrupted(f"interrupted: {kept}")
        if self.evaluator is not None and self.options.select == "best" and self.best_step < done and self.history:
            self._take_best()
        self.policy.model.eval()
        chosen = done - self.undone
        if self.evaluator is not None and self.options.select == "best" and self.best_step < done:
            chosen = self.best_step
        return OnlineResult(
            done, self.first, self.final, self.history, chosen, time.perf_counter() - began, self.sampled,
            self.trained, self.warnings, self.notes, self.stopped, self.left_out,
        )  # fmt: skip

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in checkpoints.trainable(self.optimisation.trained).items()}

    @torch.no_grad()
    def _consider(self, done: int) -> None:
        assert self.evaluator is not None
        values = dict(self.evaluator(self.policy))
        self.history.append({"step": done, **values})
        self._note(f"at iteration {done}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        quality = self.evaluator.quality(values, done)
        if quality > self.best_quality:
            self.best_step, self.best_quality = done, quality
            if self.options.select == "best" and done < self.online.iterations:
                if self.folder is None:
                    self.best_weights = self._weights()
                else:
                    checkpoints.save_weights(self.folder / "checkpoints" / "best", self.optimisation.trained)
        self.stopped = (self.evaluator.stop(self.history) or "") if done < self.online.iterations else ""

    def _take_best(self) -> None:
        if self.folder is None:
            assert self.best_weights is not None
            checkpoints.load_trainable(self.optimisation.trained, self.best_weights)
        else:
            checkpoints.load_weights(self.folder / "checkpoints" / "best", self.optimisation.trained)

    def _last_good(self, start: int) -> dict[str, Tensor] | None:
        """For a run that goes on: the weights before its last iteration, which a lost hold on the reference brings back."""
        if self.folder is None or not start or self.online.kl_stop is None or self.stopped:
            return None
        return checkpoints.read_weights(self._before(start))

    def _before(self, done: int) -> Path:
        assert self.folder is not None
        return self.folder / "checkpoints" / f"before-{done:08d}"

    def _save(self, done: int, before: Mapping[str, Tensor] | None = None) -> None:
        """A checkpoint; `before`: the weights before the last iteration, where a stop may bring them back."""
        if self.folder is None:
            return
        if before is not None:
            checkpoints.write_weights(self._before(done), before)
        state = {
            "step": done,
            "data": self.prompts.fingerprint,
            "first": self.first,
            "final": self.final,
            "history": self.history,
            "best_step": self.best_step,
            "best_quality": self.best_quality,
            "stopped": self.stopped,
            "undone": self.undone,
            "warnings": self.warnings,
            "left_out": self.left_out,
            "kl_weight": self.controller.weight,
            "sampled": self.sampled,
            "trained": self.trained,
        }
        checkpoints.save_checkpoint(
            self.folder / "checkpoints", self.optimisation.trained, self.optimisation.optimiser, state
        )
        for old in (self.folder / "checkpoints").glob("before-*"):
            if before is None or old != self._before(done):
                shutil.rmtree(old)

    def _take_up(self) -> int:
        if self.folder is None:
            raise OptionError("resume needs the run's folder")
        state = checkpoints.load_checkpoint(
            self.folder / "checkpoints", self.optimisation.trained, self.optimisation.optimiser
        )
        if state is None:
            return 0
        if state["data"] != self.prompts.fingerprint:
            raise RunError(
                f"{self.folder}: the prompts are not those that the run began with; "
                "put them back, or start again with --overwrite"
            )
        self.first, self.final, self.history = state["first"], state["final"], state["history"]
        self.warnings, self.left_out = state["warnings"], state["left_out"]
        self.stopped, self.undone = state["stopped"], state["undone"]
        self.best_step, self.controller.weight = state["best_step"], state["kl_weight"]
        self.best_quality = -math.inf if state["best_quality"] is None else state["best_quality"]
        self.sampled, self.trained = state["sampled"], state["trained"]
        if self.method.replays:
            self.past = [replay.read(self.folder, iteration) for iteration in range(int(state["step"]))]
        return int(state["step"])


__all__ = ["OnlineResult", "train_online"]
