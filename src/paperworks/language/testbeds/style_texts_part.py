"""HyPO's part C: DPO, HyPO and RPO on tiny language models whose pairs cover one style of four."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Metric, Part, Workspace
from paperworks.experiment.results import Results
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.hypo import HyPO
from paperworks.language.objectives.objective import PairObjective
from paperworks.language.objectives.rpo import RPO
from paperworks.language.testbeds import style_texts
from paperworks.language.testbeds.style_texts import Course, Effort, World

EFFORTS: Mapping[Budget, Effort] = {"smoke": Effort(2, 4, records=2, measured=16), "small": Effort(), "full": Effort()}
IMITATION_STEPS = {"smoke": 10, "small": 300, "full": 300}
PAIRS = {"smoke": 32, "small": style_texts.PAIRS, "full": style_texts.PAIRS}
TUNING_SEEDS = {"smoke": 1, "small": 2, "full": 8}  # worlds that only choose grid points; no result comes from them
FIRST_TUNING_SEED = 1_000_000
SAMPLES = 2  # of HyPO, a prompt
LONGER = 3  # steps of DPO in the time of one of HyPO's

RATES = (1e-3, 2e-3)
DPO_POINTS = [(DPO(beta=beta), rate) for beta, rate in product((0.01, 0.03, 0.1, 0.3), (5e-4, *RATES))]
GRIDS: Mapping[str, Sequence[tuple[PairObjective, float]]] = {
    "hypo": [(HyPO(beta=beta, lam=lam), rate) for beta, lam, rate in product((0.03, 0.1), (3e-4, 1e-3, 3e-3), RATES)],
    "dpo": DPO_POINTS,
    "dpo-longer": DPO_POINTS,
    "rpo": [(RPO(beta=beta, eta=eta), rate) for beta, eta, rate in product((0.03, 0.1), (0.03, 0.1, 1.0), RATES)],
}
TUNED = "best of 12 grid points by reward in other worlds"
ARMS = (
    Arm("hypo", "HyPO, 2 samples", note=f"beta, lam, learning rate: {TUNED}"),
    Arm("dpo", "DPO", "baseline", note=f"as many steps; beta, learning rate: {TUNED}"),
    Arm(
        "dpo-longer",
        "DPO, equal time",
        "baseline",
        {"longer": LONGER},
        note=f"{LONGER} times the steps, which take it as long as HyPO; beta, learning rate: {TUNED}",
    ),
    Arm("rpo", "RPO", "baseline", note=f"as many steps; beta, eta, learning rate: {TUNED}"),
)


def prepare_styles(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Once a seed: start and pairs; with seed 0, those of the worlds that choose grid points."""
    torch.set_num_threads(1)
    for each in (seed, *_tuning_seeds(budget)) if seed == 0 else (seed,):
        world = style_texts.make_world(each, steps=IMITATION_STEPS[budget], pairs=PAIRS[budget])
        world.save(_file(workspace, seed, each))


def style_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Choose the arm's grid point in worlds of its own, train it in the seeds' worlds, read the last iterate."""
    torch.set_num_threads(1)
    tuning, points = _tuning_seeds(budget), GRIDS[arm.name]
    tried = _course(
        arm, style_texts.load_worlds([_file(workspace, 0, each) for each in tuning], tuning), points, budget
    )
    chosen = points[int(tried.reward[-1].mean(-1).argmax())]
    world = style_texts.load_worlds([_file(workspace, each, each) for each in seeds], seeds)
    course = _course(arm, world, [chosen], budget)
    return [
        {
            **{name: float(getattr(course, name)[-1, 0, row]) for name in ("reward", "outside", "kl", "logp_chosen")},
            "best_reward": float(course.reward[:, 0, row].max()),
            "start_reward": float(course.reward[0, 0, row]),
            "start_outside": float(course.outside[0, 0, row]),
            "drawn": float(course.drawn[0, row]),
            "milliseconds": 1000 * course.seconds,
            "beta": getattr(chosen[0], "beta", 0.0),
            "weight": getattr(chosen[0], "lam", getattr(chosen[0], "eta", 0.0)),
            "rate": chosen[1],
            "steps": course.at,
            **{f"{name}_curve": getattr(course, name)[:, 0, row].tolist() for name in ("reward", "outside", "kl")},
        }
        for row in range(len(seeds))
    ]


def _course(arm: Arm, world: World, points: Sequence[tuple[PairObjective, float]], budget: Budget) -> Course:
    effort = EFFORTS[budget]
    effort = dataclasses.replace(effort, steps=effort.steps * int(arm.options.get("longer", 1)))
    return style_texts.train(world, points, effort, samples=SAMPLES)


def figures(results: Results) -> list[tuple[str, str]]:
    """Reward, off-style share and KL over the share of training time."""
    from paperworks.core import plots

    colours, drawn = plots.colours(arm.label for arm in ARMS), []
    for name, label in (
        ("reward", "true reward"),
        ("outside", "responses off the style"),
        ("kl", "KL to the start, nats"),
    ):
        curves = {}
        for arm in ARMS:
            if cells := results.cells_of("C", arm.name):
                mean = torch.tensor([cell.metrics[f"{name}_curve"] for cell in cells]).mean(0).tolist()
                curves[arm.label] = plots.Curve(cells[0].metrics["steps"], mean)
        if curves:
            svg = plots.lines(curves, "step", label, markers=False, colours_by_name=colours)
            drawn.append((svg, f"{label} over training, mean over seeds"))
    return drawn


def _tuning_seeds(budget: Budget) -> Sequence[int]:
    return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS[budget])


def _file(workspace: Workspace, owner: int, seed: int) -> Path:
    return workspace.seed_folder(owner) / f"world-{seed}.safetensors"


PART = Part(
    name="C",
    title="Tiny language model, pairs of one style",
    text="RPO's task with tokens for words: responses are 2 to 4 opinions joined by connectors of one of 4 styles. A decoder "
    "of 2 layers and width 32 imitated all styles; 800 pairs of the plain style alone are labelled by Bradley-Terry on 4 times "
    "the sentiment. Reward: sentiment, minus 1 where a response is not in the plain style. 400 steps of 16 pairs; HyPO draws 2 "
    "responses to each pair's prompt. One of its steps takes about three of DPO's, so that DPO also has three times the steps. "
    "Figures are those of the last step; the best reward on the way is what nobody can see in practice.",
    arms=ARMS,
    seeds={"smoke": 2, "small": 8, "full": 32},
    prepare=prepare_styles,
    cell=style_cell,
    batched=True,
    metrics=(
        Metric("reward", "true reward"),
        Metric("outside", "responses off the style", higher_is_better=False),
        Metric("kl", "KL", "nats", False, ".2f"),
        Metric("logp_chosen", "log pi(chosen)", "nats", format=".1f"),
        Metric("best_reward", "best reward on the way"),
        Metric("drawn", "tokens sampled", higher_is_better=False, format=".0f"),
        Metric("milliseconds", "a step", "ms", False, ".1f"),
        Metric("start_outside", "off the style at the start", higher_is_better=False),
    ),
    figures=figures,
)
CLAIMS = (
    *(Claim(metric, "hypo", "dpo", part="C") for metric in ("reward", "kl", "outside")),
    *(Claim(metric, "hypo", "dpo-longer", part="C") for metric in ("reward", "kl", "outside")),
    Claim("reward", "hypo", "rpo", part="C", text="HyPO beats RPO (not the paper's claim)", expected="not shown"),
)
