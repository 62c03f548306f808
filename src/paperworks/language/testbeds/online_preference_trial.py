"""A tournament of policies that learned online from a judge who prefers in circles: training, tuning, and who beats whom.

An arm's policies are trained once and left in the seeds' folders, since the cell of every arm plays against all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from paperworks.core.files import file_lock
from paperworks.experiment.definition import Arm, Budget, Workspace
from paperworks.experiment.results import Results
from paperworks.language.testbeds import online_preference
from paperworks.language.testbeds.list_completion import win_rates
from paperworks.language.testbeds.online_preference import Course, Point, Rule, Scale, World

SCALES: Mapping[Budget, Scale] = {
    "smoke": Scale(steps=2, prompts=4, judged=8, points=2, imitation=5, reward_steps=2),
    "small": Scale(),
    "full": Scale(steps=400, prompts=64, judged=1024),
}
RATES = (1e-3, 2e-3)
TUNING_SEEDS = {"smoke": 1, "small": 2, "full": 5}  # worlds that only choose grid points; no result comes from them
FIRST_TUNING_SEED = 1_000_000


def prepare(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Once a seed: its supervised policy and its reward model; with the first seed those of the tuning worlds."""
    torch.set_num_threads(1)
    for each in (seed, *_tuning_seeds(budget)) if seed == 0 else (seed,):
        folder = _world_folder(workspace, each)
        folder.mkdir(parents=True, exist_ok=True)
        online_preference.make_world(each, SCALES[budget]).save(folder)


def play(
    arm: Arm, arms: Sequence[Arm], seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """What became of the arm's policies, and their win rates over those of `arms`, its own among them."""
    torch.set_num_threads(1)
    begin = arms.index(arm)  # cells that run side by side train different arms first
    courses = {each.name: _course(each, seeds, budget, workspace) for each in (*arms[begin:], *arms[:begin])}
    own = courses[arm.name]
    by_point = online_preference.against_start(own)
    found = []
    for place in range(len(seeds)):
        over = {
            other: float(win_rates(own.traits[-1, place], course.traits[-1, place]))
            for other, course in courses.items()
        }
        matched = {other: online_preference.matched_win_rate(own, course, place) for other, course in courses.items()}
        level = min(float(course.kl[:, place].max()) for course in courses.values())
        covered, others, tokens = own.traits[-1, place].mean((0, 1)).tolist()
        strength, rate = own.learned_with[place].tolist()
        found.append(
            {
                "win_start": float(by_point[-1, place]),
                "win_start_matched": float(online_preference.weights_at_kl(own, place, level) @ by_point[:, place]),
                "level": level,
                **{f"over_{other}": 0.5 if other == arm.name else value for other, value in over.items()},
                **{
                    f"matched_over_{other}": 0.5 if other == arm.name else value
                    for other, (value, _) in matched.items()
                },
                "kl": float(own.kl[-1, place]),
                "covered": covered,
                "others": others,
                "tokens": tokens,
                "strength": strength,
                "rate": rate,
                "kl_curve": own.kl[:, place].tolist(),
                "win_curve": by_point[:, place].tolist(),
            }
        )
    return found


def _course(arm: Arm, seeds: Sequence[int], budget: Budget, workspace: Workspace) -> Course:
    """The arm's trained policies; those that are not there yet are trained now."""
    files = {seed: workspace.seed_folder(seed) / f"{arm.name}.safetensors" for seed in seeds}
    with file_lock(workspace.folder / f"{arm.name}.lock"):
        if missing := [seed for seed in seeds if not files[seed].is_file()]:
            world = World.load([_world_folder(workspace, seed) for seed in missing])
            course = online_preference.train(
                world, missing, _rule(arm), [_tuned(arm, budget, workspace)], SCALES[budget]
            )
            for place, seed in enumerate(missing):
                course.save(place, files[seed])
    return Course.load(list(files.values()))


def _tuned(arm: Arm, budget: Budget, workspace: Workspace) -> Point:
    """The point of the arm's grid whose last policies win most often against the start, in the tuning worlds."""
    grid = [(strength, rate) for strength in arm.options["strengths"] for rate in RATES]
    seeds, scale = _tuning_seeds(budget), SCALES[budget].judged_last()
    world = World.load([_world_folder(workspace, seed) for seed in seeds])
    course = online_preference.train(world, seeds, _rule(arm), grid[:1] if budget == "smoke" else grid, scale)
    wins = online_preference.against_start(course)[-1].unflatten(0, (-1, len(seeds))).mean(1)
    return grid[int(wins.argmax())]


def _rule(arm: Arm) -> Rule:
    return Rule(arm.options["kind"], arm.options.get("mixture", 0.0))


def _tuning_seeds(budget: Budget) -> Sequence[int]:
    return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS[budget])


def _world_folder(workspace: Workspace, seed: int) -> Path:
    return workspace.seed_folder(0) / f"tuning-{seed}" if seed >= FIRST_TUNING_SEED else workspace.seed_folder(seed)


def figures(results: Results, part: str, arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Who beats whom, and the win rate against the start along every arm's course."""
    from paperworks.core import plots

    there = [arm for arm in arms if results.cells_of(part, arm.name)]
    if not there:
        return []
    matrices = []
    for prefix, what in (
        ("over_", "last policies"),
        ("matched_over_", "policies at the largest divergence that both reach"),
    ):
        rates = [[results.interval(part, a.name, f"{prefix}{b.name}").mean for b in there] for a in there]
        labels = [arm.label for arm in there]
        svg = plots.heatmap(
            labels, labels, rates, low=0.35, high=0.65, row_title="this", column_title="preferred to that"
        )
        matrices.append(
            (svg, f"share of held-out prompts where the row's answer is preferred: {what}, mean over seeds")
        )
    curves = {}
    for arm in there:
        cells = results.cells_of(part, arm.name)
        kl, wins = (
            torch.tensor([cell.metrics[name] for cell in cells]).mean(0).tolist() for name in ("kl_curve", "win_curve")
        )
        curves[arm.label] = plots.Curve(kl, wins)
    svg = plots.lines(curves, "KL to the start, nats an answer", "preferred to the start's answers")
    return [*matrices, (svg, "the way of every arm from the start on: mean over seeds at each point of training")]
