"""Exploratory preference optimisation against closed forms (arXiv 2405.21046), in float64."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from paperworks.core.errors import OptionError
from paperworks.language.objectives import DPO, XPO, ExploredPairs, ResponseLogps, make
from paperworks.language.objectives.objective import StepInputs


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def pair(chosen: float, rejected: float, explored: float, logp: float = -5.0) -> ExploredPairs:
    """One pair with these log-ratios; the explored response has log pi `logp`, the other -9."""

    def side(ratio: float, is_explored: bool) -> ResponseLogps:
        policy = tensor(logp if is_explored else -9.0).requires_grad_()
        return ResponseLogps(policy, tensor(3), (policy - ratio).detach())

    return ExploredPairs(
        side(chosen, explored == 1), side(rejected, explored == 0), tensor(1), explored=tensor(explored)
    )


def gradients(objective: DPO, batch: ExploredPairs) -> list[float]:
    """d loss / d log pi of chosen and rejected."""
    found = torch.autograd.grad(objective.loss(batch).sum(), [batch.chosen.policy, batch.rejected.policy])
    return [each.item() for each in found]


@pytest.mark.parametrize("explored", [0.0, 1.0])
def test_worked_values(explored: float) -> None:
    batch = pair(2, -1, explored)
    assert DPO(beta=0.1).loss(batch).item() == pytest.approx(0.554355, abs=5e-7)
    assert XPO(beta=0.1, alpha=0.01).loss(batch).item() == pytest.approx(0.504355, abs=5e-7)


def test_without_alpha_it_is_dpo_bit_for_bit() -> None:
    batch = pair(2, -1, 0)
    assert torch.equal(XPO(beta=0.1, alpha=0.0).loss(batch), DPO(beta=0.1).loss(batch))
    assert gradients(XPO(beta=0.1, alpha=0.0), batch) == gradients(DPO(beta=0.1), batch)


def test_the_bonus_pushes_the_explored_response_down_when_it_lost() -> None:
    beta, alpha = 0.1, 0.01
    doubt = torch.sigmoid(tensor(-beta * 3)).item()
    chosen, rejected = gradients(XPO(beta=beta, alpha=alpha), pair(2, -1, 0))
    assert chosen == pytest.approx(-beta * doubt, abs=1e-12)
    assert rejected == pytest.approx(beta * doubt + alpha, abs=1e-12)


def test_the_bonus_opposes_the_preference_when_the_explored_response_won() -> None:
    beta, alpha = 0.1, 0.01
    doubt = torch.sigmoid(tensor(-beta * 3)).item()
    chosen, rejected = gradients(XPO(beta=beta, alpha=alpha), pair(2, -1, 1))
    assert chosen == pytest.approx(-beta * doubt + alpha, abs=1e-12)
    assert rejected == pytest.approx(beta * doubt, abs=1e-12)
    assert gradients(XPO(beta=beta, alpha=beta * doubt), pair(2, -1, 1))[0] == pytest.approx(0, abs=1e-15)


def test_a_step_on_the_bonus_alone_raises_all_other_actions_by_their_probability() -> None:
    logits, explored, alpha = tensor(0.3, -1.0, 0.8, 0.0).requires_grad_(), 2, 0.4
    logp = torch.log_softmax(logits, dim=-1)
    side = ResponseLogps(logp[explored : explored + 1], tensor(1), tensor(-1.0))
    batch = ExploredPairs(side, side, tensor(1), explored=tensor(0))
    bonus = XPO(beta=0.1, alpha=alpha).terms(batch)["optimism"]
    gradient = torch.autograd.grad(bonus.sum(), logits)[0]
    assert torch.allclose(gradient, alpha * (torch.eye(4, dtype=torch.float64)[explored] - logp.exp().detach()))


@pytest.mark.parametrize("explored", [0.0, 1.0])
def test_the_clip_stops_the_bonus_and_not_the_preference(explored: float) -> None:
    far = pair(-600 if explored else 0, 0 if explored else -600, explored)
    objective = XPO(beta=0.001, alpha=0.01, clip=500)
    assert gradients(objective, far) == gradients(DPO(beta=0.001), far)
    assert min(map(abs, gradients(objective, far))) > 0
    inside = pair(-400 if explored else 0, 0 if explored else -400, explored)
    assert gradients(objective, inside) != gradients(DPO(beta=0.001), inside)


def test_the_objective_of_all_rounds_is_the_sum_of_the_rounds_own() -> None:
    generator = torch.Generator().manual_seed(0)

    def round_of(pairs: int) -> ExploredPairs:
        def side() -> ResponseLogps:
            policy, reference = -20 * torch.rand(2, pairs, generator=generator, dtype=torch.float64)
            return ResponseLogps(policy, torch.ones(pairs), reference)

        explored = torch.randint(2, (pairs,), generator=generator).double()
        return ExploredPairs(side(), side(), torch.ones(pairs), explored=explored)

    rounds = [round_of(pairs) for pairs in (3, 5, 2)]

    def joined(name: str) -> ResponseLogps:
        parts = [getattr(each, name) for each in rounds]
        return ResponseLogps(*(torch.cat([getattr(p, f) for p in parts]) for f in ("policy", "tokens", "reference")))

    log = ExploredPairs(
        joined("chosen"), joined("rejected"), torch.ones(10), explored=torch.cat([each.explored for each in rounds])
    )
    objective = XPO(beta=0.2, alpha=0.05)
    whole = objective.loss(log).sum().item()
    assert whole == pytest.approx(sum(objective.loss(each).sum().item() for each in rounds), abs=1e-12)


def test_the_schedule_has_a_value_a_round_and_the_last_one_stays() -> None:
    objective = make("xpo", {"alpha": "1e-5,5e-6,0"})
    assert isinstance(objective, XPO)
    assert objective.alpha == XPO().alpha == (1e-5, 5e-6, 0.0)
    assert [objective.at_round(number).optimism for number in range(5)] == [1e-5, 5e-6, 0.0, 0.0, 0.0]
    assert dataclasses.replace(objective, alpha=0.3).optimism == 0.3
    assert make("xpo", {"alpha": "0.01"}) == XPO(alpha=0.01)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"alpha": -0.1}, "alpha=-0.1: expected 0 or more; a negative weight would imitate the reference"),
        ({"alpha": (0.1, -1e-9)}, "expected 0 or more"),
        ({"alpha": ()}, "expected at least one value"),
        ({"alpha": float("nan")}, "alpha=nan is out of range"),
        ({"clip": 0.0}, "clip=0.0 is out of range"),
        ({"beta": -1.0}, "beta=-1.0 is out of range"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], line: str) -> None:
    with pytest.raises(OptionError, match=line):
        XPO(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [{}, {"explored": tensor(float("nan"))}])
def test_who_wrote_a_response_must_be_known_where_alpha_asks(numbers: dict[str, Tensor]) -> None:
    sides = {"chosen": pair(2, -1, 0).chosen, "rejected": pair(2, -1, 0).rejected}
    batch = XPO().batch(sides, StepInputs(tensor(1), numbers))
    with pytest.raises(OptionError, match="which response the fixed sampler wrote"):
        XPO(alpha=0.1).loss(batch)
    assert XPO(alpha=0.0).loss(batch).isfinite().all()


def test_a_runaway_bonus_is_said() -> None:
    lines = XPO(alpha=0.1).warnings({"logp_explored": -10.0}, {"logp_explored": -200.0})
    assert len(lines) == 1 and lines[0].startswith("runaway optimism: ") and "190 nats" in lines[0]
    assert XPO(alpha=0.1).warnings({"logp_explored": -10.0}, {"logp_explored": -20.0}) == []
    assert XPO(alpha=0.1).warnings({}, {}) == []
