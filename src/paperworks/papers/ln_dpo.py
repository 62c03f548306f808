"""LN-DPO: the hitchhiker's guide to human alignment with *PO (Ahrabian et al. 2024, arXiv 2407.15229).

A study of preference losses from the practitioner's side: how good is a loss over its grid, in reward, KL and length,
rather than at its best point? LN-DPO is DPO on averages over each response's own tokens:

    -log sigmoid(beta [S_w / |w| - S_l / |l|])        language/objectives/ln_dpo.py, LNDPO

Part A is a unigram language model whose annotators like length, where quality, length and KL are exact. Part B trains a tiny
language model over nine configurations of each loss and evaluates it on prompts of another kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Workspace
from paperworks.experiment.results import Results
from paperworks.language.data import Dataset, preferences_to_feedback
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.ipo import IPO
from paperworks.language.objectives.kto import KTO
from paperworks.language.objectives.ln_dpo import LNDPO
from paperworks.language.objectives.objective import Objective
from paperworks.language.objectives.simpo import SimPO
from paperworks.language.rewards.reward import CheckedReward
from paperworks.language.testbeds import reviews, tiny_alignment, unigram
from paperworks.language.training import TrainOptions

PAIRS = 800
STEPS = {"smoke": 50, "small": 300, "full": 300}
MATCHED_KL = (3.0, 4.0, 5.0)  # nats at which quality and length are compared; claims are made at 4

OBJECTIVES: Mapping[str, Callable[[float], Objective]] = {
    "ln-dpo": lambda beta: LNDPO(beta=beta),
    "dpo": lambda beta: DPO(beta=beta),
    "simpo": lambda beta: SimPO(beta=beta, gamma_ratio=0.5),
    "simpo-no-margin": lambda beta: SimPO(beta=beta, gamma_ratio=0.0),
    "ipo": lambda tau: IPO(tau=tau),
    "ipo-avg": lambda tau: IPO(tau=tau, average=True),
    "kto": lambda beta: KTO(beta=beta),
}


def _grid(low: float, high: float, points: int = 20) -> list[float]:
    """As many values for every loss, from the weak end of its own scale to the strong one, evenly spaced in the logarithm."""
    return [round(low * (high / low) ** (index / (points - 1)), 4) for index in range(points)]


ARMS_A = (
    Arm("ln-dpo", "LN-DPO", options={"grid": _grid(1, 12)}),
    Arm("dpo", "DPO", "baseline", {"grid": _grid(0.01, 1.5)}),
    Arm("simpo", "SimPO, gamma/beta 0.5", "baseline", {"grid": _grid(1, 20)}),
    Arm("simpo-no-margin", "SimPO, gamma 0", "baseline", {"grid": _grid(1, 20)}),
    Arm("ipo", "IPO (sums)", "baseline", {"grid": _grid(0.01, 0.5)}),
    Arm("ipo-avg", "IPO (averages)", "baseline", {"grid": _grid(0.1, 3)}),
    Arm("kto", "KTO", "baseline", {"grid": _grid(0.01, 1)}),
)


def unigram_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A: train the arm's whole grid; read quality and length at matched KL and over the grid."""
    torch.set_num_threads(1)
    world = unigram.make_unigram_world(seeds)
    pairs = unigram.draw_unigram_pairs(world, seeds, PAIRS, length_bias=float(setting.removeprefix("length bias=")))
    objectives = [OBJECTIVES[arm.name](value) for value in arm.options["grid"]]
    logits = unigram.train_unigram(world, objectives, pairs, steps=STEPS[budget])
    quality, length, kl = world.expected_quality(logits), world.expected_length(logits), world.kl(logits)
    cells = []
    for seed in range(len(seeds)):
        of_seed: dict[str, Any] = {"quality": quality[:, seed], "length": length[:, seed], "kl": kl[:, seed]}
        cell: dict[str, Any] = {
            f"{name}_at_{target:g}": unigram.at_kl(target, of_seed["kl"], of_seed[name])
            for name in ("quality", "length")
            for target in MATCHED_KL
        }
        cell["quality_median"] = float(of_seed["quality"].quantile(0.5))
        cell["length_median"] = float(of_seed["length"].quantile(0.5))
        cell["kl_lowest"], cell["kl_highest"] = float(of_seed["kl"].min()), float(of_seed["kl"].max())
        cells.append(cell | {f"{name}_by_point": values.tolist() for name, values in of_seed.items()})
    return cells


