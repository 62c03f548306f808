"""PF-PPO: PPO on the samples where the reward model can be trusted (Shen and Zhang 2024, arXiv 2409.06957).

A learned reward is least reliable in its middle. Each prompt gets N samples, ranked by reward, and PPO is trained on some
of them only, best and random or best and worst; values, advantages and their normalisation are those of all samples:

    sources/filters.py, Filter · objectives/pf_ppo.py, PFPPO

Which filter to use is decided before training, by how well rewards predict scores among what it keeps:

    sources/filter_choice.py, choose_filter

The experiment writes programs for a stack machine under a reward model that was learned from tests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Published, Workspace
from paperworks.experiment.results import Results
from paperworks.language.sources.filter_choice import ChoiceOptions, FilterChoice, choose_filter
from paperworks.language.sources.filters import parse_filter
from paperworks.language.testbeds import filtered_ppo, filtered_ppo_figures
from paperworks.language.testbeds.filtered_ppo import Course, Recipe, RewardKind, World, WorldSize

SIZES: Mapping[Budget, WorldSize] = {
    "smoke": WorldSize(128, 16, 16, imitation_steps=45, reward_prompts=64, reward_steps=3),
    "small": WorldSize(),
    "full": WorldSize(),
}
ITERATIONS = {"smoke": 2, "small": 40, "full": 100}
RATES: Mapping[Budget, Sequence[float]] = {
    "smoke": (1e-3,),
    "small": (2e-4, 4e-4, 8e-4),
    "full": (1e-4, 2e-4, 5e-4, 1e-3),
}
TUNING_SEEDS = {"smoke": 0, "small": 2, "full": 5}  # worlds that only choose learning rates; no result comes from them
FIRST_TUNING_SEED = 1_000_000
LEARNED, NOISY = "learned reward", "noise everywhere alike"
CHOICES = ("none", "bon", "br", "bw", "pow:2")  # what the chooser judges
BINS = 10  # of rewards, for the figure of scores

ARMS = (
    Arm("br", "PF-PPO, best + random", options={"filter": "br"}),
    Arm("bw", "PF-PPO, best + worst", options={"filter": "bw"}),
    Arm("pow-2", "PF-PPO, pow 2", options={"filter": "pow:2"}, settings=(LEARNED,)),
    Arm(
        "bw-same",
        "PF-PPO, best + worst, same steps",
        options={"filter": "bw", "budget": "same_steps"},
        note="as many samples in gradients as PPO-M",
        settings=(LEARNED,),
    ),
    Arm(
        "chosen",
        "PF-PPO, filter of highest R²",
        options={"filter": "chosen"},
        note="each seed's filter is the one of highest R² before training",
        settings=(LEARNED,),
    ),
    Arm("ppo-m", "PPO-M, all samples", "baseline", {"filter": "none"}),
    Arm("ppo-s", "PPO-S, one a prompt", "baseline", {"filter": "none", "samples": 1}, settings=(LEARNED,)),
    Arm("bon", "PF-PPO, best of N", "baseline", {"filter": "bon"}),
    Arm(
        "br-corrected",
        "best + random, corrected",
        "control",
        {"filter": "br", "corrected": True},
        "samples weighed by 1 / the filter's weight, which undoes the filter in expectation",
        (LEARNED,),
    ),
    Arm("ppo-true", "PPO-M, true score", "control", {"filter": "none", "reward": "true"}, "the ceiling", (LEARNED,)),
)


def prepare_world(seed: int, budget: Budget, workspace: Workspace) -> None:
    """Once a seed: specifications, the policy that imitated programs, the reward model learned from its samples."""
    torch.set_num_threads(1)
    for each in (seed, *_tuning_seeds(budget)) if seed == 0 else (seed,):
        filtered_ppo.make_world(each, SIZES[budget]).save(_file(workspace, each, seed))


def program_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Choose the arm's learning rate in worlds of their own, train with it, and read every seed."""
    torch.set_num_threads(1)
    rate = _tuned_rate(arm, setting, budget, workspace)
    world = _worlds(seeds, None, budget, workspace)
    cells = []
    for place, (course, net) in enumerate(_trained(arm, setting, world, budget, [rate])):
        choice = _choice(world.take([place]), _reward_kind(arm, setting))
        name = _filter_name(arm, choice)
        r2 = next((each.fit.r2 for each in choice.figures if each.name == name and each.fit), math.nan)
        cells.append(
            {
                "learning_rate": rate,
                "r2": r2,
                "filter": name,
                "pair_accuracy": float(world.pair_accuracy[place]),
                **_read(course, net),
                **{f"r2_{each.name}": each.fit.r2 if each.fit else None for each in choice.figures},
                "bin_score": _score_by_reward(world.take([place]), _reward_kind(arm, setting)),
            }
        )
    return cells


