"""Reward model ensembles help mitigate overoptimisation (Coste et al. 2023, arXiv 2310.02743).

Several reward models that differ in their seeds, standardised and combined conservatively, so that what optimises them does
not find the errors of one:

    mean (1/k) sum R_i;  WCO min_i R_i;  UWO mean - lambda (1/k) sum (R_i - mean)^2     rewards/ensemble.py, combine

The gold reward is known in a small world (testbeds/overoptimisation.py). Part A optimises by best-of-n, exactly over all
subsets of the answers (rewards/best_of.py); part B by policy gradient with a KL penalty (testbeds/gaussian_policies.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paperworks.core.files import read_json, write_json_atomic
from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Published, Workspace
from paperworks.experiment.results import Results
from paperworks.language.testbeds import gaussian_policies, overoptimisation
from paperworks.language.testbeds.overoptimisation import DIMENSIONS, Proxies, World, aggregate

MEMBERS = 5
NOISE = {"25 % label noise": 0.25, "no label noise": 0.0, "easy world, 25 % noise": 0.25, "easy world, no noise": 0.0}
SETTINGS = tuple(NOISE)
HARD, CLEAN, EASY, EASY_CLEAN = SETTINGS
RULES: Mapping[str, tuple[str, float]] = {
    "mean": ("mean", 0.0),
    "wco": ("wco", 0.0),
    "uwo": ("uwo", 0.5),
    "uwo-0.1": ("uwo", 0.1),
    "uwo-1": ("uwo", 1.0),
}
ARMS = (
    Arm("wco", "WCO"),
    Arm("uwo", "UWO, lambda 0.5"),
    Arm("uwo-0.1", "UWO, lambda 0.1"),
    Arm("uwo-1", "UWO, lambda 1"),
    Arm("mean", "mean of 5", "baseline", note="not conservative: one member moves it by a fifth of its error"),
    Arm("single", "single model", "baseline", note="the average over the five members, each optimised alone"),
    Arm("wide", "one model of equal size", "control", note="as many parameters as the five members together"),
    Arm("gold", "gold reward", "control", note="the ceiling"),
)


EPOCHS = {"smoke": 2, "small": overoptimisation.EPOCHS, "full": overoptimisation.EPOCHS}


def make_world(seed: int, setting: str) -> World:
    """The world of a seed: with heavy tails and a penalty on extremes, or the easy one."""
    easy = setting.startswith("easy")
    return overoptimisation.make_world(seed, heavy_tails=not easy, penalty=0.0 if easy else 0.15)


def make_setting(seed: int, setting: str, budget: Budget) -> tuple[World, Proxies, Proxies]:
    """The world of a seed, its five proxies and the wide one."""
    world = make_world(seed, setting)
    pairs = overoptimisation.draw_pairs(world, NOISE[setting])
    wide = overoptimisation.equal_width(MEMBERS)
    members = overoptimisation.train_proxies([pairs], [world], MEMBERS, epochs=EPOCHS[budget])[0]
    return world, members, overoptimisation.train_proxies([pairs], [world], 1, width=wide, epochs=EPOCHS[budget])[0]


def rewards_of(arm: str, world: World, members: Proxies, wide: Proxies) -> list[Callable[[Tensor], Tensor]]:
    """The rewards that an arm optimises, each by itself; one but for single models."""
    if arm == "single":
        alone = [
            Proxies(tuple(w[i : i + 1] for w in members.weights), members.mean[i : i + 1], members.deviation[i : i + 1])
            for i in range(MEMBERS)
        ]
        return [lambda answers, one=one: one.score(answers)[0] for one in alone]  # type: ignore[misc]
    if arm == "wide":
        return [lambda answers: wide.score(answers)[0]]
    if arm == "gold":
        return [world.gold]
    rule, penalty = RULES[arm]
    return [lambda answers: aggregate(members.score(answers), rule, penalty)]


# ------------------------------------------------------------------------------------------------------- A: best of n

ANSWERS = {"smoke": (4, 64), "small": (100, 4096), "full": (1000, 12_600)}  # prompts, answers to each
SIZES = {
    "smoke": (1, 4, 16, 64),
    "small": (1, 4, 16, 64, 256, 1024, 4000),
    "full": (1, 4, 16, 64, 256, 1024, 4096, 12_500),
}


def prepare_curves(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Part A, once a seed: every arm's best-of-n curves in every setting, from one scoring of the answers."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for setting in SETTINGS:
        world, members, wide = make_setting(seed, setting, budget)
        found[setting] = _curves(world, members, wide, budget)
    folder = workspace.seed_folder(seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder / "curves.json", found)


def _curves(world: World, members: Proxies, wide: Proxies, budget: Budget) -> dict[str, Any]:
    prompts, count = ANSWERS[budget]
    chunk = max(1, 200_000 // count)
    totals: dict[str, dict[str, Any]] = {}
    for first in range(0, prompts, chunk):
        size = min(chunk, prompts - first)
        answers = world.answers((size, count), "best of n", first)
        gold, each, big = world.gold(answers), members.score(answers), wide.score(answers)[0]
        variance = each.var(0, correction=0)
        proxies = {name: [aggregate(each, *rule)] for name, rule in RULES.items()}
        proxies |= {"single": list(each), "wide": [big], "gold": [gold]}
        for arm, several in proxies.items():
            values = {"gold": gold, "variance": variance}
            sums = totals.setdefault(arm, {})
            for proxy in several:
                for name, value in {**values, "proxy": proxy}.items():
                    curve = _best_of(proxy, value, SIZES[budget]).sum(0) / (prompts * len(several))
                    sums[name] = sums.get(name, 0.0) + curve
    return {arm: {name: curve.tolist() for name, curve in sums.items()} for arm, sums in totals.items()}


def _best_of(proxy: Tensor, value: Tensor, sizes: tuple[int, ...]) -> np.ndarray:
    from paperworks.language.rewards.best_of import best_of_curve

    return best_of_curve(proxy.numpy(), value.numpy(), sizes)


def curve_cell(arm: Arm, setting: str, seed: int, budget: Budget, workspace: Workspace) -> dict[str, Any]:
    """Part A: what the arm's curve says."""
    found = read_json(workspace.seed_folder(seed) / "curves.json")[setting][arm.name]
    gold, proxy, variance = found["gold"], found["proxy"], found["variance"]
    peak = max(gold)
    return {
        "gold_final": gold[-1],
        "gold_peak": peak,
        "drop": peak - gold[-1],
        "drop_share": (peak - gold[-1]) / (peak - gold[0]) if peak > gold[0] else 0.0,
        "peak_kl": _kl(SIZES[budget][int(np.argmax(gold))]),
        "gap": proxy[-1] - gold[-1],
        "variance_growth": variance[-1] / variance[0],
        "gold": gold,
        "proxy": proxy,
    }


