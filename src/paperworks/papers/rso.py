"""RSO: statistical rejection sampling for preference optimisation (Liu et al. 2023, arXiv 2309.06657).

DPO fits the optimal policy by maximum likelihood if its pairs are drawn from that policy. RSO makes samples of the
supervised policy into such draws, accepting a candidate with probability exp((r - r_max) / beta), labels pairs of them with a
ranking model, and trains on those with a logistic or a hinge loss:

    sources/rejection.py, rejection_sample; sources/ranking.py, rank_pairs; objectives/rso.py, RSO

Part A compares what the sampler accepts with what it promises, where both laws are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Published, Workspace
from paperworks.experiment.results import Results
from paperworks.language.sources.rejection import (
    Indices,
    RejectionOptions,
    acceptance_probabilities,
    first_of_each,
    rejection_sample,
)
from paperworks.language.testbeds import rejection_bandit

BETA, SAMPLES = 0.5, 8  # the paper's best
ACCEPTED = {"smoke": 160, "small": 24_000, "full": 400_000}  # over all prompts: the sampling error of a law
CANDIDATES = (16, 64, 256, 1024)
SETTINGS = tuple(f"N={count}" for count in CANDIDATES)
ONE = tuple(f"n=1, N={count}" for count in CANDIDATES[:3])

ARMS_A = (
    Arm("paper", "rejection sampling", options={"sampler": "paper"}, note="the paper's sweeps, in random order"),
    Arm("exact", "rejection, exact draws", "control", {"sampler": "exact"}, "our second sampler"),
    Arm("sft", "SFT samples", "baseline", {"beta": 1e9}, "the first n candidates"),
    Arm("top", "best n of N", "baseline", {"beta": 0.0}),
    Arm(
        "paper-sorted",
        "rejection, likeliest first",
        "control",
        {"sampler": "paper", "sorted": True},
        "list order, as the algorithm is printed, of candidates sorted by likelihood",
    ),
    Arm(
        "exact-dedup",
        "exact draws, doubles removed",
        "control",
        {"sampler": "exact", "dedup": True},
        "with 50 items removing doubles removes the supervised policy's probabilities; among texts doubles are rare",
        SETTINGS[1:],
    ),
    Arm("chance", "draws from the target", "control", note="as many: what sampling error alone leaves"),
)


def discrete_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A: the law of what the arm accepts over many prompts, against pi_r."""
    candidates, samples = int(setting.rpartition("N=")[2]), 1 if setting in ONE else SAMPLES
    world = rejection_bandit.make_item_policy(seeds)
    options = RejectionOptions(
        sampler=arm.options.get("sampler", "paper"),
        n_samples=samples,
        beta=arm.options.get("beta", BETA),
        shuffle=not arm.options.get("sorted", False),
    )
    cells = []
    for place, seed in enumerate(seeds):
        log_policy, rates = world.log_policy[place].numpy(), list[float]()

        def accept(
            items: Indices,
            rewards: NDArray[np.float64],
            draw: int,
            log_policy: NDArray[np.float64] = log_policy,
            rates: list[float] = rates,
        ) -> Indices:
            rates.append(float(acceptance_probabilities(rewards[:200], BETA).mean()))
            if arm.options.get("sorted"):
                order = np.argsort(-log_policy[items], axis=1, kind="stable")
                taken = rejection_sample(np.take_along_axis(rewards, order, 1), options, seed=draw).indices
                return np.take_along_axis(order, taken, 1)
            available = first_of_each(items.tolist()) if arm.options.get("dedup") else None
            return rejection_sample(rewards, options, seed=draw, available=available).indices

        found = rejection_bandit.accepted_law(
            world, place, seed, accept, candidates=candidates, prompts=ACCEPTED[budget] // samples, beta=BETA
        )
        law, target = (found.chance if arm.name == "chance" else found.law), world.target(BETA)[place]
        reward = world.reward[place]
        cells.append(
            {
                "total_variation": rejection_bandit.total_variation(law, target),
                "reward": float(law @ reward),
                "reward_error": float((law @ reward - target @ reward).abs()),
                "acceptance": float(np.mean(rates)),
            }
        )
    return cells


