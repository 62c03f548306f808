"""Objectives that read the judge's probability: hard labels, plain pairs, options and what is said of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from paperworks.core.errors import OptionError
from paperworks.language.objectives import DPO, IPO, HingeNorm, PairLogps, PairObjective, ResponseLogps
from paperworks.language.objectives.objective import StepInputs
from paperworks.language.objectives.soft_preferences import (
    DNO,
    IPOMD,
    JudgedPairLogps,
    OnlineDPO,
    OnlineIPO,
    OnlineSLiC,
)

OFFLINE: list[tuple[PairObjective, PairObjective]] = [
    (OnlineIPO(tau=0.2, scale="square"), IPO(tau=0.2)),
    (IPOMD(tau=0.2, scale="square"), IPO(tau=0.2)),
    (OnlineIPO(tau=0.2, scale="square", average=True), IPO(tau=0.2, average=True)),
    (OnlineDPO(beta=0.3), DPO(beta=0.3)),
    (OnlineSLiC(beta=0.3), HingeNorm(beta=0.3)),
    (DNO(eta=0.3, target="hard"), DPO(beta=0.3)),
    (DNO(eta=0.3, target="probability"), DPO(beta=0.3)),
]
Batches = Callable[..., Any]


def with_labels(batch: JudgedPairLogps, value: float) -> JudgedPairLogps:
    return dataclasses.replace(batch, probability=torch.full_like(batch.weight, value))


@pytest.mark.parametrize(("objective", "offline"), OFFLINE, ids=repr)
@pytest.mark.parametrize("label", [1.0, math.nan])
def test_hard_labels_give_the_offline_objective(
    objective: PairObjective, offline: PairObjective, label: float, random_batch: Batches
) -> None:
    batch = random_batch(objective)
    plain = PairLogps(batch.chosen, batch.rejected, batch.weight)
    assert torch.allclose(objective.loss(with_labels(batch, label)), offline.loss(plain), rtol=1e-12)
    assert torch.allclose(objective.loss(plain), offline.loss(plain), rtol=1e-12)


@pytest.mark.parametrize("objective", [OnlineIPO(), OnlineDPO(), OnlineSLiC(), DNO(target="probability")], ids=repr)
def test_which_response_is_called_chosen_does_not_matter(objective: PairObjective, random_batch: Batches) -> None:
    batch = with_labels(random_batch(objective), 0.7)
    swapped = dataclasses.replace(
        with_labels(batch, 0.3), chosen=dataclasses.replace(batch.rejected), rejected=dataclasses.replace(batch.chosen)
    )
    assert torch.allclose(objective.loss(batch), objective.loss(swapped), rtol=1e-12)


def test_win_rates_may_be_swapped_too(random_batch: Batches) -> None:
    objective = DNO(eta=0.5)
    batch = random_batch(objective)
    swapped = JudgedPairLogps(
        batch.rejected, batch.chosen, batch.weight, None, None, batch.rejected_reward, batch.chosen_reward
    )
    assert torch.allclose(objective.loss(batch), objective.loss(swapped), rtol=1e-12)


def test_the_target_is_a_win_rate_s_and_carries_no_gradient(random_batch: Batches) -> None:
    batch = random_batch(DNO())
    target = DNO().metrics(batch)["target"]
    assert torch.allclose(target, torch.sigmoid(batch.chosen_reward - batch.rejected_reward))
    assert (target > 0.26).all() and (target < 0.74).all()
    assert not target.requires_grad


def test_win_rates_that_are_missing_are_asked_for(random_batch: Batches) -> None:
    batch = random_batch(DNO())
    one_is_missing = dataclasses.replace(
        batch, chosen_reward=batch.chosen_reward.clone().index_fill(0, torch.tensor(2), math.nan)
    )
    for without in (dataclasses.replace(batch, chosen_reward=None), one_is_missing):
        with pytest.raises(OptionError, match=r"target=soft takes a chosen_reward.*target=hard"):
            DNO().loss(without)
        assert DNO(target="hard").loss(without).isfinite().all()


def test_the_mean_probability_is_logged(random_batch: Batches) -> None:
    batch = random_batch(OnlineIPO())
    assert torch.equal(OnlineIPO().metrics(batch)["probability"], batch.soft_label)
    assert (batch.soft_label[batch.probability.isnan()] == 1).all()


def test_numbers_come_from_the_rows() -> None:
    one = torch.ones(2)
    side = ResponseLogps(one, one, one)
    numbers = {"probability": torch.tensor([0.3, math.nan], dtype=torch.float64)}
    batch = OnlineIPO().batch({"chosen": side, "rejected": side}, StepInputs(one, numbers))
    assert batch.soft_label.tolist() == pytest.approx([0.3, 1.0])
    assert batch.soft_label.dtype == torch.float32
    assert batch.chosen_reward is None


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: OnlineIPO(tau=0.0), "tau"),
        (lambda: OnlineIPO(scale="half"), "scale"),  # type: ignore[arg-type]
        (lambda: DNO(eta=-1.0), "eta"),
        (lambda: DNO(target="win"), "target"),  # type: ignore[arg-type]
        (lambda: OnlineSLiC(beta=0.0), "beta"),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], object], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        make()


def test_averages_are_remarked_on() -> None:
    assert OnlineIPO().option_notes() == []
    assert "per token" in IPOMD(average=True).option_notes()[0]
