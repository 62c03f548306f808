"""InfAlign: align for the procedure that answers are drawn with (Balashankar et al. 2024, arXiv 2412.19792).

A policy that is deployed with best-of-N, or attacked with worst-of-N, should win under that procedure. The optimum is again
that of KL-regularised RL, for another reward: the quantile C(x, y) of y among the reference's own answers to x, transformed

    identity u; exp(t u), t > 0 for best-of-N; -exp(-|t| u) for worst-of-N     rewards/calibration.py, quantiles, Transform

Part A: what each transform wins at a KL, and the optimum, computed (rewards/inference_planner.py). Part B: RLOO on rewards
that are raw, standardised, or calibrated and transformed (testbeds/inference_alignment.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Published, Workspace
from paperworks.experiment.results import Results
from paperworks.language.rewards import inference_planner
from paperworks.language.rewards.best_of import win_rate
from paperworks.language.rewards.calibration import Transform
from paperworks.language.rewards.inference_planner import QuantilePolicy
from paperworks.language.testbeds import inference_alignment
from paperworks.language.testbeds.inference_alignment import Recipe, WorldSize

N = 4  # of best-of-N and worst-of-N, where nothing else is said
MEASURES = ("standard", "best", "worst")

# ---------------------------------------------------------------------------------------------------------- A: computed

SETTINGS_A = tuple(f"N={n}, KL {kl}" for n, kl in ((4, "1"), (4, "0.25"), (2, "1"), (2, "0.25"), (8, "1"), (8, "0.25")))
MAIN_A = SETTINGS_A[:2]
DRAWN = {"smoke": (4, 16), "small": (200, 64), "full": (2000, 64)}  # prompts, and answers to each, for the estimators

ARMS_A = (
    Arm("exp5", "exp(5u)", options={"t": 5.0}),
    Arm("exp10", "exp(10u)", options={"t": 10.0}),
    Arm("exp-5", "−exp(−5u)", options={"t": -5.0}),
    Arm("exp-10", "−exp(−10u)", options={"t": -10.0}),
    Arm("identity", "identity", "baseline", note="calibration alone; optimal for one sample"),
    Arm("log", "log u", "baseline", note="what distilling best-of-n gives"),
    Arm("optimum-bon", "optimum, best of N", "control", {"optimum": "bon"}, "the fixed point"),
    Arm("optimum-won", "optimum, worst of N", "control", {"optimum": "won"}, "the fixed point"),
)


def computed_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A: win rates by the formulas, the same for every seed, and from answers drawn with the seed."""
    n, kl = int(setting.split(",")[0].removeprefix("N=")), float(setting.rpartition(" ")[2])
    beta, policy = _at_kl(arm, n, kl)
    exact = {
        "standard": policy.win_rate(),
        "best": policy.win_rate("bon", n),
        "worst": policy.win_rate("won", n),
        "kl": policy.kl,
        "beta": beta,
    }
    return [{**exact, **_estimated(policy, n, seed, budget)} for seed in seeds]


def _at_kl(arm: Arm, n: int, kl: float) -> tuple[float, QuantilePolicy]:
    if "optimum" in arm.options:
        return inference_planner.optimum_at_kl(arm.options["optimum"], n, kl)
    transform = Transform("exp", arm.options["t"]) if "t" in arm.options else Transform(arm.name)  # type: ignore[arg-type]
    return inference_planner.at_kl(lambda beta: inference_planner.tilted(transform, beta), kl)


def _estimated(policy: QuantilePolicy, n: int, seed: int, budget: Budget) -> dict[str, float]:
    """Win rates by the order-statistic estimator, from quantiles drawn of the policy and of the reference."""
    prompts, answers = DRAWN[budget]
    theirs, ours = inference_alignment.drawn_quantiles(policy, prompts, answers, seed)
    kinds: tuple[tuple[str, Literal["sample", "bon", "won"], int], ...] = (
        ("standard", "sample", 1),
        ("best", "bon", n),
        ("worst", "won", n),
    )
    return {f"estimated_{name}": float(win_rate(ours, theirs, kind=kind, n=of).mean()) for name, kind, of in kinds}


