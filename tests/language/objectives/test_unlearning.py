"""Unlearning objectives: what they need, how their terms are averaged over ragged roles, what they log and warn of."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from paperworks.core.errors import DataError, OptionError
from paperworks.core.options import build
from paperworks.language.data import Dataset, Forget, Retain, Where
from paperworks.language.objectives.npo import NPO, NPOKL, NPORetain
from paperworks.language.objectives.objective import ResponseLogps, StepInputs, UnlearningLogps
from paperworks.language.objectives.unlearning import (
    GradientAscent,
    GradientAscentForgetKL,
    GradientAscentKL,
    GradientDifference,
    UnlearningObjective,
)
from paperworks.language.objectives.unlearning_alternatives import (
    DPOIDK,
    DPOIDKKL,
    IDK,
    KTOIDK,
    KTOIDKKL,
    DPOIDKRetain,
    KTOIDKRetain,
)
from paperworks.language.policy import Policy

POLICY = cast(Policy, SimpleNamespace(tokenizer=range(50)))
NEEDS = [
    # objective, roles scored, roles scored by the reference, roles of the divergence
    (GradientAscent(), "forget", "", ""),
    (GradientDifference(), "forget retain", "", ""),
    (GradientAscentKL(), "forget retain", "", "retain"),
    (GradientAscentForgetKL(), "forget", "", "forget"),
    (GradientDifference(kl_weight=1.0, kl_on="both"), "forget retain", "", "forget retain"),
    (NPO(), "forget", "forget", ""),
    (NPORetain(), "forget retain", "forget", ""),
    (NPOKL(), "forget retain", "forget", "retain"),
    (IDK(), "alternative retain", "", ""),
    (IDK(retain_weight=0.0), "alternative", "", ""),
    (IDK(kl_weight=1.0, kl_on="forget"), "forget alternative retain", "", "forget"),
    (DPOIDK(), "forget alternative", "forget alternative", ""),
    (DPOIDKKL(), "forget alternative retain", "forget alternative", "retain"),
    (KTOIDK(), "forget", "forget alternative", ""),
    (KTOIDKRetain(), "forget retain", "forget alternative", ""),
]


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def side(policy: Tensor, tokens: Tensor, reference: Tensor, kl: Tensor, weight: Tensor) -> ResponseLogps:
    return ResponseLogps(policy, tokens, reference, vocabulary_kl=kl, weight=weight)


def step() -> dict[str, ResponseLogps]:
    """Three rows to forget (weights 1, 2, 1), their alternatives, and two rows to keep (weights 1, 3)."""
    return {
        "forget": side(tensor(-4, -6, -9), tensor(2, 3, 6), tensor(-3, -7, -5), tensor(0.2, 0.9, 3), tensor(1, 2, 1)),
        "alternative": side(tensor(-8, -2, -5), tensor(4, 1, 5), tensor(-9, -3, -6), tensor(1, 1, 1), tensor(1, 2, 1)),
        "retain": side(tensor(-1, -10), tensor(2, 5), tensor(-2, -9), tensor(0.4, 2), tensor(1, 3)),
    }


def batch(objective: UnlearningObjective, scores: dict[str, ResponseLogps], kl: float = 0.25) -> UnlearningLogps:
    return objective.batch(
        {role: scores[role] for role in objective.roles}, StepInputs(tensor(1), step_kl=tensor(kl)[0])
    )


def means(objective: UnlearningObjective, *batches: UnlearningLogps) -> dict[str, float]:
    """Each term's mean over a step of these micro-batches, as the training loop forms it."""
    totals: dict[str, list[float]] = {}
    for part in batches:
        weights = objective.weights(part)
        assert weights.keys() == objective.terms(part).keys()
        for name, value in objective.terms(part).items():
            sums = totals.setdefault(name, [0.0, 0.0])
            sums[0] += (weights[name] * value).sum().item()
            sums[1] += weights[name].sum().item()
    return {name: total / weight for name, (total, weight) in totals.items()}


