"""The loop: what a step's loss is does not depend on how the step is cut; runs resume bit for bit; faults are named."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from paperworks.core.checkpoints import trainable
from paperworks.core.errors import DataError, OptionError, TrainingDiverged
from paperworks.language.data import Dataset, Preference, preferences_to_demonstrations, preferences_to_feedback
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.kto import KTO
from paperworks.language.objectives.objective import DemonstrationObjective
from paperworks.language.objectives.rpo import RPO
from paperworks.language.objectives.sft import SFT
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.tiny import TinySpec, fresh_policy
from paperworks.language.training import Interrupted, Plan, TrainOptions, learning_rate, train

FAST = TrainOptions(steps=4, batch_size=8, micro_batch=8, learning_rate=1e-3, save_every=2)


def fresh(tokenizer: Any) -> Policy:
    return fresh_policy(TinySpec(layers=2, width=32, heads=2, context=256), tokenizer)


def rows_for(objective: Any, pairs: Dataset[Preference]) -> Dataset[Any]:
    if objective.schema is Preference:
        return pairs
    convert = preferences_to_feedback if isinstance(objective, KTO) else preferences_to_demonstrations
    return Dataset(tuple(convert(pairs.rows)))


@pytest.mark.parametrize("objective", [DPO(), RPO(beta=0.1, eta=0.5, sft_reduction="token_mean"), KTO(), SFT()])
def test_micro_batches_change_nothing(objective: Any, tokenizer: Any, pairs: Dataset[Preference]) -> None:
    rows = rows_for(objective, pairs)
    weights = []
    for micro in (8, 3, 1):
        policy = fresh(tokenizer)
        result = train(policy, objective, rows, dataclasses.replace(FAST, micro_batch=micro, steps=2))
        weights.append((result.final["loss"], trainable(policy.model)))
    for loss, values in weights[1:]:
        assert loss == pytest.approx(weights[0][0], abs=1e-5)
        for name, value in values.items():
            torch.testing.assert_close(value, weights[0][1][name], atol=2e-5, rtol=1e-4)


def test_a_rows_weight_is_the_same_as_repeating_it(tokenizer: Any, pairs: Dataset[Preference]) -> None:
    rows = list(pairs.rows[:3])
    weighted = pairs.with_rows([dataclasses.replace(rows[0], weight=2.0), *rows[1:]])
    repeated = pairs.with_rows([rows[0], *rows])
    options = dataclasses.replace(FAST, steps=1, batch_size=4)
    losses = [train(fresh(tokenizer), RPO(eta=0.5), data, options).final["loss"] for data in (weighted, repeated)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_first_loss_of_dpo_is_log_two_and_training_separates_pairs(
    tokenizer: Any, pairs: Dataset[Preference]
) -> None:
    result = train(fresh(tokenizer), DPO(beta=0.5), pairs, dataclasses.replace(FAST, steps=12), held_out=pairs)
    assert result.history[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert result.held_out["loss"] < 0.6
    assert result.held_out["accuracy"] > 0.8


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    tokenizer: Any, pairs: Dataset[Preference], tmp_path: Path
) -> None:
    lora = LoraOptions(rank=2, dropout=0.2)
    whole, stopped = fresh(tokenizer).with_lora(lora), fresh(tokenizer).with_lora(lora)
    stopped.model.load_state_dict(whole.model.state_dict())
    resumed = fresh(tokenizer).with_lora(lora)
    resumed.model.load_state_dict(whole.model.state_dict())
    complete = train(whole, DPO(), pairs, FAST, held_out=pairs, folder=tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill_after_three(step: int, steps: int, values: Any) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(stopped, DPO(), pairs, FAST, held_out=pairs, folder=tmp_path / "stopped", on_step=kill_after_three)
    again = train(resumed, DPO(), pairs, FAST, held_out=pairs, folder=tmp_path / "stopped", resume=True)
    for name, value in trainable(whole.model).items():
        assert torch.equal(value, trainable(resumed.model)[name]), name
    assert complete.held_out == again.held_out
    assert complete.history == again.history


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(
    tokenizer: Any, pairs: Dataset[Preference], tmp_path: Path
) -> None:
    def press(step: int, steps: int, values: Any) -> None:
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"saved at step \d of 4; go on with --resume"):
        train(fresh(tokenizer), DPO(), pairs, FAST, folder=tmp_path, on_step=press)
    assert [p.name[:5] for p in (tmp_path / "checkpoints").iterdir()] == ["step-"]


@dataclasses.dataclass(frozen=True)
class Explodes(DemonstrationObjective):
    name = "explodes"

    def loss(self, batch: Any) -> torch.Tensor:
        return batch.response.policy * float("nan")


def test_a_nan_loss_stops_and_names_step_and_rows(tokenizer: Any, pairs: Dataset[Preference]) -> None:
    rows = Dataset(tuple(preferences_to_demonstrations(pairs.rows)))
    policy = fresh(tokenizer)
    before = {n: v.clone() for n, v in trainable(policy.model).items()}
    with pytest.raises(TrainingDiverged, match="the loss became nan at step 1 on rows row"):
        train(policy, Explodes(), rows, FAST)
    for name, value in trainable(policy.model).items():
        assert torch.equal(value, before[name])


def test_prompts_that_fill_the_context_are_named_cut_or_left_out(tokenizer: Any, pairs: Dataset[Preference]) -> None:
    long = dataclasses.replace(pairs.rows[0], prompt="good " * 400)
    rows = pairs.with_rows([long, *pairs.rows[1:9]])
    with pytest.raises(DataError, match=r"the prompt has .* tokens, the limit for prompt and response is 256"):
        train(fresh(tokenizer), DPO(), rows, FAST)
    for choice, note in (("cut", "1 prompts were cut"), ("skip", "1 rows were left out")):
        options = dataclasses.replace(FAST, steps=1, long_prompts=choice)
        result = train(fresh(tokenizer), DPO(), rows, options, held_out=rows)
        assert note in " ".join(result.notes)
        kept = 9 if choice == "cut" else 8
        assert (result.training_rows, result.held_out_rows) == (kept, kept)


def test_the_plan_covers_every_row_once_an_epoch() -> None:
    plan = Plan(10, TrainOptions(epochs=2, batch_size=4))
    assert plan.steps == 6
    first, second = [sorted(r for s in steps for r in plan.rows(s)) for steps in (range(3), range(3, 6))]
    assert first == second == list(range(10))
    assert plan.rows(0) != plan.rows(3)


def test_the_learning_rate_rises_then_falls() -> None:
    options = TrainOptions(warmup=0.2)
    rates = [learning_rate(step, 10, 1.0, options) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[2:]))
    assert learning_rate(9, 10, 1.0, TrainOptions(schedule="constant", warmup=0.0)) == 1.0


@pytest.mark.parametrize("wrong", [{"warmup": 1.0}, {"batch_size": 0}, {"learning_rate": -1.0}, {"steps": 0}])
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        TrainOptions(**wrong)


def test_the_reference_of_adapters_trained_before_is_the_policy_with_them(
    tokenizer: Any, pairs: Dataset[Preference]
) -> None:
    policy = fresh(tokenizer).with_lora(LoraOptions(rank=2))
    assert policy.start().model is policy.model
    train(policy, DPO(beta=0.5), pairs, FAST)
    again = train(policy, DPO(beta=0.5), pairs, dataclasses.replace(FAST, steps=1))
    assert again.final["loss"] == pytest.approx(
        0.693147, abs=1e-4
    )  # margins are 0 against the start, adapters included