def trade_off_figures(results: Results) -> list[tuple[str, str]]:
    """Best-of-N against worst-of-N win rate of every transform."""
    from paperworks.core import plots

    figures = []
    for setting in MAIN_A:
        points = {}
        for arm in ARMS_A:
            if results.cells_of("A", arm.name, setting):
                best, worst = (results.interval("A", arm.name, name, setting).mean for name in ("best", "worst"))
                points[arm.label] = [(best, worst)]
        if points:
            svg = plots.frontier(points, "best-of-N win rate", "worst-of-N win rate")
            figures.append((svg, f"{setting}: what each transform wins under both procedures, computed"))
    return figures


PART_A = Part(
    name="A",
    title="What every transform wins, computed",
    text="A policy is the density of its answers' quantiles; the reference's is uniform. Every transform, and the optimum for "
    "best and for worst of N, at the weight of the KL that gives the KL budget; win rates over the reference, with the "
    "procedure applied to both, by the formulas on 4000 points: they are the same for every seed. The estimated ones are from "
    "answers drawn with the seed (200 prompts of 64), by the estimator that part B uses.",
    arms=ARMS_A,
    settings=SETTINGS_A,
    seeds={"smoke": 2, "small": 5, "full": 20},
    cell=computed_cell,
    batched=True,
    metrics=(
        Metric("standard", "win rate", format=".4f"),
        Metric("best", "best-of-N win rate", format=".4f"),
        Metric("worst", "worst-of-N win rate", format=".4f"),
        Metric("kl", "KL", "nats", False, ".4f"),
        Metric("beta", "weight of the KL", "", False, ".4f"),
        Metric("estimated_standard", "win rate, estimated"),
        Metric("estimated_best", "best-of-N win rate, estimated"),
        Metric("estimated_worst", "worst-of-N win rate, estimated"),
    ),
    figures=trade_off_figures,
)

CLAIMS_A = (
    *(Claim("best", "optimum-bon", than, where) for where in MAIN_A for than in ("exp5", "exp10", "identity")),
    *(Claim("worst", "optimum-won", than, where) for where in MAIN_A for than in ("exp-5", "exp-10", "identity")),
    *(Claim("best", "exp10", "identity", where) for where in MAIN_A),
    *(Claim("worst", "exp-10", "identity", where) for where in MAIN_A),
    *(Claim("standard", "identity", than, where) for where in MAIN_A for than in ("exp10", "exp-10", "log")),
)

# ----------------------------------------------------------------------------------------------------------- B: trained

SIZES: Mapping[Budget, WorldSize] = {
    "smoke": WorldSize(8, 16, 8, imitation_steps=10, reward_steps=5),
    "small": WorldSize(),
    "full": WorldSize(200, 64, 64),
}
RECIPES: Mapping[Budget, Recipe] = {
    "smoke": Recipe(steps=2, prompts=2),
    "small": Recipe(),
    "full": Recipe(steps=400, prompts=32),
}
KLS = (0.5, 1.0)  # nats an answer
WEIGHTS = "5 weights of the KL"

ARMS_B = (
    Arm("exp5", "CTRL, exp(5u)", options={"t": 5.0, "grid": (0.4, 0.31, 0.24, 0.18, 0.14)}, note=WEIGHTS),
    Arm("exp10", "CTRL, exp(10u)", options={"t": 10.0, "grid": (0.4, 0.31, 0.24, 0.18, 0.14)}, note=WEIGHTS),
    Arm("exp-5", "CTRL, −exp(−5u)", options={"t": -5.0, "grid": (0.16, 0.09, 0.05, 0.03, 0.016)}, note=WEIGHTS),
    Arm("exp-10", "CTRL, −exp(−10u)", options={"t": -10.0, "grid": (0.08, 0.035, 0.015, 0.0066, 0.003)}, note=WEIGHTS),
    Arm("identity", "calibrated", options={"grid": (0.4, 0.28, 0.2, 0.14, 0.1)}, note=WEIGHTS),
    Arm("raw", "raw reward", "baseline", {"reward": "raw", "grid": (3.0, 2.1, 1.5, 0.9, 0.5)}, WEIGHTS),
    Arm(
        "standardised",
        "standardised reward",
        "baseline",
        {"reward": "standardised", "grid": (0.8, 0.57, 0.4, 0.25, 0.13)},
        f"mean 0 and deviation 1 over the batch; {WEIGHTS}",
    ),
    Arm(
        "distilled",
        "best-of-n distilled",
        "baseline",
        {"grid": (2, 3, 5, 8, 16)},
        "supervised on the best of n calibration answers, 5 values of n in place of weights of the KL",
    ),
)


