"""DNO: direct Nash optimisation, self-improvement with general preferences (Rosset et al. 2024, arXiv 2404.03715).

In each round an answer's reward is its win rate against the current policy, and the next policy is fitted by regression,
a binary cross-entropy on pairs whose reference is the current policy:

    D = eta (h(y) - h(y')), target sigmoid(r_t(y) - r_t(y'))        language/objectives/soft_preferences.py, DNO

The mean of all rounds nears the equilibrium of the preference game, also where preferences run in circles. Part A plays
games of eight answers with exact rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Published, Workspace
from paperworks.experiment.results import Results
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

TUNED = "eta of 12 values, by the average's exploitability on other games"
ARMS_A = (
    Arm("dno", "DNO", note=TUNED),
    Arm("dno-regularised", "DNO, regularised", note=f"tau {TAU:g}; {TUNED}, of the last round"),
    Arm("iterative-dpo", "iterative DPO on BT rewards", "baseline", note=f"rewards fitted once; {TUNED}"),
    Arm(
        "iterative-dpo-refit",
        "iterative DPO, BT rewards refitted",
        "baseline",
        note=f"rewards fitted each round to the judge on the policy's own pairs; {TUNED}",
    ),
    Arm("dpo-fixed", "DPO, fixed reference", "baseline", note=f"the exact optimum on all pairs; {TUNED}"),
    Arm("uniform", "uniform", "control"),
)


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


def exploitability_figures(results: Results) -> list[tuple[str, str]]:
    """Exploitability of the average policy against rounds, mean over games."""
    from paperworks.core import plots

    figures = []
    for setting in PART_A.settings:
        curves = {}
        for arm in ARMS_A:
            if cells := results.cells_of("A", arm.name, setting):
                mean = torch.tensor([cell.metrics["by_round"] for cell in cells]).mean(0).tolist()
                curves[arm.label] = plots.Curve(cells[0].metrics["rounds"], mean)
        if curves:
            svg = plots.lines(curves, "rounds", "exploitability of the average", log_x=True, log_y=True, markers=False)
            figures.append((svg, f"exploitability of the average of the rounds so far, {setting} games"))
    return figures


PART_A = Part(
    name="A",
    title="Preference games, exact rounds",
    text="Eight answers; the judge is a random antisymmetric matrix (random), the same with the three best answers in a circle "
    "(random-cycle), or Bradley-Terry (transitive); the first policy is uniform. 300 rounds. DNO fits its objective over all "
    "pairs by Newton's method; iterative DPO takes 20 gradient steps a round on hard labels by Bradley-Terry rewards fitted to "
    "the judge's probabilities. Exploitability of the average policy: max_y P(y > average) - 1/2. Slack of the bound: the "
    "smallest P(pi_t+1 > pi_t) - 1/2 - eta KL(pi_t+1 || pi_t) of any round, which theory says is not negative for DNO.",
    arms=ARMS_A,
    settings=("random", "random-cycle", "transitive"),
    seeds={"smoke": 2, "small": 10, "full": 50},
    cell=rounds_cell,
    batched=True,
    metrics=(
        Metric("exploitability", "exploitability of the average", higher_is_better=False, format=".4f"),
        Metric("last_exploitability", "exploitability of the last", higher_is_better=False, format=".4f"),
        Metric("improvement", "P(next > current), mean of rounds", format=".4f"),
        Metric("worst_improvement", "P(next > current) - 1/2, worst round", format="+.4f"),
        Metric("bound_slack", "slack of the bound", format=".1e"),
        Metric("tuned_eta", "tuned eta", higher_is_better=False, format="g"),
    ),
    figures=exploitability_figures,
)

_CYCLIC = ("random", "random-cycle")
CLAIMS_A = (
    *(
        Claim("exploitability", "dno", baseline, where)
        for where in _CYCLIC
        for baseline in ("iterative-dpo", "iterative-dpo-refit", "dpo-fixed", "uniform")
    ),
    *(
        Claim("exploitability", "dno", baseline, "transitive", expected="not shown")
        for baseline in ("iterative-dpo", "dpo-fixed")
    ),
    *(
        Claim(
            "last_exploitability",
            "dno-regularised",
            "dno",
            where,
            text=f"the last policy of the regularised variant is less exploitable than DNO's at {where}",
        )
        for where in _CYCLIC
    ),
)

EXPERIMENT = Experiment(
    slug="dno",
    title="Direct Nash Optimization: Teaching Language Models to Self-Improve with General Preferences",
    parts=(PART_A,),
    claims=CLAIMS_A,
    published=tuple(
        Published(arm, "AlpacaEval 2.0 win rate (length-controlled / raw), %", value, setting, "Table 1")
        for arm, setting, value in (
            ("dno", "7B, Orca-2.5 start, iteration 3", "22.59 / 24.97"),
            ("iterative-dpo", "7B, offline DPO, 4 epochs", "19.49 / 18.22"),
            ("uniform", "7B, the start itself", "10.76 / 6.99"),
        )
    ),
    differences="Part A is the algorithm of the paper's theory on games that can be solved; the paper's experiments are its "
    "practical form on a 7B model with a large model as the judge, whose figures stand beside the nearest arm here.",
    notes="The theory is about the average of the rounds: the last policy of exact rounds circles on cyclic games. On "
    "transitive games every average keeps the uniform first round, a 300th of it, and little else tells the arms apart. The "
    "regularised variant is from memory of the paper's appendix. A reward that is refitted on each round's own pairs follows "
    "the policy around the circle and is a much stronger baseline than one fitted once.",
)
