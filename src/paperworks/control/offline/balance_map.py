"""How far from the log a family of policies goes in each logged state: a table, a histogram, and single members on request."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from paperworks.control.offline.family import FamilyActor
from paperworks.control.policy import ControlPolicy
from paperworks.control.report import ReportSection
from paperworks.control.transitions import Transitions
from paperworks.core import plots
from paperworks.core.errors import OptionError

FILE = "beta-map.csv"
CHUNK_ROWS = 1 << 15


@torch.no_grad()
def chosen_balances(policy: ControlPolicy, observations: Float[ndarray, "n state"]) -> Float[ndarray, " n"]:
    """The balance that the policy acts by in each state. Raises OptionError for a policy that is of no family."""
    actor, normaliser = _family(policy), policy.normaliser
    states = torch.from_numpy((observations.astype(np.float32) - normaliser.mean) / normaliser.deviation)
    return np.concatenate([actor.chosen(part).numpy() for part in states.split(CHUNK_ROWS)])


def member(policy: ControlPolicy, beta: float) -> ControlPolicy:
    """The policy of the family that has this balance in every state. Raises OptionError outside the family's range."""
    return dataclasses.replace(policy, actor=_family(policy).at(beta))


def write_map(policies: Sequence[ControlPolicy], log: Transitions, folder: Path) -> ReportSection:
    """Write beta-map.csv (a line a logged state, a column a policy) into `folder`; returns what the report says of it."""
    columns = [chosen_balances(policy, log.observations) for policy in policies]
    names = ["beta"] if len(columns) == 1 else [f"beta_{number}" for number in range(len(columns))]
    with (folder / FILE).open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["row", *names])
        for row, values in enumerate(zip(*columns, strict=True)):
            lines.writerow([row, *(f"{value:.4f}" for value in values)])
    every, betas = np.concatenate(columns), _family(policies[0]).betas
    low, middle, high = np.quantile(every, (0.05, 0.5, 0.95))
    return ReportSection(
        "Balances",
        "What the balance model picks for each logged state, all policies together: the higher, the less the policy is held "
        f"to the logged actions there. {FILE} has a line for each of the log's rows.",
        {
            "range": f"{betas.low:g} to {betas.high:g}",
            "mean": f"{every.mean():.3g}",
            "median (5% to 95%)": f"{middle:.3g} ({low:.3g} to {high:.3g})",
        },
        [(plots.histogram({"logged states": every.tolist()}, "balance", bins=30), "balances of the logged states")],
    )


def _family(policy: ControlPolicy) -> FamilyActor:
    if not isinstance(policy.actor, FamilyActor):
        raise OptionError(f"a policy of {policy.method or policy.actor.kind} is no family: it has no balances")
    return policy.actor
