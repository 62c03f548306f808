"""What rejection sampling accepts of fifty items, against what it promises: what a trial measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperworks.experiment.definition import Arm, Budget, Workspace
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


def discrete_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A: the law of what the arm accepts over many prompts, against pi_r."""
    candidates, samples = int(setting.rpartition("N=")[2]), 1 if setting.startswith("n=1,") else SAMPLES
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
