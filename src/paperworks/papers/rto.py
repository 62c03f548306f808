"""RTO: reinforced token optimisation, DPO's log-ratios as PPO's token rewards (Zhong et al. 2024, arXiv 2404.18922).

PPO sees one reward at the end of an answer. A DPO model knows more: beta log(pi_dpo / pi_ref) of a token is a shaped reward
for it, and is added to PPO's:

    sources/token_rewards.py, rto_rewards

Part A is the paper's argument for why that helps: with token rewards the best answer is found after about A^min(xi+1, H)
queries, xi being how many tokens a wrong way looks right, with answer rewards after about A^H. Part B trains decoders on
token rewards out of a learned DPO model (testbeds/token_rewarded_part.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Published, Workspace
from paperworks.experiment.results import Results
from paperworks.language.testbeds import token_tree
from paperworks.language.testbeds.token_rewarded_part import CLAIMS_B, PART_B

ACTIONS = 3
HORIZONS = (2, 3, 4, 5, 6, 7)
DELAYS = (0, 1, 2, 3)
SETTINGS = tuple(f"xi={delay}" for delay in DELAYS)

ARMS_A = (
    Arm("token", "reward on each token"),
    Arm("answer", "reward on the whole answer", "baseline", note="answers in random order, none twice"),
    Arm(
        "token-at-end",
        "token rewards, all on the last token",
        "control",
        {"delay": max(HORIZONS)},
        "the same search where token rewards tell nothing on the way",
    ),
)


def tree_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A: queries until the best answer is found, at every horizon, and their growth with it."""
    delay = arm.options.get("delay", int(setting.removeprefix("xi=")))
    cells = []
    for seed in seeds:
        queries = []
        for horizon in HORIZONS:
            tree = token_tree.TokenTree.draw(seed, actions=ACTIONS, horizon=horizon)
            if arm.name == "answer":
                queries.append(token_tree.queries_by_answer_rewards(tree, seed))
            else:
                queries.append(token_tree.queries_by_token_rewards(tree, seed, delay=delay))
        cell: dict[str, Any] = {f"queries_{horizon}": float(count) for horizon, count in zip(HORIZONS, queries)}
        cell["growth"] = _growth(HORIZONS, queries)
        cells.append(cell)
    return cells


def _growth(horizons: Sequence[int], queries: Sequence[int]) -> float:
    """The factor that one more token puts on the queries: exp of the least squares slope of their logarithm."""
    x, y = list(horizons), [math.log(count) for count in queries]
    centre_x, centre_y = sum(x) / len(x), sum(y) / len(y)
    return math.exp(sum((a - centre_x) * (b - centre_y) for a, b in zip(x, y)) / sum((a - centre_x) ** 2 for a in x))


def queries_figure(results: Results) -> list[tuple[str, str]]:
    """Queries against the length of answers."""
    from paperworks.core import plots

    curves = {}
    for arm, setting, name in (
        *(("token", setting, f"token rewards, {setting}") for setting in SETTINGS),
        ("answer", SETTINGS[0], "answer rewards"),
    ):
        if results.cells_of("A", arm, setting):
            found = [results.interval("A", arm, f"queries_{horizon}", setting) for horizon in HORIZONS]
            curves[name] = plots.Curve(
                [float(horizon) for horizon in HORIZONS],
                [each.mean for each in found],
                [each.low for each in found],
                [each.high for each in found],
            )
    svg = plots.lines(curves, "tokens an answer", "queries", log_y=True, x_ticks=HORIZONS)
    return [(svg, "queries until the best of 3^H answers is found: mean over seeds, 95% intervals")]


PART_A = Part(
    name="A",
    title="A tree of answers with one best",
    text="Answers of H tokens out of 3, one of them best. A wrong token costs 1, which shows xi tokens later or at the end. "
    "The token learner asks for rewards of prefixes, best first, without knowing xi; the answer learner for rewards of whole "
    "answers. Both stop at the best answer, whose reward they know to be the largest possible.",
    arms=ARMS_A,
    settings=SETTINGS,
    seeds={"smoke": 3, "small": 50, "full": 400},
    cell=tree_cell,
    batched=True,
    metrics=(
        Metric("growth", "growth of queries a token", higher_is_better=False, format=".2f"),
        *(Metric(f"queries_{h}", f"queries at {h} tokens", higher_is_better=False, format=".1f") for h in HORIZONS),
    ),
    figures=queries_figure,
)

CLAIMS_A = (
    *(Claim("growth", "token", "answer", where) for where in SETTINGS),
    *(Claim(f"queries_{HORIZONS[-1]}", "token", "answer", where) for where in SETTINGS),
    Claim(
        "growth",
        "token-at-end",
        "answer",
        SETTINGS[0],
        text="searching prefixes helps where token rewards lie on the last token alone (a control, not expected)",
        expected="not shown",
    ),
)

EXPERIMENT = Experiment(
    slug="rto",
    title="DPO Meets PPO: Reinforced Token Optimization for RLHF",
    parts=(PART_A, PART_B),
    claims=(*CLAIMS_A, *CLAIMS_B),
    published=tuple(
        Published(arm, metric, value, "Llama-3-8B, UltraFeedback", source)
        for arm, win_rates, arena in (
            ("SFT", "13.22 / 8.58", "9.2 / 8.9"),
            ("DPO", "17.40 / 12.23", "13.2 / 13.8"),
            ("SimPO", "25.46 / 20.20", "14.5 / 15.2"),
            ("TDPO", "20.13 / 11.97", "13.2 / 12.3"),
            ("PPO", "19.47 / 12.89", "16.2 / 15.6"),
            ("RTO", "27.00 / 22.45", "20.3 / 21.4"),
        )
        for metric, value, source in (
            ("AlpacaEval 2 length-controlled / win rate, %", win_rates, "main results"),
            ("Arena-Hard style-controlled / win rate, %", arena, "main results"),
        )
    ),
    differences="The paper aligns an 8B model; part A is its statement on sample complexity, in a tree whose token rewards "
    "are known and whose answers are searched, not sampled by a policy. Part B trains policies, small ones, whose true token "
    "scores are known; the critic is a head of the policy, not a model that starts from the reward model.",
    notes="xi, the number of tokens for which a wrong way looks right, is what the token rewards are worth: with xi as large "
    "as the answer is long they are an answer reward. The bound A^min(xi+1, H) is for one stretch of the way; a search pays "
    "about that for each of the H tokens, so that it grows with H, but not exponentially. Part B was sized on the seeds that "
    "choose grid points, before its claims were tested: a first task, of which the prompt decided a smaller part, PPO had "
    "learned within ten updates of 64 rollouts, so the prompt's part was raised to half and rollouts were halved. Its reward "
    "model is imperfect, and PPO optimises it beyond its worth. So RTO can gain in two ways: its DPO model knows what the "
    "reward model of the same pairs does not, and it says so token by token. DDPO has the first alone, RS-PPO the second: "
    "each gains less than half of what RTO does. The reward model is the worse judge of the two, so that without it (token "
    "rewards alone) the return is higher still, and DPO as it is has RTO's level from the start. Every arm chose the faster "
    "or fastest rate of its grid, and RTO the largest beta1: their best points may lie beyond.",
)
