"""LN-DPO: the hitchhiker's guide to human alignment with *PO (Ahrabian et al. 2024, arXiv 2407.15229).

A study of preference losses from the practitioner's side: how good is a loss over its grid, in reward, KL and length,
rather than at its best point? LN-DPO is DPO on averages over each response's own tokens:

    -log sigmoid(beta [S_w / |w| - S_l / |l|])        language/objectives/ln_dpo.py, LNDPO

Part A is a unigram language model whose annotators like length, where quality, length and KL are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Workspace
from paperworks.experiment.results import Results
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.ipo import IPO
from paperworks.language.objectives.kto import KTO
from paperworks.language.objectives.ln_dpo import LNDPO
from paperworks.language.objectives.objective import Objective
from paperworks.language.objectives.simpo import SimPO
from paperworks.language.testbeds import unigram

PAIRS = 800
STEPS = {"smoke": 50, "small": 300, "full": 300}
MATCHED_KL = (3.0, 4.0, 5.0)  # nats at which quality and length are compared; claims are made at 4

OBJECTIVES: Mapping[str, Callable[[float], Objective]] = {
    "ln-dpo": lambda beta: LNDPO(beta=beta),
    "dpo": lambda beta: DPO(beta=beta),
    "simpo": lambda beta: SimPO(beta=beta, gamma_ratio=0.5),
    "simpo-no-margin": lambda beta: SimPO(beta=beta, gamma_ratio=0.0),
    "ipo": lambda tau: IPO(tau=tau),
    "ipo-avg": lambda tau: IPO(tau=tau, average=True),
    "kto": lambda beta: KTO(beta=beta),
}


def _grid(low: float, high: float, points: int = 20) -> list[float]:
    """As many values for every loss, from the weak end of its own scale to the strong one, evenly spaced in the logarithm."""
    return [round(low * (high / low) ** (index / (points - 1)), 4) for index in range(points)]


ARMS_A = (
    Arm("ln-dpo", "LN-DPO", options={"grid": _grid(1, 12)}),
    Arm("dpo", "DPO", "baseline", {"grid": _grid(0.01, 1.5)}),
    Arm("simpo", "SimPO, gamma/beta 0.5", "baseline", {"grid": _grid(1, 20)}),
    Arm("simpo-no-margin", "SimPO, gamma 0", "baseline", {"grid": _grid(1, 20)}),
    Arm("ipo", "IPO (sums)", "baseline", {"grid": _grid(0.01, 0.5)}),
    Arm("ipo-avg", "IPO (averages)", "baseline", {"grid": _grid(0.1, 3)}),
    Arm("kto", "KTO", "baseline", {"grid": _grid(0.01, 1)}),
)


def unigram_cell(
    arm: Arm, setting: str, seeds: Sequence[int], budget: Budget, workspace: Workspace
) -> list[dict[str, Any]]:
    """Part A: train the arm's whole grid; read quality and length at matched KL and over the grid."""
    torch.set_num_threads(1)
    world = unigram.make_unigram_world(seeds)
    pairs = unigram.draw_unigram_pairs(world, seeds, PAIRS, length_bias=float(setting.removeprefix("length bias=")))
    objectives = [OBJECTIVES[arm.name](value) for value in arm.options["grid"]]
    logits = unigram.train_unigram(world, objectives, pairs, steps=STEPS[budget])
    quality, length, kl = world.expected_quality(logits), world.expected_length(logits), world.kl(logits)
    cells = []
    for seed in range(len(seeds)):
        of_seed: dict[str, Any] = {"quality": quality[:, seed], "length": length[:, seed], "kl": kl[:, seed]}
        cell: dict[str, Any] = {
            f"{name}_at_{target:g}": unigram.at_kl(target, of_seed["kl"], of_seed[name])
            for name in ("quality", "length")
            for target in MATCHED_KL
        }
        cell["quality_median"] = float(of_seed["quality"].quantile(0.5))
        cell["length_median"] = float(of_seed["length"].quantile(0.5))
        cell["kl_lowest"], cell["kl_highest"] = float(of_seed["kl"].min()), float(of_seed["kl"].max())
        cells.append(cell | {f"{name}_by_point": values.tolist() for name, values in of_seed.items()})
    return cells


