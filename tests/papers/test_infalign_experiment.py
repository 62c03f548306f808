"""InfAlign's experiment: the computed table is the optimum's, estimates agree with formulas, grids have one size."""

from pathlib import Path
from typing import Any

import pytest

from paperworks.experiment.definition import Workspace
from paperworks.papers import infalign

WORKSPACE = Workspace(Path())


def computed(arm: str, seeds: list[int], setting: str = "N=4, KL 1") -> list[dict[str, Any]]:
    return infalign.computed_cell(infalign.PART_A.arm(arm), setting, seeds, "small", WORKSPACE)


def test_no_transform_beats_the_optimum() -> None:
    found = {arm.name: computed(arm.name, [0])[0] for arm in infalign.ARMS_A}
    assert max(found, key=lambda name: found[name]["best"]) == "optimum-bon"
    assert max(found, key=lambda name: found[name]["worst"]) == "optimum-won"
    assert max(found, key=lambda name: found[name]["standard"]) == "identity"
    assert found["exp10"]["best"] == pytest.approx(0.9351, abs=2e-4)


def test_estimates_are_those_of_the_formulas_and_differ_by_seed() -> None:
    one, other = computed("exp-5", [0, 1])
    for name in ("standard", "best", "worst"):
        assert one[name] == other[name]
        assert one[f"estimated_{name}"] == pytest.approx(one[name], abs=0.02)
        assert one[f"estimated_{name}"] != other[f"estimated_{name}"]


def test_every_trained_arm_has_a_grid_of_five() -> None:
    assert {len(arm.options["grid"]) for arm in infalign.ARMS_B} == {5}


def test_trained_cells_have_every_metric(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.seed_folder(0).mkdir()
    infalign.prepare_world(0, "smoke", workspace)
    for name in ("exp10", "raw", "distilled"):
        (cell,) = infalign.trained_cell(infalign.PART_B.arm(name), "", [0], "smoke", workspace)
        assert {metric.name for metric in infalign.PART_B.metrics} <= cell.keys()
        assert len(cell["kl_curve"]) == 5
        assert cell["kl_curve"] != [cell["kl_curve"][0]] * 5
