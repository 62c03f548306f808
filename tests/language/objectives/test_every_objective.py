"""What holds for all objectives: shapes, weights, averaging, finite values and right gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.language.objectives import RPO, SFT, Objective, RobustDPO, make, objective_names

VARIANTS: list[Objective] = [
    *(make(name) for name in objective_names()),
    make("ipo", {"average": True}),
    make("rdpo", {"pair_loss": "hinge"}),
    make("rdpo", {"pair_loss": "ipo"}),
    make("slic", {"lam": 0.1}),
    make("orpo", {"nll_reduction": "token_mean"}),
    make("rpo", {"sft_reduction": "seq_mean"}),
    make("rpo", {"sft_reduction": "token_mean"}),
    make("rpo", {"base": "ref", "n_base": 3, "sft_reduction": "token_mean"}),
    make("sft", {"reduction": "seq_mean"}),
    make("sft", {"reduction": "sum"}),
]
every_objective = pytest.mark.parametrize("objective", VARIANTS, ids=repr)
Batches = Callable[..., Any]


def leaves(batch: Any) -> list[Tensor]:
    sides = [getattr(batch, field.name) for field in dataclasses.fields(batch)]
    return [side.policy for side in sides if dataclasses.is_dataclass(side)]


def rows(batch: Any, start: int, stop: int) -> Any:
    """Items start to stop of a batch of 8; a baseline policy's side has a multiple of 8."""

    def cut(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return dataclasses.replace(
                value, **{f.name: cut(getattr(value, f.name)) for f in dataclasses.fields(value)}
            )
        if value is None or value.ndim == 0:
            return value
        return value[start * len(value) // 8 : stop * len(value) // 8]

    return cut(batch)


@every_objective
def test_is_a_frozen_dataclass_found_by_its_name(objective: Objective) -> None:
    assert type(make(objective.name)) is type(objective)
    with pytest.raises(dataclasses.FrozenInstanceError):
        objective.name = "other"  # type: ignore[misc]


@every_objective
def test_gives_one_value_and_one_weight_an_item_and_term(objective: Objective, random_batch: Batches) -> None:
    batch = random_batch(objective)
    terms, weights = objective.terms(batch), objective.weights(batch)
    assert terms.keys() == weights.keys()
    assert objective.loss(batch).shape == (8,)
    assert all(value.shape == (8,) for value in (*terms.values(), *weights.values()))
    assert not any(weight.requires_grad for weight in weights.values())
    assert torch.allclose(sum(terms.values(), torch.zeros(8)), objective.loss(batch), rtol=1e-12)


@every_objective
def test_metrics_are_detached_and_one_value_an_item(objective: Objective, random_batch: Batches) -> None:
    for name, value in objective.metrics(random_batch(objective)).items():
        assert value.shape == (8,), name
        assert value.isfinite().all(), name
        assert not value.requires_grad, name


@every_objective
def test_weighted_mean_does_not_depend_on_the_split_into_micro_batches(
    objective: Objective, random_batch: Batches
) -> None:
    batch = random_batch(objective)
    whole_terms, whole_weights = objective.terms(batch), objective.weights(batch)
    parts = [rows(batch, 0, 3), rows(batch, 3, 4), rows(batch, 4, 8)]
    for name in whole_terms:
        whole = (whole_weights[name] * whole_terms[name]).sum() / whole_weights[name].sum()
        totals = [(objective.weights(part)[name] * objective.terms(part)[name]).sum() for part in parts]
        counts = [objective.weights(part)[name].sum() for part in parts]
        assert (sum(totals) / sum(counts)).item() == pytest.approx(whole.item(), rel=1e-12)


@every_objective
def test_gradient_is_that_of_finite_differences(objective: Objective, random_batch: Batches) -> None:
    batch = random_batch(objective)
    inputs = leaves(batch)

    def loss(*values: Tensor) -> Tensor:
        replaced = iter(values)

        def renewed(side: Any) -> Any:
            return dataclasses.replace(side, policy=next(replaced)) if dataclasses.is_dataclass(side) else side

        sides = {field.name: renewed(getattr(batch, field.name)) for field in dataclasses.fields(batch)}
        return objective.loss(type(batch)(**sides))

    assert torch.autograd.gradcheck(loss, inputs)


@every_objective
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_float32_values_and_gradients_are_finite_at_any_scale(
    objective: Objective, scale: float, random_batch: Batches
) -> None:
    def narrowed(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            fields = {field.name: narrowed(getattr(value, field.name)) for field in dataclasses.fields(value)}
            if "policy" in fields:
                fields["policy"] = (scale * fields["policy"]).detach().requires_grad_()
            return dataclasses.replace(value, **fields)
        return value if value is None else value.float()

    batch = narrowed(random_batch(objective))
    loss = objective.loss(batch)
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss.sum(), leaves(batch)))


@pytest.mark.parametrize("name", [name for name in objective_names() if not make(name).needs_reference])
def test_no_reference_is_used_where_none_is_asked_for(name: str, random_batch: Batches) -> None:
    batch = random_batch(make(name))
    assert all(getattr(side, "reference", None) is None for side in vars(batch).values())
    assert make(name).loss(batch).isfinite().all()


def test_where_a_reference_is_needed_its_absence_is_an_error(random_batch: Batches) -> None:
    with pytest.raises(OptionError, match="asked for no reference"):
        make("dpo").loss(random_batch(make("simpo")))


@pytest.mark.parametrize("name", ["dpo", "cdpo", "rdpo", "hinge-norm", "ln-dpo", "ipo", "rpo"])
def test_accuracy_counts_a_tie_as_half(name: str, random_batch: Batches) -> None:
    objective = make(name)
    batch = random_batch(objective)
    tie = dataclasses.replace(batch, rejected=batch.chosen)
    assert (objective.metrics(tie)["accuracy"] == 0.5).all()
    margin = objective.metrics(batch)["margin"]
    assert torch.equal(objective.metrics(batch)["accuracy"] == 1, margin > 0)


def test_debiased_accuracy_is_logged_at_the_assumed_flip_rate(random_batch: Batches) -> None:
    objective = RobustDPO(flip_rate=0.2)
    metrics = objective.metrics(random_batch(objective))
    assert torch.allclose(metrics["debiased_accuracy"], (metrics["accuracy"] - 0.2) / 0.6)


def test_sft_share_is_the_imitation_term_s_part_of_the_push_up(random_batch: Batches) -> None:
    for objective in (RPO(beta=0.1, eta=0.05), RPO(beta=0.1, eta=0.2, sft_reduction="seq_mean")):
        batch = random_batch(objective)
        terms = objective.terms(batch)
        sft, dpo = (torch.autograd.grad(terms[name].sum(), batch.chosen.policy)[0] for name in ("sft", "dpo"))
        assert torch.allclose(objective.metrics(batch)["sft_share"], sft / (sft + dpo), rtol=1e-9)


def test_sft_reductions_by_hand(random_batch: Batches) -> None:
    batch = random_batch(SFT())
    logp, tokens, weight = batch.response.policy, batch.response.tokens, batch.weight
    expected = {
        "token_mean": -(weight * logp).sum() / (weight * tokens).sum(),
        "seq_mean": -(weight * logp / tokens).sum() / weight.sum(),
        "sum": -(weight * logp).sum() / weight.sum(),
    }
    for reduction, value in expected.items():
        objective = SFT(reduction=reduction)  # type: ignore[arg-type]
        weights = objective.weights(batch)["loss"]
        assert ((weights * objective.loss(batch)).sum() / weights.sum()).item() == pytest.approx(value.item())
