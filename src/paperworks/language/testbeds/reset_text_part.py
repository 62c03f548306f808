"""DR-PO's part B: PPO and DR-PO on a tiny language model's lock, under a reward model learned from pairs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Metric, Part, Workspace
from paperworks.experiment.results import Results
from paperworks.language.testbeds import reset_text
from paperworks.language.testbeds.reset_text import Course, Recipe, World, WorldSize

SIZES: Mapping[Budget, WorldSize] = {"smoke": WorldSize(20, 100, 10), "small": WorldSize(), "full": WorldSize()}
RECIPES: Mapping[Budget, Recipe] = {
    "smoke": Recipe(tokens=96, iterations=2, judge_every=1, looked_at=16, judged=16, clone_steps=2),
    "small": Recipe(),
    "full": Recipe(),
}
TUNING_SEEDS = {"smoke": 1, "small": 2, "full": 8}  # worlds that only choose grid points; no result comes from them
FIRST_TUNING_SEED = 1_000_000
RATES = (2e-3, 4e-3, 8e-3)
DPO_POINTS = tuple((beta, rate) for beta in (0.01, 0.1) for rate in RATES)
MATCHED = 8.0  # nats: the KL at which rewards are compared
LEARNED, TRUE = "learned reward", "true reward"
BIN, BINS = 2.0, 10  # nats a bin of single responses, for the figure

TUNED = "learning rate 0.002, 0.004 or 0.008 by reward in other worlds"
ARMS = (
    Arm("dr-1", "DR-PO, share 1", options={"share": 1.0}, note=TUNED),
    *(
        Arm(f"dr-{share:g}", f"DR-PO, share {share:g}", options={"share": share}, note=TUNED, settings=(LEARNED,))
        for share in (0.5, 0.25)
    ),
    Arm("ppo", "PPO", "baseline", {"share": 0.0}, TUNED),
    Arm(
        "ppo-cloned",
        "PPO after imitating references",
        "baseline",
        {"share": 0.0, "cloned": True},
        f"250 steps of imitation come first; {TUNED}",
    ),
    Arm(
        "dpo",
        "DPO",
        "baseline",
        note="on the reward model's pairs; beta 0.01 or 0.1, the same rates, by reward there",
        settings=(LEARNED,),
    ),
    Arm("sft", "SFT", "baseline", note="where all others start", settings=(LEARNED,)),
)


def prepare_worlds(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Once a seed: policy, references, pairs and reward model; with seed 0, those of the worlds that choose rates."""
    torch.set_num_threads(1)
    for each in (seed, *_tuning_seeds(budget)) if seed == 0 else (seed,):
        reset_text.make_world(each, SIZES[budget]).save(_file(workspace, seed, each))


def lock_text_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Choose the arm's grid point in worlds of its own, train with it, and read every seed."""
    torch.set_num_threads(1)
    points = list(DPO_POINTS if arm.name == "dpo" else [(0.0, rate) for rate in RATES])
    if arm.name == "sft":
        points = points[:1]
    if len(points) > 1:
        tuning = _tuning_seeds(budget)
        of_tuning = reset_text.load_worlds([_file(workspace, 0, each) for each in tuning], tuning)
        reached = _course(arm, setting, of_tuning, points, budget).reward[-1].view(len(points), -1).mean(1)
        points = [points[int(reached.argmax())]]
    world = reset_text.load_worlds([_file(workspace, each, each) for each in seeds], seeds)
    course, last = _course(arm, setting, world, points, budget), 0 if arm.name == "sft" else -1
    return [
        {
            "reward": float(course.reward[last, net]),
            "learned": float(course.learned[last, net]),
            "kl": float(course.kl[last, net]),
            "at_kl": at_kl(course.kl[:, net].tolist(), course.reward[:, net].tolist())
            if "share" in arm.options
            else math.nan,
            "written": float(course.written[net]),
            "accuracy": float(world.accuracy[net]),
            "beta": points[0][0],
            "rate": points[0][1],
            "iterations": course.at,
            "reward_curve": course.reward[:, net].tolist(),
            "learned_curve": course.learned[:, net].tolist(),
            "kl_curve": course.kl[:, net].tolist(),
            "binned": binned(course.ratio[net], course.ratio_reward[net]),
        }
        for net in range(len(seeds))
    ]


def _course(arm: Arm, setting: str, world: World, points: Sequence[tuple[float, float]], budget: Budget) -> Course:
    recipe = dataclasses.replace(RECIPES[budget], true_reward=setting == TRUE, **arm.options)
    if arm.name == "dpo":
        return reset_text.train_dpo(world, points, recipe)
    if arm.name == "sft":
        recipe = dataclasses.replace(recipe, iterations=0)
    return reset_text.train(world, recipe, [rate for _, rate in points])


def at_kl(kl: Sequence[float], reward: Sequence[float], wanted: float = MATCHED) -> float:
    """The reward where training first reaches that KL, between the points measured; the last where it never does."""
    for place in range(1, len(kl)):
        if kl[place] >= wanted:
            share = (wanted - kl[place - 1]) / (kl[place] - kl[place - 1])
            return reward[place - 1] + share * (reward[place] - reward[place - 1])
    return reward[-1]


