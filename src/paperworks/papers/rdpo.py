"""rDPO: provably robust DPO under labels flipped at random (Chowdhury, Kini and Natarajan 2024, arXiv 2403.00409).

A share eps of the preference labels is swapped. DPO on them fits a biased objective; rDPO combines the loss of each
pair with that of the swapped pair so that the mean over flips is DPO's loss on clean labels:

    [(1 - eps) l(m) - eps l(-m)] / (1 - 2 eps)        language/objectives/rdpo.py, RobustDPO

Part A is the setting of the paper's theory, a log-linear policy, where the optimal policy is known. Part B aligns a tiny
language model on pairs whose labels a sentiment scorer gave and chance flipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Workspace
from paperworks.experiment.results import Results
from paperworks.language.data import flip_preferences
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.rdpo import ConservativeDPO, RobustDPO
from paperworks.language.rewards import load_reward
from paperworks.language.testbeds import log_linear, reviews, tiny_alignment
from paperworks.language.training import TrainOptions

BETA = 1.0  # of the reward's KL-regularised value, and of every arm that does not tune its own
TRAINING_PAIRS, VALIDATION_PAIRS = 2000, 400
TRAINING_BETAS = (0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.5)

OBJECTIVES: Mapping[str, Callable[[float, float], DPO]] = {
    "dpo": lambda beta, flip_rate: DPO(beta=beta),
    "cdpo": lambda beta, flip_rate: ConservativeDPO(beta=beta, flip_rate=flip_rate),
    "rdpo": lambda beta, flip_rate: RobustDPO(beta=beta, flip_rate=flip_rate),
}

TUNED = "training beta with the lowest de-biased loss on 400 more pairs, themselves flipped; 15 betas"
ARMS_A = (
    Arm("rdpo", "rDPO", options={"objective": "rdpo"}),
    Arm("dpo", "DPO", "baseline", {"objective": "dpo"}),
    Arm("cdpo", "cDPO", "baseline", {"objective": "cdpo"}),
    Arm("dpo-tuned", "DPO, beta tuned", "baseline", {"objective": "dpo", "tuned": True}, TUNED),
    Arm("cdpo-tuned", "cDPO, beta tuned", "baseline", {"objective": "cdpo", "tuned": True}, TUNED),
    Arm("rdpo-tuned", "rDPO, beta tuned", options={"objective": "rdpo", "tuned": True}, note=TUNED),
    Arm("rdpo-under", "rDPO, eps 0.1 too low", "control", {"objective": "rdpo", "offset": -0.1}),
    Arm("rdpo-over", "rDPO, eps 0.1 too high", "control", {"objective": "rdpo", "offset": 0.1}),
    Arm("dpo-clean", "DPO on clean labels", "control", {"objective": "dpo", "clean": True}, "an upper bound"),
)


def log_linear_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A: fit the arm's objective exactly on flipped pairs; compare its policy with the optimal one."""
    torch.set_num_threads(1)
    flip_rate = float(setting.removeprefix("flip="))
    label_flips = 0.0 if arm.options.get("clean") else flip_rate
    assumed = round(flip_rate + arm.options.get("offset", 0.0), 6)
    make = OBJECTIVES[arm.options["objective"]]
    world = log_linear.make_world(seeds, beta=BETA)
    pairs = log_linear.draw_pairs(world, seeds, TRAINING_PAIRS)
    betas = torch.full((len(seeds),), BETA)
    if arm.options.get("tuned"):
        fits = [log_linear.fit(world, make(beta, assumed), pairs, flip_rate=label_flips) for beta in TRAINING_BETAS]
        validation = log_linear.draw_pairs(world, seeds, VALIDATION_PAIRS, stream="validation")
        criterion = RobustDPO(beta=BETA, flip_rate=assumed)
        fit, index = log_linear.best_by(world, fits, criterion, validation, label_flips)
        betas = torch.tensor(TRAINING_BETAS)[index]
    else:
        fit = log_linear.fit(world, make(BETA, assumed), pairs, flip_rate=label_flips)
    columns = {
        "value_gap": world.value_gap(fit.theta),
        "parameter_error": world.parameter_error(fit.theta),
        "calibration_error": log_linear.calibration_error(world, fit.theta),
        "accuracy": log_linear.pair_accuracy(world, fit.theta),
        "training_beta": betas,
        "gradient_norm": fit.gradient_norm,
    }
    return [{name: float(column[row]) for name, column in columns.items()} for row in range(len(seeds))]