def variation_figure(results: Results) -> list[tuple[str, str]]:
    """Total variation against the number of candidates."""
    from paperworks.core import plots

    curves = {}
    for arm in ARMS_A:
        points = [
            (count, results.interval("A", arm.name, "total_variation", f"N={count}"))
            for count in CANDIDATES
            if results.cells_of("A", arm.name, f"N={count}")
        ]
        if points:
            x, found = [float(count) for count, _ in points], [interval for _, interval in points]
            curves[arm.label] = plots.Curve(
                x, [each.mean for each in found], [each.low for each in found], [each.high for each in found]
            )
    svg = plots.lines(
        curves, "candidates a prompt", "total variation to the target", log_x=True, log_y=True, x_ticks=CANDIDATES
    )
    return [(svg, "total variation between what is accepted and pi_r: mean over seeds, 95% intervals")]


PART_A = Part(
    name="A",
    title="Fifty items, known laws",
    text="A policy over 50 items with standard normal logits and rewards; 8 of N candidates (or 1) accepted a prompt, beta "
    "0.5, 24,000 accepted a seed, all samplers on the same candidates. Total variation is that of all accepted items together "
    "to pi_r, proportional to pi exp(r / beta).",
    arms=ARMS_A,
    settings=(*SETTINGS, *ONE),
    seeds={"smoke": 2, "small": 10, "full": 50},
    cell=discrete_cell,
    batched=True,
    metrics=(
        Metric("total_variation", "total variation to the target", higher_is_better=False, format=".4f"),
        Metric("reward", "mean reward"),
        Metric("reward_error", "mean reward, distance to the target's", higher_is_better=False, format=".4f"),
        Metric("acceptance", "expected acceptance of the first sweep"),
    ),
    figures=variation_figure,
)

CLAIMS_A = (
    *(Claim("total_variation", "paper", baseline, where) for where in SETTINGS[1:3] for baseline in ("sft", "top")),
    *(
        Claim(
            "total_variation",
            "exact",
            "paper",
            where,
            text=f"{where}: exact draws from a short list are nearer to the target than sweeps over it (our expectation, not "
            "the paper's: a sweep is biased against what the list itself gives)",
        )
        for where in (*SETTINGS[:2], ONE[0])
    ),
    *(
        Claim(
            "total_variation",
            "paper",
            "paper-sorted",
            where,
            text=f"{where}: sweeping in random order is nearer to the target than sweeping a sorted list (not the paper's "
            "claim: its printed algorithm takes list order)",
        )
        for where in SETTINGS[:2]
    ),
)

EXPERIMENT = Experiment(
    slug="rso",
    title="Statistical Rejection Sampling Improves Preference Optimization",
    parts=(PART_A,),
    claims=CLAIMS_A,
    published=tuple(
        Published(arm, "win rate against the SFT target: proxy / gold / AutoSxS, %", value, setting, "Table 1")
        for setting, rows in (
            (
                "Reddit TL;DR, T5-large",
                (
                    ("RAFT", "74.84 / 68.51 / 53.77"),
                    ("ReST", "49.03 / 46.17 / 34.36"),
                    ("DPO (direct)", "84.35 / 76.09 / 67.72"),
                    ("sigmoid-norm, SFT samples", "88.63 / 78.14 / 69.02"),
                    ("sigmoid-norm, RSO", "92.37 / 82.22 / 71.86"),
                    ("hinge, RSO", "93.36 / 84.40 / 69.26"),
                    ("hinge-norm, RSO", "92.80 / 83.45 / 70.84"),
                ),
            ),
            (
                "AnthropicHH, T5-large",
                (
                    ("DPO (direct)", "51.63 / 36.13 / 24.01"),
                    ("sigmoid-norm, SFT samples", "85.09 / 58.65 / 39.56"),
                    ("sigmoid-norm, RSO", "86.94 / 59.15 / 40.98"),
                ),
            ),
        )
        for arm, value in rows
    ),
    differences="The paper trains T5 models and compares win rates; part A looks at its sampler alone, where the law it "
    "approximates is known.",
    notes="The theorem is about infinitely many candidates. `exact` is exact for the list at hand, softmax(r / beta) over its "
    "candidates without replacement: as a sample of pi_r that is resampling with normalised weights, biased towards pi in a "
    "short list. A sweep accepts each candidate by its own reward and the list's maximum alone: once the list holds a nearly "
    "best item, that is true rejection sampling, as long as one sweep fills all places. Candidates here are independent draws, "
    "for which list order is random already; a sorted list is what makes order matter.",
)