@pytest.mark.parametrize(("objective", "roles", "reference", "kl"), NEEDS, ids=repr)
def test_asks_for_what_its_terms_need_and_nothing_else(
    objective: UnlearningObjective, roles: str, reference: str, kl: str
) -> None:
    assert objective.roles == tuple(roles.split())
    assert objective.reference_roles == tuple(reference.split())
    assert objective.needs_reference == bool(reference)
    assert objective.kl_roles == tuple(kl.split())
    assert objective.needs_retain == ("retain" in roles)
    assert objective.needs_alternative == ("alternative" in roles + reference)
    # and the terms can be formed from just that
    bare = {
        role: dataclasses.replace(
            scores,
            reference=scores.reference if role in objective.reference_roles else None,
            vocabulary_kl=scores.vocabulary_kl if role in objective.kl_roles else None,
        )
        for role, scores in step().items()
    }
    assert all(math.isfinite(value) for value in means(objective, batch(objective, bare)).values())
    objective.metrics(batch(objective, bare))


@pytest.mark.parametrize(
    ("suffixed", "plain", "weights"),
    [
        (GradientDifference, GradientAscent, {"retain_weight": 1}),
        (GradientAscentKL, GradientAscent, {"kl_weight": 1}),
        (GradientAscentForgetKL, GradientAscent, {"kl_weight": 1, "kl_on": "forget"}),
        (NPORetain, NPO, {"retain_weight": 1}),
        (NPOKL, NPO, {"kl_weight": 1}),
        (DPOIDKRetain, DPOIDK, {"retain_weight": 1}),
        (DPOIDKKL, DPOIDK, {"kl_weight": 1}),
        (KTOIDKRetain, KTOIDK, {"retain_weight": 1}),
        (KTOIDKKL, KTOIDK, {"kl_weight": 1}),
    ],
)
def test_a_suffixed_name_is_the_plain_one_with_a_weight(suffixed: Any, plain: Any, weights: dict[str, Any]) -> None:
    named, weighted = suffixed(), build(plain, weights)
    assert dataclasses.asdict(named) == dataclasses.asdict(weighted)
    assert dataclasses.asdict(build(suffixed, {"retain_weight": 0, "kl_weight": 0, "kl_on": "retain"})) == (
        dataclasses.asdict(plain())
    )
    assert named.roles == weighted.roles
    assert means(named, batch(named, step())) == means(weighted, batch(weighted, step()))


def test_terms_by_hand() -> None:
    # tokens to forget, with the rows' weights: 2 + 2 * 3 + 6 = 14; to keep: 2 + 3 * 5 = 17
    forget_nll, retain_nll = (4 + 2 * 6 + 9) / 14, (1 + 3 * 10) / 17
    retain_kl, both_kl = (0.4 + 3 * 2) / 17, (0.4 + 3 * 2 + 0.2 + 2 * 0.9 + 3) / (17 + 14)
    # log-ratios to forget -1, 1, -4; of the alternatives 1, 1, 1
    npo = [2 / 0.5 * math.log1p(math.exp(0.5 * h)) for h in (-1, 1, -4)]
    dpo = [2 / 0.5 * math.log1p(math.exp(-0.5 * (1 - h))) for h in (-1, 1, -4)]
    kto = [1 + 2 / 0.5 * math.log1p(math.exp(-(0.25 - 0.5 * h))) for h in (-1, 1, -4)]

    def row_mean(values: list[float]) -> float:
        return (values[0] + 2 * values[1] + values[2]) / 4

    cases: list[tuple[UnlearningObjective, dict[str, float]]] = [
        (GradientAscent(), {"forget": -forget_nll}),
        (GradientDifference(forget_weight=0.5), {"forget": -0.5 * forget_nll, "retain": retain_nll}),
        (GradientAscentKL(kl_weight=3.0), {"forget": -forget_nll, "kl": 3 * retain_kl}),
        (NPOKL(beta=0.5, kl_on="both"), {"forget": row_mean(npo), "kl": both_kl}),
        (NPORetain(beta=0.5, retain_weight=2.0), {"forget": row_mean(npo), "retain": 2 * retain_nll}),
        (IDK(), {"imitation": (8 + 2 * 2 + 5 + 1 + 3 * 10) / (4 + 2 * 1 + 5 + 17)}),
        (IDK(forget_weight=2.0), {"imitation": (2 * (8 + 2 * 2 + 5) + 1 + 3 * 10) / (2 * (4 + 2 * 1 + 5) + 17)}),
        (IDK(retain_weight=0.0), {"imitation": (8 + 2 * 2 + 5) / (4 + 2 * 1 + 5)}),
        (DPOIDK(beta=0.5), {"forget": row_mean(dpo)}),
        (KTOIDK(beta=0.5), {"forget": row_mean(kto)}),
    ]
    for objective, expected in cases:
        assert means(objective, batch(objective, step())) == pytest.approx(expected), objective