def _tuned_rate(arm: Arm, setting: str, budget: Budget, workspace: Workspace) -> float:
    """The rate of the highest pass rate on validation specifications of the tuning worlds, at each one's best checkpoint."""
    tuning, rates = _tuning_seeds(budget), RATES[budget]
    if not tuning:
        return rates[0]
    tried = _trained(arm, setting, _worlds(tuning, 0, budget, workspace), budget, rates)
    best = [float(course.validation[:, net].max()) for course, net in tried]
    reached = [sum(best[at * len(tuning) : (at + 1) * len(tuning)]) for at in range(len(rates))]
    return rates[reached.index(max(reached))]


def _trained(arm: Arm, setting: str, world: World, budget: Budget, rates: Sequence[float]) -> list[tuple[Course, int]]:
    """A course and the place of the net in it, by rate, then seed. Seeds with another filter train in another batch."""
    kind = _reward_kind(arm, setting)
    names = [_filter_name(arm, _choice(world.take([place]), kind)) for place in range(len(world.seeds))]
    recipe = Recipe(
        parse_filter("none"),
        budget=arm.options.get("budget", "kept_only"),
        samples=arm.options.get("samples", 5),
        reward=kind,
        corrected=arm.options.get("corrected", False),
        generated=20 if budget == "smoke" else 80,
        iterations=ITERATIONS[budget],
        judge_every=max(1, ITERATIONS[budget] // 10),
    )
    found: dict[tuple[int, int], tuple[Course, int]] = {}
    for name in dict.fromkeys(names):
        places = [place for place, each in enumerate(names) if each == name]
        course = filtered_ppo.train(world.take(places), replace(recipe, filter=parse_filter(name)), rates)
        for at in range(len(rates)):
            found |= {(at, place): (course, at * len(places) + i) for i, place in enumerate(places)}
    return [found[key] for key in sorted(found)]


def _choice(world: World, kind: RewardKind) -> FilterChoice:
    """The filters by R² on samples of the policy before training, rewards scaled to [-1, 1]; for one seed."""
    rewards = world.rewards_of(kind)[0].double()
    scaled = 2 * (rewards - rewards.min()) / (rewards.max() - rewards.min()) - 1
    options = ChoiceOptions(resamples=100, seed=world.seeds[0])
    return choose_filter(scaled.numpy(), world.scores[0].numpy(), [parse_filter(name) for name in CHOICES], options)


def _filter_name(arm: Arm, choice: FilterChoice) -> str:
    return choice.usable[0].name if arm.options["filter"] == "chosen" else cast(str, arm.options["filter"])


def _reward_kind(arm: Arm, setting: str) -> RewardKind:
    return cast(RewardKind, arm.options.get("reward", "noisy" if setting == NOISY else "learned"))


def _score_by_reward(world: World, kind: RewardKind) -> list[float | None]:
    """The mean score of the starting policy's samples in each tenth of rewards, by rank; for one seed."""
    order = world.rewards_of(kind).flatten().argsort()
    return [float(part.mean()) for part in world.scores.flatten()[order].chunk(BINS)]


def _read(course: Course, net: int) -> dict[str, Any]:
    best = int(course.validation[:, net].argmax())
    curves = {
        "passed": course.passed,
        "all_reward": course.generated_reward,
        "kept_reward": course.kept_reward,
        "all_score": course.generated_score,
        "kept_score": course.kept_score,
    }
    return {
        "passed": float(course.passed[best, net]),
        "score": float(course.score[best, net]),
        "best_iteration": float(course.at[best]),
        "last_passed": float(course.passed[-1, net]),
        "start_passed": float(course.passed[0, net]),
        "kl": float(course.kl[-1, net]),
        "trained": float(course.trained),
        "ties": course.ties,
        "iteration_curve": course.at,
        **{f"{name}_curve": values[:, net].tolist() for name, values in curves.items()},
    }


def _tuning_seeds(budget: Budget) -> Sequence[int]:
    return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_SEEDS[budget])


def _file(workspace: Workspace, seed: int, owner: int) -> Path:
    return workspace.seed_folder(owner) / f"world-{seed}.safetensors"


def _worlds(seeds: Sequence[int], owner: int | None, budget: Budget, workspace: Workspace) -> World:
    files = [_file(workspace, seed, seed if owner is None else owner) for seed in seeds]
    return filtered_ppo.load_worlds(files, seeds, SIZES[budget])


def figures(results: Results) -> list[tuple[str, str]]:
    """The way of every arm, R² against outcome, what filters gain in both worlds, kept rewards, reward against score."""
    return filtered_ppo_figures.draw(results, {arm.name: arm.label for arm in ARMS}, LEARNED, NOISY)


