"""An evaluator decides which weights are kept and when training ends; runs with one, and with heads, resume bit for bit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from paperworks.core.checkpoints import trainable
from paperworks.core.files import read_json
from paperworks.language.data import Dataset, Preference
from paperworks.language.degrees.options import DegreeOptions
from paperworks.language.objectives.degrees import with_degrees
from paperworks.language.objectives.dpo import DPO
from paperworks.language.policy import LoraOptions, Policy
from paperworks.language.tiny import TinySpec, fresh_policy
from paperworks.language.training import TrainOptions, TrainResult, train

FAST = TrainOptions(steps=4, batch_size=4, micro_batch=4, learning_rate=1e-2, save_every=1, eval_every=1)


def fresh(tokenizer: Any) -> Policy:
    return fresh_policy(TinySpec(layers=1, width=32, heads=2, context=256), tokenizer)


def weights(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainable(policy.model).items()}


def same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


@dataclass
class Scripted:
    """Measures the size of one weight; says what the script says about how good it is and when to stop."""

    worth: Sequence[float]  # by step
    stop_at: float = math.inf
    measured: list[dict[str, torch.Tensor]] = field(default_factory=list)
    shown: list[list[float]] = field(default_factory=list)  # the steps of every history it was shown

    def __call__(self, policy: Policy) -> Mapping[str, float]:
        assert not policy.model.training
        self.measured.append(weights(policy))
        return {"norm": float(next(iter(trainable(policy.model).values())).norm())}

    def quality(self, values: Mapping[str, float], step: int) -> float:
        assert "norm" in values
        return self.worth[step]

    def stop(self, history: Sequence[Mapping[str, float]]) -> str | None:
        self.shown.append([entry["step"] for entry in history])
        return "it is enough" if history[-1]["step"] >= self.stop_at else None


@pytest.fixture(params=["folder", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Where the best weights are kept."""
    return tmp_path / "run" if request.param == "folder" else None


# -------------------------------------------------------------------------------------------------- which weights are kept


@pytest.mark.parametrize("best", [0, 2, 4])
def test_the_weights_it_likes_most_are_kept(best: int, folder: Path | None, tokenizer: Any, pairs: Any) -> None:
    policy = fresh(tokenizer)
    evaluator = Scripted([float(step == best) for step in range(5)])
    result = train(policy, DPO(), pairs, FAST, evaluator=evaluator, folder=folder)
    assert [entry["step"] for entry in result.history] == [0, 1, 2, 3, 4]
    assert result.best_step == best and result.held_out["step"] == best
    assert same(weights(policy), evaluator.measured[best])
    assert not same(weights(policy), evaluator.measured[best - 1 if best else 1])


def test_of_equals_the_first_are_kept(tokenizer: Any, pairs: Any) -> None:
    assert train(fresh(tokenizer), DPO(), pairs, FAST, evaluator=Scripted([0.0, 1.0, 1.0, 1.0, 0.0])).best_step == 1


def test_it_is_measured_but_does_not_decide_where_the_last_weights_are_wanted(tokenizer: Any, pairs: Any) -> None:
    policy, evaluator = fresh(tokenizer), Scripted([1.0, 0.0, 0.0, 0.0, 0.0])
    result = train(policy, DPO(), pairs, dataclasses.replace(FAST, select="last"), evaluator=evaluator)
    assert result.best_step == 4 and len(evaluator.measured) == 5
    assert same(weights(policy), evaluator.measured[4])


def test_held_out_rows_are_measured_beside_it_and_do_not_decide(tokenizer: Any, pairs: Any) -> None:
    evaluator = Scripted([0.0, 0.0, 1.0, 0.0, 0.0])
    result = train(fresh(tokenizer), DPO(), pairs, FAST, held_out=pairs, evaluator=evaluator)
    assert all({"loss", "accuracy", "norm"} <= entry.keys() for entry in result.history)
    losses = [entry["loss"] for entry in result.history]
    assert losses.index(min(losses)) != 2 and result.best_step == 2


def test_its_numbers_go_before_those_of_the_same_name(tokenizer: Any, pairs: Any) -> None:
    class Named(Scripted):
        def __call__(self, policy: Policy) -> Mapping[str, float]:
            return {**super().__call__(policy), "accuracy": 7.0}

    result = train(fresh(tokenizer), DPO(), pairs, FAST, held_out=pairs, evaluator=Named([0.0] * 5))
    assert {entry["accuracy"] for entry in result.history} == {7.0}


