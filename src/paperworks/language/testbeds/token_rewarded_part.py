"""RTO's part B: PPO with a DPO model's token rewards beside PPO without, in a task whose true token scores are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Metric, Part, Workspace
from paperworks.experiment.results import Results
from paperworks.language.sources.token_rewards import TokenRewardOptions
from paperworks.language.testbeds import token_rewarded_ppo
from paperworks.language.testbeds.token_rewarded_ppo import STRETCH, Point, Recipe, World, WorldSize

SIZES: Mapping[Budget, WorldSize] = {
    "smoke": WorldSize(64, imitation_steps=5, reward_steps=3, dpo_steps=3),
    "small": WorldSize(),
    "full": WorldSize(),
}
RECIPES: Mapping[Budget, Recipe] = {
    "smoke": Recipe(updates=2, rollouts=4, measured=8),
    "small": Recipe(),
    "full": Recipe(updates=150, rollouts=64),
}
TUNING_SEEDS = {"smoke": 1, "small": 2, "full": 6}  # worlds that only choose grid points; no result comes from them
FIRST_TUNING_SEED = 1_000_000
FLIP_RATES = {"no label flipped": 0.0, "20 % of labels flipped": 0.2}
CLEAN, NOISY = FLIP_RATES

PPO_GRID = [
    Point(TokenRewardOptions(beta1=0.0), rate, decay) for rate, decay in product((5e-4, 1e-3, 2e-3), (0.95, 1.0))
]
TERMS = ((0.05, 0.05), (0.05, None), (0.2, None))  # beta1 and the clip of token rewards


def _grid(**options: Any) -> list[Point]:
    """Token rewards of two sizes, one of them also clipped as in the released code, at two learning rates."""
    return [
        Point(TokenRewardOptions(beta1=beta1, token_clip=clip, **options), rate)
        for (beta1, clip), rate in product(TERMS, (1e-3, 2e-3))
    ]


GRIDS: Mapping[str, Sequence[Point]] = {
    "rto": _grid(),
    "rs-ppo": _grid(shaping_only=True),
    "semi-rto": _grid(granularity="delimiter", delimiters=(STRETCH - 1,)),
    "ddpo": _grid(granularity="sequence"),
    "dpo-only": _grid(beta3=0.0),
    "ppo": PPO_GRID,
    "ppo-from-dpo": PPO_GRID,
}
TUNED = "best of 6 grid points by the mean return in other worlds"
_TERMS_NOTE = f"beta1, clip, learning rate: {TUNED}"

ARMS = (
    Arm("rto", "RTO", note=_TERMS_NOTE),
    Arm("rs-ppo", "RS-PPO, shaping alone", note=f"token terms taken off again at the end; {_TERMS_NOTE}"),
    Arm("semi-rto", "Semi-RTO, every 4 tokens", note=_TERMS_NOTE, settings=(CLEAN,)),
    Arm("ppo", "PPO", "baseline", note=f"learning rate, GAE's lambda: {TUNED}"),
    Arm("ddpo", "DDPO, all at the end", "baseline", note=_TERMS_NOTE),
    Arm("dpo-only", "token rewards alone", "baseline", note=f"beta3 0; {_TERMS_NOTE}", settings=(CLEAN,)),
    Arm("ppo-from-dpo", "PPO from the DPO model", "baseline", note=f"learning rate, GAE's lambda: {TUNED}"),
    Arm("dpo", "DPO", "baseline", note="the model that gives token rewards, as it is"),
)


def prepare_worlds(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Once a seed: the start, the pairs and their two models, at every flip rate; with seed 0, the tuning worlds."""
    torch.set_num_threads(1)
    for each in (seed, *_tuning_seeds(budget)) if seed == 0 else (seed,):
        reference = token_rewarded_ppo.make_reference(each, SIZES[budget])
        for setting, rate in FLIP_RATES.items():
            world = token_rewarded_ppo.make_world(each, reference, rate, SIZES[budget])
            world.save(_file(workspace, seed, each, setting))


def trained_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Choose the arm's grid point in worlds of its own, train with it, and read every seed."""
    torch.set_num_threads(1)
    world, recipe = _worlds(seeds, None, setting, budget, workspace), RECIPES[budget]
    learned = token_rewarded_ppo.examine(world)
    told = {"credit": learned.credit, "reward_accuracy": learned.reward_accuracy, "dpo_accuracy": learned.dpo_accuracy}
    if arm.name == "dpo":
        end = token_rewarded_ppo.measure(world, world.dpo, recipe.measured)
        found = {"area": end.gold, "terms": torch.zeros(len(seeds))}
        curves = end.gold.expand(recipe.updates, -1)
    else:
        point = _tuned(arm, setting, budget, workspace)
        course = token_rewarded_ppo.train(world, [point], recipe, from_dpo=arm.name == "ppo-from-dpo")
        curves, end = course.gold, course.end
        terms = course.terms
        chosen = {"beta1": point.rewards.beta1, "rate": point.rate, "decay": point.decay}
        found = {"area": curves.mean(0), "terms": terms}
        found |= {name: torch.full((len(seeds),), value) for name, value in chosen.items()}
    found |= {"last": end.gold, "reward": end.reward, "kl": end.kl, **told}
    return [
        {name: float(values[place]) for name, values in found.items()} | {"gold_curve": curves[:, place].tolist()}
        for place in range(len(seeds))
    ]


