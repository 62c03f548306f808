"""Part A of the first papers: every cell gives its part's metrics, and a seed's figures do not depend on its company."""

import math
from pathlib import Path

import pytest

from paperworks.experiment.definition import Experiment, Workspace
from paperworks.papers import copg, dr_po, hypo, ln_dpo, npo, rdpo, rpo, rso, rto, xpo

EXPERIMENTS = [paper.EXPERIMENT for paper in (rdpo, rpo, ln_dpo, npo, rso, rto, dr_po, copg, hypo, xpo)]
WORKSPACE = Workspace(Path())


def cells(experiment: Experiment, arm: str, setting: str, seeds: list[int]):
    part = experiment.part("A")
    return part.cell(part.arm(arm), setting, seeds, "smoke", WORKSPACE)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.slug)
def test_a_cell_has_every_metric_of_its_part(experiment: Experiment) -> None:
    part = experiment.part("A")
    for arm in part.arms[:2]:
        for cell in cells(experiment, arm.name, part.settings[0], [0, 1]):
            assert {metric.name for metric in part.metrics} <= cell.keys()
            assert all(isinstance(cell[metric.name], float) for metric in part.metrics)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.slug)
def test_a_seed_has_the_same_figures_alone(experiment: Experiment) -> None:
    part = experiment.part("A")
    together = cells(experiment, part.arms[1].name, part.settings[0], [0, 1])[1]
    (alone,) = cells(experiment, part.arms[1].name, part.settings[0], [1])
    for metric in part.metrics:
        if metric.name != "gradient_norm" and not math.isnan(alone[metric.name]):
            assert together[metric.name] == pytest.approx(alone[metric.name], rel=1e-6)


def test_every_tuned_arm_of_rpo_has_the_same_number_of_grid_points() -> None:
    sizes = {
        math.prod(len(values) for values in arm.options["grid"].values())
        for arm in rpo.PART_A.arms
        if "grid points" in arm.note
    }
    assert sizes == {15}


def test_every_loss_of_ln_dpo_has_the_same_number_of_grid_points() -> None:
    assert {len(arm.options["grid"]) for arm in ln_dpo.PART_A.arms} == {20}


def test_tuning_worlds_are_not_those_of_results() -> None:
    assert max(rpo.PART_A.seeds.values()) < rpo.FIRST_TUNING_SEED


def test_rdpo_with_the_flip_rate_ten_points_low_is_dpo_at_ten_percent_flips() -> None:
    (low,) = cells(rdpo.EXPERIMENT, "rdpo-under", "flip=0.1", [0])
    (plain,) = cells(rdpo.EXPERIMENT, "dpo", "flip=0.1", [0])
    assert low == plain


def test_every_tuned_arm_of_hypo_has_the_same_number_of_grid_points() -> None:
    sizes = {len(hypo.GRIDS[arm.name]) for arm in hypo.PART_A.arms if "grid points" in arm.note}
    assert sizes == {12}


def test_every_arm_of_copg_tries_as_many_configurations() -> None:
    assert {len(grid) for grid in copg.GRIDS_B.values()} == {8}
    assert set(copg.GRIDS_B) == {arm.name for arm in copg.ARMS_B}
