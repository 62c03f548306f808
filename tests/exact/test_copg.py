"""Contrastive policy gradient against closed forms (arXiv 2406.19185), in float64."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.language.objectives import IPO, CoPG, GroupLogps, PairLogps, ResponseLogps
from paperworks.language.testbeds import off_policy_bandit
from paperworks.language.testbeds.off_policy_bandit import LossName


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def groups(scores: Tensor, ratios: Tensor, row: list[int] | None = None) -> GroupLogps:
    """Responses with these scores and log-ratios, all of one row unless `row` says otherwise; pi_ref is 1."""
    of = torch.tensor(row if row is not None else [0] * len(scores))
    ratios = ratios.clone().requires_grad_()
    response = ResponseLogps(ratios, torch.ones_like(ratios), torch.zeros_like(ratios), row=of)
    return GroupLogps(response, scores, torch.ones(int(of.max()) + 1, dtype=torch.float64))


def gradient(objective: CoPG, batch: GroupLogps) -> Tensor:
    """Of the loss in the log-probabilities."""
    return torch.autograd.grad(objective.loss(batch).sum(), batch.response.policy)[0]


def test_worked_pair() -> None:
    batch = groups(tensor(1, 0), tensor(0.2, -0.1))
    objective = CoPG(beta=0.5)
    assert objective.worth(batch).item() == pytest.approx(0.2775, abs=1e-12)
    assert (-gradient(objective, batch)).tolist() == pytest.approx([0.85, -0.85], abs=1e-12)


def test_at_the_reference_a_pair_is_worth_nothing_and_pushes_by_its_score_gap() -> None:
    batch = groups(tensor(2.5, 1.2), tensor(0, 0))
    assert CoPG(beta=0.3).loss(batch).item() == 0
    assert (-gradient(CoPG(beta=0.3), batch)).tolist() == pytest.approx([1.3, -1.3], abs=1e-12)


@pytest.mark.parametrize("gap", [-3.0, -0.2, 0.0, 0.4, 5.0])
def test_scores_of_a_quarter_are_ipo(gap: float) -> None:
    beta = 0.2
    batch = groups(tensor(0.25, -0.25), tensor(gap, 0))
    assert CoPG(beta=beta).worth(batch).item() == pytest.approx(
        -1 / (2 * beta) * (0.5 - beta * gap) ** 2 + 1 / (8 * beta), abs=1e-12
    )
    sides = [ResponseLogps(tensor(ratio).requires_grad_(), tensor(1), tensor(0)) for ratio in (gap, 0.0)]
    pair = PairLogps(sides[0], sides[1], tensor(1))
    ipo = torch.autograd.grad(IPO(tau=beta).loss(pair).sum(), [sides[0].policy, sides[1].policy])
    ours = gradient(CoPG(beta=beta), batch)
    assert ours.tolist() == pytest.approx([beta / 2 * side.item() for side in ipo], abs=1e-12)


def test_a_pair_s_order_and_a_constant_of_the_prompt_do_not_matter_and_scale_does_as_it_should() -> None:
    scores, ratios, beta = tensor(0.7, -0.4), tensor(0.3, 1.1), 0.25
    batch = groups(scores, ratios)
    swapped, shifted = groups(scores.flip(0), ratios.flip(0)), groups(scores + 7, ratios)
    objective = CoPG(beta=beta)
    assert objective.loss(swapped).item() == pytest.approx(objective.loss(batch).item(), abs=1e-14)
    assert objective.loss(shifted).item() == pytest.approx(objective.loss(batch).item(), abs=1e-14)
    assert torch.allclose(gradient(objective, shifted), gradient(objective, batch), atol=1e-14)
    scaled = CoPG(beta=3 * beta).loss(groups(3 * scores, ratios))
    assert scaled.item() == pytest.approx(3 * objective.loss(batch).item(), abs=1e-13)


def test_three_responses_by_hand() -> None:
    scores, ratios, beta = tensor(1, 0, 0.4), tensor(0.1, -0.2, 0.3), 0.5
    batch = groups(scores, ratios)
    objective = CoPG(beta=beta)
    assert objective.coefficients(batch).tolist() == pytest.approx([0.775, -0.5, -0.275], abs=1e-12)
    assert objective.worth(batch).item() == pytest.approx(0.1425, abs=1e-12)
    regularised = scores - beta * batch.response.log_ratio
    squared = sum((regularised[i] - regularised[j]) ** 2 for i, j in itertools.combinations(range(3), 2)) / 2
    assert squared.item() == pytest.approx(0.6175, abs=1e-12)
    of_squared = torch.autograd.grad(squared, batch.response.policy)[0]
    assert torch.allclose(of_squared, 2 * beta * gradient(objective, batch), atol=1e-12)


def test_the_gradient_is_that_of_rloo_with_the_kl_in_the_reward() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, ratios = torch.randn(2, 9, generator=generator, dtype=torch.float64)
    row = [0, 0, 1, 1, 1, 1, 2, 2, 2]
    batch = groups(scores, ratios, row)
    regularised, of = scores - 0.3 * ratios, torch.tensor(row)
    expected = [
        value - (regularised[of == here].sum() - value) / ((of == here).sum() - 1)
        for value, here in zip(regularised, row, strict=True)
    ]
    assert torch.allclose(-gradient(CoPG(beta=0.3), batch), torch.stack(expected), atol=1e-12)


@pytest.mark.parametrize("pairs", ["all", "adjacent"])
def test_surrogate_and_objective_have_one_gradient(pairs: str) -> None:
    generator = torch.Generator().manual_seed(1)
    scores, ratios = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    batch = groups(scores, ratios, [0, 0, 0, 1, 1, 1, 1])
    forms = [gradient(CoPG(beta=0.4, pairs=pairs, form=form), batch) for form in ("objective", "surrogate")]  # type: ignore[arg-type]
    assert torch.allclose(*forms, atol=1e-12)
    assert not CoPG(form="surrogate").coefficients(batch).requires_grad


def test_neighbours_stand_for_all_pairs() -> None:
    batch = groups(tensor(3, 1, 0), tensor(0, 0.5, 2))
    neighbours = [(2 * -0.5 - 0.05 * 0.25), (1 * -1.5 - 0.05 * 2.25)]
    assert CoPG(beta=0.1, pairs="adjacent").worth(batch).item() == pytest.approx(1.5 * sum(neighbours) / 2, abs=1e-12)


def test_a_tie_pulls_the_two_log_ratios_together() -> None:
    up, down = gradient(CoPG(beta=0.5), groups(tensor(1, 1), tensor(-1, 1))).tolist()
    assert up < 0 < down


# ------------------------------------------------------------------------------------------------- the paper's bandit


def test_the_bandit_s_optimum() -> None:
    bandit = off_policy_bandit.BANDIT
    assert bandit.optimum.exp().tolist() == pytest.approx([0.705385, 0.259496, 0.035119], abs=5e-7)
    assert bandit.value(bandit.optimum).item() == pytest.approx(2.125200, abs=5e-7)
    assert bandit.value(bandit.optimum).item() == pytest.approx(
        0.5 * math.log(sum(math.exp(reward / 0.5) for reward in (2.5, 2, 1)) / 3), abs=1e-12
    )
    assert bandit.value(bandit.log_reference).item() == pytest.approx(1.833333, abs=5e-7)


def uphill(name: LossName, log_policy: Tensor) -> list[float]:
    """The expected direction of ascent in the logits, over all pairs of arms weighted by mu1 mu2."""
    logits = log_policy.clone().requires_grad_()
    loss = off_policy_bandit.expected_loss(off_policy_bandit.BANDIT, name, logits)
    return (-torch.autograd.grad(loss, logits)[0]).tolist()


def test_copg_s_expected_gradient_vanishes_at_the_optimum_only() -> None:
    bandit = off_policy_bandit.BANDIT
    assert uphill("copg", bandit.optimum) == pytest.approx([0, 0, 0], abs=1e-12)
    assert uphill("copg", bandit.log_reference) == pytest.approx([0.195, 0.2075, -0.4025], abs=1e-9)


def test_policy_gradients_off_policy_do_not_stay_at_the_optimum() -> None:
    optimum = off_policy_bandit.BANDIT.optimum
    assert uphill("pg", optimum) == pytest.approx([-2.679386, -0.571664, 3.251050], abs=2e-6)
    assert uphill("pg-value", optimum) == pytest.approx([0.242538, 0.051747, -0.294285], abs=2e-6)


@pytest.mark.parametrize(("name", "regret"), [("copg", 0.0), ("pg-value", 0.0148), ("ipo", 0.1525), ("pg", 0.6378)])
def test_where_the_expected_gradients_lead(name: LossName, regret: float) -> None:
    assert off_policy_bandit.limit_regret(off_policy_bandit.BANDIT, name) == pytest.approx(regret, abs=1e-4)


# --------------------------------------------------------------------------------------------------------- bad options


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"beta": 0.0}, "beta=0.0 is out of range"),
        ({"pairs": "some"}, "pairs=some: expected all, adjacent or random:N"),
        ({"pairs": "random:0"}, "pairs=random:0: expected"),
        ({"form": "both"}, "form=both: expected objective or surrogate"),
        ({"reward_norm": "rows"}, "reward_norm=rows: expected none or global-std"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        CoPG(**options)  # type: ignore[arg-type]


def test_scores_without_rows_are_refused() -> None:
    batch = groups(tensor(1, 0), tensor(0, 0))
    lost = dataclasses.replace(batch, response=dataclasses.replace(batch.response, row=None))
    with pytest.raises(OptionError, match="does not say which row"):
        CoPG().loss(lost)
