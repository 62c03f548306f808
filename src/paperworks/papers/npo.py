"""NPO: negative preference optimization for unlearning (Zhang, Lin, Bai and Mei 2024, arXiv 2404.05868).

A trained model is to behave as if some data had never been in its training set. Ascending their loss has no bound and
soon ruins the model; NPO keeps the rejected half of DPO, whose pull on a sequence fades as it grows unlikely:

    (2 / beta) mean log(1 + (pi / pi_ref)^beta)        language/objectives/unlearning.py, NPO

beta -> 0 gives gradient ascent back. Part A is the paper's synthetic study, where the model that never saw the data is
known; part B makes a tiny language model forget invented people, measured by TOFU's protocol; part C is part A's
collapse curve: how far the weights move at one learning rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Workspace
from paperworks.experiment.results import Results
from paperworks.language.objectives import registry
from paperworks.language.objectives.unlearning import UnlearningObjective
from paperworks.language.testbeds import fact_models, forget_logistic, trial_figures, unlearning_trial
from paperworks.language.testbeds.forget_logistic import Method, Trajectory
from paperworks.language.testbeds.unlearning_trial import TrialSpec

STEPS = {"smoke": 100, "small": 2000, "full": 2000}
RATES = [0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]  # the same for every arm
TUNING_SEEDS = {"smoke": 1, "small": 3, "full": 10}  # worlds that only choose learning rates; no result comes from them
FIRST_TUNING_SEED = 1_000_000
RECORD_EVERY, CURVE_EVERY = 20, 60  # steps; CURVE_EVERY of what is kept for figures

BETAS = {"alpha=1": {"npo": 1.0, "dpo": 0.1, "kto": 1.0}, "alpha=0": {"npo": 10.0, "dpo": 5.0, "kto": 10.0}}
"""The paper's code's own, for each setting; KTO, which it does not run there, has NPO's."""

ARMS_A = (
    Arm("npo-rt", "NPO + retain", options={"forget": "npo", "retain": "rt"}),
    Arm("npo-kl", "NPO + KL", options={"forget": "npo", "retain": "kl"}),
    Arm("npo", "NPO", options={"forget": "npo", "retain": "none"}),
    Arm("ga", "gradient ascent", "baseline", {"forget": "ga", "retain": "none"}),
    Arm("gd", "gradient difference", "baseline", {"forget": "ga", "retain": "rt"}),
    Arm("ga-kl", "gradient ascent + KL", "baseline", {"forget": "ga", "retain": "kl"}),
    Arm("idk", "I don't know + retain", "baseline", {"forget": "idk", "retain": "rt"}),
    Arm("dpo-rt", "DPO to I don't know + retain", "baseline", {"forget": "dpo", "retain": "rt"}),
    Arm("kto-rt", "KTO + retain", "baseline", {"forget": "kto", "retain": "rt"}),
)


def synthetic_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A: choose the arm's learning rate in worlds of their own, then unlearn with it."""
    torch.set_num_threads(1)
    alpha = float(setting.removeprefix("alpha="))
    forget, retain = arm.options["forget"], arm.options["retain"]
    method = Method(forget, retain, BETAS[setting].get(forget, 1.0))
    tuning = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS[budget])
    lowest = torch.cat([course.total.amin(0) for course in _courses(tuning, alpha, method, RATES, STEPS[budget])])
    rate = RATES[int(lowest.mean(0).argmin())]
    cells = []
    for course in _courses(seeds, alpha, method, [rate], STEPS[budget]):
        for seed in range(course.total.shape[1]):
            cells.append({"learning_rate": rate, **_read_course(course, seed)})
    return cells


def _courses(
    seeds: Sequence[int], alpha: float, method: Method, rates: Sequence[float], steps: int
) -> Iterator[Trajectory]:
    """The seeds' trajectories, a few seeds at a time: as many as stay in the processor's cache."""
    for first in range(0, len(seeds), 5):
        problem = forget_logistic.make_problem(seeds[first : first + 5], alpha=alpha)
        yield forget_logistic.unlearn(problem, method, rates, steps=steps, record_every=RECORD_EVERY)