def _kl(n: int) -> float:
    return math.log(n) - (n - 1) / n


def curve_figures(results: Results) -> list[tuple[str, str]]:
    """Gold, and proxy, against the KL of best-of-n, the mean over seeds."""
    from paperworks.core import plots

    figures = []
    for setting in SETTINGS:
        for name in ("gold", "proxy"):
            curves = {}
            for arm in ARMS:
                cells = results.cells_of("A", arm.name, setting)
                if not cells or (name == "proxy" and arm.name == "gold"):
                    continue
                values = np.array([cell.metrics[name] for cell in cells])
                sizes = next(sizes for sizes in SIZES.values() if len(sizes) == values.shape[1])
                curves[arm.label] = plots.Curve([_kl(n) for n in sizes], values.mean(0).tolist())
            if curves:
                label = "gold reward" if name == "gold" else "own proxy reward"
                svg = plots.lines(curves, "KL of best-of-n (nats)", f"{label} (standard deviations)")
                figures.append((svg, f"{label} of the answer chosen, {setting}: mean over seeds"))
    return figures


PART_A = Part(
    name="A",
    title="Best-of-n in a world whose gold reward is known",
    text="300 preference pairs a seed, labelled by gold with or without label noise; proxies 16-32-32-1 trained on the same "
    "labels, differing in initialisation and order, standardised on 2000 fresh answers; 100 prompts with 4096 answers, n up to "
    "4000 (7.29 nats), over all subsets. Gold is in its own standard deviations. Heavy-tailed answers with a penalty on "
    "extremes make the proxies wrong where they extrapolate; in the easy world nothing turns down, and there is little to "
    "gain. Growth of variance: that of the members about the chosen answer, n = 4000 over n = 1.",
    arms=ARMS,
    settings=SETTINGS,
    seeds={"smoke": 2, "small": 8, "full": 24},
    prepare=prepare_curves,
    cell=curve_cell,
    metrics=(
        Metric("gold_final", "gold at the largest n", "sd"),
        Metric("gold_peak", "gold at its peak", "sd"),
        Metric("drop", "drop from the peak", "sd", False),
        Metric("drop_share", "drop, share of the rise", "", False, ".2f"),
        Metric("peak_kl", "KL at the peak", "nats", format=".2f"),
        Metric("gap", "proxy minus gold at the largest n", "sd", False),
        Metric("variance_growth", "growth of members' variance", "", False, ".1f"),
    ),
    figures=curve_figures,
)

