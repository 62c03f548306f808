"""RPO: the SFT loss as an adversarial regulariser of DPO (Liu et al. 2024, arXiv 2405.16436).

Where data cover only some responses, DPO can move probability to others whose implicit reward is spuriously high. RPO
adds a small imitation term of the responses of a baseline policy, in the experiments the chosen ones:

    -log sigmoid(beta (h_w - h_l)) - eta beta log pi(y_base)        language/objectives/rpo.py, RPO

Part A is a bandit whose pairs cover 30 of 100 responses and whose reward is lower outside than data suggest. Part B aligns
a tiny language model on pairs of one narrow style, with a reward that punishes every other style.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Published, Role, Workspace
from paperworks.experiment.results import Results
from paperworks.language.data import Dataset, preferences_to_demonstrations
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.objective import Objective
from paperworks.language.objectives.rpo import RPO
from paperworks.language.objectives.sft import SFT
from paperworks.language.rewards import load_reward
from paperworks.language.testbeds import coverage_bandit, reviews, tiny_alignment
from paperworks.language.training import TrainOptions

STEPS = {"smoke": 150, "small": 1500, "full": 1500}
TUNING_SEEDS = {"smoke": 2, "small": 30, "full": 100}  # worlds that only choose grid points; no result comes from them
FIRST_TUNING_SEED = 1_000_000

FIXED_BETAS = (0.03, 0.1, 0.3, 1.0, 3.0)
DPO_GRID = {"beta": [0.003, 0.005, 0.008, 0.013, 0.02, 0.035, 0.06, 0.1, 0.16, 0.25, 0.4, 0.7, 1.1, 1.8, 3.0]}
BETAS = [0.003, 0.02, 0.1, 0.4, 3.0]  # the same range in fewer steps, for arms with a second option
RPO_GRID = {"beta": BETAS, "eta": [0.01, 0.1, 1.0]}
BOTH = ("coverage=30", "coverage=90")


def _tuned(name: str, label: str, role: Role, grid: Mapping[str, Any], note: str = "", **options: Any) -> Arm:
    """An arm with 15 grid points, of which the best final reward in other worlds chooses one."""
    settings = BOTH if name in ("rpo-tuned", "dpo-tuned") else BOTH[:1]
    note = "; ".join(filter(None, [note, "best of 15 grid points by reward in other worlds"]))
    return Arm(name, label, role, {**options, "grid": grid}, note, settings)


def _fixed(name: str, label: str, role: Role, settings: tuple[str, ...] = BOTH[:1], **options: Any) -> Arm:
    return Arm(name, label, role, {"grid": {option: [value] for option, value in options.items()}}, settings=settings)


ARMS_A = (
    _tuned("rpo-tuned", "RPO, tuned", "method", RPO_GRID),
    _tuned("dpo-tuned", "DPO, tuned", "baseline", DPO_GRID),
    _fixed("rpo", "RPO, beta 0.1, eta 0.1", "method", BOTH, beta=0.1, eta=0.1),
    *(_fixed(f"rpo-eta-{eta:g}", f"RPO, beta 0.1, eta {eta:g}", "method", beta=0.1, eta=eta) for eta in (0.01, 1.0)),
    *(_fixed(f"dpo-{beta:g}", f"DPO, beta {beta:g}", "baseline", beta=beta) for beta in FIXED_BETAS),
    _tuned(
        "dpo-early-stop",
        "DPO, stopped early",
        "baseline",
        DPO_GRID,
        "at the lowest loss on 100 more pairs",
        stop="held-out",
    ),
    _tuned(
        "dpo-oracle-stop",
        "DPO, stopped by true reward",
        "control",
        DPO_GRID,
        "which nobody has in practice",
        stop="oracle",
    ),
    _tuned("hypo", "DPO + exact KL (as HyPO)", "baseline", {"beta": BETAS, "kl_penalty": [0.01, 0.03, 0.1]}),
    _tuned(
        "rpo-seq-mean",
        "RPO, per-token average",
        "method",
        {"beta": BETAS, "eta": [0.003, 0.03, 0.3]},
        "the coefficient is eta, without beta",
        sft_reduction="seq_mean",
    ),
    _tuned("rpo-base-ref", "RPO, base: reference", "method", RPO_GRID, base="ref"),
    _tuned("rpo-base-covered", "RPO, base: uniform over covered", "method", RPO_GRID, base="file"),
)


def bandit_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A: choose the arm's grid point in worlds of its own, train it in the seeds' worlds, read the last iterate."""
    torch.set_num_threads(1)
    names, values = zip(*arm.options["grid"].items(), strict=True)
    points = [dict(zip(names, point, strict=True)) for point in product(*values)]
    stop = arm.options.get("stop", "last")
    if len(points) > 1:
        tuning = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS[budget])
        points = [points[int(_run(arm, points, setting, tuning, budget).at(stop)["reward"].mean(-1).argmax())]]
    course = _run(arm, points, setting, seeds, budget)
    columns = {name: values[0] for name, values in course.at(stop).items()}
    columns["best_reward"] = course.reward[:, 0].amax(0)
    columns["drop"] = columns["best_reward"] - columns["reward"]
    curves = {"reward_by_step": course.reward[::5, 0], "logp_by_step": course.logp_chosen[::5, 0]}
    shared = {f"tuned_{name}": value for name, value in points[0].items()} | {"steps": course.steps[::5].tolist()}
    return [
        {name: float(column[row]) for name, column in columns.items()}
        | {name: curve[:, row].tolist() for name, curve in curves.items()}
        | shared
        for row in range(len(seeds))
    ]