def test_it_measures_every_epoch_by_default(tokenizer: Any, pairs: Any) -> None:
    options = dataclasses.replace(FAST, steps=None, epochs=6, batch_size=2, eval_every=None)
    few = Dataset(pairs.rows[:4])
    alone = train(fresh(tokenizer), DPO(), few, options, held_out=few)
    beside = train(fresh(tokenizer), DPO(), few, options, evaluator=Scripted([0.0] * 13))
    assert [entry["step"] for entry in alone.history] == [0, 3, 6, 9, 12]
    assert [entry["step"] for entry in beside.history] == [0, 2, 4, 6, 8, 10, 12]


# --------------------------------------------------------------------------------------------------------- stopping early


def test_an_early_stop_ends_training_and_keeps_the_best(folder: Path | None, tokenizer: Any, pairs: Any) -> None:
    policy, seen = fresh(tokenizer), []
    evaluator = Scripted([0.0, 1.0, 0.0, 0.0, 0.0], stop_at=3)
    result = train(
        policy, DPO(), pairs, FAST, evaluator=evaluator, folder=folder, on_step=lambda step, *_: seen.append(step)
    )
    assert (result.steps, result.stopped, result.best_step) == (3, "it is enough", 1)
    assert [step for step in seen if step] == [1, 2, 3]
    assert [entry["step"] for entry in result.history] == [0, 1, 2, 3]
    assert evaluator.shown == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert "stopped at step 3: it is enough" in result.notes
    assert same(weights(policy), evaluator.measured[1])


def test_what_was_reached_is_saved_between_the_usual_times(tokenizer: Any, pairs: Any, tmp_path: Path) -> None:
    options = dataclasses.replace(FAST, save_every=50)
    evaluator = Scripted([0.0] * 5, stop_at=2)
    train(fresh(tokenizer), DPO(), pairs, options, evaluator=evaluator, folder=tmp_path)
    (checkpoint,) = (tmp_path / "checkpoints").glob("step-*")
    assert checkpoint.name == "step-00000002"
    assert read_json(checkpoint / "state.json")["stopped"] == "it is enough"
    assert same(load_file(checkpoint / "weights.safetensors"), evaluator.measured[2])


def test_at_the_last_step_there_is_nothing_to_stop(tokenizer: Any, pairs: Any) -> None:
    result = train(fresh(tokenizer), DPO(), pairs, FAST, evaluator=Scripted([0.0] * 5, stop_at=4))
    assert (result.steps, result.stopped) == (4, "")


def test_a_reason_before_the_first_step_leaves_the_model_as_it_was(tokenizer: Any, pairs: Any) -> None:
    policy = fresh(tokenizer)
    before = weights(policy)
    result = train(policy, DPO(), pairs, FAST, evaluator=Scripted([0.0] * 5, stop_at=0))
    assert (result.steps, result.stopped, result.best_step) == (0, "it is enough", 0)
    assert same(weights(policy), before)


def outcome(result: TrainResult) -> dict[str, Any]:
    """A result but for what takes time."""
    values = {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name not in ("seconds", "notes")}
    values["final"] = {name: value for name, value in result.final.items() if name != "rows_per_second"}
    values["first"] = {name: value for name, value in result.first.items() if name != "rows_per_second"}
    return values


@pytest.mark.parametrize("select", ["best", "last"])
def test_resuming_a_run_that_was_stopped_ends_at_once_alike(
    select: Any, tokenizer: Any, pairs: Any, tmp_path: Path
) -> None:
    options = dataclasses.replace(FAST, select=select)
    policy, again = fresh(tokenizer), fresh(tokenizer)
    ended = train(policy, DPO(), pairs, options, evaluator=Scripted([0.0, 1.0] + [0.0] * 3, stop_at=3), folder=tmp_path)
    evaluator, steps = Scripted([0.0, 1.0] + [0.0] * 3, stop_at=3), []
    resumed = train(
        again,
        DPO(),
        pairs,
        options,
        evaluator=evaluator,
        folder=tmp_path,
        resume=True,
        on_step=lambda step, *_: steps.append(step),
    )
    assert evaluator.measured == [] and not any(steps)
    assert outcome(resumed) == outcome(ended) and resumed.stopped == "it is enough"
    assert same(weights(again), weights(policy))


# ---------------------------------------------------------------------------------------------------------------- resuming


class Killed(Exception):
    pass


def killed_after(step: int) -> Callable[..., None]:
    def on_step(done: int, steps: int, values: Any) -> None:
        if done == step:
            raise Killed

    return on_step


