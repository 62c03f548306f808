"""RTO's part B: cells with every metric, the grid point chosen elsewhere, rollouts to PPO's level told under the figure."""

from pathlib import Path

from paperworks.experiment.definition import Workspace
from paperworks.experiment.results import CellResult, Results
from paperworks.language.testbeds import token_rewarded_part as part
from paperworks.papers import rto


def test_trained_cells_and_their_figure(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.seed_folder(0).mkdir()
    part.prepare_worlds(0, "smoke", workspace)
    cells = []
    for name in ("rto", "ppo", "dpo"):
        (metrics,) = part.trained_cell(part.PART_B.arm(name), part.CLEAN, [0], "smoke", workspace)
        assert {metric.name for metric in part.PART_B.metrics} <= metrics.keys()
        assert len(metrics["gold_curve"]) == part.RECIPES["smoke"].updates
        cells.append(CellResult("B", part.CLEAN, name, 0, metrics, 1.0, ""))
    assert (cells[0].metrics["terms"] > 0, cells[1].metrics["terms"]) == (True, 0)
    ((_, caption),) = part.return_figures(Results(rto.EXPERIMENT, "smoke", tmp_path, tuple(cells), (), 1.0))
    assert "rollouts to nine tenths of PPO's rise: RTO" in caption


def test_tuning_worlds_are_not_those_of_results() -> None:
    assert max(part.PART_B.seeds.values()) < part.FIRST_TUNING_SEED
