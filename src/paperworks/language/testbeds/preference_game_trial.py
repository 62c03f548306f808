"""Learning preference games whose equilibrium is known, exactly and from sampled pairs: what a trial measures.

Learning rates, and the strengths of arms that have several, are chosen on games of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch

from paperworks.experiment.definition import Arm, Budget, Workspace
from paperworks.language.objectives.soft_preferences import IPOMD, OnlineDPO, OnlineIPO, OnlineSLiC
from paperworks.language.testbeds.game_learners import (
    NashMDPG,
    PairRule,
    RewardPG,
    Rule,
    SampleStream,
    exact_gradient,
    learn,
)
from paperworks.language.testbeds.preference_games import Kind, PreferenceGames, make_games

STEPS = {"smoke": 5, "small": 1500, "full": 5000}
SAMPLED_STEPS = {"smoke": 3, "small": 1000, "full": 3000}
BATCH = 64  # pairs a step
REPLICATES = {"smoke": 2, "small": 8, "full": 16}  # sampled runs a game
TUNING_GAMES = {"smoke": 1, "small": 20, "full": 50}
TUNING_REPLICATES = 2
FIRST_TUNING_SEED = 1_000_000

LEARNING_RATES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
STRENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0)  # of a baseline's beta (or tau), in units of the game's tau
COMMON_RATE = 3.0  # at which the spread of sampled runs is compared without tuning
SOLVED = 1e-4  # regularised exploitability below which a game counts as solved

Make = Callable[[PreferenceGames, float, float], Rule]  # games, strength (beta or tau), mixture
RULES: Mapping[str, Make] = {
    "online-ipo": lambda games, tau, mixture: PairRule(OnlineIPO(tau=tau)),
    "online-ipo-hard": lambda games, tau, mixture: PairRule(OnlineIPO(tau=tau), hard_labels=True),
    "ipo-md": lambda games, tau, mixture: PairRule(IPOMD(tau=tau, mix=mixture), mixture),
    "nash-md-pg": lambda games, tau, mixture: NashMDPG(tau, mixture),
    "offline-ipo": lambda games, tau, mixture: PairRule(OnlineIPO(tau=tau), 1.0),
    "online-dpo": lambda games, beta, mixture: PairRule(OnlineDPO(beta=beta)),
    "online-slic": lambda games, beta, mixture: PairRule(OnlineSLiC(beta=beta)),
    "rl": lambda games, beta, mixture: RewardPG(games.bradley_terry(), beta),
}


def game_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A: tune on games of their own, then learn the seeds' games, exactly and from samples."""
    torch.set_num_threads(1)
    kind, tau = setting.split(", tau=")
    task = _Task(arm, cast(Kind, kind), float(tau), budget)
    strength, rate = task.tuned_exactly()
    sampled_rate = task.tuned_sampled(strength)
    games = make_games(seeds, task.kind)
    rule = task.rule(games, strength)
    course = learn(games, rule, [rate], steps=STEPS[budget])
    policy = course.last[0]
    found: dict[str, torch.Tensor] = task.measures(games, policy, "")
    equilibrium = games.equilibrium(task.tau)
    found["distance"] = 0.5 * (policy.exp() - equilibrium.exp()).abs().sum(-1)
    found["gradient"] = exact_gradient(games, rule, policy).abs().amax(-1)
    curves = {"exploitability_by_step": games.regularised_exploitability(course.log_policies[:, 0], task.tau)}

    replicates = REPLICATES[budget]
    many = games.repeated(replicates)
    samples = SampleStream(seeds, BATCH, replicates)
    rates = [sampled_rate, COMMON_RATE]
    drawn = learn(many, task.rule(many, strength), rates, steps=SAMPLED_STEPS[budget], samples=samples)
    of_replicates = task.measures(many, drawn.last[0], "sampled_")
    found |= {name: values.unflatten(0, (-1, replicates)).mean(1) for name, values in of_replicates.items()}
    policies = drawn.last.exp().unflatten(1, (-1, replicates))
    spread = (policies - policies.mean(2, keepdim=True)).square().sum(-1).mean(2).sqrt()
    found["spread"], found["spread_common_rate"] = spread
    by_step = many.regularised_exploitability(drawn.log_policies[:, 0], task.tau)
    curves["sampled_by_step"] = by_step.unflatten(1, (-1, replicates)).mean(2)

    shared = {
        "tuned_strength": strength,
        "tuned_rate": rate,
        "sampled_rate": sampled_rate,
        "steps": list(course.steps),
        "sampled_steps": list(drawn.steps),
    }
    return [
        {name: float(values[row]) for name, values in found.items()}
        | {name: [float(f"{value:.3g}") for value in curve[:, row]] for name, curve in curves.items()}
        | shared
        for row in range(len(seeds))
    ]


class _Task:
    """An arm on one kind of game at one tau."""

    def __init__(self, arm: Arm, kind: Kind, tau: float, budget: Budget) -> None:
        self.kind, self.tau, self.budget = kind, tau, budget
        self.mixture = arm.options.get("mixture", 0.0)
        self.strengths = arm.options.get("strengths", [1.0])
        self._make = RULES[arm.options["rule"]]
        self._tuning = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_GAMES[budget])

    def rule(self, games: PreferenceGames, strength: float) -> Rule:
        return self._make(games, strength * self.tau, self.mixture)

    def measures(self, games: PreferenceGames, policy: torch.Tensor, prefix: str) -> dict[str, torch.Tensor]:
        exploitability = games.regularised_exploitability(policy, self.tau)
        mixed = games.mixture(policy, self.mixture)
        return {
            f"{prefix}exploitability": exploitability,
            f"{prefix}mixture_exploitability": games.regularised_exploitability(mixed, self.tau / (1 - self.mixture)),
            f"{prefix}solved": (exploitability < SOLVED).double(),
        }

    def tuned_exactly(self) -> tuple[float, float]:
        """The strength and learning rate with the lowest mean exploitability on other games."""
        games = make_games(self._tuning, self.kind)
        scores: dict[tuple[float, float], float] = {}
        for strength in self.strengths:
            course = learn(games, self.rule(games, strength), LEARNING_RATES, steps=STEPS[self.budget])
            scores |= self._scores(games, course.last, strength)
        return min(scores, key=lambda point: scores[point])

    def tuned_sampled(self, strength: float) -> float:
        """The learning rate for sampled pairs, at that strength."""
        games = make_games(self._tuning, self.kind).repeated(TUNING_REPLICATES)
        samples = SampleStream(self._tuning, BATCH, TUNING_REPLICATES)
        course = learn(
            games, self.rule(games, strength), LEARNING_RATES, steps=SAMPLED_STEPS[self.budget], samples=samples
        )
        scores = self._scores(games, course.last, strength)
        return min(scores, key=lambda point: scores[point])[1]

    def _scores(
        self, games: PreferenceGames, policies: torch.Tensor, strength: float
    ) -> dict[tuple[float, float], float]:
        means = games.regularised_exploitability(policies, self.tau).mean(-1).nan_to_num(torch.inf).tolist()
        return {(strength, rate): mean for rate, mean in zip(LEARNING_RATES, means, strict=True)}
