"""A-LoL, its variants and its baselines against closed forms (arXiv 2305.14718), in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from paperworks.core.errors import DataError
from paperworks.language.data import Dataset
from paperworks.language.data.schemas import Scored
from paperworks.language.items import tokenise
from paperworks.language.objectives.lol import (
    AdvantageLoL,
    AdvantageLoLKL,
    AdvantageLoLRefFree,
    AdvantageLoLSequence,
    RewardLoL,
)
from paperworks.language.objectives.objective import ByToken, ResponseLogps, ScoredLogps
from paperworks.language.objectives.scored import RewardGOLD, ScoredObjective, WeightedBC
from paperworks.language.policy import Policy
from paperworks.language.tiny import TinySpec, byte_level_tokenizer, fresh_policy
from paperworks.language.values import ValueHead, ValueHeadOptions, predict, prompt_states

THETA, REFERENCE = (-1.0, -2.0, -0.5), (-1.2, -1.0, -1.5)
FAMILY = [AdvantageLoL(), AdvantageLoLSequence(), AdvantageLoLRefFree(), AdvantageLoLKL()]


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def one(
    theta: tuple[float, ...], reference: tuple[float, ...], *, advantage: float = 0.3, reward: float = 0.8
) -> tuple[ScoredLogps, Tensor]:
    """One response from its tokens' log-probabilities; also the leaf that gradients are taken for."""
    policy, fixed = tensor(*theta).requires_grad_(), tensor(*reference)
    tokens = ByToken(policy, fixed, torch.zeros(len(theta), dtype=torch.long), 1)
    response = ResponseLogps(policy.sum()[None], tensor(len(theta)), fixed.sum()[None], tokens)
    return ScoredLogps(response, tensor(reward), tensor(advantage), tensor(1)), policy


def loss(objective: ScoredObjective, *arguments: Any, **numbers: float) -> float:
    return objective.loss(one(*arguments, **numbers)[0]).item()


def test_a_ratio_below_1_weakens_the_push_and_carries_no_gradient_itself() -> None:
    batch, leaf = one((-20.0,), (-19.5,))
    value = AdvantageLoL().loss(batch)
    assert value.item() == pytest.approx(3.639184, abs=5e-7)
    assert torch.autograd.grad(value.sum(), leaf)[0].item() == pytest.approx(-0.181959, abs=5e-7)


def test_a_ratio_above_the_clip_counts_as_its_end() -> None:
    assert loss(AdvantageLoL(), (-15.0,), (-18.0,)) == pytest.approx(8.55)
    assert loss(AdvantageLoL(clip_eps=None), (-15.0,), (-18.0,)) == pytest.approx(0.3 * 15 * 20.085537, rel=1e-7)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (AdvantageLoLSequence(), 0.872148),
        (AdvantageLoL(), 1.282473),
        (AdvantageLoLRefFree(), 1.05),
        (AdvantageLoLKL(kl_beta=0.1), 1.07),
        (WeightedBC(), 2.8),
        (RewardGOLD(), 0.753452),
        (RewardLoL(), 3.419928),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_worked_values_of_one_response_of_three_tokens(objective: ScoredObjective, expected: float) -> None:
    assert loss(objective, THETA, REFERENCE) == pytest.approx(expected, abs=5e-7)


def test_without_a_clip_the_variant_by_token_takes_its_ratios_as_they_are() -> None:
    ratios = (tensor(*THETA) - tensor(*REFERENCE)).exp()
    expected = 0.3 * (ratios * -tensor(*THETA)).sum().item()
    assert loss(AdvantageLoLSequence(clip_eps=None), THETA, REFERENCE) == pytest.approx(expected)


def test_at_the_reference_all_ratios_are_1_and_the_variants_one_loss() -> None:
    for objective in FAMILY:
        batch, leaf = one(THETA, THETA)
        value = objective.loss(batch)
        assert value.item() == pytest.approx(1.05)
        push = -0.3 + (objective.kl_beta if isinstance(objective, AdvantageLoLKL) else 0)
        assert torch.allclose(torch.autograd.grad(value.sum(), leaf)[0], tensor(push, push, push))


def test_sampling_is_by_positive_advantage_and_the_loss_multiplies_by_it_again() -> None:
    advantage = tensor(0.5, -0.2, 0.1, 0, 0.4)
    objective = AdvantageLoLRefFree()
    drawn = objective.importance(advantage)
    assert drawn is not None and torch.equal(drawn, tensor(0.5, 0, 0.1, 0, 0.4))
    batch = ScoredLogps(ResponseLogps(-tensor(1, 1, 1, 1, 1), tensor(1, 1, 1, 1, 1)), advantage, advantage, advantage)
    assert torch.allclose(drawn * objective.credit(batch), tensor(0.25, 0, 0.01, 0, 0.16))
    once = replace(objective, double_weight=False)
    assert torch.equal(drawn * once.credit(batch), drawn)
    uniform = replace(objective, sampling_strategy="uniform_positive").importance(advantage)
    assert uniform is not None and torch.equal(uniform, tensor(1, 0, 1, 0, 1))


