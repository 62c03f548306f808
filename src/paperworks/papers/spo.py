"""SPO: self-supervised preference optimisation with degrees of preference (Li et al. 2024, arXiv 2409.17791).

A pair says which response is better, not by how much. Versions of a response with more and more of its key phrases (RAKE)
removed are worse by construction; telling them apart, beside the loss on the pair, is to make a model aware of degrees:

    L_align + gamma * L_degree        language/objectives/degrees.py, WithDegrees; language/degrees/, the versions

The experiment: reports that state facts of their prompt, where what is removed is what makes them good. Every arm takes as
many optimiser steps from the same start and the same pairs, and chooses among as many settings by validation reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from paperworks.core.files import read_json, write_json_atomic
from paperworks.core.statistics import pareto_front
from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Workspace
from paperworks.experiment.results import Results
from paperworks.language.data import Dataset, Preference
from paperworks.language.degrees.options import DegreeOptions
from paperworks.language.degrees.rows import grade_rows
from paperworks.language.items import tokenise
from paperworks.language.objectives.degrees import WithDegrees
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.objective import Objective
from paperworks.language.objectives.simpo import SimPO
from paperworks.language.rewards.reward import CheckedReward
from paperworks.language.testbeds import report_writer, reports, reviews, tiny_alignment
from paperworks.language.testbeds.tiny_alignment import Aligned
from paperworks.language.training import TrainOptions

PAIRS = {"smoke": 16, "small": 1000, "full": 2000}
VALIDATION = {"smoke": 3, "small": 100, "full": 200}  # prompts, two samples each
TEST = {"smoke": 3, "small": 150, "full": 400}
LADDERS = {"smoke": 8, "small": 100, "full": 400}  # held-out reports on which awareness of degrees is measured
BATCH = 16
LEARNING_RATE = 5e-4
LABEL_SCALE = 2.0  # Bradley-Terry: utility a unit of reward
MATCHED_KL = 1.0  # nats a response
FIRST_HELD_OUT_SEED = 1_000_000  # of prompts and reports that nothing is trained on
GOLD = CheckedReward("gold", reports.gold)
TUNED, ABLATIONS = "tuned settings", "beta 0.1, gamma 0.1"

BETAS, GAMMAS = (0.05, 0.1, 0.3), (0.01, 0.1, 1.0)
CROSS = tuple((beta, 0.1) for beta in BETAS) + tuple((0.1, gamma) for gamma in GAMMAS if gamma != 0.1)
ALL = tuple((beta, gamma) for beta in BETAS for gamma in GAMMAS)
BETAS_ALONE = {
    "smoke": (0.1,),
    "small": (0.03, 0.05, 0.1, 0.3, 1.0),
    "full": (0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.6, 1.0),
}
BETAS_AND_GAMMAS = {"smoke": ((0.1, 0.1),), "small": CROSS, "full": ALL}
SIMPO_SCALE = 50.0  # SimPO's beta multiplies a mean over tokens: beta 0.1 elsewhere is 5 here


@dataclass(frozen=True)
class Recipe:
    """How an arm trains, but for beta and gamma."""

    base: str = "dpo"  # or simpo
    degrees: DegreeOptions | None = None
    rejects_versions: bool = False  # degraded versions are rejected responses of extra pairs
    as_many_tokens: bool = False  # as many steps as it takes to see as many tokens as SPO does

    def objective(self, beta: float, gamma: float) -> Objective:
        """The objective at a setting; `gamma` belongs to arms with degrees."""
        base: Objective = SimPO(beta=SIMPO_SCALE * beta, gamma_ratio=0.1) if self.base == "simpo" else DPO(beta=beta)
        return base if self.degrees is None else WithDegrees(base, replace(self.degrees, weight=gamma))


SPO = DegreeOptions(  # the head at 20 times the model's rate, or it would hardly have begun to learn in 63 steps
    rewards=False, head_lr=1e-2, neutral=reports.NEUTRAL, max_new_tokens=tiny_alignment.MAX_NEW_TOKENS
)
RECIPES: Mapping[str, Recipe] = {
    "dpo": Recipe(),
    "dpo-spo": Recipe(degrees=SPO),
    "dpo-spo-random": Recipe(degrees=replace(SPO, removal="random")),
    "dpo-spo-masked": Recipe(degrees=replace(SPO, removal="masked")),
    "dpo-versions-rejected": Recipe(rejects_versions=True),
    "dpo-more-steps": Recipe(as_many_tokens=True),
    "simpo": Recipe(base="simpo"),
    "simpo-spo": Recipe(base="simpo", degrees=SPO),
    "degrees-2": Recipe(degrees=replace(SPO, count=2)),
    "degrees-6": Recipe(degrees=replace(SPO, count=6)),
    "source-both": Recipe(degrees=replace(SPO, source="both")),
    "source-sampled": Recipe(degrees=replace(SPO, source="sampled")),
    "head-ordinal": Recipe(degrees=replace(SPO, head="ordinal")),
    "head-ranking": Recipe(degrees=replace(SPO, head="ranking")),
    "gamma-0.01": Recipe(degrees=SPO),
    "gamma-1": Recipe(degrees=SPO),
}
ARMS = (
    Arm("dpo-spo", "DPO + SPO", note="key phrases removed, 4 degrees, of the chosen response, softmax head"),
    Arm("dpo", "DPO", "baseline", note="its five settings are betas"),
    Arm("dpo-spo-random", "DPO + random removal", "control", note="as many words, at random", settings=(TUNED,)),
    Arm("dpo-spo-masked", "DPO + masked", "control", note="key words replaced: all lengths equal", settings=(TUNED,)),
    Arm("dpo-versions-rejected", "DPO, versions rejected", "control", note="another method", settings=(TUNED,)),
    Arm("dpo-more-steps", "DPO, as many tokens", "baseline", note="more steps", settings=(TUNED,)),
    Arm("simpo-spo", "SimPO + SPO", settings=(TUNED,)),
    Arm("simpo", "SimPO", "baseline", note="its five settings are betas", settings=(TUNED,)),
    Arm("degrees-2", "2 degrees", settings=(ABLATIONS,)),
    Arm("degrees-6", "6 degrees", settings=(ABLATIONS,)),
    Arm("source-both", "of both responses", settings=(ABLATIONS,)),
    Arm("source-sampled", "of a sample of the start", settings=(ABLATIONS,)),
    Arm("head-ordinal", "ordinal head", settings=(ABLATIONS,)),
    Arm("head-ranking", "ranking, no head", settings=(ABLATIONS,)),
    Arm("gamma-0.01", "gamma 0.01", options={"gamma": 0.01}, settings=(ABLATIONS,)),
    Arm("gamma-1", "gamma 1", options={"gamma": 1.0}, settings=(ABLATIONS,)),
)


def prepare(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Once a seed: a start that writes mediocre reports, and pairs sampled from it with Bradley-Terry labels."""
    folder = workspace.seed_folder(seed)
    spec = report_writer.WRITER
    if budget == "smoke":
        spec = replace(spec, texts=128, epochs=1.0, width=32, learning_rate=3e-3)
    start = report_writer.make_writer(folder, seed, spec)
    of, first, second = tiny_alignment.sample_two(start, reports.prompts(PAIRS[budget], seed), PAIRS[budget], seed)
    rows = reviews.label_pairs(of, first, second, reports.gold, noise="bt", scale=LABEL_SCALE, seed=seed)
    tiny_alignment.save_rows(folder / "pairs.jsonl", rows)
    measured, _ = tiny_alignment.measure(start, folder, _held_out_prompts(seed, budget)[1], GOLD, n=2, seed=seed)
    write_json_atomic(folder / "start.json", asdict(measured))