PART = Part(
    name="A",
    title="Programs for a stack machine under a reward learned from tests",
    text="A specification names one of 1536 functions of two integers; a program is up to 13 instructions of a stack "
    "machine; its score is the share of 8 hidden tests it passes. The policy, a transformer of 2 layers and width 32, imitated "
    "2048 programs of a programmer who mistakes operations, so that about 30% of what it writes pass all tests. The reward "
    "model is the same net fitted to pairs of the policy's programs, the two of five with the largest edit distance, labelled "
    "by the tests. PPO: 40 iterations of 80 programs (16 prompts x 5; PPO-S 80 x 1), two optimiser steps on all that is kept, "
    "per-token KL 0.1 in the reward, advantages normalised over all 80. Judged every 4 iterations, greedy; the checkpoint is "
    "the best on 256 validation specifications, figures are of 256 others. Each arm's learning rate is the best of the same "
    "three by validation in two other worlds. `noise everywhere alike`: the true score with noise that does not depend on "
    "it, of the reward model's correlation with scores.",
    arms=ARMS,
    settings=(LEARNED, NOISY),
    seeds={"smoke": 2, "small": 8, "full": 20},
    prepare=prepare_world,
    cell=program_cell,
    batched=True,
    metrics=(
        Metric("passed", "pass rate, best checkpoint"),
        Metric("score", "share of tests, there"),
        Metric("last_passed", "pass rate, last"),
        Metric("start_passed", "pass rate before"),
        Metric("r2", "R² of the filter before training", format=".2f"),
        Metric("trained", "samples in gradients an iteration", higher_is_better=False, format=".0f"),
        Metric("kl", "KL at the end", "nats", False, ".2f"),
        Metric("best_iteration", "best iteration", "", False, ".0f"),
        Metric("ties", "prompts with tied bests", "", False, ".2f"),
        Metric("pair_accuracy", "reward model's accuracy on pairs", format=".2f"),
        Metric("learning_rate", "learning rate", "", False, ".0e"),
    ),
    figures=figures,
)

CLAIMS = (
    Claim("passed", "br", "ppo-m", LEARNED),
    Claim("passed", "bw", "ppo-m", LEARNED),
    Claim("passed", "pow-2", "ppo-m", LEARNED),
    Claim("passed", "ppo-m", "ppo-s", LEARNED),
    Claim("passed", "ppo-m", "bon", LEARNED),
    Claim("passed", "br", "ppo-s", LEARNED),
    Claim("passed", "bw-same", "ppo-m", LEARNED),
    Claim(
        "passed",
        "chosen",
        "ppo-m",
        LEARNED,
        text="the filter of highest R² before training beats training on all samples",
    ),
    Claim("r2", "bw", "ppo-m", LEARNED, text="rewards predict scores better among best and worst than among all"),
    Claim("r2", "br", "ppo-m", LEARNED, text="rewards predict scores better among best and random than among all"),
    Claim("r2", "ppo-m", "bon", LEARNED, text="rewards predict scores worst among the best of N"),
    Claim("passed", "br", "br-corrected", LEARNED, text="the filter's bias is its use: corrected for, it gains less"),
    *(
        Claim(
            "passed",
            arm,
            "ppo-m",
            NOISY,
            text=f"{arm} beats PPO-M also where noise is everywhere alike (not expected: the advantage should shrink)",
            expected="not shown",
        )
        for arm in ("br", "bw")
    ),
)

EXPERIMENT = Experiment(
    slug="pf-ppo",
    title="Policy Filtration in RLHF to Fine-Tune LLM for Code Generation",
    parts=(PART,),
    claims=CLAIMS,
    published=(
        *(
            Published(
                arm, "pass@1, %: HumanEval / MBPP / LeetCode", value, "deepseek-coder-6.7B", "Table 1", part, where
            )
            for arm, value, part, where in (
                ("SFT", "74.2 / 70.8 / 15.2", "", ""),
                ("ppo-s", "78.1 / 73.8 / 25.2", "A", LEARNED),
                ("ppo-m", "80.2 / 75.0 / 29.8", "A", LEARNED),
                ("bon", "75.8 / 71.7 / 16.8", "A", LEARNED),
                ("br", "82.9 / 75.9 / 33.0", "A", LEARNED),
                ("bw", "82.4 / 76.2 / 30.4", "A", LEARNED),
                ("pow-2", "81.3 / 75.4 / –", "A", LEARNED),
            )
        ),
        *(
            Published(arm, "R² on the SFT policy", value, "deepseek-coder-6.7B", "Table 2", "A", LEARNED)
            for arm, value in (("ppo-m", 0.886), ("bon", 0.454), ("br", 0.922), ("bw", 0.952), ("pow-2", 0.939))
        ),
    ),
    differences="The paper fine-tunes a 6.7B model on code; here small decoders write programs for a stack machine, reward and "
    "policy share a size, and pass rates are of greedy programs. Optimiser steps are equal in all arms, samples in each step "
    "are not (5, 2 or 1 of 5), but for the arm with same steps. Only the learning rate is tuned for each arm; the KL weight is "
    "PPO-M's best of 0.05, 0.1 and 0.2. RAFT, BOND, DPO, IPO and KTO of the paper's table are not run here.",
    notes="A threshold filter is not run: the paper prints no thresholds. Rewards are scaled to [-1, 1] over the buffer for "
    "pow 2 alone. Ties are many, since policies repeat programs; chance decides among them.",
)
