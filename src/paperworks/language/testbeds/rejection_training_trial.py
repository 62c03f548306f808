"""Sources of pairs and losses against one another: their worlds, the choice of settings, what a trial measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from paperworks.experiment.definition import Arm, Budget, Workspace
from paperworks.experiment.results import Results
from paperworks.language.objectives.rso import RSO
from paperworks.language.testbeds import rejection_training
from paperworks.language.testbeds.decoders import Decoders
from paperworks.language.testbeds.rejection_training import ANY, Scale, World

SCALES: Mapping[Budget, Scale] = {
    "smoke": Scale(5, 3, 40, 3, prompts=6, candidates=16, steps=2, batch=4, judged=8),
    "small": Scale(),
    "full": Scale(human_pairs=10_000, prompts=2000, steps=500, judged=2048),
}
GAMMAS, BETAS, RATES = (0.2, 0.8, 3.2), (0.25, 0.5, 1.0), (1e-3, 2e-3, 4e-3)
RATE = 2e-3  # of rejection sampling, which has beta to choose in its place
IMITATION_RATES = (5e-5, 1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3, 6.4e-3, 1.28e-2)
TUNING_SEEDS = {"smoke": 1, "small": 2, "full": 5}  # worlds that only choose settings; no result comes from them
FIRST_TUNING_SEED = 1_000_000


@dataclass(frozen=True)
class Setting:
    """What is chosen for an arm, nine of each; nan where it has none."""

    gamma: float
    beta: float
    rate: float


def prepare(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Once a seed: its world; with the first seed the tuning worlds."""
    torch.set_num_threads(1)
    for each in (seed, *_tuning_seeds(budget)) if seed == 0 else (seed,):
        rejection_training.make_world(each, SCALES[budget]).save(_file(workspace, each))


def training_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Choose the arm's setting by proxy win rate in worlds of their own, train with it, read every seed."""
    torch.set_num_threads(1)
    scale, tuning = SCALES[budget], _tuning_seeds(budget)
    grid = settings_of(arm)[: 1 if budget == "smoke" else None]
    if len(grid) > 1:
        world = _worlds(tuning, budget, workspace)
        wins = rejection_training.judged(world, _trained(arm, world, grid, scale), scale)["proxy_win"]
        grid = [grid[int(wins.unflatten(0, (-1, len(tuning))).mean(1).argmax())]]
    world = _worlds(seeds, budget, workspace)
    found = rejection_training.judged(world, _trained(arm, world, grid, scale), scale)
    return [
        {name: float(values[place]) for name, values in found.items()}
        | {"accuracy": float(world.accuracy[place])}
        | vars(grid[0])
        for place in range(len(seeds))
    ]


def settings_of(arm: Arm) -> list[Setting]:
    """The nine settings that an arm has to choose from."""
    source = arm.options["source"]
    if source == "rejection":
        return [Setting(gamma, beta, RATE) for gamma, beta in product(GAMMAS, BETAS)]
    if source in ("direct", "candidates"):
        return [Setting(gamma, torch.nan, rate) for gamma, rate in product(GAMMAS, RATES)]
    return [Setting(torch.nan, torch.nan, rate) for rate in IMITATION_RATES]


def _trained(arm: Arm, world: World, grid: Sequence[Setting], scale: Scale) -> Decoders:
    source, rates = arm.options["source"], [setting.rate for setting in grid]
    if source in ("best", "above"):
        answers = rejection_training.chosen_answers(world, arm.options.get("threshold"))
        return rejection_training.imitate_chosen(world, answers, rates, scale)
    betas = [setting.beta if source == "rejection" else ANY for setting in grid]
    made = {
        beta: rejection_training.paired(world, "direct" if source == "direct" else "candidates", beta, scale)
        for beta in set(betas)
    }
    objectives = [RSO(gamma=setting.gamma, loss_type=arm.options["loss"]) for setting in grid]
    return rejection_training.train_on_pairs(world, [made[beta] for beta in betas], objectives, rates, scale)


def _tuning_seeds(budget: Budget) -> Sequence[int]:
    return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS[budget])


def _file(workspace: Workspace, seed: int) -> Path:
    return workspace.seed_folder(0 if seed >= FIRST_TUNING_SEED else seed) / f"world-{seed}.safetensors"


def _worlds(seeds: Sequence[int], budget: Budget, workspace: Workspace) -> World:
    return rejection_training.load_worlds([_file(workspace, seed) for seed in seeds], seeds)


def figures(results: Results, part: str, arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Gold against proxy win rates of every arm, seed by seed."""
    from paperworks.core import plots

    points = {}
    for arm in arms:
        found = [results.values(part, arm.name, name) for name in ("proxy_win", "gold_win")]
        if found[0]:
            points[arm.label] = [tuple(sum(each.values()) / len(each) for each in found)]
    if not points:
        return []
    svg = plots.frontier(
        {name: [(x, y) for x, y in at] for name, at in points.items()}, "proxy win rate", "gold win rate"
    )
    return [
        (svg, "win rates against a sample of the supervised policy by the ranking model and by the gold reward, means")
    ]
