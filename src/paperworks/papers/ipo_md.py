"""Online IPO and IPO-MD: human alignment through online preference optimisation (Calandriello et al. 2024, arXiv 2403.08635).

IPO's squared loss on pairs of the policy's own samples has the gradient of self-play in the preference game regularised
by the divergence from the reference; IPO-MD draws both answers from a mixture of policy and reference, between offline
and online IPO:

    tau (h(y) - h(y') - (2p - 1) / (2 tau))^2        language/objectives/soft_preferences.py, OnlineIPO and IPOMD

Part A plays preference games of ten answers whose equilibrium is known, with exact gradients and with sampled pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, cast

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Published, Workspace
from paperworks.experiment.results import Results
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

STEPS = {"smoke": 10, "small": 1500, "full": 5000}
SAMPLED_STEPS = {"smoke": 5, "small": 1000, "full": 3000}
BATCH = 64  # pairs a step
REPLICATES = {"smoke": 2, "small": 8, "full": 16}  # sampled runs a game
TUNING_GAMES = {"smoke": 2, "small": 20, "full": 50}
TUNING_REPLICATES = 2
FIRST_TUNING_SEED = 1_000_000

LEARNING_RATES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
STRENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0)  # of a baseline's beta (or tau), in units of the game's tau
MIXTURES = (0.125, 0.25, 0.5)
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

ARMS_A = (
    Arm("online-ipo", "online IPO", options={"rule": "online-ipo"}),
    *(
        Arm(f"ipo-md-{mixture:g}", f"IPO-MD, b {mixture:g}", options={"rule": "ipo-md", "mixture": mixture})
        for mixture in MIXTURES
    ),
    *(
        Arm(
            f"nash-md-{mixture:g}", f"Nash-MD-PG, b {mixture:g}", "baseline", {"rule": "nash-md-pg", "mixture": mixture}
        )
        for mixture in MIXTURES
    ),
    *(
        Arm(name, label, "baseline", {"rule": name, "strengths": list(STRENGTHS)}, f"{what} tuned too, in 0.5 to 8 tau")
        for name, label, what in (
            ("offline-ipo", "offline IPO", "its tau"),
            ("online-dpo", "online DPO", "beta"),
            ("online-slic", "online SLiC", "beta"),
            ("rl", "RL on the BT fit", "beta"),
        )
    ),
    Arm("online-dpo-tau", "online DPO, beta = tau", "control", {"rule": "online-dpo"}),
    Arm("online-ipo-hard", "online IPO, hard labels", "control", {"rule": "online-ipo-hard"}),
)


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


SHOWN = ("online-ipo", "ipo-md-0.25", "nash-md-0.25", "offline-ipo", "online-dpo", "online-slic", "rl")


def game_figures(results: Results) -> list[tuple[str, str]]:
    """Exploitability over training at tau = 0.1, exact and sampled, mean over games."""
    from paperworks.core import plots

    figures = []
    for setting, (name, steps, what) in product(
        [setting for setting in PART_A.settings if setting.endswith("tau=0.1")],
        [
            ("exploitability_by_step", "steps", "exact gradients"),
            ("sampled_by_step", "sampled_steps", f"{BATCH} sampled pairs a step"),
        ],
    ):
        curves = {}
        for arm in SHOWN:
            if cells := results.cells_of("A", arm, setting):
                mean = torch.tensor([cell.metrics[name] for cell in cells]).mean(0).clamp(min=1e-8).tolist()
                curves[PART_A.arm(arm).label] = plots.Curve(cells[0].metrics[steps], mean)
        if curves:
            svg = plots.lines(curves, "step", "regularised exploitability", log_y=True, markers=False)
            figures.append((svg, f"exploitability at tau over training, {setting}, {what} (below 1e-8 drawn there)"))
    return figures


def _low(name: str, label: str, format_spec: str = ".1e") -> Metric:
    return Metric(name, label, higher_is_better=False, format=format_spec)


PART_A = Part(
    name="A",
    title="Preference games with a known equilibrium",
    text="Ten answers; the judge is Bradley-Terry (transitive), the same with the three best answers in a circle (cycle), or a "
    "random antisymmetric matrix (random); the reference has Gaussian logits. Gradient descent on tabular logits from the "
    "reference, learning rate falling linearly to 0: 1500 steps with exact expected gradients, 1000 with 64 sampled pairs a "
    "step (8 runs a game). The judge's probabilities are the labels. Learning rate of every arm, exact and sampled, from 6 "
    "values by exploitability on 20 other games; the baselines whose beta (or tau) is on a scale of its own have it tuned "
    "there too, among 5. Regularised exploitability at tau: how much a best response gains on the policy, 0 at the "
    "equilibrium; that of the mixture pi^b is taken in the game with regularisation tau / (1 - b), and is the policy's own "
    "where there is no mixture. Spread: root mean squared distance of the sampled runs' last policies from their mean, at the "
    "tuned learning rate and at 3 for every arm.",
    arms=ARMS_A,
    settings=tuple(f"{kind}, tau={tau:g}" for tau in (0.1, 0.3) for kind in ("transitive", "cycle", "random")),
    seeds={"smoke": 2, "small": 10, "full": 50},
    cell=game_cell,
    batched=True,
    metrics=(
        _low("exploitability", "exploitability"),
        _low("mixture_exploitability", "exploitability of the mixture"),
        Metric("solved", "share solved (below 1e-4)", format=".2f"),
        _low("distance", "total variation to the equilibrium", ".4f"),
        _low("gradient", "largest gradient left"),
        _low("sampled_exploitability", "exploitability, sampled"),
        _low("sampled_mixture_exploitability", "exploitability of the mixture, sampled"),
        _low("spread", "spread, sampled", ".4f"),
        _low("spread_common_rate", "spread at learning rate 3", ".4f"),
        _low("tuned_strength", "tuned beta / tau", "g"),
        _low("tuned_rate", "tuned rate", "g"),
        _low("sampled_rate", "tuned rate, sampled", "g"),
    ),
    figures=game_figures,
)

_AT_01 = PART_A.settings[:3]
CLAIMS_A = (
    *(
        Claim("exploitability", "online-ipo", baseline, where)
        for where in _AT_01
        for baseline in ("offline-ipo", "online-dpo", "online-slic", "rl")
    ),
    *(Claim("exploitability", "online-ipo", "online-dpo", where) for where in PART_A.settings[3:]),
    *(Claim("exploitability", "online-ipo", "online-dpo-tau", where) for where in _AT_01),
    *(Claim("mixture_exploitability", "ipo-md-0.25", "online-dpo", where) for where in _AT_01),
    *(Claim("exploitability", "ipo-md-0.125", "offline-ipo", where) for where in _AT_01),
    *(Claim("sampled_exploitability", "online-ipo", "online-dpo", where) for where in _AT_01),
    *(Claim("sampled_mixture_exploitability", "ipo-md-0.25", "nash-md-0.25", where) for where in _AT_01),
    *(Claim("spread_common_rate", "ipo-md-0.25", "online-ipo", where) for where in _AT_01),
)

EXPERIMENT = Experiment(
    slug="ipo-md",
    title="Human Alignment of Large Language Models through Online Preference Optimisation",
    parts=(PART_A,),
    claims=CLAIMS_A,
    published=tuple(
        Published(arm, f"mean preference over {other}", value, "XSum summaries, T5X-L, PaLM2 judge", "Table 2")
        for arm, figures in (
            (
                "online-ipo",
                {"IPO-MD": 0.515, "online DPO": 0.608, "Nash-MD-PG": 0.621, "online SLiC": 0.608, "RL": 0.791},
            ),
            ("ipo-md-0.125", {"online DPO": 0.600, "Nash-MD-PG": 0.608, "online SLiC": 0.594, "RL": 0.778}),
        )
        for other, value in figures.items()
    ),
    differences="Part A has tabular policies and judges that are matrices; the paper aligns a T5X-L of 770 million parameters "
    "on summaries and compares policies by a larger model's preferences.",
    notes="The equilibrium of the mixture is that of tau / (1 - b), so that IPO-MD's policy at tau is near it, not on it. "
    "Online DPO's beta is a scale of its own: near P = 1/2 a Bradley-Terry reward is four times the win rate, so that beta = 4 "
    "tau brings its resting point near the equilibrium, and the tuned arm finds that; beta = tau is a control. Spreads at one "
    "learning rate compare losses of one scale only: online IPO with IPO-MD, not with Nash-MD-PG, whose gradient is a quarter.",
)
