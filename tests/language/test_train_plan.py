"""Which rows a step takes: companions beside the others, draws by weight, and neither where nothing asks for them."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperworks.core.seeding import torch_generator
from paperworks.language.train_options import Plan, TrainOptions


def taken(plan: Plan, steps: int | None = None) -> list[int]:
    return list(itertools.chain.from_iterable(plan.rows(step) for step in range(steps or plan.steps)))


# ------------------------------------------------------------------------------------------------------------- companions


@given(rows=st.integers(1, 12), companions=st.integers(1, 12), batch=st.integers(1, 8), seed=st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_a_companion_follows_each_row_and_every_one_comes_once_a_cycle(
    rows: int, companions: int, batch: int, seed: int
) -> None:
    plan = Plan(rows, TrainOptions(epochs=5, batch_size=batch, seed=seed), companions=companions)
    of_rows, beside = taken(plan)[::2], taken(plan)[1::2]
    assert len(beside) == len(of_rows) == 5 * rows
    for epoch in range(5):
        assert sorted(of_rows[epoch * rows : (epoch + 1) * rows]) == list(range(rows))
    for start in range(0, len(beside), companions):
        cycle = beside[start : start + companions]
        assert len(set(cycle)) == len(cycle)
        assert set(cycle) <= set(range(rows, rows + companions))


@pytest.mark.parametrize("seed", [0, 1])
def test_companions_change_neither_steps_nor_the_order_of_the_rows(seed: int) -> None:
    options = TrainOptions(epochs=3, batch_size=4, seed=seed)
    alone, beside = Plan(10, options), Plan(10, options, companions=7)
    assert (alone.steps, alone.per_epoch) == (beside.steps, beside.per_epoch) == (9, 3)
    assert [alone.rows(step) for step in range(9)] == [beside.rows(step)[::2] for step in range(9)]


def test_cycles_are_shuffled_anew_and_go_on_over_epochs() -> None:
    plan = Plan(3, TrainOptions(epochs=8, batch_size=3), companions=6)
    cycles = [taken(plan)[1::2][start : start + 6] for start in range(0, 24, 6)]
    assert all(sorted(cycle) == list(range(3, 9)) for cycle in cycles)
    assert len(set(map(tuple, cycles))) > 1


def test_any_step_can_be_asked_for_first() -> None:
    """A resumed run begins in the middle, and no order depends on what was asked before."""
    options, weights = TrainOptions(epochs=6, batch_size=4, seed=3), torch.arange(1.0, 11.0)
    for more in ({}, {"companions": 3}, {"sampling": weights}):
        whole = [Plan(10, options, **more).rows(step) for step in range(18)]
        backwards = Plan(10, options, **more)
        assert [backwards.rows(step) for step in reversed(range(18))] == whole[::-1]
        assert [Plan(10, options, **more).rows(step) for step in range(18)] == whole


def test_the_seed_decides_the_companions() -> None:
    plans = [Plan(8, TrainOptions(batch_size=4, seed=seed), companions=20) for seed in (0, 1)]
    assert taken(plans[0])[1::2] != taken(plans[1])[1::2]


# --------------------------------------------------------------------------------------------------------------- sampling


def test_rows_are_drawn_with_replacement_by_their_weights() -> None:
    weights = torch.tensor([1.0, 0.0, 3.0, 0.0, 4.0])
    plan = Plan(5, TrainOptions(epochs=800, batch_size=5), sampling=weights)
    counts = Counter(taken(plan))
    assert sum(counts.values()) == 4000 and counts[1] == counts[3] == 0
    for row, share in ((0, 1 / 8), (2, 3 / 8), (4, 4 / 8)):
        deviation = math.sqrt(4000 * share * (1 - share))
        assert abs(counts[row] - 4000 * share) < 5 * deviation


def test_an_epoch_is_as_many_draws_as_there_are_rows() -> None:
    plan = Plan(10, TrainOptions(epochs=2, batch_size=4, seed=1), sampling=torch.ones(10))
    assert (plan.per_epoch, plan.steps) == (3, 6)
    assert [len(plan.rows(step)) for step in range(6)] == [4, 4, 2, 4, 4, 2]
    first, second = taken(plan)[:10], taken(plan)[10:]
    assert first != second and len(set(first)) < 10


# ---------------------------------------------------------------------------------------------------------------- planned


@pytest.mark.parametrize("steps", [1, 2, 5, 40])
@pytest.mark.parametrize("companions", [0, 4, 50])
@pytest.mark.parametrize("by_weight", [True, False])
def test_the_planned_rows_are_those_that_training_comes_to(steps: int, companions: int, by_weight: bool) -> None:
    weights = torch.tensor([0.0, *[1.0] * 8, 0.0]) if by_weight else None
    plan = Plan(10, TrainOptions(steps=steps, batch_size=3), companions=companions, sampling=weights)
    assert plan.planned() == sorted(set(taken(plan)))


# ---------------------------------------------------------------------------------------------------------------- neither


def test_without_either_an_epoch_is_one_permutation_by_the_seed() -> None:
    """The rows of each step are what they were before companions and sampling came, so that old runs resume."""
    plan = Plan(10, TrainOptions(epochs=2, batch_size=4, seed=7))
    for epoch in range(2):
        order = torch.randperm(10, generator=torch_generator(7, "order", epoch)).tolist()
        assert [plan.rows(3 * epoch + step) for step in range(3)] == [order[:4], order[4:8], order[8:]]


@pytest.mark.parametrize(("steps", "rows"), [(1, 4), (2, 8), (3, 10), (30, 10)])
def test_without_either_all_rows_are_planned_once_an_epoch_is_full(steps: int, rows: int) -> None:
    plan = Plan(10, TrainOptions(steps=steps, batch_size=4))
    assert len(plan.planned()) == rows and plan.planned() == sorted(set(taken(plan)))
