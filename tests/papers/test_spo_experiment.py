"""SPO's experiment: arms are tuned alike, take as many steps, and a cell has every metric."""

from __future__ import annotations

from pathlib import Path

import pytest

from paperworks.experiment.definition import BUDGETS, Workspace
from paperworks.papers import spo


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_tuned_arm_tries_as_many_settings(budget) -> None:
    tried = {arm.name: len(spo._settings(arm, spo.TUNED, budget)) for arm in spo.PART.arms_in(spo.TUNED)}
    assert len(set(tried.values())) == 1


def test_every_arm_has_a_recipe_and_ablations_differ_in_one_thing() -> None:
    assert {arm.name for arm in spo.ARMS} == set(spo.RECIPES)
    assert all(spo._settings(arm, spo.ABLATIONS, "small")[0][0] == 0.1 for arm in spo.PART.arms_in(spo.ABLATIONS))


def test_reward_within_a_kl_is_that_of_points_no_other_beats() -> None:
    def point(reward: float, kl: float) -> tuple[spo.Aligned, spo.Aligned]:
        return spo.Aligned(reward, kl, 20.0, 0.0), spo.Aligned(reward, kl, 20.0, 0.0)

    points = [point(0.0, 0.0), point(1.0, 2.0), point(0.5, 3.0), point(2.0, 4.0)]
    assert spo._within_kl(1.0, points) == pytest.approx(0.5)
    assert spo._within_kl(3.0, points) == pytest.approx(1.5)  # not the 0.5 of a setting that is worse at more KL
    assert spo._within_kl(9.0, points) == pytest.approx(2.0)


def test_a_cell_has_every_metric_and_arms_take_as_many_steps(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    spo.prepare(0, "smoke", workspace)
    cells = {
        name: spo.cell(spo.PART.arm(name), spo.TUNED, 0, "smoke", workspace)
        for name in ("dpo-spo", "dpo-versions-rejected")
    }
    for found in cells.values():
        assert {metric.name for metric in spo.PART.metrics} <= found.keys()
    assert cells["dpo-spo"]["steps"] == cells["dpo-versions-rejected"]["steps"]
