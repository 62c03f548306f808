"""PRDC: pull the policy to the nearest logged pair of state and action (Ran et al. 2023, arXiv 2306.06569).

TD3+BC pulls the action of a state to the one that was logged there, even where that one was bad. PRDC looks through the
whole log for the pair nearest to the state and the policy's own action, and pulls to that pair's action:

    -lambda mean Q1(s, p) + mean (p - a*)^2,   a* of argmin_i |[beta s; p] - [beta s_i; a_i]|,   p = pi(s)

    offline/prdc.py, PRDC · nearest.py, NearestRows · support.py, support

The experiment is a walk along a line whose log takes the right way in some places only.
"""

from __future__ import annotations

from paperworks.control.testbeds.line_trial import GOOD, line_cell, line_figures
from paperworks.experiment.definition import Arm, Claim, Experiment, Metric, Part, Published
from paperworks.experiment.results import Results

ARMS = (
    Arm("prdc", "PRDC"),
    Arm("td3-bc", "TD3+BC", "baseline"),
    Arm("iql", "IQL", "baseline"),
    Arm("bc", "BC", "baseline"),
    Arm("td3", "TD3, nothing holds it", "control"),
)


def figures(results: Results) -> list[tuple[str, str]]:
    """Success against the share of good places, and the policies along the line."""
    return line_figures(results, {arm.name: arm.label for arm in ARMS})


PART = Part(
    name="A",
    title="A line whose log goes the right way in places",
    text="x in [0, 10] moves by a quarter of the first action, reward 1 at the right end, 200 steps at most; a second action "
    "beyond 0.3 stops the walk. Each log is 4000 single steps from uniform places: in a share of 100 cells (0.8 to 0.1) the "
    "first action was +1, elsewhere -1, with noise of 0.05; the second was 0 with noise of 0.05. The three last cells are good "
    "in every log, for a log in which nobody arrives says nothing. Nets 32-32, 3000 steps of 64 rows, learning rate 2e-3, "
    "targets follow at 0.05, discount 0.97. TD3+BC and PRDC each try alpha 0.5, 1, 2.5, 5, IQL four pairs of expectile and "
    "beta, on two logs a share that serve nothing else; the setting of highest mean success over all shares is taken. BC and "
    "plain TD3 have nothing of the kind to try. Success: share of 21 starts from which the policy arrives.",
    arms=ARMS,
    seeds={"smoke": 2, "small": 8, "full": 20},
    cell=line_cell,
    batched=True,
    metrics=(
        Metric("success", "success, all shares"),
        *(Metric(f"success_{good:g}", f"success, {good:g} good") for good in GOOD),
        Metric("value_error", "Q at the starts minus the return", higher_is_better=False),
    ),
    figures=figures,
)

CLAIMS = (
    *(Claim(f"success_{good:g}", "prdc", "td3-bc") for good in (0.5, 0.3, 0.2, 0.1)),
    *(Claim("success", "prdc", baseline) for baseline in ("td3-bc", "bc", "iql", "td3")),
    Claim(
        "value_error", "prdc", "td3", text="PRDC overestimates the starts' value less than TD3 without a regulariser"
    ),
)

MEDIUM = "D4RL hopper-medium-v2 / walker2d-medium-v2"
REPLAY = "D4RL halfcheetah / hopper / walker2d medium-replay-v2"

EXPERIMENT = Experiment(
    slug="prdc",
    title="Policy Regularization with Dataset Constraint for Offline Reinforcement Learning",
    parts=(PART,),
    claims=CLAIMS,
    published=(
        Published("prdc", "normalised score", "100.3 / 85.2", MEDIUM, "recalled, not re-checked"),
        Published("td3-bc", "normalised score", "59.3 / 83.7", MEDIUM, "table 1 of a later paper (DOSER)"),
        Published("prdc", "normalised score", "55.0 / 100.1 / 92.0", REPLAY, "recalled, not re-checked"),
        Published("td3-bc", "normalised score", "44.6 / 60.9 / 81.8", REPLAY, "table 1 of a later paper (DOSER)"),
    ),
    differences="The paper's tables are of D4RL's locomotion and AntMaze; it has a walk on a line of the same idea, as far as "
    "recalled. The second action, the share of good cells and all sizes are ours. CQL, SPOT, BCQ and BEAR are not run here. "
    "The penalty is the released code's, the squared difference of actions; the paper states the distance.",
    notes="Learning rate, target rate and number of steps were chosen on tuning logs, where with slower ones no arm arrived "
    "within minutes. There PRDC arrived from most starts with a small alpha and failed with alpha 10, so that the "
    "grid of both alphas goes from 0.5 to 5; plain TD3, BC and most settings of IQL arrived nowhere at a share of "
    "0.5, so that a share of 0.8, at which imitation should do, was added, and IQL's grid was moved to larger beta. "
    "Chosen were alpha 1 for PRDC, 2.5 for TD3+BC, and for IQL expectile 0.95 with beta 100, the sharpest of its "
    "grid.",
)
