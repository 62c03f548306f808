"""CoPG: contrastive policy gradient (Flet-Berliac et al. 2024, arXiv 2406.19185).

Any score of whole responses, maximised under a KL from a fixed file of scored responses: the baseline of a response is the
regularised score of another to the same prompt, which makes the policy gradient right whoever wrote them.

    -[(R - R') d - beta / 2 d^2], d = rho(y) - rho(y')        language/objectives/copg.py, CoPG

Part A is the paper's bandit of three arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Workspace
from paperworks.experiment.results import Results
from paperworks.language.testbeds import off_policy_bandit
from paperworks.language.testbeds.off_policy_bandit import BANDIT, LossName

PAIRS_A = {"smoke": 1000, "small": 10_000, "full": 10_000}
EPOCHS_A = {"smoke": 2, "small": 100, "full": 100}

ARMS_A = (
    Arm("copg", "CoPG"),
    Arm("pg", "policy gradient, no baseline", "baseline", note="off-policy, as the data are"),
    Arm("pg-value", "policy gradient, value baseline", "baseline", note="the policy's exact mean reward"),
    Arm("ipo", "IPO", "baseline", note="preferences by sigmoid(R - R'), tau = beta"),
    Arm("dpo", "DPO", "baseline", note="the same preferences"),
)


def bandit_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A: train the arm's loss on the seeds' pairs, read the last iterate."""
    torch.set_num_threads(1)
    name = cast(LossName, arm.name)
    steps, regret = off_policy_bandit.train(BANDIT, name, seeds, pairs=PAIRS_A[budget], epochs=EPOCHS_A[budget])
    limit = off_policy_bandit.limit_regret(BANDIT, name)
    return [
        {"regret": float(regret[-1, row]), "limit": limit, "regret_by_step": regret[:, row].tolist(), "steps": steps}
        for row in range(len(seeds))
    ]


def regret_figure(results: Results) -> list[tuple[str, str]]:
    """Regret over training."""
    from paperworks.core import plots

    curves = {}
    for arm in ARMS_A:
        if cells := results.cells_of("A", arm.name):
            mean = torch.tensor([cell.metrics["regret_by_step"] for cell in cells]).mean(0).tolist()
            curves[arm.label] = plots.Curve(cells[0].metrics["steps"], mean)
    if not curves:
        return []
    return [(plots.lines(curves, "step", "J(pi*) - J(pi)", markers=False), "regret over training, mean over seeds")]


PART_A = Part(
    name="A",
    title="The paper's bandit: three arms, pairs from two other policies",
    text="R = (2.5, 2, 1); 10,000 pairs, drawn by mu1 = (0.1, 0.2, 0.7) and mu2 = (0.05, 0.05, 0.9); beta 0.5, uniform reference; "
    "Adam 1e-3, batch 512, 100 epochs, all as in the paper. Regret is J(pi*) - J(pi), J = E[R] - beta KL; it is 0.292 at the "
    "start. The limit is where descent along the expected gradient comes to rest.",
    arms=ARMS_A,
    seeds={"smoke": 3, "small": 10, "full": 50},
    cell=bandit_cell,
    batched=True,
    metrics=(
        Metric("regret", "regret", higher_is_better=False, format=".4f"),
        Metric("limit", "regret in the limit", higher_is_better=False, format=".4f"),
    ),
    figures=regret_figure,
)

CLAIMS_A = tuple(Claim("regret", "copg", arm.name) for arm in ARMS_A if arm.name != "copg")

EXPERIMENT = Experiment(
    slug="copg",
    title="Contrastive Policy Gradient: Aligning LLMs on sequence-level scores in a supervised-friendly fashion",
    parts=(PART_A,),
    claims=CLAIMS_A,
)