def _held_out_prompts(seed: int, budget: Budget) -> tuple[list[str], list[str]]:
    """Prompts to choose a setting on, and prompts to measure it on."""
    found = reports.prompts(VALIDATION[budget] + TEST[budget], FIRST_HELD_OUT_SEED + seed)
    return found[: VALIDATION[budget]], found[VALIDATION[budget] :]


@dataclass
class _Course:
    """What training says, step by step. Rows come once, so that a step's figures are of rows not yet trained on."""

    alignment: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)

    def __call__(self, step: int, steps: int, now: Mapping[str, float]) -> None:
        if step:
            self.alignment.append(now.get("alignment", now.get("loss", math.nan)))
            self.accuracy.append(now.get("degree_accuracy", math.nan))


def cell(arm: Arm, setting: str, seed: int, budget: Budget, workspace: Workspace) -> dict[str, Any]:
    """Train the arm's settings, choose one by reward on validation prompts, measure all on test prompts."""
    folder, recipe = workspace.seed_folder(seed), RECIPES[arm.name]
    validation, test = _held_out_prompts(seed, budget)
    rows, options = _rows(folder, recipe, seed)
    start = Aligned(**read_json(folder / "start.json"))
    points = []
    for beta, gamma in _settings(arm, setting, budget):
        course = _Course()
        policy, _ = tiny_alignment.align(folder, recipe.objective(beta, gamma), rows, options, on_step=course)
        choice, _ = tiny_alignment.measure(policy, folder, validation, GOLD, n=2, seed=seed + 1)
        aligned, texts = tiny_alignment.measure(policy, folder, test, GOLD, n=2, seed=seed)
        points.append((choice, aligned, texts, policy, course))
    best = max(range(len(points)), key=lambda index: points[index][0].reward)
    _, aligned, texts, policy, course = points[best]
    own = reports.generate_reports(LADDERS[budget], FIRST_HELD_OUT_SEED + seed)
    covered = [reports.coverage(p, text) for p, text in zip([p for p in test for _ in range(2)], texts, strict=True)]
    return {
        "reward": aligned.reward,
        "reward_at_kl": _within_kl(MATCHED_KL, [(start, start), *((point[0], point[1]) for point in points)]),
        "facts": _mean([each.correct for each in covered]),
        "wrong_facts": _mean([each.wrong for each in covered]),
        "degree_correlation": report_writer.degree_correlation(
            policy, tiny_alignment.load_start(folder), own, SPO.ladder
        ),
        "degree_accuracy": _last_quarter(course.accuracy),
        "alignment_loss": _last_quarter(course.alignment),
        "kl": aligned.kl,
        "tokens": aligned.tokens,
        "start_reward": start.reward,
        "steps": len(course.alignment),
        "chosen_setting": best,
        "reward_by_setting": [point[1].reward for point in points],
        "kl_by_setting": [point[1].kl for point in points],
        "accuracy_by_setting": [_last_quarter(point[4].accuracy) for point in points],
    }