def unigram_figures(results: Results) -> list[tuple[str, str]]:
    """Quality, and length, against KL: every grid point of every arm, the mean over seeds."""
    from paperworks.core import plots

    figures = []
    for setting in PART_A.settings:
        curves: dict[str, dict[str, plots.Curve]] = {"quality": {}, "length": {}}
        for arm in ARMS_A:
            cells = results.cells_of("A", arm.name, setting)
            if not cells:
                continue
            mean = {
                name: torch.tensor([cell.metrics[f"{name}_by_point"] for cell in cells]).mean(0).tolist()
                for name in ("quality", "length", "kl")
            }
            for name, by_arm in curves.items():
                points = sorted(zip(mean["kl"], mean[name], strict=True))
                by_arm[arm.label] = plots.Curve([kl for kl, _ in points], [value for _, value in points])
        for name, by_arm in curves.items():
            if by_arm:
                svg = plots.lines(by_arm, "KL to the reference (nats)", name, log_x=True)
                figures.append((svg, f"{name} against KL, {setting}: one point a grid value, mean over seeds"))
    return figures


def _matched(name: str, unit: str, *, higher_is_better: bool) -> tuple[Metric, ...]:
    return tuple(
        Metric(f"{name}_at_{kl:g}", f"{name} at {kl:g} nats", unit, higher_is_better, ".2f" if not unit else ".1f")
        for kl in MATCHED_KL
    )


PART_A = Part(
    name="A",
    title="Unigram language model, exact quality, length and KL",
    text="20 words and an end token (probability 0.08, cap 60); quality is 3 times the mean word value; 800 pairs a seed "
    "sampled from the reference, labelled by Bradley-Terry on quality + bias * (length - 12). 300 full-batch Adam steps "
    "of 0.02; 20 grid values a loss. At matched KL: linear between the grid points just below and just above it; a dash "
    "where a loss's grid does not come near that KL (the two points more than a factor 4 apart, or none on a side). "
    "Lengths are tokens with the end token.",
    arms=ARMS_A,
    settings=("length bias=0.1", "length bias=0", "length bias=-0.1"),
    seeds={"smoke": 2, "small": 10, "full": 50},
    cell=unigram_cell,
    batched=True,
    metrics=(
        *_matched("quality", "", higher_is_better=True),
        *_matched("length", "tokens", higher_is_better=False),
        Metric("quality_median", "median quality over the grid", format=".2f"),
        Metric("length_median", "median length over the grid", "tokens", False, ".1f"),
        Metric("kl_lowest", "lowest KL of the grid", "nats", False, ".2f"),
        Metric("kl_highest", "highest KL of the grid", "nats", False, ".2f"),
    ),
    figures=unigram_figures,
)

CLAIMS_A = (
    Claim("quality_at_4", "ln-dpo", "dpo", "length bias=0.1"),
    Claim("length_at_4", "ln-dpo", "dpo", "length bias=0.1"),
    Claim("quality_at_4", "ln-dpo", "dpo", "length bias=0"),
    Claim("length_at_4", "ln-dpo", "dpo", "length bias=0"),
    Claim("quality_at_4", "ln-dpo", "dpo", "length bias=-0.1", expected="not shown"),
    Claim("length_at_4", "ln-dpo", "dpo", "length bias=-0.1", expected="not shown"),
)