def unigram_figures(results: Results) -> list[tuple[str, str]]:
    """Quality, and length, against KL: every grid point of every arm, the mean over seeds."""
    from paperworks.core import plots

    figures = []
    for setting in PART_A.settings:
        curves: dict[str, dict[str, plots.Curve]] = {"quality": {}, "length": {}}
        for arm in ARMS_A:
            cells = results.cells_of("A", arm.name, setting)
            if not cells:
                continue
            mean = {
                name: torch.tensor([cell.metrics[f"{name}_by_point"] for cell in cells]).mean(0).tolist()
                for name in ("quality", "length", "kl")
            }
            for name, by_arm in curves.items():
                points = sorted(zip(mean["kl"], mean[name], strict=True))
                by_arm[arm.label] = plots.Curve([kl for kl, _ in points], [value for _, value in points])
        for name, by_arm in curves.items():
            if by_arm:
                svg = plots.lines(by_arm, "KL to the reference (nats)", name, log_x=True)
                figures.append((svg, f"{name} against KL, {setting}: one point a grid value, mean over seeds"))
    return figures


def _matched(name: str, unit: str, *, higher_is_better: bool) -> tuple[Metric, ...]:
    return tuple(
        Metric(f"{name}_at_{kl:g}", f"{name} at {kl:g} nats", unit, higher_is_better, ".2f" if not unit else ".1f")
        for kl in MATCHED_KL
    )


PART_A = Part(
    name="A",
    title="Unigram language model, exact quality, length and KL",
    text="20 words and an end token (probability 0.08, cap 60); quality is 3 times the mean word value; 800 pairs a seed "
    "sampled from the reference, labelled by Bradley-Terry on quality + bias * (length - 12). 300 full-batch Adam steps "
    "of 0.02; 20 grid values a loss. At matched KL: linear between the grid points just below and just above it; a dash "
    "where a loss's grid does not come near that KL (the two points more than a factor 4 apart, or none on a side). "
    "Lengths are tokens with the end token.",
    arms=ARMS_A,
    settings=("length bias=0.1", "length bias=0", "length bias=-0.1"),
    seeds={"smoke": 2, "small": 10, "full": 50},
    cell=unigram_cell,
    batched=True,
    metrics=(
        *_matched("quality", "", higher_is_better=True),
        *_matched("length", "tokens", higher_is_better=False),
        Metric("quality_median", "median quality over the grid", format=".2f"),
        Metric("length_median", "median length over the grid", "tokens", False, ".1f"),
        Metric("kl_lowest", "lowest KL of the grid", "nats", False, ".2f"),
        Metric("kl_highest", "highest KL of the grid", "nats", False, ".2f"),
    ),
    figures=unigram_figures,
)

CLAIMS_A = (
    Claim("quality_at_4", "ln-dpo", "dpo", "length bias=0.1"),
    Claim("length_at_4", "ln-dpo", "dpo", "length bias=0.1"),
    Claim("quality_at_4", "ln-dpo", "dpo", "length bias=0"),
    Claim("length_at_4", "ln-dpo", "dpo", "length bias=0"),
    Claim("quality_at_4", "ln-dpo", "dpo", "length bias=-0.1", expected="not shown"),
    Claim("length_at_4", "ln-dpo", "dpo", "length bias=-0.1", expected="not shown"),
)

EXPERIMENT = Experiment(
    slug="ln-dpo",
    title="The Hitchhiker's Guide to Human Alignment with *PO",
    parts=(PART_A,),
    claims=CLAIMS_A,
    differences="Part A replaces the language model and its reward model by a unigram model whose quality, length and KL are "
    "exact; the paper trains on safety data and evaluates on helpfulness dialogue.",
    notes="A loss's beta or tau has a scale of its own, so that losses are compared at the same KL, never at the same beta. "
    "SimPO knows no reference: with gamma/beta 0.5 no beta of its grid stays near it.",
)