def _read_course(course: Trajectory, seed: int) -> dict[str, Any]:
    total, forget, retain, nll = (
        values[:, seed, 0] for values in (course.total, course.forget_kl, course.retain_kl, course.forget_nll)
    )
    best, kept = int(total.argmin()), slice(None, None, CURVE_EVERY // RECORD_EVERY)
    curves = {"step": course.steps, "forget": forget, "retain": retain, "nll": nll}
    return {
        "best_total": float(total[best]),
        "best_forget": float(forget[best]),
        "best_retain": float(retain[best]),
        "best_step": float(course.steps[best]),
        "end_total": float(total[-1]),
        "end_forget": float(forget[-1]),
        "end_retain": float(retain[-1]),
        "end_nll": float(nll[-1]),
        "start_total": float(total[0]),
        **{f"{name}_curve": values[kept].tolist() for name, values in curves.items()},
    }


def synthetic_figures(results: Results) -> list[tuple[str, str]]:
    """The forget/retain plane, and what remains of the divergence against steps: means over seeds."""
    from paperworks.core import plots

    figures = []
    for setting in PART_A.settings:
        means = {
            arm.label: mean
            for arm in ARMS_A
            if (mean := _mean_curves(results, "A", arm.name, setting, ("step", "forget", "retain")))
        }
        if not means:
            continue
        plane = {name: plots.Curve(mean["retain"], mean["forget"]) for name, mean in means.items()}
        svg = plots.lines(
            plane,
            "KL(retrained || model), retained inputs",
            "the same, inputs to forget",
            log_x=True,
            log_y=True,
            markers=False,
        )
        figures.append(
            (svg, f"the way through the plane, {setting}: from the start (above) along the steps; 0 is best")
        )
        total = {
            name: plots.Curve(mean["step"], [f + r for f, r in zip(mean["forget"], mean["retain"], strict=True)])
            for name, mean in means.items()
        }
        svg = plots.lines(total, "step", "forget KL + retain KL (nats)", log_y=True, markers=False)
        figures.append(
            (svg, f"divergence from the retrained model against steps, {setting}, each at its own best rate")
        )
    return figures


def _mean_curves(
    results: Results, part: str, arm: str, setting: str, names: Sequence[str]
) -> Mapping[str, list[float]]:
    cells = results.cells_of(part, arm, setting)
    if not cells:
        return {}
    return {name: torch.tensor([cell.metrics[f"{name}_curve"] for cell in cells]).mean(0).tolist() for name in names}


PART_A = Part(
    name="A",
    title="Logistic regression on random features, the retrained model known",
    text="16 dimensions, 128 fixed ReLU features, 1000 examples to keep and 200 to forget, inputs N(-alpha, I) and "
    "N(alpha, I) with opposite labels; full-batch gradient descent for 2000 steps from the model fitted to all. Measured: "
    "KL(retrained || model) on 1000 fresh inputs of each kind; `best`: where their sum is lowest along the way. Each arm's "
    "learning rate is the best of the same eleven by that measure in three other worlds; beta is the paper's code's own.",
    arms=ARMS_A,
    settings=("alpha=1", "alpha=0"),
    seeds={"smoke": 2, "small": 20, "full": 50},
    cell=synthetic_cell,
    batched=True,
    metrics=(
        Metric("best_total", "forget KL + retain KL, best step", "nats", False),
        Metric("best_forget", "forget KL there", "nats", False),
        Metric("best_retain", "retain KL there", "nats", False),
        Metric("best_step", "best step", "", False, ".0f"),
        Metric("end_total", "sum at the last step", "nats", False),
        Metric("end_forget", "forget KL, last step", "nats", False),
        Metric("end_retain", "retain KL, last step", "nats", False),
        Metric("end_nll", "nll of what to forget, last step", "nats", True, ".2f"),
        Metric("start_total", "sum before unlearning", "nats", False),
        Metric("learning_rate", "learning rate", "", False, ".0e"),
    ),
    figures=synthetic_figures,
)

CLAIMS_A = (
    *(Claim("best_total", "npo-rt", "gd", where) for where in PART_A.settings),
    *(
        Claim("best_total", "npo-rt", baseline, where)
        for where in PART_A.settings
        for baseline in ("ga", "ga-kl", "idk", "dpo-rt", "npo")
    ),
    *(
        Claim(
            "best_total",
            "npo-rt",
            "kto-rt",
            where,
            text="NPO + retain beats KTO + retain (the paper does not run KTO here)",
            expected="not shown",
        )
        for where in PART_A.settings
    ),
    *(Claim("end_total", "npo", "ga", where) for where in PART_A.settings),
    *(Claim("end_total", "npo-rt", "gd", where) for where in PART_A.settings),
)

TRIALS: Mapping[Budget, TrialSpec] = {
    "smoke": TrialSpec(fact_models.SMOKE, epochs=2, retain_every=3, rouge=False, rates=(1e-3,)),
    "small": TrialSpec(),
    "full": TrialSpec(),
}
ARMS_B = (
    Arm("npo-rt", "NPO + retain"),
    Arm("npo-kl", "NPO + KL"),
    Arm("npo", "NPO"),
    Arm("ga", "gradient ascent", "baseline"),
    Arm("grad-diff", "gradient difference", "baseline"),
    Arm("ga-kl", "gradient ascent + KL", "baseline"),
    Arm("idk", "I don't know + retain", "baseline"),
    Arm("dpo-idk-rt", "DPO to I don't know + retain", "baseline"),
    Arm("kto-idk-rt", "KTO + retain", "baseline"),
)


def prepare_people(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Part B, once a seed: a world, the model fitted to it, and the retain-only one with its log."""
    torch.set_num_threads(1)
    spec = TRIALS[budget]
    for each in (seed, spec.tuning_seed) if seed == 0 and spec.has_choice else (seed,):
        unlearning_trial.prepare(workspace.folder, each, spec)


def people_cell(arm: Arm, setting: str, seed: int, budget: Budget, workspace: Workspace) -> dict[str, Any]:
    """Part B: choose the arm's learning rate in a world of its own, unlearn with it, read the way and its end."""
    torch.set_num_threads(1)
    objective, spec = cast(UnlearningObjective, registry.make(arm.name)), TRIALS[budget]
    rate = unlearning_trial.tuned_rate(workspace.folder, objective, spec)
    trial = unlearning_trial.unlearn(workspace.folder, objective, rate, seed, spec)
    return {"learning_rate": rate, **trial.as_dict()}


def people_figures(results: Results) -> list[tuple[str, str]]:
    """The plane of forget quality and utility, the collapse curve, and where s lies at the end of one seed."""
    trials = {arm.label: [cell.metrics for cell in results.cells_of("B", arm.name)] for arm in ARMS_B}
    shown = [arm.label for arm in ARMS_B if arm.name in ("npo-rt", "ga")]
    return trial_figures.draw({name: found for name, found in trials.items() if found}, histograms=shown)


PART_B = Part(
    name="B",
    title="Tiny language model, invented people to forget",
    text="A Llama of 2 layers and width 96 fitted to 60 invented people, 14 questions each (target), and the same model fitted "
    "without 6 of them (retain-only). Unlearning the 6: 10 epochs, 40 steps, of 21 answers to forget, each beside one of 42 "
    "people to keep; AdamW, linear decay after a tenth of warm-up. Before it and every epoch TOFU's protocol: forget quality "
    "is the KS test's p-value of the truth-ratio statistic against the retain-only model; utility the harmonic mean of the "
    "retain set's probability, ROUGE-L and truth ratio (3 of the protocol's 9 numbers); held-out utility the same for people "
    "whom the target knows and unlearning never sees. Best epoch: the highest forget quality where utility is at least 0.9 of "
    "the target's; the start is one of the epochs. Each arm's learning rate is the best of the same four by that measure in a "
    "world of its own; beta is 0.1 for all arms that have one.",
    arms=ARMS_B,
    seeds={"smoke": 2, "small": 5, "full": 20},
    prepare=prepare_people,
    cell=people_cell,
    metrics=(
        Metric("quality", "log10 forget quality, best epoch", "", format=".2f"),
        Metric("utility", "utility there"),
        Metric("best_epoch", "best epoch", "", False, ".1f"),
        Metric("end_quality", "log10 forget quality, last epoch", "", format=".2f"),
        Metric("end_utility", "utility, last epoch"),
        Metric("end_held_out", "held-out utility, last epoch"),
        Metric("end_nll", "nll of what to forget, last epoch", "nats a token", format=".2f"),
        Metric("start_quality", "log10 forget quality before", "", format=".2f"),
        Metric("start_utility", "utility before"),
        Metric("learning_rate", "learning rate", "", False, ".0e"),
    ),
    figures=people_figures,
)

CLAIMS_B = (
    Claim("quality", "npo-rt", "grad-diff", part="B"),
    Claim("end_utility", "npo", "ga", part="B"),
    *(Claim("quality", "npo-rt", arm.name, part="B") for arm in ARMS_B if arm.name not in ("npo-rt", "grad-diff")),
    Claim("end_utility", "npo-rt", "grad-diff", part="B"),
)

COLLAPSE_STEPS = {"smoke": 200, "small": 10_000, "full": 10_000}
COLLAPSE_RATE = 5e-4

ARMS_C = (
    Arm("npo", "NPO, beta 1", options={"forget": "npo", "beta": 1.0}),
    Arm("npo-0.1", "NPO, beta 0.1", options={"forget": "npo", "beta": 0.1}),
    Arm("npo-0.01", "NPO, beta 0.01", options={"forget": "npo", "beta": 0.01}),
    Arm("ga", "gradient ascent", "baseline", {"forget": "ga", "beta": 1.0}),
)


def collapse_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part C: how far the weights go at one learning rate without anything to hold them."""
    torch.set_num_threads(1)
    problem = forget_logistic.make_problem(seeds, alpha=float(setting.removeprefix("alpha=")))
    method, steps = Method(arm.options["forget"], "none", arm.options["beta"]), COLLAPSE_STEPS[budget]
    course = forget_logistic.unlearn(problem, method, [COLLAPSE_RATE], steps=steps, record_every=steps // 50)
    distance, nll, total = course.distance[..., 0], course.forget_nll[..., 0], course.total[..., 0]
    exponent = (distance[-1] / distance[len(distance) // 2]).log2()
    return [
        {
            "exponent": float(exponent[seed]),
            "distance": float(distance[-1, seed]),
            "nll": float(nll[-1, seed]),
            "total": float(total[-1, seed]),
            "step_curve": course.steps.tolist(),
            "distance_curve": distance[:, seed].tolist(),
            "nll_curve": nll[:, seed].tolist(),
        }
        for seed in range(len(seeds))
    ]


def collapse_figures(results: Results) -> list[tuple[str, str]]:
    """Distance from the start, and the loss of what is to be forgotten, against steps: means over seeds."""
    from paperworks.core import plots

    figures = []
    for setting in PART_C.settings:
        for name, label in (("distance", "||a - a0||"), ("nll", "nll of what to forget (nats)")):
            curves = {
                arm.label: plots.Curve(mean["step"], mean[name])
                for arm in ARMS_C
                if (mean := _mean_curves(results, "C", arm.name, setting, ("step", name)))
            }
            if curves:
                svg = plots.lines(curves, "step", label, markers=False)
                figures.append((svg, f"{label} against steps at learning rate {COLLAPSE_RATE:g}, {setting}"))
    return figures


PART_C = Part(
    name="C",
    title="The collapse curve: gradient ascent runs off linearly, NPO logarithmically",
    text="Part A's worlds, every arm at the learning rate of the paper's figure, 5e-4, for 10000 steps, with "
    "nothing to hold the weights a. Growth exponent: log2 of the distance ||a - a0|| over that at half as many steps; 1 is "
    "linear growth, logarithmic growth tends to 0.",
    arms=ARMS_C,
    settings=PART_A.settings,
    seeds={"smoke": 2, "small": 20, "full": 50},
    cell=collapse_cell,
    batched=True,
    metrics=(
        Metric("exponent", "growth exponent", "", False),
        Metric("distance", "distance from the start", "", False, ".2f"),
        Metric("nll", "nll of what to forget", "nats", True, ".2f"),
        Metric("total", "forget KL + retain KL", "nats", False, ".2f"),
    ),
    figures=collapse_figures,
)

CLAIMS_C = tuple(
    Claim(metric, "npo", than, where, part="C")
    for where in PART_C.settings
    for metric, than in (("exponent", "ga"), ("exponent", "npo-0.1"), ("distance", "ga"), ("total", "ga"))
)

EXPERIMENT = Experiment(
    slug="npo",
    title="Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning",
    parts=(PART_A, PART_B, PART_C),
    claims=(*CLAIMS_A, *CLAIMS_B, *CLAIMS_C),
    differences="Part A fits by Newton's method with a ridge that stands for the paper's early-stopped gradient descent, and "
    "chooses learning rates from a grid where the paper's code has one for each method. Part B has invented people in the "
    "shape of TOFU and a model of 2 layers where the paper has Llama-2-7b-chat on TOFU itself, and 84 questions to forget.",
    notes="Only learning rates are tuned, from the same grid and by the same measure for every arm. beta, which only NPO, DPO "
    "and KTO have, is not: in part A it is the one that the paper's code gives for each setting, and KTO, which that code does "
    "not run there, has NPO's. Part A, alpha=0: the learning rate that gradient ascent chooses barely moves the model, so that "
    "the claim on values at the last step is unstable there. Part B: every seed has its own people and its own pair of models, "
    "and all seeds share the base that both were fitted from.",
)