def _run(
    arm: Arm, points: Sequence[Mapping[str, float]], setting: str, seeds: Sequence[int], budget: Budget
) -> coverage_bandit.Course:
    fixed = {name: value for name, value in arm.options.items() if name in ("sft_reduction", "base")}
    return coverage_bandit.run(
        [RPO(**fixed, **point) if "eta" in point else DPO(beta=point["beta"]) for point in points],  # type: ignore[arg-type]
        seeds,
        covered=int(setting.removeprefix("coverage=")),
        base="covered" if arm.options.get("base") == "file" else "reference",
        kl_penalties=[point["kl_penalty"] for point in points] if "kl_penalty" in points[0] else None,
        steps=STEPS[budget],
    )


def bandit_figures(results: Results) -> list[tuple[str, str]]:
    """Reward and log-probability of the chosen responses over training."""
    from paperworks.core import plots

    figures = []
    for name, label in (("reward", "true reward"), ("logp", "log pi(chosen)")):
        curves = {}
        for arm in ("rpo", "rpo-tuned", "dpo-tuned", "dpo-0.1", "dpo-1", "hypo"):
            if cells := results.cells_of("A", arm, BOTH[0]):
                mean = torch.tensor([cell.metrics[f"{name}_by_step"] for cell in cells]).mean(0).tolist()
                curves[PART_A.arm(arm).label] = plots.Curve(cells[0].metrics["steps"], mean)
        if curves:
            figures.append(
                (plots.lines(curves, "step", label, markers=False), f"{label} over training, mean over seeds")
            )
    return figures


PART_A = Part(
    name="A",
    title="Bandit with partial coverage",
    text="100 responses with 20 features; 200 Bradley-Terry pairs from the covered ones; log-linear policy; full-batch Adam of "
    "0.02, 1500 steps. True reward: linear on covered responses, 0.2 * linear - 1 elsewhere. Figures are those of the last "
    "step; `best` is the best step by the true reward, which nobody can see in practice.",
    arms=ARMS_A,
    settings=BOTH,
    seeds={"smoke": 3, "small": 100, "full": 400},
    cell=bandit_cell,
    batched=True,
    metrics=(
        Metric("reward", "true reward"),
        Metric("outside", "mass outside coverage", higher_is_better=False),
        Metric("logp_chosen", "log pi(chosen)", "nats", format=".1f"),
        Metric("kl", "KL", "nats", False, ".2f"),
        Metric("best_reward", "best reward on the way"),
        Metric("drop", "best minus last reward", higher_is_better=False),
    ),
    figures=bandit_figures,
)