PART_A = Part(
    name="A",
    title="Log-linear policy, known optimum",
    text="200 contexts, 16 actions, 8 features; 2000 Bradley-Terry pairs a seed, labels flipped with rate eps; ridge 1e-4; "
    "fitted by Newton's method to a gradient of 1e-8. Value: expected reward minus KL to the uniform reference (beta 1).",
    arms=ARMS_A,
    settings=("flip=0.1", "flip=0.3"),
    seeds={"smoke": 2, "small": 10, "full": 50},
    cell=log_linear_cell,
    batched=True,
    metrics=(
        Metric("value_gap", "value below the optimal policy", higher_is_better=False, format=".4f"),
        Metric("parameter_error", "distance to theta*", higher_is_better=False),
        Metric("calibration_error", "error of preference probabilities", higher_is_better=False),
        Metric("accuracy", "ranking accuracy"),
        Metric("training_beta", "training beta", higher_is_better=False, format=".2f"),
        Metric("gradient_norm", "gradient at the fit", higher_is_better=False, format=".0e"),
    ),
)

CLAIMS_A = (
    *(
        Claim(metric, "rdpo", baseline, where)
        for where in PART_A.settings
        for metric, baseline in (("value_gap", "dpo"), ("value_gap", "cdpo"), ("parameter_error", "dpo"))
    ),
    *(Claim("value_gap", "rdpo", "dpo-tuned", where) for where in PART_A.settings),
    *(Claim("value_gap", "rdpo-tuned", "dpo-tuned", where) for where in PART_A.settings),
    *(Claim("value_gap", "rdpo-tuned", "cdpo-tuned", where) for where in PART_A.settings),
    Claim(
        "accuracy",
        "rdpo",
        "dpo",
        "flip=0.3",
        text="rDPO ranks pairs better than DPO (not the paper's claim: flips shrink the scale of a fit, not its direction)",
        expected="not shown",
    ),
)

FLIP_RATE = 0.3
BETAS = {"smoke": (0.1,), "small": (0.05, 0.1, 0.5, 2.0), "full": (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)}
PAIRS = {"smoke": 96, "small": 4000, "full": 12_000}
HELD_OUT = {"smoke": 32, "small": 600, "full": 2000}
MATCHED_KL = 2.0  # nats a response

ARMS_B = (
    Arm("rdpo", "rDPO", options={"objective": "rdpo"}),
    Arm("dpo", "DPO", "baseline", {"objective": "dpo"}),
    Arm("cdpo", "cDPO", "baseline", {"objective": "cdpo"}),
    Arm("dpo-clean", "DPO on clean labels", "control", {"objective": "dpo", "clean": True}, "an upper bound"),
)