@pytest.mark.parametrize("advantage", [0.0, -0.4])
@pytest.mark.parametrize("objective", FAMILY[:3], ids=lambda objective: objective.name)
def test_a_response_without_advantage_gives_neither_loss_nor_gradient(
    objective: ScoredObjective, advantage: float
) -> None:
    batch, leaf = one(THETA, REFERENCE, advantage=advantage)
    value = objective.loss(batch)
    assert value.item() == 0
    assert not torch.autograd.grad(value.sum(), leaf)[0].any()


def test_with_one_token_the_ratio_by_token_is_that_of_the_response() -> None:
    for theta, reference in ((-0.7, -1.0), (-3.0, -0.2), (-0.1, -5.0)):
        assert loss(AdvantageLoL(), (theta,), (reference,)) == pytest.approx(
            loss(AdvantageLoLSequence(), (theta,), (reference,)), rel=1e-14
        )


def test_the_penalty_lowers_likelihoods_whose_advantage_is_below_kl_beta() -> None:
    for advantage, sign in ((0.05, 1), (0.3, -1)):
        batch, leaf = one(THETA, REFERENCE, advantage=advantage)
        gradient = torch.autograd.grad(AdvantageLoLKL(kl_beta=0.1).loss(batch).sum(), leaf)[0]
        assert torch.allclose(gradient, torch.full_like(gradient, 0.1 - advantage))
        assert (gradient.sign() == sign).all()


@pytest.fixture(scope="module")
def policy() -> Policy:
    tokenizer = byte_level_tokenizer(["a question and an answer", "another question of more words"], 300)
    return fresh_policy(TinySpec(layers=2, width=32, heads=2, context=64), tokenizer)


@pytest.mark.parametrize("kind", ["attention", "mean", "mlp"])
def test_padding_a_prompt_changes_no_value(policy: Policy, kind: Any) -> None:
    head = ValueHead(32, ValueHeadOptions(kind, low=0.0, high=3.0), seed=1).eval()
    states, mask = prompt_states(policy, ["a question"]).padded()
    padded = torch.cat([7 + torch.randn(1, 7, 32), states], 1)
    padded_mask = torch.cat([torch.zeros(1, 7, dtype=torch.bool), mask], 1)
    assert head(padded, padded_mask).item() == pytest.approx(head(states, mask).item(), abs=1e-6)
    together = predict(head, prompt_states(policy, ["another question of more words", "a question"]))
    assert together[1].item() == pytest.approx(head(states, mask).item(), abs=1e-5)


def test_left_padding_a_prompt_changes_no_loss(policy: Policy) -> None:
    from paperworks.language import logprobs

    items = tokenise(Dataset((Scored("a question", " an answer", 0.5),)), policy, ("response",)).items
    longer = logprobs.Tree(list(items[0].prompt) + [5] * 7, [[6, 7]])
    alone = logprobs.token_logps(policy.model, [items[0].tree()], method="padded")
    with_pads = logprobs.token_logps(policy.model, [items[0].tree(), longer], method="padded", padding_side="left")
    count = len(alone.values)
    assert torch.allclose(alone.values, with_pads.values[:count], atol=1e-5)


@pytest.mark.parametrize("kind", ["attention", "mean", "mlp"])
def test_a_bounded_value_lies_strictly_inside_its_range(kind: Any) -> None:
    head = ValueHead(16, ValueHeadOptions(kind, low=0.0, high=3.0)).eval()
    for size in (1e-3, 1.0, 1e4):
        values = head(size * torch.randn(64, 5, 16), torch.ones(64, 5, dtype=torch.bool))
        assert (values > 0).all() and (values < 3).all()


def test_rewards_that_are_all_the_value_are_an_error(policy: Policy, tmp_path: Any) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"prompt": "a question", "response": " an answer", "reward": 0.5}\n' * 4)
    rows = Dataset(tuple(Scored("a question", f" an answer {i}", 0.5) for i in range(4)))
    prepare: Callable[..., Any] = AdvantageLoL(value_data=str(answers)).prepare
    with pytest.raises(DataError, match="no positive advantage"):
        prepare(rows, policy, seed=0)
    below = rows.with_rows([*rows.rows, Scored("a question", " a worse answer", 0.2)])
    with pytest.raises(DataError, match="no positive advantage: no response beats the reference, kept 0 of 5 rows"):
        prepare(below, policy, seed=0)