LEARNING_RATES = {"smoke": (1e-3,), "small": (3e-4, 1e-3, 3e-3), "full": (3e-4, 1e-3, 3e-3)}
REVIEW_PAIRS = {"smoke": 64, "small": 2000, "full": 8000}
LENGTH_BIAS = 0.1  # utility a word, beside 3 a unit of reward
MATCHED_KL_B = 3.0  # nats a response

ARMS_B = (
    Arm("ln-dpo", "LN-DPO", options={"grid": [1.0, 3.5, 10.0]}),
    Arm("dpo", "DPO", "baseline", {"grid": [0.05, 0.2, 0.8]}),
    Arm("simpo", "SimPO, gamma/beta 0.5", "baseline", {"grid": [1.0, 2.5, 10.0]}),
    Arm("ipo-avg", "IPO (averages)", "baseline", {"grid": [0.1, 0.5, 2.0]}),
    Arm("kto", "KTO", "baseline", {"grid": [0.03, 0.1, 0.5]}),
)


def prepare_lengths(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Part B, once a seed: a start that knows films and hotels, and pairs on films whose labels like length."""
    folder, texts = workspace.seed_folder(seed), 100 if budget == "smoke" else 2000
    texts_seen = [
        review
        for topic in ("films", "hotels")
        for review in reviews.generate_reviews(texts, seed, topic=topic, clauses=(1, 5))
    ]
    start = tiny_alignment.make_start(folder, texts_seen, seed)
    of, first, second = tiny_alignment.sample_two(start, reviews.prompts("films"), REVIEW_PAIRS[budget], seed)
    rows = reviews.label_pairs(
        of, first, second, reviews.leaning, noise="bt", scale=3.0, length_bias=LENGTH_BIAS, seed=seed
    )
    tiny_alignment.save_rows(folder / "pairs.jsonl", rows)


def review_cell(arm: Arm, setting: str, seed: int, budget: Budget, workspace: Workspace) -> dict[str, Any]:
    """Part B: train every configuration of the arm; read reward, length and KL on hotel prompts, over the grid."""
    folder = workspace.seed_folder(seed)
    pairs: Dataset[Any] = tiny_alignment.load_rows(folder / "pairs.jsonl")
    if arm.name == "kto":
        pairs = Dataset(tuple(preferences_to_feedback(pairs.rows)))
    gold = CheckedReward("leaning", reviews.leaning)
    prompts = reviews.prompts("hotels") * (1 if budget == "smoke" else 8)
    size = 64 if arm.name == "kto" else 32  # as many pairs a step, and as many steps, for every loss
    grid = arm.options["grid"][:1] if budget == "smoke" else arm.options["grid"]
    points = []
    for value, rate in product(grid, LEARNING_RATES[budget]):
        options = TrainOptions(batch_size=size, micro_batch=size, learning_rate=rate, select="last", seed=seed)
        policy, _ = tiny_alignment.align(folder, OBJECTIVES[arm.name](value), pairs, options)
        points.append(tiny_alignment.measure(policy, folder, prompts, gold, n=1, seed=seed)[0])
    start = tiny_alignment.measure(tiny_alignment.load_start(folder), folder, prompts, gold, n=1, seed=seed)[0]
    reward, kl, length = (torch.tensor([getattr(p, name) for p in points]) for name in ("reward", "kl", "tokens"))
    quartiles = reward.quantile(torch.tensor([0.25, 0.5, 0.75]))
    best = int(reward.argmax())
    return {
        "best_reward": float(reward[best]),
        "best_kl": float(kl[best]),
        "best_tokens": float(length[best]),
        "median_reward": float(quartiles[1]),
        "spread": float(quartiles[2] - quartiles[0]),
        "median_tokens": float(length.quantile(0.5)),
        "better_than_start": float((reward > start.reward).float().mean()),
        "reward_at_kl": tiny_alignment.at_kl(MATCHED_KL_B, [start, *points], "reward"),
        "tokens_at_kl": tiny_alignment.at_kl(MATCHED_KL_B, [start, *points], "tokens"),
        "start_reward": start.reward,
        "start_tokens": start.tokens,
        "reward_by_point": reward.tolist(),
        "kl_by_point": kl.tolist(),
        "tokens_by_point": length.tolist(),
    }


def review_figures(results: Results) -> list[tuple[str, str]]:
    """Reward, and length, against KL: a point a configuration and seed."""
    from paperworks.core import plots

    figures = []
    for name, label in (("reward", "reward (hotel prompts)"), ("tokens", "tokens a response")):
        points = {
            arm.label: [
                point
                for cell in results.cells_of("B", arm.name)
                for point in zip(cell.metrics["kl_by_point"], cell.metrics[f"{name}_by_point"])
            ]
            for arm in ARMS_B
        }
        svg = plots.frontier({arm: found for arm, found in points.items() if found}, "KL to the start (nats)", label)
        figures.append((svg, f"{label} against KL: a point a configuration and seed"))
    return figures


PART_B = Part(
    name="B",
    title="Tiny language model, nine configurations a loss, prompts out of distribution",
    text="A Llama of 2 layers, width 64, fitted to film and hotel reviews of 1 to 5 clauses; 2000 pairs on films sampled from "
    "it, labelled by Bradley-Terry on 3 * leaning + 0.1 a word (annotators like length); one epoch of 32 pairs a step; three "
    "betas (or taus) times learning rates 3e-4, 1e-3, 3e-3; measured on hotel prompts. Reward: leaning, good minus bad words "
    "over sentiment words, which length does not move. At 3 nats: linear between neighbouring configurations in KL, the start "
    "(0 nats) being one of every loss.",
    arms=ARMS_B,
    seeds={"smoke": 2, "small": 5, "full": 10},
    prepare=prepare_lengths,
    cell=review_cell,
    metrics=(
        Metric("best_reward", "best reward"),
        Metric("median_reward", "median reward"),
        Metric("spread", "interquartile range of reward", higher_is_better=False),
        Metric("better_than_start", "share better than the start", format=".2f"),
        Metric("reward_at_kl", "reward at 3 nats"),
        Metric("tokens_at_kl", "tokens at 3 nats", higher_is_better=False, format=".1f"),
        Metric("best_kl", "KL at the best", "nats", False, ".1f"),
        Metric("best_tokens", "tokens at the best", higher_is_better=False, format=".1f"),
        Metric("median_tokens", "median tokens", higher_is_better=False, format=".1f"),
    ),
    figures=review_figures,
)

CLAIMS_B = (
    Claim("tokens_at_kl", "ln-dpo", "dpo", part="B"),
    Claim("reward_at_kl", "ln-dpo", "dpo", part="B"),
    Claim("spread", "ln-dpo", "dpo", part="B"),
    Claim("median_reward", "ln-dpo", "dpo", part="B"),
    Claim("median_tokens", "ln-dpo", "dpo", part="B"),
    Claim(
        "best_reward",
        "ln-dpo",
        "dpo",
        part="B",
        text="LN-DPO's best configuration is better than DPO's (the paper finds them similar at their best)",
        expected="not shown",
    ),
)

EXPERIMENT = Experiment(
    slug="ln-dpo",
    title="The Hitchhiker's Guide to Human Alignment with *PO",
    parts=(PART_A, PART_B),
    claims=(*CLAIMS_A, *CLAIMS_B),
    differences="Part A replaces the language model and its reward model by a unigram model whose quality, length and KL are "
    "exact; the paper trains on safety data and evaluates on helpfulness dialogue.",
    notes="A loss's beta or tau has a scale of its own, so that losses are compared at the same KL, never at the same beta. "
    "SimPO knows no reference: with gamma/beta 0.5 no beta of its grid stays near it.",
)
