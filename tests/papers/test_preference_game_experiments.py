"""The experiments on preference games: complete cells, the same alone, and tuning that is apart from results."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from paperworks.experiment.definition import Experiment, Part, Workspace
from paperworks.language.testbeds import nash_round_trial, preference_game_trial
from paperworks.papers import dno, ipo_md

EXPERIMENTS = [ipo_md.EXPERIMENT, dno.EXPERIMENT]
every_experiment = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.slug)


def cells(experiment: Experiment, arm: str, setting: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    part = experiment.part("A")
    return part.cell(part.arm(arm), setting, seeds, "smoke", Workspace(Path()))  # type: ignore[arg-type, return-value]


@every_experiment
def test_every_arm_has_every_metric(experiment: Experiment) -> None:
    part = experiment.part("A")
    for arm in part.arms:
        for cell in cells(experiment, arm.name, part.settings[1], [0, 1]):
            assert {metric.name for metric in part.metrics} <= cell.keys()
            missing = {metric.name for metric in part.metrics if not math.isfinite(cell[metric.name])}
            assert missing <= ({"bound_slack"} if arm.name != "dno" else set())


@every_experiment
def test_a_seed_has_the_same_figures_alone(experiment: Experiment) -> None:
    part = experiment.part("A")
    together = cells(experiment, part.arms[0].name, part.settings[0], [0, 1])[1]
    (alone,) = cells(experiment, part.arms[0].name, part.settings[0], [1])
    for metric in part.metrics:
        assert together[metric.name] == pytest.approx(alone[metric.name], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("part", "first"),
    [(ipo_md.PART_A, preference_game_trial.FIRST_TUNING_SEED), (dno.PART_A, nash_round_trial.FIRST_TUNING_SEED)],
    ids=["ipo-md", "dno"],
)
def test_tuning_games_are_not_those_of_results(part: Part, first: int) -> None:
    assert max(part.seeds.values()) < first


def test_no_method_is_tried_more_often_than_a_baseline() -> None:
    tries = {arm.name: len(arm.options.get("strengths", [1])) for arm in ipo_md.PART_A.arms}
    methods = [tries[arm.name] for arm in ipo_md.PART_A.arms if arm.role == "method"]
    assert max(methods) <= min(tries[arm.name] for arm in ipo_md.PART_A.arms if arm.role == "baseline")


def test_win_rates_of_a_tournament_are_complementary(tmp_path: Path) -> None:
    part, workspace = ipo_md.PART_B, Workspace(tmp_path)
    assert part.prepare is not None
    for seed in (0, 1):
        workspace.seed_folder(seed).mkdir()
        part.prepare(seed, "smoke", workspace)
    found = {
        arm.name: part.cell(arm, "", [0, 1], "smoke", workspace)[1]  # type: ignore[arg-type, index]
        for arm in part.arms
    }
    assert {metric.name for metric in part.metrics} <= found["rl"].keys()
    for name, against in itertools.product(found, found):
        wins = found[name][f"over_{against}"] + found[against][f"over_{name}"]
        assert wins == pytest.approx(1.0, abs=1e-6)
    assert found["rl"]["over_rl"] == found["rl"]["matched_over_rl"] == 0.5