def _settings(arm: Arm, setting: str, budget: Budget) -> Sequence[tuple[float, float]]:
    """(beta, gamma) of each setting that an arm tries."""
    if setting == ABLATIONS:
        return [(0.1, arm.options.get("gamma", 0.1))]
    if RECIPES[arm.name].degrees is None:
        return [(beta, 0.0) for beta in BETAS_ALONE[budget]]
    return BETAS_AND_GAMMAS[budget]


def _rows(folder: Path, recipe: Recipe, seed: int) -> tuple[Dataset[Any], TrainOptions]:
    """The rows of an arm, and an epoch of them in as many steps as every other arm takes, unless it is to take more."""
    pairs = tiny_alignment.load_rows(folder / "pairs.jsonl")
    size, epochs = BATCH, 1.0
    if recipe.rejects_versions:
        extra = [
            Preference(row.prompt, row.chosen, row.degrees[at % len(row.degrees)].text)
            for at, row in enumerate(grade_rows(pairs.rows, SPO, enough=False).rows)
            if row.degrees
        ]
        size = math.ceil(BATCH * (len(pairs) + len(extra)) / len(pairs))
        pairs = pairs.with_rows([*pairs.rows, *extra])
    if recipe.as_many_tokens:
        graded, roles = pairs.with_rows(grade_rows(pairs.rows, SPO, enough=False).rows), ("chosen", "rejected")
        epochs = _tokens(folder, graded, (*roles, "degrees")) / _tokens(folder, pairs, roles)
    options = TrainOptions(
        epochs=epochs, batch_size=size, micro_batch=size, learning_rate=LEARNING_RATE, select="last", seed=seed
    )
    return pairs, options


def _tokens(folder: Path, rows: Dataset[Any], roles: Sequence[str]) -> int:
    """Tokens of an epoch; responses share their prompt, as in training."""
    trees = [item.tree() for item in tokenise(rows, tiny_alignment.load_start(folder), roles).items]
    return sum(len(tree.prompt) + sum(map(len, tree.responses)) for tree in trees)


