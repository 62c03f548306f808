"""Rounds of self-improvement by several recipes: their starts, the choice of grid points, what a trial measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from paperworks.experiment.definition import Arm, Budget, Workspace
from paperworks.experiment.results import Results
from paperworks.language.sources.dno_pairs import PairRule
from paperworks.language.testbeds import list_completion, self_improvement
from paperworks.language.testbeds.self_improvement import Course, Point, Recipe, Scale

SCALES: Mapping[Budget, Scale] = {
    "smoke": Scale(rounds=2, prompts=6, steps=2, batch=4, judged=8, imitation=5),
    "small": Scale(),
    "full": Scale(prompts=2000, steps=250, judged=1024),
}
GRID = [(beta, rate) for beta in (0.05, 0.1, 0.3) for rate in (1.5e-3, 3e-3, 6e-3)]
TUNING_SEEDS = {"smoke": 1, "small": 2, "full": 5}  # worlds that only choose grid points; no result comes from them
FIRST_TUNING_SEED = 1_000_000


def prepare(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Once a seed: its supervised policy; with the first seed those of the tuning worlds."""
    torch.set_num_threads(1)
    for each in (seed, *_tuning_seeds(budget)) if seed == 0 else (seed,):
        policy = list_completion.imitator(each, steps=SCALES[budget].imitation)
        list_completion.save_net(policy, _file(workspace, each))


def rounds_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Choose beta and learning rate in worlds of their own, then improve every seed's policy over the rounds."""
    torch.set_num_threads(1)
    point = GRID[0] if arm.options.get("untrained") else _tuned(arm, budget, workspace)
    course = _improved(arm, seeds, [point], budget, workspace)
    found = []
    for place in range(len(seeds)):
        covered, others, tokens = course.traits[-1, place].tolist()
        kinds = course.kinds[place]
        total = max(kinds.total(), 1)
        found.append(
            {
                "over_teacher": float(course.over_teacher[-1, place]),
                "over_start": float(course.over_start[-1, place]),
                "over_previous": float(course.over_previous[1:, place].mean()) if len(course.kl) > 1 else 0.5,
                "over_previous_last": float(course.over_previous[-1, place]),
                "kl": float(course.kl[-1, place]),
                "covered": covered,
                "others": others,
                "tokens": tokens,
                "pairs": float(kinds.total()),
                **{kind.replace(" > ", "_over_"): kinds[kind] / total for kind in KINDS},
                "beta": point[0],
                "rate": point[1],
                "teacher_curve": course.over_teacher[:, place].tolist(),
                "start_curve": course.over_start[:, place].tolist(),
                "tokens_curve": course.traits[:, place, 2].tolist(),
            }
        )
    return found


KINDS = ("teacher > student", "student > teacher", "student > student")  # who wrote a pair's answers


def _tuned(arm: Arm, budget: Budget, workspace: Workspace) -> Point:
    """The grid point whose last policies win most often against the teacher, in the tuning worlds."""
    seeds, grid = _tuning_seeds(budget), GRID[:1] if budget == "smoke" else GRID
    wins = _improved(arm, seeds, grid, budget, workspace).over_teacher[-1]
    return grid[int(wins.unflatten(0, (-1, len(seeds))).mean(1).argmax())]


def _improved(arm: Arm, seeds: Sequence[int], grid: Sequence[Point], budget: Budget, workspace: Workspace) -> Course:
    rule = PairRule(positive_threshold=2, margin=0) if budget == "smoke" else PairRule(**arm.options.get("rule", {}))
    scale = replace(SCALES[budget], rounds=0) if arm.options.get("untrained") else SCALES[budget]
    start = list_completion.load_nets([_file(workspace, seed) for seed in seeds])
    return self_improvement.improve(start, seeds, Recipe(arm.options.get("source", "judged"), rule), grid, scale)


def _tuning_seeds(budget: Budget) -> Sequence[int]:
    return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS[budget])


def _file(workspace: Workspace, seed: int) -> Path:
    return workspace.seed_folder(0 if seed >= FIRST_TUNING_SEED else seed) / f"start-{seed}.safetensors"


def figures(results: Results, part: str, arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Win rates against teacher and start, and the length of answers, by round."""
    from paperworks.core import plots

    drawn = []
    for name, label, caption in (
        ("teacher_curve", "preferred to the teacher's answers", "held-out win rate against the teacher"),
        ("start_curve", "preferred to the start's answers", "held-out win rate against the supervised policy"),
        ("tokens_curve", "tokens", "length of answers"),
    ):
        curves = {}
        for arm in arms:
            cells = [cell for cell in results.cells_of(part, arm.name) if len(cell.metrics[name]) > 1]
            if cells:
                mean = torch.tensor([cell.metrics[name] for cell in cells]).mean(0).tolist()
                curves[arm.label] = plots.Curve(list(range(len(mean))), mean)
        if curves:
            drawn.append((plots.lines(curves, "round", label), f"{caption}, by round, mean over seeds"))
    return drawn