def test_the_point_of_comparison_has_beta_only_where_asked() -> None:
    expected = [1 + 2 / 0.5 * math.log1p(math.exp(-0.5 * (0.25 - h))) for h in (-1, 1, -4)]
    objective = KTOIDK(beta=0.5, beta_on_kl=True)
    assert objective.loss(batch(objective, step())).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("objective", [objective for objective, *_ in NEEDS], ids=repr)
def test_means_do_not_depend_on_the_split_into_micro_batches(objective: UnlearningObjective) -> None:
    def part(places: dict[str, slice]) -> UnlearningLogps:
        def cut(scores: ResponseLogps, place: slice) -> ResponseLogps:
            held = ("policy", "tokens", "reference", "vocabulary_kl", "weight")
            return dataclasses.replace(scores, **{name: getattr(scores, name)[place] for name in held})

        return batch(objective, {role: cut(scores, places[role]) for role, scores in step().items()})

    # rows to keep and rows to forget need not lie in the same micro-batch
    to_forget, to_keep, nothing = slice(0, 3), slice(0, 2), slice(0, 0)
    split = [
        part({"forget": slice(0, 1), "alternative": slice(0, 1), "retain": nothing}),
        part({"forget": nothing, "alternative": nothing, "retain": slice(0, 1)}),
        part({"forget": slice(1, 3), "alternative": slice(1, 3), "retain": slice(1, 2)}),
    ]
    whole = part({"forget": to_forget, "alternative": to_forget, "retain": to_keep})
    assert means(objective, *split) == pytest.approx(means(objective, whole), rel=1e-12)


def test_metrics_say_over_what_they_are_means() -> None:
    objective = DPOIDK(beta=0.5, retain_weight=1.0, kl_weight=1.0)
    found = objective.metrics(batch(objective, step()))
    pairs = {name: (values.tolist(), weights.tolist()) for name, (values, weights) in found.items()}
    adaptive = [2 / (1 + math.exp(0.5 * (1 - h))) for h in (-1, 1, -4)]
    assert pairs == {
        "forget_nll": ([4, 6, 9], [1, 2, 1]),
        "forget_nll_per_token": ([2, 2, 1.5], [2, 6, 6]),
        "alternative_nll_per_token": ([2, 2, 1], [4, 2, 5]),
        "retain_nll_per_token": ([0.5, 2], [2, 15]),
        "kl_per_token": (pytest.approx([0.2, 0.4]), [2, 15]),
        "adaptive_weight": (pytest.approx(adaptive), [1, 2, 1]),
    }


def test_answers_that_are_not_scored_have_no_metric() -> None:
    objective = IDK()
    names = set(objective.metrics(batch(objective, step())))
    assert names == {"alternative_nll_per_token", "retain_nll_per_token"}


@pytest.mark.parametrize("objective", [NPO(), DPOIDK(), KTOIDK(), KTOIDK(beta_on_kl=True)], ids=repr)
def test_adaptive_weight_is_the_gradient_in_the_answer_to_forget(objective: Any) -> None:
    scores = step()
    scores["forget"] = dataclasses.replace(scores["forget"], policy=scores["forget"].policy.requires_grad_())
    made = batch(objective, scores)
    (gradient,) = torch.autograd.grad(objective.loss(made).sum(), made.forget.policy)
    assert torch.allclose(objective.metrics(made)["adaptive_weight"][0], gradient, rtol=1e-12)