def _within_kl(target: float, points: Sequence[tuple[Aligned, Aligned]]) -> float:
    """Test reward at a KL budget, of (validation, test) points: linear between those that no other beats in validation.

    Beyond the farthest of these more KL buys nothing, and its reward holds.
    """
    front = [points[at][1] for at in pareto_front([(choice.kl, choice.reward) for choice, _ in points])]
    front.sort(key=lambda point: point.kl)
    return tiny_alignment.at_kl(min(target, front[-1].kl), front, "reward") if len(front) > 1 else front[0].reward


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _last_quarter(values: Sequence[float]) -> float:
    return _mean([value for value in values[-max(1, len(values) // 4) :] if not math.isnan(value)])


def figures(results: Results) -> list[tuple[str, str]]:
    """Reward against KL of every setting, and awareness of degrees of every arm: a dot a seed."""
    from paperworks.core import plots
    from paperworks.core.statistics import bootstrap_mean

    points = {}
    for arm in PART.arms_in(TUNED):
        cells = [cell.metrics for cell in results.cells_of("A", arm.name, TUNED)]
        if cells:
            points[arm.label] = [p for c in cells for p in zip(c["kl_by_setting"], c["reward_by_setting"], strict=True)]
    drawn = []
    if points:
        svg = plots.frontier(points, "KL to the start (nats)", "gold reward")
        drawn.append((svg, "gold reward against KL: a point a setting and seed"))
    for setting in PART.settings:
        found = {a.label: results.values("A", a.name, "degree_correlation", setting) for a in PART.arms_in(setting)}
        by_arm = {label: list(values.values()) for label, values in found.items() if values}
        rows = [plots.IntervalRow(label, bootstrap_mean(values), values) for label, values in by_arm.items()]
        if rows:
            svg = plots.intervals(rows, "degree correlation")
            drawn.append((svg, f"{setting}: how the implicit reward follows the facts removed, a dot a seed"))
    return drawn


PART = Part(
    name="A",
    title="Tiny language model that writes reports",
    text="A prompt lists six facts, a report states some of them among filler; gold reward: facts covered - 0.5 * wrong facts "
    "- 0.02 * words. A Llama of 2 layers and width 64 fitted to mediocre reports; 1000 pairs sampled from it, labelled by "
    "Bradley-Terry on 2 * reward; one epoch of 16 pairs a step, learning rate 5e-4, the head's 1e-2. Tuned: five settings an "
    "arm, the best by reward on 100 validation prompts; with SPO beta in 0.05, 0.1, 0.3 at gamma 0.1 and gamma in 0.01, 1 at "
    "beta 0.1, without it beta in 0.03, 0.05, 0.1, 0.3, 1 (SimPO: 50 times that, margin 0.1 beta). Figures are of 150 other "
    "prompts, two samples each. Reward at 1 nat: the best that the settings reach within that KL, linear between them. Degree "
    "correlation: Spearman's, of log pi - log pi_start falling with facts removed, a mean over ladders of reports never "
    "trained on. Head accuracy and alignment loss: the last quarter of steps, on rows not seen before.",
    arms=ARMS,
    settings=(TUNED, ABLATIONS),
    seeds={"smoke": 1, "small": 5, "full": 10},
    prepare=prepare,
    cell=cell,
    metrics=(
        Metric("reward_at_kl", "gold reward at 1 nat"),
        Metric("reward", "gold reward"),
        Metric("facts", "facts covered", "of 6", format=".2f"),
        Metric("wrong_facts", "wrong facts", higher_is_better=False, format=".2f"),
        Metric("degree_correlation", "degree correlation"),
        Metric("degree_accuracy", "head accuracy"),
        Metric("alignment_loss", "alignment loss", higher_is_better=False),
        Metric("kl", "KL", "nats", False, ".1f"),
        Metric("tokens", "tokens", higher_is_better=False, format=".1f"),
    ),
    figures=figures,
)

CLAIMS = (
    Claim("degree_correlation", "dpo-spo", "dpo", TUNED),
    Claim("reward_at_kl", "dpo-spo", "dpo", TUNED, expected="not shown"),
    Claim("reward", "dpo-spo", "dpo", TUNED, expected="not shown"),
    Claim("reward", "dpo-spo", "dpo-spo-random", TUNED),
    Claim("degree_correlation", "dpo-spo", "dpo-spo-random", TUNED),
    Claim("reward", "dpo-spo", "dpo-more-steps", TUNED),
    Claim("reward", "simpo-spo", "simpo", TUNED),
    Claim("degree_correlation", "simpo-spo", "simpo", TUNED),
    Claim(
        "degree_accuracy", "dpo-spo", "dpo-spo-random", TUNED, text="Key phrases are easier to grade than random words"
    ),
    Claim(
        "degree_accuracy",
        "dpo-spo",
        "dpo-spo-masked",
        TUNED,
        text="Degrees are easier to tell with lengths that give them away than with equal lengths",
    ),
)

EXPERIMENT = Experiment(
    slug="spo",
    title="Self-supervised Preference Optimization: Enhance Your Language Model with Preference Degree Awareness",
    parts=(PART,),
    claims=CLAIMS,
    differences="A model of 0.1 million parameters on generated reports, judged by a count of facts, in place of language "
    "models on dialogue and summaries. The paper's text that could be read names RAKE, removal and a classification loss; "
    "the number of degrees, the shares removed, the head and gamma are choices of this experiment.",
    notes="What is removed here is the quality itself, which favours the method. Facts are stated value first, because a "
    "model of two layers learns to copy one word, not an entity and what is said of it. An arm with SPO tries three betas "
    "where one without tries five: as many settings, not as many betas. No figures of the paper stand here: none of its "
    "tables could be read.",
)
