"""Unlearning through the training loop: ragged rows in micro-batches, and answers that are forgotten or kept."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from paperworks.language.data import Dataset, Demonstration, Forget, Retain
from paperworks.language.objectives import SFT, make
from paperworks.language.objectives.unlearning import UnlearningObjective
from paperworks.language.policy import Policy
from paperworks.language.testbeds.reviews import generate_reviews
from paperworks.language.tiny import TinySpec, fresh_policy
from paperworks.language.training import TrainOptions, train
from paperworks.language.unlearning.data import assemble

OPTIONS = TrainOptions(steps=2, batch_size=4, micro_batch=3, learning_rate=1e-3, select="last")
NAMES = ["ga-forget-kl", "grad-diff", "npo-rt", "npo-kl", "idk", "dpo-idk-kl", "kto-idk-rt"]


def fresh(tokenizer: Any) -> Policy:
    return fresh_policy(TinySpec(layers=1, width=32, heads=2, context=256), tokenizer)


def rows(objective: UnlearningObjective) -> Dataset[Any]:
    """Six rows to forget and four to keep."""
    reviews = list(dict(generate_reviews(40, 3)).items())[:10]
    forget = Dataset([Forget(prompt, response, weight=1.0 + i % 2) for i, (prompt, response) in enumerate(reviews[:6])])
    retain = Dataset([Retain(prompt, response) for prompt, response in reviews[6:]])
    return assemble(forget, retain, None, seed=0, objective=objective)


def objective(name: str, **options: Any) -> UnlearningObjective:
    made = make(name, options)
    assert isinstance(made, UnlearningObjective)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_steps_do_not_depend_on_the_micro_batch(tokenizer: Any, name: str) -> None:
    chosen = objective(name)
    finals = []
    for size in (1, 3, 100):
        result = train(fresh(tokenizer), chosen, rows(chosen), dataclasses.replace(OPTIONS, micro_batch=size))
        finals.append({name: value for name, value in result.final.items() if name != "rows_per_second"})
    for other in finals[1:]:
        assert other == pytest.approx(finals[0], rel=2e-4, abs=2e-5)


def test_npo_begins_with_full_weight_at_its_worked_value(tokenizer: Any) -> None:
    chosen = objective("npo-kl", beta=0.1)
    first = train(fresh(tokenizer), chosen, rows(chosen), dataclasses.replace(OPTIONS, steps=1)).first
    assert first["forget"] == pytest.approx(13.862944, abs=1e-4)  # (2 / beta) log 2
    assert first["adaptive_weight"] == pytest.approx(1.0, abs=1e-5)
    assert first["kl_per_token"] == pytest.approx(0.0, abs=1e-5)


def test_what_is_to_be_kept_is_kept_where_it_is_trained_on(tokenizer: Any) -> None:
    learnt = fresh(tokenizer)
    everything = rows(objective("npo-rt"))
    texts = [Demonstration(row.prompt, getattr(row, "forget", None) or row.retain) for row in everything]
    train(learnt, SFT(), Dataset(texts), dataclasses.replace(OPTIONS, steps=60, batch_size=10, learning_rate=1e-2))
    before = {name: value.clone() for name, value in learnt.model.state_dict().items()}

    def unlearnt(**options: Any) -> dict[str, float]:
        learnt.model.load_state_dict(before)
        # the divergence is measured, and hardly weighs
        chosen = objective("npo", kl_weight=1e-6, **options)
        steps = dataclasses.replace(OPTIONS, steps=12, batch_size=6, learning_rate=3e-3)
        result = train(learnt, chosen, rows(chosen), steps)
        assert result.first["forget_nll"] < result.final["forget_nll"] - 5
        return dict(result.final)

    alone, beside = unlearnt(), unlearnt(retain_weight=1.0)
    assert beside["retain_nll_per_token"] < 0.7 * alone["retain_nll_per_token"]
    assert beside["adaptive_weight"] < 0.8