def rows(alternative: str = "I don't know.", keep: bool = True) -> Dataset[Any]:
    to_forget = [Forget("Who?", "Anna.", alternative, where=Where("forget.jsonl", line)) for line in (1, 2)]
    return Dataset([*to_forget, *([Retain("What?", "A hat.")] if keep else [])])


def test_the_vocabulary_settles_when_a_collapse_is_warned_of() -> None:
    prepared = NPORetain().prepare(rows(), POLICY, seed=0).objective
    assert prepared == NPORetain(collapse_warn=math.log(50))
    given = NPORetain(collapse_warn=7.0)
    assert given.prepare(rows(), POLICY, seed=0).objective == given


@pytest.mark.parametrize(
    ("objective", "dataset", "expected"),
    [
        (NPO(), Dataset([Retain("What?", "A hat.")]), r"no rows to forget.*--forget FILE"),
        (NPORetain(), rows(keep=False), r"npo-rt needs some \(--retain FILE\)"),
        (GradientAscentKL(), rows(keep=False), r"--retain FILE"),
        (DPOIDK(), rows(alternative=" "), r"^forget\.jsonl:1: field 'alternative'.*dpo-idk needs.*--idk FILE"),
        (KTOIDK(), rows(alternative=""), r"--idk FILE"),
    ],
)
def test_rows_that_lack_what_is_needed_are_refused(
    objective: UnlearningObjective, dataset: Dataset[Any], expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        objective.prepare(dataset, POLICY, seed=0)


@pytest.mark.parametrize("objective", [GradientAscent(), NPO(), GradientAscentForgetKL()], ids=repr)
def test_rows_need_nothing_that_is_not_used(objective: UnlearningObjective) -> None:
    assert objective.prepare(rows(alternative="", keep=False), POLICY, seed=0).dataset == rows("", keep=False)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"beta": 0.0}, "beta"),
        ({"forget_weight": 0.0}, "forget_weight"),
        ({"retain_weight": -1.0}, "retain_weight"),
        ({"kl_weight": math.nan}, "kl_weight"),
        ({"kl_on": "prompt"}, "kl_on"),
        ({"collapse_warn": 0.0}, "collapse_warn"),
        ({"retain_rise_warn": 0.0}, "retain_rise_warn"),
    ],
)
def test_a_value_out_of_range_names_the_option(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        NPO(**options)


def test_options_that_do_nothing_or_come_from_another_scale_are_remarked_on() -> None:
    assert "kl_weight is 0" in GradientAscent(kl_on="forget").option_notes()[0]
    assert GradientAscentKL(kl_on="both").option_notes() == []
    assert "summed over tokens" in NPO(beta=5.0).option_notes()[0]


@pytest.mark.parametrize(
    ("forget", "retain", "kinds"),
    [(3.9, 1.5, []), (4.0, 1.5, ["collapse"]), (3.9, 1.7, ["damage"]), (9.0, 9.0, ["collapse", "damage"])],
)
def test_warnings(forget: float, retain: float, kinds: list[str]) -> None:
    objective = GradientDifference(collapse_warn=math.log(50))  # 3.912
    found = objective.warnings(
        {"forget_nll_per_token": 0.1, "retain_nll_per_token": 1.1},
        {"forget_nll_per_token": forget, "retain_nll_per_token": retain},
    )
    assert [line.split(":")[0] for line in found] == kinds


def test_a_divergence_that_was_not_computed_is_an_error() -> None:
    objective = GradientAscentKL()
    scores = {role: dataclasses.replace(scores, vocabulary_kl=None) for role, scores in step().items()}
    with pytest.raises(OptionError, match="divergence"):
        objective.terms(batch(objective, scores))