@pytest.mark.parametrize(("killed", "stop_at"), [(1, 2), (1, math.inf), (3, math.inf)])
def test_a_resumed_run_with_an_evaluator_is_the_uninterrupted_one(
    killed: int, stop_at: float, tokenizer: Any, pairs: Any, tmp_path: Path
) -> None:
    def start(folder: str, **more: Any) -> tuple[Policy, Scripted, TrainResult]:
        policy = fresh(tokenizer).with_lora(LoraOptions(rank=2, dropout=0.3))
        evaluator = Scripted([0.0, 0.5, 1.0, 0.2, 0.7], stop_at)
        return (
            policy,
            evaluator,
            train(policy, DPO(), pairs, FAST, evaluator=evaluator, folder=tmp_path / folder, **more),
        )

    whole, _, complete = start("whole")
    with pytest.raises(Killed):
        start("parts", on_step=killed_after(killed))
    parts, evaluator, resumed = start("parts", resume=True)
    assert outcome(resumed) == outcome(complete)
    assert same(weights(parts), weights(whole))
    assert evaluator.shown[0] == list(range(killed))  # it is shown what was measured before


def test_an_evaluator_that_remembers_the_start_is_told_it_again(tokenizer: Any, pairs: Any, tmp_path: Path) -> None:
    """As the unlearning one does: its floor is a share of the first value."""

    class FromStart(Scripted):
        start = math.nan

        def quality(self, values: Mapping[str, float], step: int) -> float:
            if step == 0:
                self.start = values["norm"]
            assert not math.isnan(self.start)
            return values["norm"] / self.start

        def stop(self, history: Sequence[Mapping[str, float]]) -> str | None:
            self.start = history[0]["norm"]
            return super().stop(history)

    with pytest.raises(Killed):
        train(fresh(tokenizer), DPO(), pairs, FAST, evaluator=FromStart([]), folder=tmp_path, on_step=killed_after(2))
    resumed = train(fresh(tokenizer), DPO(), pairs, FAST, evaluator=FromStart([]), folder=tmp_path, resume=True)
    assert resumed.steps == 4


@pytest.mark.parametrize("lora", [None, LoraOptions(rank=2, dropout=0.3)], ids=["full weights", "adapters"])
def test_a_resumed_run_with_a_head_is_the_uninterrupted_one(
    lora: LoraOptions | None, tokenizer: Any, pairs: Dataset[Preference], tmp_path: Path
) -> None:
    """The head of the degree loss and its moments are in the checkpoints, and in the best weights so far."""
    objective, rows = with_degrees(DPO(), DegreeOptions(weight=0.5)), Dataset(pairs.rows[:12])
    options = dataclasses.replace(FAST, select="last", eval_every=2)

    def start(folder: str, **more: Any) -> tuple[Policy, TrainResult]:
        policy = fresh(tokenizer)
        policy = policy if lora is None else policy.with_lora(lora)
        return policy, train(policy, objective, rows, options, held_out=rows, folder=tmp_path / folder, **more)

    whole, complete = start("whole")
    with pytest.raises(Killed):
        start("parts", on_step=killed_after(3))
    parts, resumed = start("parts", resume=True)
    assert outcome(resumed) == outcome(complete)
    assert same(weights(parts), weights(whole))
    ends = [tmp_path / folder / "checkpoints" / "step-00000004" for folder in ("whole", "parts")]
    for name in ("weights.safetensors", "optimiser.safetensors"):
        one, two = (load_file(end / name) for end in ends)
        assert same(one, two)
        assert any(key.startswith("degree.") for key in one)
    assert not any("degree" in name for name in whole.model.state_dict())


def test_the_head_trains_at_its_own_rate(tokenizer: Any, pairs: Dataset[Preference], tmp_path: Path) -> None:
    """AdamW's first step moves every weight by the rate itself, whatever the gradient."""
    options = dataclasses.replace(FAST, steps=1, warmup=0.0, learning_rate=1e-4, max_grad_norm=0.0)
    ends = []
    for rate in (1e-3, 5e-3):
        objective = with_degrees(DPO(), DegreeOptions(weight=0.5, head_lr=rate))
        policy = fresh(tokenizer)
        before = weights(policy)
        train(policy, objective, pairs, options, folder=tmp_path / f"{rate}")
        ends.append(load_file(tmp_path / f"{rate}" / "checkpoints" / "step-00000001" / "weights.safetensors"))
        largest = max(float((value - before[name]).abs().max()) for name, value in weights(policy).items())
        assert largest == pytest.approx(1e-4, rel=0.02)
        bias = ends[-1]["degree.bias"]  # begins at 0
        assert float(bias.abs().max()) == pytest.approx(rate, rel=0.02)
    moved = (ends[0]["degree.weight"] - ends[1]["degree.weight"]).abs()
    assert float(moved.median()) == pytest.approx(4e-3, rel=0.05)
