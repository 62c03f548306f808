"""Regularised preference optimisation against closed forms (arXiv 2405.16436), in float64."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import pytest
import torch

from paperworks.language.objectives import DPO, RPO, PairLogps, ResponseLogps

Reduction = Literal["sum", "seq_mean", "token_mean"]


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def worked_pair(requires_grad: bool = False) -> PairLogps:
    """log-ratios +2 and -1, log pi(chosen) = -50."""
    chosen = ResponseLogps(tensor(-50).requires_grad_(requires_grad), tensor(25), tensor(-52))
    rejected = ResponseLogps(tensor(-41).requires_grad_(requires_grad), tensor(10), tensor(-40))
    return PairLogps(chosen, rejected, tensor(1))


def many(requires_grad: bool = False) -> PairLogps:
    generator = torch.Generator().manual_seed(0)

    def side() -> ResponseLogps:
        policy, reference = -40 * torch.rand(2, 16, generator=generator, dtype=torch.float64)
        tokens = torch.randint(1, 60, (16,), generator=generator).double()
        return ResponseLogps(policy.requires_grad_(requires_grad), tokens, reference)

    return PairLogps(side(), side(), torch.rand(16, generator=generator, dtype=torch.float64))


def step_loss(objective: RPO, batch: PairLogps) -> float:
    """The weighted means of all terms, added, as the training loop forms them."""
    weights = objective.weights(batch)
    return sum(
        ((weights[name] * value).sum() / weights[name].sum()).item() for name, value in objective.terms(batch).items()
    )


def test_worked_values() -> None:
    terms = RPO(beta=0.1, eta=0.005).terms(worked_pair())
    assert terms["dpo"].item() == pytest.approx(0.554355, abs=5e-7)
    assert terms["sft"].item() == pytest.approx(0.025, abs=1e-12)
    assert RPO(beta=0.1, eta=0.005).loss(worked_pair()).item() == pytest.approx(0.579355, abs=5e-7)


def test_worked_gradients() -> None:
    batch = worked_pair(requires_grad=True)
    loss = RPO(beta=0.1, eta=0.005).loss(batch).sum()
    chosen, rejected = (g.item() for g in torch.autograd.grad(loss, [batch.chosen.policy, batch.rejected.policy]))
    assert chosen == pytest.approx(-0.0430557, abs=5e-8)
    assert rejected == pytest.approx(0.0425557, abs=5e-8)
    assert chosen + rejected == pytest.approx(-0.0005, abs=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "seq_mean", "token_mean"])
@pytest.mark.parametrize("base", ["chosen", "ref", "file"])
def test_eta_0_is_dpo_bit_for_bit(reduction: Reduction, base: Literal["chosen", "ref", "file"]) -> None:
    values, gradients = [], []
    for objective in (DPO(beta=0.1), RPO(beta=0.1, eta=0.0, sft_reduction=reduction, base=base)):
        batch = many(requires_grad=True)
        loss = objective.loss(batch)
        values.append(loss.detach())
        gradients.append(torch.autograd.grad(loss.sum(), [batch.chosen.policy, batch.rejected.policy]))
    assert objective.roles == ("chosen", "rejected")
    assert torch.equal(*values)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*gradients, strict=True))


@pytest.mark.parametrize(("eta", "logit", "probability"), [(0.25, 1.3862944, 0.8), (0.6, 0.5108256, 0.625)])
def test_two_actions_with_the_rejected_one_as_baseline(eta: float, logit: float, probability: float) -> None:
    # stationarity is sigmoid(-beta D) = eta sigmoid(D), D the logit of pi(chosen); beta = 1 gives D = -log eta
    gap = tensor(logit).requires_grad_()
    log_half, one_token = tensor(math.log(0.5)), tensor(1)
    chosen = ResponseLogps(torch.nn.functional.logsigmoid(gap), one_token, log_half)
    rejected = ResponseLogps(torch.nn.functional.logsigmoid(-gap), one_token, log_half)
    batch = PairLogps(chosen, rejected, one_token, base=rejected)
    loss = RPO(beta=1.0, eta=eta, base="file").loss(batch).sum()
    assert chosen.policy.exp().item() == pytest.approx(probability, abs=1e-7)
    assert torch.autograd.grad(loss, gap)[0].item() == pytest.approx(0.0, abs=1e-7)


def test_doubling_the_chosen_response_doubles_the_summed_term_only() -> None:
    single = many()
    double = dataclasses.replace(
        single, chosen=ResponseLogps(2 * single.chosen.policy, 2 * single.chosen.tokens, single.chosen.reference)
    )
    summed, mean = RPO(sft_reduction="sum"), RPO(sft_reduction="seq_mean")
    assert torch.allclose(summed.terms(double)["sft"], 2 * summed.terms(single)["sft"], rtol=1e-12)
    assert torch.equal(mean.terms(double)["sft"], mean.terms(single)["sft"])


def test_reference_does_not_enter_the_imitation_term() -> None:
    batch = many()

    def shifted(side: ResponseLogps) -> ResponseLogps:
        assert side.reference is not None
        return dataclasses.replace(side, reference=side.reference + 7)

    moved = dataclasses.replace(batch, chosen=shifted(batch.chosen), rejected=shifted(batch.rejected))
    assert torch.equal(RPO().terms(moved)["sft"], RPO().terms(batch)["sft"])
    assert torch.allclose(RPO().loss(moved), RPO().loss(batch), rtol=1e-12)


def test_three_reductions_on_two_pairs_by_hand() -> None:
    # log pi(chosen) -50 over 25 tokens and -6 over 2: sums 50, 6; token means 2, 3; all tokens together 56/27
    side = ResponseLogps(tensor(-50, -6), tensor(25, 2), tensor(-50, -6))
    batch = PairLogps(side, side, tensor(1, 1))
    beta, eta = 0.1, 0.2
    expected = {"sum": eta * beta * 28, "seq_mean": eta * 2.5, "token_mean": eta * 56 / 27}
    for reduction, value in expected.items():
        objective = RPO(beta=beta, eta=eta, sft_reduction=reduction)  # type: ignore[arg-type]
        assert step_loss(objective, batch) == pytest.approx(math.log(2) + value, abs=1e-12)


def test_several_baseline_responses_a_pair_by_hand() -> None:
    # rows in order: the first pair's two samples, then the second's
    side = ResponseLogps(tensor(-50, -6), tensor(25, 2), tensor(-50, -6))
    base = ResponseLogps(tensor(-2, -4, -9, -3), tensor(1, 4, 3, 1))
    batch = PairLogps(side, side, tensor(1, 3), base=base)
    expected = {
        "sum": 0.02 * (1 * 3 + 3 * 6) / 4,
        "seq_mean": 0.2 * (1 * (2 + 1) / 2 + 3 * (3 + 3) / 2) / 4,
        "token_mean": 0.2 * (1 * 6 + 3 * 12) / (1 * 5 + 3 * 4),
    }
    for reduction, value in expected.items():
        objective = RPO(beta=0.1, eta=0.2, sft_reduction=reduction, base="ref", n_base=2)  # type: ignore[arg-type]
        assert step_loss(objective, batch) == pytest.approx(math.log(2) + value, abs=1e-12)
