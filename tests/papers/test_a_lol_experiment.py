"""The A-LoL experiment: every arm tried as often, and a cell that has every metric."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from paperworks.experiment.definition import Workspace
from paperworks.language.testbeds import scored_reviews
from paperworks.papers.a_lol import EXPERIMENT, GRIDS, PART, TRAINING, VALIDATION, cell, prepare


def test_every_arm_has_six_configurations_and_no_rate_beyond_the_others() -> None:
    assert set(GRIDS) == {arm.name for arm in PART.arms}
    assert {len(grid) for grid in GRIDS.values()} == {6}
    for arm, grid in GRIDS.items():
        for make, _ in grid:
            assert make("answers.jsonl").name.startswith(arm.split("-")[0]) or arm in ("nll", "nll-top-half")


def test_prompts_of_training_validation_and_test_are_apart() -> None:
    prompts = scored_reviews.prompts(0)
    parts = prompts[:TRAINING], prompts[TRAINING : TRAINING + VALIDATION], prompts[TRAINING + VALIDATION :]
    assert len(set().union(*parts)) == sum(map(len, parts)) == 350


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    torch.set_num_threads(1)
    workspace = Workspace(tmp_path_factory.mktemp("a-lol"))
    prepare(0, "smoke", workspace)
    return workspace


@pytest.mark.parametrize("arm", ["a-lol", "dpo", "nll-top-half"])
def test_a_cell_has_every_metric(arm: str, workspace: Workspace) -> None:
    found = cell(PART.arm(arm), "bad", 0, "smoke", workspace)
    assert {metric.name for metric in PART.metrics} <= found.keys()
    assert all(math.isfinite(found[metric.name]) for metric in PART.metrics)
    assert 0 <= found["reward"] <= 3 and 0 <= found["distinct_2"] <= 1
    assert {"a-lol": 0 < found["kept_share"] <= 1, "dpo": found["kept_share"] == 1}.get(arm, found["kept_share"] == 0.5)


def test_the_claims_on_bad_data_are_those_of_the_paper() -> None:
    better = {(claim.better, claim.than) for claim in EXPERIMENT.claims if claim.where == "bad"}
    assert {("a-lol", "wbc"), ("a-lol", "nll"), ("a-lol", "nll-top-half")} <= better


def test_the_seed_decides_what_is_prepared(workspace: Workspace, tmp_path: Path) -> None:
    prepare(0, "smoke", Workspace(tmp_path))
    for name in ("answers.jsonl", "reference_answers.jsonl", "start.json"):
        first, second = (space.seed_folder(0) / "bad" / name for space in (workspace, Workspace(tmp_path)))
        assert first.read_bytes() == second.read_bytes()
