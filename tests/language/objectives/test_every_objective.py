"""What holds for all objectives: shapes, weights, averaging, finite values and right gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.language.objectives import RPO, SFT, Objective, ResponseLogps, RobustDPO, make, objective_names
from paperworks.language.objectives.objective import ByToken

VARIANTS: list[Objective] = [
    *(make(name) for name in objective_names()),
    make("ipo", {"average": True}),
    make("xpo", {"alpha": 0.01, "clip": 20}),
    make("hypo", {"lam": 0.3, "baseline": "none"}),
    make("copg", {"pairs": "adjacent", "beta": 0.3}),
    make("copg", {"form": "surrogate"}),
    make("online-ipo", {"scale": "square"}),
    make("ipo-md", {"average": True, "tau": 0.1}),
    make("dno", {"target": "hard"}),
    make("dno", {"target": "probability"}),
    make("rdpo", {"pair_loss": "hinge"}),
    make("rdpo", {"pair_loss": "ipo"}),
    make("slic", {"lam": 0.1}),
    make("rso", {"loss_type": "hinge", "sft_coef": 0.1}),
    make("rso", {"loss_type": "hinge-norm", "gamma": 0.5}),
    make("orpo", {"nll_reduction": "token_mean"}),
    make("rpo", {"sft_reduction": "seq_mean"}),
    make("rpo", {"sft_reduction": "token_mean"}),
    make("rpo", {"base": "ref", "n_base": 3, "sft_reduction": "token_mean"}),
    make("sft", {"reduction": "seq_mean"}),
    make("sft", {"reduction": "sum"}),
    make("npo", {"retain_weight": 0.5, "kl_weight": 2.0, "kl_on": "both", "forget_weight": 0.3}),
    make("idk", {"retain_weight": 0.0, "kl_weight": 1.0, "kl_on": "forget"}),
    make("kto-idk", {"beta_on_kl": True}),
    make("a-lol", {"filter_negative": False, "sampling_strategy": "shuffle"}),
    make("reward-model", {"centring": 0.01, "label_smoothing": 0.1}),
    make("reward-regression", {"error": "huber", "scale": 0.5}),
]
every_objective = pytest.mark.parametrize("objective", VARIANTS, ids=repr)
WEIGHTED_BY_THE_POLICY = (
    "r-gold",
    "r-lol",
    "a-lol",
    "a-lol-seq",
    "hypo",
)  # without gradient: the loss is no function to check
Batches = Callable[..., Any]


def sides(batch: Any) -> dict[str, ResponseLogps]:
    """The scores of each role that has some."""
    found = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return {name: side for name, side in found.items() if isinstance(side, ResponseLogps) and len(side.policy)}


def leaves(batch: Any) -> list[Tensor]:
    """What the model computes: log-probabilities of responses or of their tokens, and divergences."""
    found = []
    for side in sides(batch).values():
        found.append(side.policy if side.by_token is None else side.by_token.policy)
        if side.vocabulary_kl is not None:
            found.append(side.vocabulary_kl)
    return found


def with_leaves(batch: Any, values: Iterator[Tensor]) -> Any:
    """The batch with other values in the place of its leaves."""

    def renewed(side: ResponseLogps) -> ResponseLogps:
        by_token, policy = side.by_token, next(values)
        if by_token is not None:
            by_token = dataclasses.replace(by_token, policy=policy)
            policy = by_token.summed(policy)
        kl = None if side.vocabulary_kl is None else next(values)
        return dataclasses.replace(side, policy=policy, by_token=by_token, vocabulary_kl=kl)

    return dataclasses.replace(batch, **{name: renewed(side) for name, side in sides(batch).items()})


def rows(batch: Any, start: int, stop: int) -> Any:
    """Items start to stop of a batch of 8; a baseline policy's side has a multiple of 8."""

    def cut(value: Any, name: str = "") -> Any:
        if isinstance(value, ByToken):
            kept = (value.response >= start) & (value.response < stop)
            reference = None if value.reference is None else value.reference[kept]
            return ByToken(value.policy[kept], reference, value.response[kept] - start, stop - start)
        if dataclasses.is_dataclass(value):
            return dataclasses.replace(
                value, **{f.name: cut(getattr(value, f.name), f.name) for f in dataclasses.fields(value)}
            )
        if value is None or value.ndim == 0:
            return value
        kept = value[start * len(value) // 8 : stop * len(value) // 8]
        return kept - start if name == "row" else kept

    return cut(batch)


def step_loss(objective: Objective, batch: Any) -> Tensor:
    """The weighted means of all terms, added, as the training loop forms them."""
    terms, weights = objective.terms(batch), objective.weights(batch)
    return torch.stack([(weights[name] * value).sum() / weights[name].sum() for name, value in terms.items()]).sum()


@every_objective
def test_is_a_frozen_dataclass_found_by_its_name(objective: Objective) -> None:
    assert type(make(objective.name)) is type(objective)
    with pytest.raises(dataclasses.FrozenInstanceError):
        objective.name = "other"  # type: ignore[misc]


@every_objective
def test_gives_one_value_and_one_weight_an_item_and_term(objective: Objective, random_batch: Batches) -> None:
    batch = random_batch(objective)
    terms, weights = objective.terms(batch), objective.weights(batch)
    assert objective.loss(batch).shape == (8,)
    assert {name: value.shape for name, value in terms.items()} == {name: w.shape for name, w in weights.items()}
    assert not any(weight.requires_grad for weight in weights.values())
    assert all((weight >= 0).all() for weight in weights.values())


@every_objective
def test_where_all_terms_are_means_over_rows_they_add_up_to_the_loss(
    objective: Objective, random_batch: Batches
) -> None:
    batch = random_batch(objective)
    if not hasattr(batch, "weight"):
        pytest.skip("its terms are means over different items")
    terms = objective.terms(batch)
    assert all(value.shape == (8,) for value in terms.values())
    assert torch.allclose(sum(terms.values(), torch.zeros(8)), objective.loss(batch), rtol=1e-12)


@every_objective
def test_metrics_are_detached_and_one_value_an_item(objective: Objective, random_batch: Batches) -> None:
    batch = random_batch(objective)
    for name, given in objective.metrics(batch).items():
        value, weight = given if isinstance(given, tuple) else (given, batch.weight)
        assert value.shape == weight.shape, name
        assert value.isfinite().all(), name
        assert not value.requires_grad and not weight.requires_grad, name


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


@pytest.mark.parametrize(
    "objective",
    [o for o in VARIANTS if o.name not in WEIGHTED_BY_THE_POLICY and getattr(o, "form", "") != "surrogate"],
    ids=repr,
)
def test_gradient_is_that_of_finite_differences(objective: Objective, random_batch: Batches) -> None:
    batch = random_batch(objective)

    def loss(*values: Tensor) -> Tensor:
        return step_loss(objective, with_leaves(batch, iter(values)))

    assert torch.autograd.gradcheck(loss, leaves(batch))


@every_objective
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_float32_values_and_gradients_are_finite_at_any_scale(
    objective: Objective, scale: float, random_batch: Batches
) -> None:
    def narrowed(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return dataclasses.replace(
                value, **{field.name: narrowed(getattr(value, field.name)) for field in dataclasses.fields(value)}
            )
        return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

    batch = narrowed(random_batch(objective))
    scaled = [(scale * leaf).detach().requires_grad_() for leaf in leaves(batch)]
    batch = with_leaves(batch, iter(scaled))
    loss = step_loss(objective, batch)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    gradients = torch.autograd.grad(loss, scaled, allow_unused=True)  # of a role in the divergence alone, no likelihood
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("name", [name for name in objective_names() if not make(name).needs_reference])
def test_no_reference_is_used_where_none_is_asked_for(name: str, random_batch: Batches) -> None:
    batch = random_batch(make(name))
    assert all(side.reference is None for side in sides(batch).values())
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