CLAIMS_A = (
    Claim("reward", "rpo-tuned", "dpo-tuned", "coverage=30"),
    Claim("reward", "rpo", "dpo-tuned", "coverage=30"),
    *(Claim("reward", "rpo", f"dpo-{beta:g}", "coverage=30") for beta in (0.03, 0.1)),
    *(Claim(metric, "rpo-tuned", "dpo-tuned", "coverage=30") for metric in ("drop", "outside", "logp_chosen")),
    Claim("reward", "rpo-tuned", "dpo-early-stop", "coverage=30", expected="not shown"),
    Claim(
        "reward",
        "dpo-oracle-stop",
        "rpo-tuned",
        "coverage=30",
        text="DPO stopped at its best step by the true reward is better than RPO's last step (a caveat, not the paper's claim)",
    ),
    Claim(
        "reward",
        "dpo-tuned",
        "rpo",
        "coverage=90",
        text="where data cover nearly everything, tuned DPO is better than RPO at beta 0.1, eta 0.1 (when not to use RPO)",
    ),
)

STYLE = "plain"
PAIRS = {"smoke": 64, "small": 1500, "full": 6000}
EPOCHS = {"smoke": 1, "small": 4, "full": 4}

GRIDS_B: Mapping[str, Sequence[Objective]] = {
    "dpo": [DPO(beta=beta) for beta in (0.03, 0.1, 0.3, 1.0)],
    "rpo": [RPO(beta=0.1, eta=eta) for eta in (0.0, 0.005, 0.05, 0.5)],
    "rpo-seq-mean": [RPO(beta=0.1, eta=eta, sft_reduction="seq_mean") for eta in (0.0, 0.005, 0.05, 0.5)],
    "sft": [SFT(reduction="sum")],
}
TUNED_B = "best of 4 grid points by reward on samples to other prompts"
ARMS_B = (
    Arm("rpo", "RPO (sum)", note=f"beta 0.1, eta in 0, 0.005, 0.05, 0.5; {TUNED_B}"),
    Arm("rpo-seq-mean", "RPO (per-token average)", note=f"the same etas; {TUNED_B}"),
    Arm("dpo", "DPO", "baseline", note=f"beta in 0.03, 0.1, 0.3, 1; {TUNED_B}"),
    Arm("sft", "SFT on chosen", "baseline"),
)