# ---------------------------------------------------------------------------------------------------- B: policy gradient

BETAS = (0.0, 0.01, 0.1)  # the paper sweeps 0 to 0.2; 0.01 is its best for conservative ensembles
UPDATES = {"smoke": 4, "small": 300, "full": 300}
RATE = 0.01
SETTINGS_B = (HARD, CLEAN, EASY)
MATCHED_KL = (5.0, 10.0, 20.0)


def prepare_proxies(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Part B, once a seed: the proxies of every setting."""
    torch.set_num_threads(1)
    folder = workspace.seed_folder(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number, setting in enumerate(SETTINGS_B):
        _, members, wide = make_setting(seed, setting, budget)
        for name, proxies in (("members", members), ("wide", wide)):
            overoptimisation.save_proxies(folder / f"{name}-{number}.safetensors", proxies)


def policy_cell(arm: Arm, setting: str, seed: int, budget: Budget, workspace: Workspace) -> dict[str, Any]:
    """Part B: train a policy on the arm's reward at every weight of the KL; gold is measured, never used."""
    torch.set_num_threads(1)
    world, place = make_world(seed, setting), SETTINGS_B.index(setting)
    members, wide = (
        overoptimisation.load_proxies(workspace.seed_folder(seed) / f"{name}-{place}.safetensors")
        for name in ("members", "wide")
    )
    courses = [
        gaussian_policies.train_gaussian(
            reward, world.gold, BETAS, dimensions=DIMENSIONS, seed=seed, updates=UPDATES[budget], rate=RATE
        )
        for reward in rewards_of(arm.name, world, members, wide)
    ]
    gold, proxy, kl, distance = (
        torch.stack([getattr(course, name) for course in courses]) for name in ("gold", "proxy", "kl", "distance")
    )
    cell: dict[str, Any] = {}
    for column, beta in enumerate(BETAS):
        of_beta = gold[:, :, column]
        cell[f"gold_final_{beta:g}"] = float(of_beta[:, -1].mean())
        cell[f"drop_{beta:g}"] = float((of_beta.amax(1) - of_beta[:, -1]).mean())
        cell[f"kl_final_{beta:g}"] = float(kl[:, -1, column].mean())
    cell["gap_0.01"] = float((proxy - gold)[:, -1, 1].mean())
    cell["distance_0.01"] = float(distance[:, -1, 1].mean())
    for target in MATCHED_KL:
        at = [_at(target, kl[i, :, 0], gold[i, :, 0]) for i in range(len(courses))]
        cell[f"gold_at_kl_{target:g}"] = float(np.mean(at))
    cell["updates"] = list(courses[0].updates)
    cell["gold_by_update"] = gold.mean(0).T.tolist()
    cell["kl_by_update"] = kl.mean(0).T.tolist()
    return cell


def _at(target: float, kl: Tensor, gold: Tensor) -> float:
    """Gold where the policy without KL penalty first is `target` nats away; NaN where it never gets there."""
    beyond = (kl >= target).nonzero()
    if not len(beyond) or int(beyond[0]) == 0:
        return math.nan
    after = int(beyond[0])
    share = float((target - kl[after - 1]) / (kl[after] - kl[after - 1]))
    return float(gold[after - 1] + share * (gold[after] - gold[after - 1]))


def policy_figures(results: Results) -> list[tuple[str, str]]:
    """Gold against updates at every weight of the KL, the mean over seeds."""
    from paperworks.core import plots

    figures = []
    for setting in (HARD, CLEAN):
        for column, beta in enumerate(BETAS):
            curves = {}
            for arm in ARMS:
                cells = results.cells_of("B", arm.name, setting)
                if cells:
                    values = np.array([cell.metrics["gold_by_update"][column] for cell in cells])
                    curves[arm.label] = plots.Curve(cells[0].metrics["updates"], values.mean(0).tolist())
            if curves:
                svg = plots.lines(curves, "updates", "gold reward (standard deviations)")
                figures.append((svg, f"gold reward while the policy trains, beta {beta:g}, {setting}: mean over seeds"))
    return figures


PART_B = Part(
    name="B",
    title="Policy gradient with a KL penalty",
    text="A Gaussian policy that starts at N(0, I), mean and deviations trained by REINFORCE (128 answers an update, "
    "leave-one-out baseline, Adam 0.01, 300 updates) on the arm's reward minus beta times the log-ratio to its start; gold is "
    "measured on 512 fixed draws every 10 updates. Without penalty the policy keeps moving: gold at matched KL reads those "
    "runs where they first are so many nats away; distance is the paper's mean of half the squared log-ratio. Of single "
    "models each of the five is optimised alone, and the runs are averaged.",
    arms=ARMS,
    settings=SETTINGS_B,
    seeds={"smoke": 2, "small": 8, "full": 24},
    prepare=prepare_proxies,
    cell=policy_cell,
    metrics=(
        *(Metric(f"gold_final_{beta:g}", f"final gold, beta {beta:g}", "sd") for beta in BETAS),
        *(Metric(f"drop_{beta:g}", f"drop from the peak, beta {beta:g}", "sd", False) for beta in BETAS),
        *(Metric(f"gold_at_kl_{kl:g}", f"gold at {kl:g} nats", "sd") for kl in MATCHED_KL),
        Metric("gap_0.01", "proxy minus gold, beta 0.01", "sd", False),
        *(Metric(f"kl_final_{beta:g}", f"final KL, beta {beta:g}", "nats", False, ".0f") for beta in BETAS),
        Metric("distance_0.01", "distance, beta 0.01", "", False, ".0f"),
    ),
    figures=policy_figures,
)


def _claims(setting: str, expected: Any = "holds") -> tuple[Claim, ...]:
    return (
        Claim("gold_final", "wco", "single", setting, expected=expected),
        Claim("gold_final", "uwo", "single", setting, expected=expected),
    )


CLAIMS = (
    *_claims(HARD),
    *_claims(CLEAN),
    Claim("drop", "wco", "single", HARD),
    Claim("drop", "uwo", "single", HARD),
    Claim("gold_final", "wco", "mean", HARD),
    Claim("gold_final", "uwo", "mean", HARD),
    Claim("gold_final", "mean", "single", HARD),
    Claim("gold_final", "wco", "wide", HARD, text="WCO beats one model of equal size"),
    Claim("gold_final", "uwo", "mean", EASY, text="In the easy world UWO still beats the mean", expected="not shown"),
    *(
        Claim(f"gold_final_{beta:g}", arm, "single", setting, "B")
        for setting in (HARD, CLEAN)
        for arm in ("wco", "uwo")
        for beta in (0.01, 0.1)
    ),
    Claim("gold_at_kl_10", "wco", "single", HARD, "B"),
    Claim("gold_at_kl_10", "uwo", "single", HARD, "B"),
    Claim("gold_final_0.1", "uwo", "mean", HARD, "B"),
    Claim("gold_final_0.1", "wco", "wide", HARD, "B"),
)

_SOURCE = "paper, Tables 1-7: win rate of the final policy over single models, 44M reward models"
EXPERIMENT = Experiment(
    slug="reward-ensembles",
    title="Reward Model Ensembles Help Mitigate Overoptimization",
    parts=(PART_A, PART_B),
    claims=CLAIMS,
    published=tuple(
        Published(arm, metric, f"{value} % wins over single", setting, _SOURCE, part, where)
        for setting, part, where, metric, values in (
            ("best-of-n, no noise", "A", CLEAN, "gold_final", (54.9, 57.1, 57.2)),
            ("best-of-n, 25 % noise", "A", HARD, "gold_final", (57.8, 58.3, 58.2)),
            ("PPO, no noise", "B", CLEAN, "gold_final_0.01", (58.1, 59.4, 60.2)),
            ("PPO, 25 % noise", "B", HARD, "gold_final_0.01", (60.2, 62.2, 63.0)),
        )
        for arm, value in zip(("mean", "wco", "uwo"), values, strict=True)
    ),
    differences="The paper optimises Pythia 1.4B against reward models of 7M to 1.3B parameters, with a 7B model as gold, "
    "12 600 answers to each of 1000 prompts and PPO; here answers are points, policies Gaussian and rewards small "
    "networks. The "
    "world's difficulty was set on other seeds, until single models overoptimised, and then left alone. UWO in PPO has lambda "
    "0.1 there; here all three lambdas are arms of both parts.",
    notes="Proxies are networks trained on the same noisy labels, not gold plus noise. A gain from more parameters alone would "
    "show in the model of equal size.",
)