def prepare_reviews(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Part B, once a seed: the start model, pairs sampled from it, their labels, and the same labels flipped once."""
    folder = workspace.seed_folder(seed)
    start = tiny_alignment.make_start(folder, reviews.generate_reviews(200 if budget == "smoke" else 3000, seed), seed)
    count = PAIRS[budget] + HELD_OUT[budget]
    of, first, second = tiny_alignment.sample_two(start, reviews.prompts("films"), count, seed)
    clean = reviews.label_pairs(of, first, second, load_reward("sentiment"), noise="bt", scale=4.0, seed=seed)
    tiny_alignment.save_rows(folder / "clean.jsonl", clean)
    tiny_alignment.save_rows(folder / "flipped.jsonl", flip_preferences(clean, FLIP_RATE, seed))


def review_cell(arm: Arm, setting: str, seed: int, budget: Budget, workspace: Workspace) -> dict[str, Any]:
    """Part B: train the arm at every beta of the grid, equal steps; measure each policy against the start."""
    folder, make = workspace.seed_folder(seed), OBJECTIVES[arm.options["objective"]]
    rows = tiny_alignment.load_rows(folder / ("clean.jsonl" if arm.options.get("clean") else "flipped.jsonl"))
    flip_rate = 0.0 if arm.options.get("clean") else FLIP_RATE
    training, held_out = rows.with_rows(rows.rows[: -HELD_OUT[budget]]), rows.with_rows(rows.rows[-HELD_OUT[budget] :])
    options = TrainOptions(batch_size=64, micro_batch=64, learning_rate=1e-3, select="last", seed=seed)
    prompts = reviews.prompts("films") * (1 if budget == "smoke" else 16)
    points, losses = [], []
    for beta in BETAS[budget]:
        policy, _ = tiny_alignment.align(folder, make(beta, flip_rate), training, options)
        points.append(tiny_alignment.measure(policy, folder, prompts, load_reward("sentiment"), n=1, seed=seed)[0])
        losses.append(tiny_alignment.objective_loss(policy, folder, RobustDPO(beta, flip_rate), held_out))
    chosen = losses.index(min(losses))
    start = tiny_alignment.measure(
        tiny_alignment.load_start(folder), folder, prompts, load_reward("sentiment"), n=1, seed=seed
    )[0]
    return {
        **{f"reward_{beta:g}": point.reward for beta, point in zip(BETAS[budget], points)},
        **tiny_alignment.named("tuned", points[chosen]),
        "tuned_beta": BETAS[budget][chosen],
        "reward_at_kl": tiny_alignment.at_kl(MATCHED_KL, [start, *points], "reward"),
        "reward_by_beta": [point.reward for point in points],
        "kl_by_beta": [point.kl for point in points],
    }


def frontier_figure(results: Results) -> list[tuple[str, str]]:
    """Reward against KL: a point a beta and seed."""
    from paperworks.core import plots

    points = {
        arm.label: [
            point
            for cell in results.cells_of("B", arm.name)
            for point in zip(cell.metrics["kl_by_beta"], cell.metrics["reward_by_beta"])
        ]
        for arm in ARMS_B
    }
    svg = plots.frontier(
        {name: found for name, found in points.items() if found}, "KL to the start (nats)", "sentiment"
    )
    return [(svg, "sentiment reward against KL: a point a beta and seed")]


PART_B = Part(
    name="B",
    title="Tiny language model, sentiment as the true reward",
    text="A Llama of 2 layers and width 64 fitted to generated film reviews; 4000 pairs a seed sampled from it, labelled by "
    "Bradley-Terry on 4 times VADER's sentiment, 30% flipped once; one epoch of batch 64, learning rate 1e-3 (the paper's "
    "Table 4), beta in {0.05, 0.1, 0.5, 2} for every arm. `tuned`: the beta with the lowest de-biased loss on 600 more flipped "
    "pairs. `at 2 nats`: linear in KL between the betas on either side, the start (0 nats) being a point of every arm.",
    arms=ARMS_B,
    seeds={"smoke": 2, "small": 5, "full": 10},
    prepare=prepare_reviews,
    cell=review_cell,
    metrics=(
        *(Metric(f"reward_{beta:g}", f"reward, beta {beta:g}") for beta in BETAS["small"]),
        Metric("reward_at_kl", "reward at 2 nats"),
        Metric("tuned_reward", "reward, tuned beta"),
        Metric("tuned_kl", "KL, tuned beta", "nats", False, ".2f"),
        Metric("tuned_beta", "tuned beta", format=".2f"),
        Metric("tuned_tokens", "tokens, tuned beta", higher_is_better=False, format=".1f"),
    ),
    figures=frontier_figure,
)

CLAIMS_B = (
    *(Claim(f"reward_{beta:g}", "rdpo", "dpo", part="B") for beta in BETAS["small"]),
    *(Claim(f"reward_{beta:g}", "dpo", "cdpo", part="B") for beta in BETAS["small"]),
    Claim("reward_at_kl", "rdpo", "dpo", part="B"),
    Claim("tuned_reward", "rdpo", "dpo", part="B"),
)

EXPERIMENT = Experiment(
    slug="rdpo",
    title="Provably Robust DPO: Aligning Language Models with Noisy Feedback",
    parts=(PART_A, PART_B),
    claims=(*CLAIMS_A, *CLAIMS_B),
    differences="The paper fine-tunes larger language models on sentiment and dialogue data; part A is the setting of its "
    "theory, part B a model of 0.1 million parameters. The paper's second family (reward model and PPO) is not an arm yet.",
    notes="The loss of rDPO has no lower bound: with eps set 0.1 too high it may run away, held by the ridge alone. "
    "Ranking accuracy does not tell the arms apart; value, parameters and calibration do. Tuning the training beta on the "
    "de-biased validation loss uses the same noise model as rDPO and 400 more pairs.",
)