def _tuned(arm: Arm, setting: str, budget: Budget, workspace: Workspace) -> Point:
    """The grid point of the highest mean return over updates in the tuning worlds."""
    grid, tuning = GRIDS[arm.name], _tuning_seeds(budget)
    world = _worlds(tuning, 0, setting, budget, workspace)
    course = token_rewarded_ppo.train(world, grid, RECIPES[budget], from_dpo=arm.name == "ppo-from-dpo")
    return grid[int(course.gold.mean(0).view(len(grid), len(tuning)).mean(1).argmax())]


def _tuning_seeds(budget: Budget) -> Sequence[int]:
    return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS[budget])


def _file(workspace: Workspace, owner: int, seed: int, setting: str) -> Path:
    return workspace.seed_folder(owner) / f"world-{seed}-{FLIP_RATES[setting]:g}.safetensors"


def _worlds(seeds: Sequence[int], owner: int | None, setting: str, budget: Budget, workspace: Workspace) -> World:
    files = [_file(workspace, seed if owner is None else owner, seed, setting) for seed in seeds]
    return token_rewarded_ppo.load_worlds(files, seeds, SIZES[budget])


def return_figures(results: Results) -> list[tuple[str, str]]:
    """The true return against rollouts, and how many rollouts take each arm to nine tenths of PPO's rise."""
    from paperworks.core import plots

    colours = plots.colours(arm.label for arm in ARMS)
    figures = []
    for setting in FLIP_RATES:
        rows = {arm: results.cells_of("B", arm.name, setting) for arm in ARMS}
        means = {
            arm: torch.tensor([cell.metrics["gold_curve"] for cell in cells]).mean(0)
            for arm, cells in rows.items()
            if cells
        }
        if not means:
            continue
        rollouts = RECIPES[results.budget].rollouts
        curves = {
            arm.label: plots.Curve([rollouts * update for update in range(len(mean))], mean.tolist())
            for arm, mean in means.items()
        }
        svg = plots.lines(curves, "rollouts", "true return", markers=False, colours_by_name=colours)
        figures.append(
            (svg, f"{setting}: true return of an update's answers, mean over seeds{_reached(means, rollouts)}")
        )
    return figures


def _reached(means: Mapping[Arm, torch.Tensor], rollouts: int) -> str:
    """In words: the rollouts after which each arm's mean return is nine tenths of the way to PPO's best."""
    of = {arm.name: mean for arm, mean in means.items()}
    if "ppo" not in of:
        return ""
    level = of["ppo"][0] + 0.9 * (of["ppo"].max() - of["ppo"][0])
    told = []
    for arm, mean in means.items():
        beyond = (mean >= level).nonzero()
        if arm.name not in ("dpo", "ppo-from-dpo"):
            told.append(f"{arm.label} {int(beyond[0]) * rollouts if len(beyond) else 'never'}")
    return f"; rollouts to nine tenths of PPO's rise: {', '.join(told)}"


PART_B = Part(
    name="B",
    title="PPO of small decoders where credit is local",
    text="Answers of 16 letters to prompts of 4; a pair of neighbouring letters scores by the kinds of both, half of it by the "
    "prompt. The policy, a transformer of 2 layers and width 32, imitated text of random quality. From 4096 pairs of its "
    "answers with Bradley-Terry labels on their true return, 0 or 20 % of labels flipped, a reward model of the same size and "
    "a DPO model (beta 0.1) are learned. PPO: 80 updates of 32 rollouts, one optimiser step each, beta2 0.01, the reward "
    "model's scores with mean 0 and deviation 1 on the start's answers. The true return, the sum of token scores over the root "
    "of their number, is only measured: mean over updates is that of the answers trained on, which is the area under the "
    "curve. Every arm's grid point is the best of 6 in two other worlds with as many flipped labels.",
    arms=ARMS,
    settings=tuple(FLIP_RATES),
    seeds={"smoke": 2, "small": 5, "full": 20},
    prepare=prepare_worlds,
    cell=trained_cell,
    batched=True,
    metrics=(
        Metric("area", "true return, mean over updates"),
        Metric("last", "true return at the end"),
        Metric("reward", "learned reward at the end", format=".2f"),
        Metric("kl", "KL at the end", "nats", False, ".1f"),
        Metric("terms", "size of token terms over that of rewards", "", False, ".2f"),
        Metric("credit", "correlation of DPO's log-ratio and token scores", format=".2f"),
        Metric("reward_accuracy", "reward model's accuracy on pairs", format=".2f"),
        Metric("dpo_accuracy", "DPO model's accuracy on pairs", format=".2f"),
    ),
    figures=return_figures,
)

CLAIMS_B = (
    *(Claim("area", "rto", "ppo", where, "B") for where in FLIP_RATES),
    *(Claim("last", "rto", "ppo", where, "B") for where in FLIP_RATES),
    *(Claim("area", "rs-ppo", "ppo", where, "B") for where in FLIP_RATES),
    *(Claim("area", "rto", "ddpo", where, "B") for where in FLIP_RATES),
    *(Claim("last", "rto", "dpo", where, "B") for where in FLIP_RATES),
    Claim("area", "semi-rto", "ddpo", CLEAN, "B"),
    *(
        Claim(metric, better, than, where, "B", text=f"{text}, {where}", expected="not shown")
        for where in FLIP_RATES
        for metric, better, than, text in (
            ("area", "rs-ppo", "rto", "shaping alone beats RTO (not expected: the paper finds them alike)"),
            ("area", "ddpo", "ppo", "DPO's reward at the end alone beats PPO (not expected)"),
            ("area", "rto", "ppo-from-dpo", "RTO beats PPO that starts from the DPO model (not the paper's claim)"),
        )
    ),
)
