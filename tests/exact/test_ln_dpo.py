"""Length-normalised DPO and the losses it is compared with, against closed forms (arXiv 2407.15229), in float64."""

from __future__ import annotations

import math

import pytest
import torch

from paperworks.language.objectives import (
    DPO,
    IPO,
    KTO,
    LNDPO,
    FeedbackLogps,
    Objective,
    PairLogps,
    ResponseLogps,
    SimPO,
)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def pair(chosen: float, rejected: float, chosen_tokens: float = 1, rejected_tokens: float = 1) -> PairLogps:
    """One pair from its summed log-ratios."""
    return PairLogps(
        ResponseLogps(tensor(chosen - 30), tensor(chosen_tokens), tensor(-30)),
        ResponseLogps(tensor(rejected - 40), tensor(rejected_tokens), tensor(-40)),
        tensor(1),
    )


def many(seed: int = 0, *, length: float | None = None, requires_grad: bool = False) -> PairLogps:
    """Eight random pairs, all of one length where it is given."""
    generator = torch.Generator().manual_seed(seed)

    def side() -> ResponseLogps:
        policy, reference = -40 * torch.rand(2, 8, generator=generator, dtype=torch.float64)
        drawn = torch.randint(1, 60, (8,), generator=generator).double()
        tokens = drawn if length is None else torch.full_like(policy, length)
        return ResponseLogps(policy.requires_grad_(requires_grad), tokens, reference)

    return PairLogps(side(), side(), torch.ones(8, dtype=torch.float64))


def one(objective: Objective, batch: PairLogps | FeedbackLogps) -> float:
    return objective.loss(batch).item()


def test_dpo_and_its_length_normalised_form_may_disagree_on_the_sign() -> None:
    batch = pair(-4, -6, 8, 24)
    assert batch.chosen.mean_log_ratio.item() == pytest.approx(-0.5)
    assert batch.rejected.mean_log_ratio.item() == pytest.approx(-0.25)
    assert LNDPO(beta=2.0).margin(batch).item() == pytest.approx(-0.5)
    assert one(LNDPO(beta=2.0), batch) == pytest.approx(0.974077, abs=5e-7)
    assert DPO(beta=0.1).margin(batch).item() == pytest.approx(0.2)
    assert one(DPO(beta=0.1), batch) == pytest.approx(0.598139, abs=5e-7)


def test_at_equal_lengths_it_is_dpo_with_beta_divided_by_the_length() -> None:
    values, gradients = [], []
    for objective in (LNDPO(beta=5.0), DPO(beta=5 / 20)):
        batch = many(length=20, requires_grad=True)
        loss = objective.loss(batch)
        values.append(loss.detach())
        gradients.append(torch.autograd.grad(loss.sum(), [batch.chosen.policy, batch.rejected.policy]))
    assert torch.allclose(*values, rtol=1e-12, atol=1e-14)
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_length_exponent_0_is_dpo() -> None:
    assert torch.equal(LNDPO(beta=0.1, length_exponent=0.0).loss(many()), DPO(beta=0.1).loss(many()))


def test_length_exponent_between_0_and_1_divides_by_that_power() -> None:
    batch = pair(-4, -6, 4, 9)
    assert LNDPO(beta=2.0, length_exponent=0.5).margin(batch).item() == pytest.approx(2 * (-4 / 2 + 6 / 3))


def test_doubling_every_token_leaves_it_unchanged_and_doubles_the_margin_of_dpo() -> None:
    single, double = pair(-4, -6, 8, 24), pair(-8, -12, 16, 48)
    assert one(LNDPO(beta=2.0), double) == pytest.approx(one(LNDPO(beta=2.0), single), abs=1e-12)
    assert DPO().margin(double).item() == pytest.approx(2 * DPO().margin(single).item(), abs=1e-12)


def test_gradient_gives_each_response_a_weight_independent_of_its_length() -> None:
    batch = many(3, requires_grad=True)
    chosen, rejected = torch.autograd.grad(
        LNDPO(beta=5.0).loss(batch).sum(), [batch.chosen.policy, batch.rejected.policy]
    )
    push = 5 * torch.sigmoid(-LNDPO(beta=5.0).margin(batch))
    assert torch.allclose(chosen * batch.chosen.tokens, -push, rtol=1e-12)
    assert torch.allclose(rejected * batch.rejected.tokens, push, rtol=1e-12)


def test_simpo_worked_value() -> None:
    batch = PairLogps(ResponseLogps(tensor(-12), tensor(10)), ResponseLogps(tensor(-30), tensor(20)), tensor(1))
    objective = SimPO(beta=2.0, gamma_ratio=0.25)
    assert objective.gamma == 0.5
    assert one(objective, batch) == pytest.approx(0.644397, abs=5e-7)
    assert one(objective, batch) == pytest.approx(math.log1p(math.exp(-0.1)), abs=1e-12)


def test_with_a_constant_reference_per_token_and_no_gamma_simpo_is_length_normalised_dpo() -> None:
    batch = many(1)
    flat = PairLogps(
        ResponseLogps(batch.chosen.policy, batch.chosen.tokens, -0.7 * batch.chosen.tokens),
        ResponseLogps(batch.rejected.policy, batch.rejected.tokens, -0.7 * batch.rejected.tokens),
        batch.weight,
    )
    assert torch.allclose(SimPO(beta=3.0, gamma_ratio=0.0).loss(flat), LNDPO(beta=3.0).loss(flat), rtol=1e-12)


@pytest.mark.parametrize(
    ("log_ratio", "desirable", "kl", "expected"),
    [
        (3.0, 1.0, 1.0, 0.450166),
        (-2.0, 0.0, 1.0, 0.425557),
        (3.0, 1.0, -5.0, 1 / (1 + math.exp(0.3))),  # a negative estimate counts as 0
        (-2.0, 0.0, -5.0, 1 / (1 + math.exp(0.2))),
    ],
)
def test_kto_worked_values(log_ratio: float, desirable: float, kl: float, expected: float) -> None:
    response = ResponseLogps(tensor(log_ratio - 9), tensor(4), tensor(-9))
    batch = FeedbackLogps(response, tensor(desirable), tensor(1), torch.tensor(kl, dtype=torch.float64))
    assert one(KTO(beta=0.1), batch) == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize("tau", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("average", [False, True])
def test_losses_where_the_policy_is_the_reference(tau: float, average: bool) -> None:
    start = pair(0, 0, 8, 24)
    assert one(LNDPO(), start) == pytest.approx(math.log(2), abs=1e-12)
    assert one(DPO(), start) == pytest.approx(math.log(2), abs=1e-12)
    assert one(IPO(tau, average), start) == pytest.approx(1 / (4 * tau**2), rel=1e-12)


def test_averaged_ipo_uses_each_response_s_own_length() -> None:
    batch = pair(-4, -6, 8, 24)
    assert one(IPO(0.5, average=True), batch) == pytest.approx((-0.5 + 0.25 - 1) ** 2, abs=1e-12)
    assert one(IPO(0.5), batch) == pytest.approx((-4 + 6 - 1) ** 2, abs=1e-12)


def test_loss_of_a_pair_does_not_depend_on_its_place_in_the_batch() -> None:
    batch, order = many(2), torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])

    def reordered(side: ResponseLogps) -> ResponseLogps:
        assert side.reference is not None
        return ResponseLogps(side.policy[order], side.tokens[order], side.reference[order])

    shuffled = PairLogps(reordered(batch.chosen), reordered(batch.rejected), batch.weight[order])
    assert torch.equal(LNDPO().loss(shuffled), LNDPO().loss(batch)[order])
