"""The objectives of reward models: worked numbers, what each option does, and training that ends on the data's scale."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from paperworks.core.errors import DataError, OptionError
from paperworks.language.data import Dataset, Preference, Scored
from paperworks.language.objectives.objective import ResponseLogps, StepInputs
from paperworks.language.objectives.reward_modelling import (
    BradleyTerry,
    RewardPairs,
    RewardRegression,
    RewardTargets,
)
from paperworks.language.rewards.model import RewardModel
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, fresh_policy
from paperworks.language.training import TrainOptions, train

torch.set_num_threads(1)


def rewards(*values: float) -> ResponseLogps:
    return ResponseLogps(torch.tensor(values, dtype=torch.float64), torch.ones(len(values), dtype=torch.float64))


def pairs(objective: BradleyTerry, margins: list[float] | None = None) -> RewardPairs:
    """Two pairs: rewards (2, 1) and (0, 1)."""
    weight = torch.ones(2, dtype=torch.float64)
    numbers = {} if margins is None else {"margin": torch.tensor(margins, dtype=torch.float64)}
    return objective.batch({"chosen": rewards(2, 0), "rejected": rewards(1, 1)}, StepInputs(weight, numbers))


def losses(objective: BradleyTerry, margins: list[float] | None = None) -> list[float]:
    return objective.loss(pairs(objective, margins)).tolist()


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> RewardModel:
    policy = fresh_policy(TinySpec(layers=2, width=32, heads=2, context=128), tokenizer)
    return RewardModel.load(policy.save(tmp_path / "base"), device="cpu")


# ------------------------------------------------------------------------------------------------------------------- pairs


def test_bradley_terry_is_the_negative_log_likelihood_of_the_choice() -> None:
    assert losses(BradleyTerry()) == pytest.approx([math.log(1 + math.exp(-1)), math.log(1 + math.e)])


def test_margins_are_subtracted_and_none_is_zero() -> None:
    at_zero = math.log(2)
    assert losses(BradleyTerry(), [1.0, math.nan]) == pytest.approx([at_zero, math.log(1 + math.e)])
    assert losses(BradleyTerry(margin_weight=0.5), [2.0, -2.0]) == pytest.approx([at_zero, at_zero])
    assert losses(BradleyTerry(margin_weight=0), [9.0, 9.0]) == losses(BradleyTerry())


def test_centring_adds_the_squared_sum() -> None:
    plain, centred = losses(BradleyTerry()), losses(BradleyTerry(centring=0.1))
    assert [b - a for a, b in zip(plain, centred, strict=True)] == pytest.approx([0.9, 0.1])


def test_label_smoothing_is_the_mean_over_flips() -> None:
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.e)
    smoothed = losses(BradleyTerry(label_smoothing=0.25))
    assert smoothed == pytest.approx([0.75 * right + 0.25 * wrong, 0.75 * wrong + 0.25 * right])


def test_metrics_of_pairs() -> None:
    objective = BradleyTerry()
    found = {name: value.tolist() for name, value in objective.metrics(pairs(objective)).items()}
    assert found == {
        "accuracy": [1, 0], "margin": [1, -1], "reward_chosen": [2, 0], "reward_rejected": [1, 1],
    }  # fmt: skip


@pytest.mark.parametrize(
    "option", [{"margin_weight": -1}, {"centring": -0.1}, {"label_smoothing": 0.5}, {"centring": math.nan}]
)
def test_pair_options_out_of_range(option: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(option))):
        BradleyTerry(**option)


def test_learns_to_rank_by_a_word(model: RewardModel) -> None:
    rows = [Preference(p, f"{r} It is great.", f"{r} It is awful.") for p, r in generate_reviews(48, 1, clauses=(1, 1))]
    options = TrainOptions(steps=30, batch_size=16, micro_batch=8, learning_rate=5e-3, select="last")
    result = train(
        model, BradleyTerry(centring=0.01), Dataset(tuple(rows[16:])), options, held_out=Dataset(tuple(rows[:16]))
    )
    assert result.held_out["accuracy"] == 1
    assert result.held_out["margin"] > 1


# ------------------------------------------------------------------------------------------------------------------ scores


def targets(*values: float) -> RewardTargets:
    return RewardTargets(rewards(1, 5), torch.tensor(values, dtype=torch.float64), torch.ones(2, dtype=torch.float64))


def test_regression_is_the_squared_error_in_deviations() -> None:
    assert RewardRegression(standardise=False).loss(targets(3, 5)).tolist() == [4, 0]
    assert RewardRegression(scale=2.0).loss(targets(3, 1)).tolist() == [1, 4]


def test_huber_is_linear_beyond_delta() -> None:
    objective = RewardRegression(standardise=False, error="huber", huber_delta=1.0)
    assert objective.loss(targets(1.5, 15)).tolist() == pytest.approx([0.5 * 0.25, 9.5])


def scored(count: int = 24, *, mean: float = 100.0, spread: float = 20.0) -> Dataset[Scored]:
    reviews = generate_reviews(count, 1, clauses=(1, 1))
    good = [Scored(p, f"{r} It is great.", mean + spread) for p, r in reviews]
    bad = [Scored(p, f"{r} It is awful.", mean - spread) for p, r in reviews]
    return Dataset(tuple(row for both in zip(good, bad, strict=True) for row in both))


def test_preparing_settles_the_scale_and_where_the_head_starts(model: RewardModel) -> None:
    objective = RewardRegression()
    prepared = objective.prepare(scored(), model, seed=0)
    assert prepared.objective == dataclasses.replace(objective, scale=20.0)
    assert prepared.facts["reward"] == {"formula": "R = reward", "mean": 100.0, "deviation": 20.0}
    start = model.score_texts([row.prompt for row in scored()], [row.response for row in scored()])
    assert sum(start) / len(start) == pytest.approx(100, abs=5)
    again = prepared.objective.prepare(scored(mean=7), model, seed=0, held_out=True)
    assert again.objective == prepared.objective  # held-out rows change nothing


def test_a_trained_head_keeps_its_scale(model: RewardModel, tmp_path: Path) -> None:
    trained = RewardModel.load(model.save(tmp_path / "trained"), device="cpu")
    before = trained.score_texts(["A"], ["B"])
    RewardRegression().prepare(scored(), trained, seed=0)
    assert trained.score_texts(["A"], ["B"]) == before


def test_trained_rewards_are_on_the_scale_of_the_scores_in_the_saved_folder(model: RewardModel, tmp_path: Path) -> None:
    options = TrainOptions(steps=60, batch_size=16, micro_batch=16, learning_rate=1e-2, select="last")
    train(model, RewardRegression(), scored(), options)
    folder = model.save(tmp_path / "model")
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for row in scored(3):
        ids = tokenizer(row.prompt).input_ids + tokenizer(row.response).input_ids + [tokenizer.eos_token_id]
        with torch.no_grad():
            assert loaded(torch.tensor([ids])).logits.item() == pytest.approx(row.reward, abs=10)


def test_several_rewards_are_summed_with_weights(model: RewardModel) -> None:
    rows = [Scored("p", text, rewards={"kind": i, "short": 1.0}) for i, text in enumerate(["a", "b", "c"])]
    prepared = RewardRegression(reward_weights=(2.0, 0.5)).prepare(Dataset(tuple(rows)), model, seed=0)
    assert [row.reward for row in prepared.dataset] == [0.5, 2.5, 4.5]
    with pytest.raises(OptionError, match="reward_weights has 1 weights, the rows have 2 rewards"):
        RewardRegression(reward_weights=(2.0,)).prepare(Dataset(tuple(rows)), model, seed=0)


def test_equal_scores_are_refused(model: RewardModel) -> None:
    with pytest.raises(DataError, match="all 48 responses have the reward 100: nothing to learn from"):
        RewardRegression().prepare(scored(spread=0), model, seed=0)


@pytest.mark.parametrize(
    "options", [{"huber_delta": 0}, {"scale": 0}, {"scale": 2, "standardise": False}, {"reward_weights": (math.inf,)}]
)
def test_regression_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        RewardRegression(**options)  # type: ignore[arg-type]