def binned(ratio: torch.Tensor, reward: torch.Tensor) -> list[list[float]]:
    """Count and summed reward of single responses by their log-ratio, a pair a bin."""
    place = (ratio / BIN).floor().clamp(0, BINS - 1)
    return [[float((place == each).sum()), float(reward[place == each].sum())] for each in range(BINS)]


def figures(results: Results) -> list[tuple[str, str]]:
    """Reward and reward model's score against KL over training, and the reward of single responses by their KL."""
    drawn = [
        _over_kl(results, LEARNED, "reward", "true reward"),
        _over_kl(results, LEARNED, "learned", "the reward model's score"),
        _by_kl(results),
        _over_kl(results, TRUE, "reward", "true reward"),
    ]
    return [each for each in drawn if each is not None]


def _over_kl(results: Results, setting: str, name: str, label: str) -> tuple[str, str] | None:
    from paperworks.core import plots

    curves = {}
    for arm in ARMS:
        if "share" in arm.options and (cells := results.cells_of("B", arm.name, setting)):
            x, y = (
                torch.tensor([cell.metrics[f"{column}_curve"] for cell in cells]).mean(0).tolist()
                for column in ("kl", name)
            )
            curves[arm.label] = plots.Curve(x, y)
    if not curves:
        return None
    colours = plots.colours(arm.label for arm in ARMS)
    svg = plots.lines(curves, "KL to SFT, nats", label, markers=False, colours_by_name=colours)
    return svg, f"{setting}: {label} against KL over training, mean over seeds at equal iterations"


def _by_kl(results: Results) -> tuple[str, str] | None:
    """As the paper's Figure 1."""
    from paperworks.core import plots

    curves = {}
    for arm in ARMS:
        if cells := results.cells_of("B", arm.name, LEARNED):
            count, total = torch.tensor([cell.metrics["binned"] for cell in cells]).sum(0).unbind(-1)
            enough = [place for place in range(BINS) if count[place] >= 20]
            means = [float(total[place] / count[place]) for place in enough]
            curves[arm.label] = plots.Curve([BIN * (place + 0.5) for place in enough], means)
    if not curves:
        return None
    colours = plots.colours(arm.label for arm in ARMS)
    svg = plots.lines(curves, "log pi / pi_SFT of a response, nats", "true reward", colours_by_name=colours)
    return svg, f"{LEARNED}: reward of the last policies' single responses by log-ratio, bins of 20 or more"


def _tuning_seeds(budget: Budget) -> Sequence[int]:
    return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS[budget])


def _file(workspace: Workspace, owner: int, seed: int) -> Path:
    return workspace.seed_folder(owner) / f"world-{seed}.safetensors"


PART = Part(
    name="B",
    title="Tiny language model under a learned reward",
    text="40 tokens, responses of 12. Each of the last six places has 13 tokens that are right there; the true reward is the "
    "share of right ones before the first mistake. References, 8 to each of 64 prompts, err in a tenth of these places. A "
    "decoder of 2 layers and width 32 imitated ordinary text (reward about 0.1); the reward model is the same net fitted to "
    "2000 Bradley-Terry pairs of references and its samples. PPO: 60 iterations, two steps each, KL 0.05 a nat, 512 tokens "
    "written an iteration: DR-PO, whose forced tokens do not count, gets more roll-outs for them. All is judged from prompts "
    "without resets; scores have mean 0 and deviation 1 over the reward model's pairs.",
    arms=ARMS,
    settings=(LEARNED, TRUE),
    seeds={"smoke": 2, "small": 8, "full": 32},
    prepare=prepare_worlds,
    cell=lock_text_cell,
    batched=True,
    metrics=(
        Metric("reward", "true reward"),
        Metric("at_kl", "true reward at KL 8"),
        Metric("learned", "reward model's score", format=".2f"),
        Metric("kl", "KL", "nats", False, ".1f"),
        Metric("written", "tokens written", "", False, ".0f"),
        Metric("accuracy", "reward model's accuracy", format=".2f"),
        Metric("rate", "learning rate", "", False, ".0e"),
    ),
    figures=figures,
)
CLAIMS = (
    *(Claim(metric, "dr-1", "ppo", LEARNED, "B") for metric in ("reward", "at_kl", "learned")),
    *(
        Claim(
            "reward",
            better,
            than,
            LEARNED,
            "B",
            text=f"{more} of resets give more reward than {fewer} (the paper's order)",
        )
        for better, than, more, fewer in (
            ("dr-0.25", "ppo", "a quarter", "none"),
            ("dr-0.5", "dr-0.25", "half", "a quarter"),
            ("dr-1", "dr-0.5", "all", "half"),
        )
    ),
    Claim("reward", "dr-1", "dpo", LEARNED, "B"),
    Claim(
        "reward",
        "dr-1",
        "ppo-cloned",
        LEARNED,
        "B",
        text="DR-PO beats PPO that has imitated the references first (not the paper's claim)",
        expected="not shown",
    ),
    Claim("reward", "dr-1", "ppo", TRUE, "B"),
)