def prepare_styles(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Part B, once a seed: a start fitted to reviews of every style, and pairs of the plain style alone."""
    folder, count = workspace.seed_folder(seed), PAIRS[budget]
    texts = 200 if budget == "smoke" else 3000
    tiny_alignment.make_start(folder, reviews.generate_reviews(texts, seed, clauses=(2, 3)), seed)
    first, second = (
        reviews.generate_reviews(count, seed + offset, styles=(STYLE,), clauses=(2, 3)) for offset in (10_000, 20_000)
    )
    rows = reviews.label_pairs(
        [review.prompt for review in first],
        [review.response for review in first],
        [review.response for review in second],
        load_reward("sentiment"),
        noise="bt",
        scale=4.0,
        seed=seed,
    )
    tiny_alignment.save_rows(folder / "pairs.jsonl", rows)


def style_cell(arm: Arm, setting: str, seed: int, budget: Budget, workspace: Workspace) -> dict[str, Any]:
    """Part B: train the arm's grid, choose a point by reward on other prompts' samples, read its last iterate."""
    folder = workspace.seed_folder(seed)
    gold = reviews.penalised_outside(load_reward("sentiment"), STYLE)
    pairs = tiny_alignment.load_rows(folder / "pairs.jsonl")
    options = TrainOptions(
        epochs=EPOCHS[budget], batch_size=32, micro_batch=32, learning_rate=1e-3, select="last", seed=seed
    )
    prompts = reviews.prompts("films") * (1 if budget == "smoke" else 16)
    half = len(prompts) // 2
    points = []
    for objective in GRIDS_B[arm.name]:
        rows: Dataset[Any] = pairs
        if isinstance(objective, SFT):
            rows = Dataset(tuple(preferences_to_demonstrations(pairs.rows)))
        curve: list[float] = []
        policy, _ = tiny_alignment.align(
            folder,
            objective,
            rows,
            options,
            on_step=lambda step, steps, now, curve=curve: (
                curve.append(now["logp_chosen" if "logp_chosen" in now else "logp"]) if step else None
            ),
        )
        choice, _ = tiny_alignment.measure(policy, folder, prompts[:half], gold, n=1, seed=seed + 1)
        aligned, texts = tiny_alignment.measure(policy, folder, prompts[half:], gold, n=1, seed=seed)
        outside = sum(not reviews.in_style(text, STYLE) for text in texts) / len(texts)
        tail = curve[-max(1, len(curve) // 10) :]
        points.append((choice.reward, aligned, outside, sum(tail) / len(tail), curve))
    best = max(range(len(points)), key=lambda index: points[index][0])
    _, aligned, outside, logp_chosen, curve = points[best]
    return {
        **tiny_alignment.named("last", aligned),
        "outside": outside,
        "logp_chosen": logp_chosen,
        "logp_drop": curve[0] - logp_chosen,
        "chosen_point": best,
        "reward_by_point": [point[1].reward for point in points],
        "outside_by_point": [point[2] for point in points],
        "logp_curve": curve,
    }


def logp_figure(results: Results) -> list[tuple[str, str]]:
    """log pi(chosen) over the steps of training, mean over seeds."""
    from paperworks.core import plots

    curves = {}
    for arm in ARMS_B:
        if cells := results.cells_of("B", arm.name):
            mean = torch.tensor([cell.metrics["logp_curve"] for cell in cells]).mean(0).tolist()
            curves[arm.label] = plots.Curve(list(range(1, len(mean) + 1)), mean)
    svg = plots.lines(curves, "step", "log pi(chosen) of the step's pairs", markers=False)
    return [(svg, "log-probability of the chosen responses over training (the point each arm chose), mean over seeds")]


PART_B = Part(
    name="B",
    title="Tiny language model, pairs of one style",
    text="A Llama of 2 layers and width 64 fitted to reviews of four styles; 1500 pairs of the plain style alone, labelled by "
    "Bradley-Terry on 4 times VADER's sentiment; 4 epochs of batch 32, learning rate 1e-3. Reward: sentiment, minus 1 where a "
    "response is not in the plain style. Figures are those of the last step.",
    arms=ARMS_B,
    seeds={"smoke": 2, "small": 5, "full": 10},
    prepare=prepare_styles,
    cell=style_cell,
    metrics=(
        Metric("last_reward", "true reward"),
        Metric("outside", "responses off the style", higher_is_better=False),
        Metric("logp_chosen", "log pi(chosen)", "nats", format=".1f"),
        Metric("last_kl", "KL", "nats", False, ".1f"),
        Metric("last_tokens", "tokens", higher_is_better=False, format=".1f"),
        Metric("chosen_point", "grid point chosen", format=".1f"),
    ),
    figures=logp_figure,
)

CLAIMS_B = (
    *(Claim(metric, "rpo", "dpo", part="B") for metric in ("last_reward", "outside", "logp_chosen")),
    Claim("last_reward", "rpo-seq-mean", "dpo", part="B"),
    Claim("last_reward", "rpo", "sft", part="B"),
)

EXPERIMENT = Experiment(
    slug="rpo",
    title="Provably Mitigating Overoptimization in RLHF: Your SFT Loss is Implicitly an Adversarial Regularizer",
    parts=(PART_A, PART_B),
    claims=(*CLAIMS_A, *CLAIMS_B),
    published=tuple(
        Published(arm, metric, value, f"zephyr-7b-{series} series", source)
        for series, metric, source, rpo, dpo in (
            ("beta", "MT-Bench", "Table 2", 7.381, 7.278),
            ("beta", "AlpacaEval 2 LC win rate", "Table 2", 23.28, 21.15),
            ("beta", "win rate against DPO (GPT-4, 150 prompts)", "Table 1", 56.0, "–"),
            ("gemma", "MT-Bench", "Table 2", 7.916, 7.688),
            ("gemma", "AlpacaEval 2 LC win rate", "Table 2", 15.51, 15.36),
            ("gemma", "win rate against DPO (GPT-4, 150 prompts)", "Table 1", 54.0, "–"),
        )
        for arm, value in (("rpo-tuned", rpo), ("dpo-tuned", dpo))
    ),
    differences="Part A is a bandit whose true reward is known; the paper aligns 7B models and lets GPT-4 judge. Response "
    "lengths (5 to 40 tokens, at random) exist only for the per-token average.",
    notes="The claim is about not over-optimising at a fixed budget, not about beating a stop chosen by the true reward. "
    "In part B every seed chose RPO's largest eta, the edge of its grid, and SFT has one setting where the others have four: "
    "RPO against SFT is not a comparison at equal tuning.",
)
