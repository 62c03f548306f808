"""Rounds of direct Nash optimisation on preference games that can be solved: what a trial measures.

Eta is chosen on games of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from paperworks.experiment.definition import Arm, Budget, Workspace
from paperworks.language.objectives.soft_preferences import DNO
from paperworks.language.testbeds.nash_rounds import (
    Rounds,
    hard_label_round,
    refitted_reward,
    regressed_round,
    run_rounds,
    soft_policy_iteration,
)
from paperworks.language.testbeds.preference_games import Kind, PreferenceGames, make_games

ACTIONS = 8
ROUNDS = {"smoke": 4, "small": 300, "full": 1000}
TUNING_GAMES = {"smoke": 2, "small": 20, "full": 50}
FIRST_TUNING_SEED = 1_000_000
ETAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)  # of every arm that has one
TAU = 0.05  # of the regularised variant, where eta is not less


def rounds_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A: choose eta on games of their own, run the rounds on the seeds' games, read average and last policy."""
    torch.set_num_threads(1)
    kind = cast(Kind, setting)
    eta = _tuned(arm.name, kind, budget)
    games = _games(seeds, kind)
    if arm.name == "dno":
        objective = DNO(eta=eta)
        rounds = run_rounds(games.log_reference, lambda now: regressed_round(games, now, objective), ROUNDS[budget])
    else:
        found = _rounds(arm.name, games, torch.tensor([eta], dtype=torch.float64), ROUNDS[budget])
        rounds = Rounds(found.log_policies[:, 0])
    by_round = games.exploitability(rounds.averages())
    last = games.exploitability(rounds.log_policies[-1])
    improvement = rounds.improvements(games)
    slack = improvement - 0.5 - eta * rounds.divergences()
    shown = sorted({round(ROUNDS[budget] ** (index / 30)) for index in range(31)})
    return [
        {
            "exploitability": float(by_round[-1, row]),
            "last_exploitability": float(last[row]),
            "improvement": float(improvement[:, row].mean()),
            "worst_improvement": float(improvement[:, row].min()) - 0.5,
            "bound_slack": float(slack[:, row].min()) if arm.name == "dno" else torch.nan,
            "tuned_eta": eta,
            "rounds": shown,
            "by_round": [float(by_round[at - 1, row]) for at in shown],
        }
        for row in range(len(seeds))
    ]


def _games(seeds: Sequence[int], kind: Kind) -> PreferenceGames:
    """The seeds' games, begun from the uniform policy."""
    games = make_games(seeds, kind, actions=ACTIONS)
    uniform = torch.log_softmax(torch.zeros_like(games.log_reference), dim=-1)
    return PreferenceGames(games.preference, uniform)


def _tuned(arm: str, kind: Kind, budget: Budget) -> float:
    """The eta whose average policy (regularised: last policy) is least exploitable on other games."""
    games = _games(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + TUNING_GAMES[budget]), kind)
    rounds = _rounds(arm, games, torch.tensor(ETAS, dtype=torch.float64), ROUNDS[budget])
    policies = rounds.log_policies[-1] if arm == "dno-regularised" else rounds.averages()[-1]
    return ETAS[int(games.exploitability(policies).mean(-1).argmin())]


def _rounds(arm: str, games: PreferenceGames, etas: torch.Tensor, rounds: int) -> Rounds:
    """An arm's rounds at every eta; DNO's regression by its closed form, which is the same to 1e-8."""
    eta = etas[:, None, None]
    start = games.log_reference.expand(len(etas), -1, -1)
    if arm == "dno":
        return run_rounds(start, lambda now: soft_policy_iteration(games, now, eta), rounds)
    if arm == "dno-regularised":
        tau = eta.clamp(max=TAU)
        return run_rounds(start, lambda now: soft_policy_iteration(games, now, eta, tau=tau), rounds)
    if arm == "iterative-dpo-refit":
        rewards: list[torch.Tensor] = []

        def refitted(now: torch.Tensor) -> torch.Tensor:
            rewards[:] = [refitted_reward(games, now, rewards[0] if rewards else None)]
            return hard_label_round(now, rewards[0], eta)

        return run_rounds(start, refitted, rounds)
    reward = games.bradley_terry()
    if arm == "iterative-dpo":
        return run_rounds(start, lambda now: hard_label_round(now, reward, eta), rounds)
    constant = start if arm == "uniform" else torch.log_softmax(games.log_reference + reward / eta, dim=-1)
    return run_rounds(start, lambda now: constant, rounds)