def prepare_world(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Once a seed: the reference policy, the reward model, and the reference's answers with their rewards."""
    torch.set_num_threads(1)
    inference_alignment.make_world(seed, SIZES[budget]).save(_file(workspace, seed))


def trained_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part B: train at every weight of the KL, measure, and read the win rates where the KL is the wanted one."""
    torch.set_num_threads(1)
    world = inference_alignment.load_worlds([_file(workspace, seed) for seed in seeds], seeds, SIZES[budget])
    grid, recipe = arm.options["grid"], RECIPES[budget]
    if arm.name == "distilled":
        policy = inference_alignment.distil(world, grid, recipe)
    else:
        transform = Transform("exp", arm.options["t"]) if "t" in arm.options else Transform()
        policy = inference_alignment.train(world, arm.options.get("reward", transform), grid, recipe)
    found = inference_alignment.measure(world, policy, N)
    beyond = 1 / (world.size.calibration + 1)  # of the reference's own answers
    cells = []
    for place in range(len(seeds)):
        curves = {name: getattr(found, name)[place :: len(seeds)].tolist() for name in ("kl", "saturated", *MEASURES)}
        read: dict[str, Any] = {
            f"{name}_{kl:g}": inference_alignment.at_kl(kl, curves["kl"], curves[name], start)
            for kl in KLS
            for name, start in (*((each, 0.5) for each in MEASURES), ("saturated", beyond))
        }
        read |= {"most_kl": max(curves["kl"]), "pair_accuracy": float(world.pair_accuracy[place])}
        cells.append(read | {f"{name}_curve": values for name, values in curves.items()})
    return cells


def _file(workspace: Workspace, seed: int) -> Path:
    return workspace.seed_folder(seed) / "world.safetensors"


def curve_figures(results: Results) -> list[tuple[str, str]]:
    """The three win rates against KL, mean over seeds."""
    from paperworks.core import plots

    kls = [0.05 * step for step in range(41)]
    labels = {"standard": "win rate", "best": f"best-of-{N} win rate", "worst": f"worst-of-{N} win rate"}
    figures = []
    for measure, label in labels.items():
        curves = {}
        for arm in ARMS_B:
            cells = results.cells_of("B", arm.name)
            read = [
                [inference_alignment.at_kl(kl, c.metrics["kl_curve"], c.metrics[f"{measure}_curve"]) for c in cells]
                for kl in kls
            ]
            means = [(kl, sum(row) / len(row)) for kl, row in zip(kls, read, strict=True) if row and row == row]
            means = [(kl, mean) for kl, mean in means if mean == mean]
            if len(means) > 1:
                curves[arm.label] = plots.Curve([kl for kl, _ in means], [mean for _, mean in means])
        if curves:
            svg = plots.lines(curves, "KL to the reference (nats an answer)", label, markers=False)
            figures.append((svg, f"{label} over the reference against KL, between the grid's points: mean over seeds"))
    return figures


PART_B = Part(
    name="B",
    title="Small decoders under a learned reward whose scale differs by prompt",
    text="A policy of 2 layers and width 32 imitated generated text, answers of 12 letters to prompts of 3. A reward model of "
    "the same size was fitted to pairs of its answers; for each of 96 prompts its reward is multiplied by exp(N(0,1)) and "
    "moved by N(0,2). An answer's first letter says how bold it is: how much the others win or lose. RLOO, 100 steps of 16 "
    "prompts with 4 answers, the same for all rewards, at 5 weights of the KL; calibration by 64 answers of the reference a "
    "prompt. Best-of-n distillation is supervised, as many steps of as many answers: its n, 2 to 16, is what the weight of "
    "the KL is to RL, and its targets are the best of n random ones of the same 64. Win rates over the reference are of 32 "
    "fresh answers to every prompt on each side, judged by the reward, all subsets counted; read where the KL is 0.5 and 1, "
    "on straight lines between the points of the grid and the reference.",
    arms=ARMS_B,
    seeds={"smoke": 2, "small": 5, "full": 20},
    prepare=prepare_world,
    cell=trained_cell,
    batched=True,
    metrics=(
        *(
            Metric(f"{name}_{kl:g}", f"{label} at KL {kl:g}")
            for kl in KLS
            for name, label in (
                ("standard", "win rate"),
                ("best", f"best-of-{N} win rate"),
                ("worst", f"worst-of-{N} win rate"),
            )
        ),
        *(Metric(f"saturated_{kl:g}", f"answers above all calibration's, KL {kl:g}", "", False) for kl in KLS),
        Metric("most_kl", "largest KL of the grid", "nats", False, ".2f"),
        Metric("pair_accuracy", "reward model's accuracy on pairs", format=".2f"),
    ),
    figures=curve_figures,
)

CLAIMS_B = tuple(
    Claim(f"{metric}_{kl:g}", better, than, part="B")
    for metric, better, than in (
        ("standard", "identity", "raw"),
        ("standard", "identity", "standardised"),
        ("best", "exp10", "identity"),
        ("best", "exp5", "identity"),
        ("best", "exp10", "raw"),
        ("best", "exp10", "distilled"),
        ("worst", "exp-10", "identity"),
        ("worst", "exp-5", "identity"),
        ("worst", "exp-10", "raw"),
    )
    for kl in KLS
)

EXPERIMENT = Experiment(
    slug="infalign",
    title="InfAlign: Inference-aware language model alignment",
    parts=(PART_A, PART_B),
    claims=(*CLAIMS_A, *CLAIMS_B),
    published=(
        Published(
            "CTRL",
            "gain in inference-time win rate over RLHF baselines",
            "+3 to +8 %",
            "helpfulness and summarisation (best-of-N), harmlessness (worst-of-N)",
            "abstract of the ICML version",
        ),
        Published(
            "CTRL",
            "gain in inference-time win rate",
            "+8 to +12 % / +4 to +9 %",
            "helpfulness (best-of-N) / harmlessness (worst-of-N)",
            "abstract of the first version",
        ),
    ),
    differences="The paper aligns language models to preferences on helpfulness, summarisation and harmlessness with PPO; here "
    "small decoders write letters, the optimiser is RLOO, and the judge is the reward that is optimised.",
    notes="Transforms are normalised to [0, 1], so that weights of the KL are comparable. Part A: at beta 0.1 the optimum for "
    "best of 4 has a KL of 0.8909 and wins .7608 / .9312 / .7199 on every grid tried, 4000 and 16,000 points; 0.8887 with "
    ".7606 / .9309 / .7198, which the specification of this experiment gives, is not what the fixed point converges to. "
    "Worst of 16 at 1 nat is out of reach of the grid and left out. Part B was sized on other seeds before its claims were "
    "tested: the worth of answers was made simpler until the reward model could learn it, steps and rate were set by the time "
    "they take, and every arm's grid so that it encloses KLs of 0.5 and 1. All prompts are trained on and judged on, since a "
    "scale that belongs to a prompt can be learned for no other. exp(-5u) beside exp(-10u) was added on those seeds, where "
    "the latter gave little signal: reward differs only among a policy's rare worst answers, the rarer the better it gets. "
    "Noise costs KL and wins nothing, which may be why the transforms for worst-of-4 win by the table of part A and not here: "
    "on two other seeds, 200 steps of 32 prompts brought -exp(-5u) a little above the calibrated reward. One thing "
    "was changed after a first run on the reported seeds: the two smallest weights of the KL of raw and of standardised "
    "rewards were lowered, since a seed's policies had not come as far as 1 nat and its claims there had no number; the other "
    "claims had come out as they do now.",
)
