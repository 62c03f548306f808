"""XPO's part C: online DPO, XPO and an entropy bonus where reward waits behind a beginning hardly ever written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Metric, Part, Workspace
from paperworks.experiment.results import Results
from paperworks.language.testbeds import rare_prefix
from paperworks.language.testbeds.rare_prefix import Effort, Learner

FIRST_TUNING_SEED = 1_000_000
SHARES = {"p=0.001": (0.04, 0.025), "p=0.05": (0.2, 0.25)}  # of the prefix's two tokens in the reference's texts
RARE_PREFIX, COMMON_PREFIX = SHARES
EFFORTS: Mapping[Budget, Effort] = {"smoke": Effort(2, 8, 2, 8, measured=16), "small": Effort(), "full": Effort()}
IMITATION_STEPS = {"smoke": 20, "small": 300, "full": 300}
TUNING_SEEDS = {"smoke": 1, "small": 3, "full": 8}
WEIGHTS = (3e-3, 1e-2, 3e-2, 1e-1)
BETAS = (0.015, 0.03)
GRIDS: Mapping[str, Sequence[Learner]] = {
    "xpo": [Learner(alpha=alpha, beta=beta) for beta in BETAS for alpha in WEIGHTS],
    "dpo": [Learner(beta=beta) for beta in (0.004, 0.006, 0.01, 0.015, 0.02, 0.03, 0.045, 0.06)],
    "entropy": [Learner(entropy=3 * each, beta=beta) for beta in BETAS for each in WEIGHTS],
    "wrong-sign": [Learner(alpha=-alpha, beta=beta) for beta in BETAS for alpha in WEIGHTS],
}
TUNED = "best of 8 grid points by the mean reward over rounds in other worlds"
ARMS = (
    Arm("xpo", "XPO", note=f"alpha in 0.003 to 0.1, beta in 0.015, 0.03: {TUNED}"),
    Arm("dpo", "online DPO", "baseline", note=f"beta in 0.004 to 0.06: {TUNED}"),
    Arm(
        "entropy",
        "DPO + entropy bonus",
        "baseline",
        note=f"entropy of tokens along its own responses; weight 0.009 to 0.3, the same betas: {TUNED}",
        settings=(RARE_PREFIX,),
    ),
    Arm("wrong-sign", "XPO, wrong sign", "control", note=f"the grid of XPO: {TUNED}", settings=(RARE_PREFIX,)),
)


def prepare_texts(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Once a seed: the references of both settings; with seed 0, those of the worlds that choose grid points."""
    torch.set_num_threads(1)
    for each in (seed, *_tuning_seeds(budget)) if seed == 0 else (seed,):
        for setting, shares in SHARES.items():
            world = rare_prefix.make_world(each, *shares, steps=IMITATION_STEPS[budget])
            world.save(_world_file(workspace, seed, each, setting))


def text_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Choose the arm's grid point in worlds of its own, then learn in the seeds' worlds."""
    torch.set_num_threads(1)
    tuning = _tuning_seeds(budget)
    of_tuning = rare_prefix.load_worlds([_world_file(workspace, 0, each, setting) for each in tuning], tuning)
    tried = rare_prefix.run(of_tuning, GRIDS[arm.name], EFFORTS[budget])
    chosen = GRIDS[arm.name][int(tried.reward[1:].mean((0, 2)).argmax())]
    world = rare_prefix.load_worlds([_world_file(workspace, each, each, setting) for each in seeds], seeds)
    course = rare_prefix.run(world, [chosen], EFFORTS[budget])
    return [
        {
            "rate_area": float(course.rate[1:, 0, row].mean()),
            "rate": float(course.rate[-1, 0, row]),
            "reward_area": float(course.reward[1:, 0, row].mean()),
            "reward": float(course.reward[-1, 0, row]),
            "start_rate": float(course.rate[0, 0, row]),
            "queried": float(course.queried[-1, 0, row]),
            "kl": float(course.kl[-1, 0, row]),
            "logp_explored": float(course.logp_explored[-1, 0, row]),
            "rate_by_round": course.rate[:, 0, row].tolist(),
            "reward_by_round": course.reward[:, 0, row].tolist(),
            **{f"tuned_{name}": value for name, value in dataclasses.asdict(chosen).items()},
        }
        for row in range(len(seeds))
    ]


def _tuning_seeds(budget: Budget) -> Sequence[int]:
    return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS[budget])


def _world_file(workspace: Workspace, owner: int, seed: int, setting: str) -> Path:
    return workspace.seed_folder(owner) / f"world-{seed}-{setting}.safetensors"


def text_figures(results: Results) -> list[tuple[str, str]]:
    """The prefix's rate and the reward against queries."""
    from paperworks.core import plots

    colours, drawn = plots.colours(arm.label for arm in ARMS), []
    for setting in SHARES:
        for name, label in (("rate", "probability of the prefix"), ("reward", "reward")):
            curves = {}
            for arm in ARMS:
                if cells := results.cells_of("C", arm.name, setting):
                    mean = torch.tensor([cell.metrics[f"{name}_by_round"] for cell in cells]).mean(0).tolist()
                    queries = [EFFORTS[results.budget].pairs * number for number in range(len(mean))]
                    curves[arm.label] = plots.Curve(queries, mean)
            if curves:
                svg = plots.lines(curves, "queries", label, log_y=name == "rate", colours_by_name=colours)
                drawn.append((svg, f"{setting}: {label}, mean over seeds"))
    return drawn


PART = Part(
    name="C",
    title="Tiny language model whose reward waits behind a beginning",
    text="20 tokens, responses of 6. A decoder of 2 layers and width 32 imitated texts of a Markov chain; with probability p a "
    "response begins with two certain tokens. Reward: 0.5 for that beginning, and 0.5 times the share of good tokens after it; "
    "Bradley-Terry labels of slope 8. 6 rounds of 128 pairs, one response of the policy and one of the reference; after each "
    "60 Adam steps of 1e-3 on 32 pairs of all so far. The weights of optimism and entropy are full for two rounds, half for "
    "two, then 0, the shape of the recipe for language models. The rate is the exact probability of the beginning.",
    arms=ARMS,
    settings=tuple(SHARES),
    seeds={"smoke": 2, "small": 8, "full": 32},
    prepare=prepare_texts,
    cell=text_cell,
    batched=True,
    metrics=(
        Metric("rate_area", "rate of the beginning, mean over rounds", format=".4f"),
        Metric("rate", "rate after 768 queries", format=".4f"),
        Metric("reward_area", "reward, mean over rounds"),
        Metric("reward", "reward after 768 queries"),
        Metric("start_rate", "rate at the start", format=".4f"),
        Metric("queried", "queries with the beginning", format=".1f"),
        Metric("kl", "KL", "nats", False, ".2f"),
    ),
    figures=text_figures,
)
CLAIMS = (
    *(Claim(metric, "xpo", "dpo", RARE_PREFIX, "C") for metric in ("rate_area", "reward")),
    Claim("rate_area", "xpo", "wrong-sign", RARE_PREFIX, "C"),
    Claim("rate_area", "xpo", "entropy", RARE_PREFIX, "C", expected="not shown"),  # not the paper's claim
    Claim("reward", "xpo", "dpo", COMMON_PREFIX, "C", expected="not shown"),
)
