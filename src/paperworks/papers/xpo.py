"""XPO: exploratory preference optimisation (Xie et al. 2024, arXiv 2405.21046).

Online DPO learns only about responses that it happens to sample. XPO pushes the policy off what a fixed sampler already
shows, which amounts to optimism about the rest:

    -log sigmoid(beta (h_w - h_l)) + alpha log pi(tau~)        language/objectives/xpo.py, XPO

Part A is a bandit whose best action the reference almost never plays. Part B is the same bandit where it plays it often,
and where exploring can only cost. Part C is a tiny language model whose reward waits behind a rare beginning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Workspace
from paperworks.experiment.results import Results
from paperworks.language.testbeds import rare_action, rare_prefix_part
from paperworks.language.testbeds.rare_action import Learner

ROUNDS = {"smoke": 3, "small": 32, "full": 32}
STEPS = {"smoke": 5, "small": 60, "full": 60}
TUNING_SEEDS = {"smoke": 2, "small": 16, "full": 64}  # worlds that only choose grid points; no result comes from them
FIRST_TUNING_SEED = 1_000_000
LOOKED_AT = (3, 8, 16, 32)  # rounds
PAIRS = 16  # queries a round

RARE, COMMON = ("p=0.0001", "p=0.001", "p=0.01"), ("p=0.1", "p=0.2")
ALPHAS = (1e-3, 3e-3, 1e-2, 3e-2)
TUNED = "best of 4 grid points by the mean gap in other worlds"

GRIDS: Mapping[str, Sequence[Learner]] = {
    "xpo": [Learner(alpha=alpha) for alpha in ALPHAS],
    "xpo-current": [Learner(alpha=alpha, sampler="current") for alpha in ALPHAS],
    "dpo": [Learner()],
    "dpo-current": [Learner(sampler="current")],
    "entropy": [Learner(entropy=weight) for weight in ALPHAS],
    "epsilon": [Learner(epsilon=share) for share in (0.05, 0.1, 0.2, 0.4)],
    "wrong-sign": [Learner(alpha=-alpha) for alpha in ALPHAS],
}
ARMS = (
    Arm("xpo", "XPO", note=f"second response from the reference (algorithm 1); alpha: {TUNED}"),
    Arm("xpo-current", "XPO, sampler: current", note=f"alpha: {TUNED}"),
    Arm("dpo", "online DPO", "baseline", note="alpha 0, second response from the reference"),
    Arm("dpo-current", "online DPO, sampler: current", "baseline", note="both responses from the policy"),
    Arm("entropy", "DPO + entropy bonus", "baseline", note=f"its weight: {TUNED}"),
    Arm("epsilon", "DPO + uniform draws", "baseline", note=f"their share of own draws, 0.05 to 0.4: {TUNED}"),
    Arm("wrong-sign", "XPO, wrong sign", "control", note=f"-alpha, which imitates the reference's draws: {TUNED}"),
)


def cell(arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace) -> list[dict[str, Any]]:
    """Choose the arm's grid point in worlds of its own by the mean gap over rounds, then learn in the seeds' worlds."""
    torch.set_num_threads(1)
    mass, points = float(setting.removeprefix("p=")), GRIDS[arm.name]
    if len(points) > 1:
        tuning = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS[budget])
        points = [points[int(_learnt(points, mass, tuning, budget).area().mean(-1).argmin())]]
    course = _learnt(points, mass, seeds, budget)
    area, last = course.area()[0], len(course.gap) - 1
    weights = {name: value for name, value in dataclasses.asdict(points[0]).items() if name != "sampler"}
    return [
        {
            "area": float(area[row]),
            **{f"gap_{number}": float(course.gap[min(number, last), 0, row]) for number in LOOKED_AT},
            "found": float(course.found[-1, 0, row]),
            "fresh": float(course.fresh[1:, 0, row].mean()),
            "kl": float(course.kl[-1, 0, row]),
            "logp_explored": float(course.logp_explored[-1, 0, row]),
            "gap_by_round": course.gap[:, 0, row].tolist(),
            **{f"tuned_{name}": value for name, value in weights.items()},
        }
        for row in range(len(seeds))
    ]


def _learnt(points: Sequence[Learner], mass: float, seeds: Sequence[int], budget: Budget) -> rare_action.Course:
    bandit = rare_action.make_bandit(seeds, mass)
    return rare_action.run(bandit, points, seeds, rounds=ROUNDS[budget], pairs=PAIRS, steps=STEPS[budget])


def gap_figures(part: Part) -> Any:
    """Figures of a part: the gap against queries in every setting."""

    def draw(results: Results) -> list[tuple[str, str]]:
        from paperworks.core import plots

        colours = plots.colours(arm.label for arm in ARMS)
        drawn = []
        for setting in part.settings:
            curves = _curves(results, part.name, setting, [arm.name for arm in ARMS])
            if curves:
                figure = plots.lines(curves, "queries", "gap to the optimum", markers=False, colours_by_name=colours)
                drawn.append((figure, f"{setting}: J of the optimum minus J of the policy, mean over seeds"))
        return drawn

    return draw


def _curves(results: Results, part: str, setting: str, arms: Sequence[str]) -> dict[str, Any]:
    from paperworks.core import plots

    curves = {}
    for arm in arms:
        if cells := results.cells_of(part, arm, setting):
            mean = torch.tensor([cell.metrics["gap_by_round"] for cell in cells]).mean(0).tolist()
            label = next(each.label for each in ARMS if each.name == arm)
            curves[label] = plots.Curve([PAIRS * number for number in range(len(mean))], mean)
    return curves


def crossover_figures(results: Results) -> list[tuple[str, str]]:
    """Part B's gaps, online DPO's at every p, and the mean gap of XPO and DPO against p: where exploring stops paying."""
    from paperworks.core import plots

    drawn = gap_figures(PART_B)(results)
    parts = [("A", setting) for setting in RARE] + [("B", setting) for setting in COMMON]
    of_dpo = {setting: _curves(results, part, setting, ["dpo"]) for part, setting in parts}
    curves = {setting: next(iter(found.values())) for setting, found in of_dpo.items() if found}
    if curves:
        drawn.append(
            (plots.lines(curves, "queries", "gap to the optimum", markers=False), "online DPO alone, by the mass p")
        )
    areas = {}
    for arm in ("xpo", "dpo", "entropy", "epsilon"):
        found = [
            (float(setting.removeprefix("p=")), list(results.values(part, arm, "area", setting).values()))
            for part, setting in parts
        ]
        found = [(mass, values) for mass, values in found if values]
        if found:
            label = next(each.label for each in ARMS if each.name == arm)
            means = [sum(values) / len(values) for _, values in found]
            areas[label] = plots.Curve([mass for mass, _ in found], means)
    if areas:
        figure = plots.lines(
            areas, "p, the reference's mass on the best action", "mean gap over 512 queries", log_x=True
        )
        drawn.append((figure, "where exploring stops paying: the mean gap against p, mean over seeds"))
    return drawn


METRICS = (
    Metric("area", "mean gap over all rounds", higher_is_better=False),
    *(Metric(f"gap_{number}", f"gap after {number * PAIRS} queries", higher_is_better=False) for number in (3, 32)),
    Metric("found", "best actions ever queried", format=".2f"),
    Metric("fresh", "queries on unseen responses"),
    Metric("kl", "KL", "nats", False, ".2f"),
)
TEXT = (
    "2 contexts, 10 actions; rewards uniform in [0, 0.5], the best action's 1; Bradley-Terry labels of slope 8; beta 0.03. 32 "
    "rounds of 16 queries; after each, 60 Adam steps of 0.1 on all pairs so far. The gap is J of the optimum minus J of the "
    "round's policy, J = E[reward] - beta KL. All arms see the same worlds and random numbers."
)
SEEDS: Mapping[Budget, int] = {"smoke": 3, "small": 32, "full": 128}
PART_A = Part(
    name="A",
    title="Bandit whose best action the reference rarely plays",
    text=TEXT + " The reference plays the best action with probability p.",
    arms=ARMS,
    settings=RARE,
    seeds=SEEDS,
    cell=cell,
    batched=True,
    metrics=METRICS,
)
PART_A = dataclasses.replace(PART_A, figures=gap_figures(PART_A))
PART_B = Part(
    name="B",
    title="The same bandit where the reference plays it often",
    text="As part A; here nothing has to be found, and exploring should cost queries at first and gain nothing.",
    arms=ARMS,
    settings=COMMON,
    seeds=SEEDS,
    cell=cell,
    batched=True,
    metrics=METRICS,
    figures=crossover_figures,
)

CLAIMS = (
    *(Claim("area", "xpo", "dpo", setting) for setting in RARE),
    *(Claim("found", "xpo", "dpo", setting) for setting in RARE),
    Claim("gap_32", "xpo", "dpo", "p=0.001"),
    Claim("area", "xpo-current", "dpo-current", "p=0.001"),
    *(Claim("area", "xpo", "epsilon", setting) for setting in RARE),
    *(Claim("area", "xpo", "entropy", setting, expected="not shown") for setting in RARE),  # not the paper's claim
    Claim("area", "xpo", "wrong-sign", "p=0.001"),
    Claim("gap_32", "xpo", "dpo", "p=0.2", part="B", expected="not shown"),
    Claim(
        "gap_3",
        "dpo",
        "xpo",
        "p=0.2",
        part="B",
        text="where the reference plays the best action often, exploring costs the first rounds (when not to use XPO)",
    ),
    *rare_prefix_part.CLAIMS,
)

EXPERIMENT = Experiment(
    slug="xpo",
    title="Exploratory Preference Optimization: Harnessing Implicit Q*-Approximation for Sample-Efficient RLHF",
    parts=(PART_A, PART_B, rare_prefix_part.PART),
    claims=CLAIMS,
    differences="The paper proves its claim and reports no experiment in the text that could be read; the bandit is the form "
    "of its lower bound for online DPO (Proposition 2.1). alpha is constant over rounds in parts A and B, tuned on other "
    "worlds; theory asks for one that falls, as it does in part C.",
    notes="A best action of mass p costs beta log(1/p) of KL; beta is small enough here that it is worth its price at every p. "
    "The iterate measured is each round's own, not one selected afterwards. On a table of ten actions an entropy bonus is "
    "nearly the same push as optimism: both raise what the policy rarely plays. At p=0.2 both XPO and online DPO end within "
    "0.001 of the optimum: what the claim on their last gap reports is of no consequence. The grids and claims of parts A and "
    "B were settled on trial runs of which no record was kept; online DPO has one setting there where the others have four. In "
    "part C grid points are chosen by reward alone: XPO's choice, its largest alpha, wins ordinary reward sooner and takes the "
    "beginning's probability to almost nothing for some rounds. Every text is an unlikely one there: optimism has millions of "
    "responses to go to and not ten. Part C's steps were set by online DPO in worlds whose reference has the beginning in a "
    "twentieth of its responses. XPO was tried in two or three worlds of other seeds, alpha 0.001 to 1, before the grids were "
    "set: it did not find the beginning at any. Worlds of formulaic texts and of a single rare token, where it hardly did "
    "better, were tried as well and left out.",
)
