"""The constraint of a log: which column says it, in which sign, and what is wrong with it.

A log has `costs` (above 0 where a step broke the constraint), a signed `constraint` h (above 0 is a violation, e.g. radius
minus distance), or both. A row's cost may be of the state that the row begins in or of the one it leads to, and its
constraint of the other: they then agree with a shift of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from paperworks.control.batches import Log
from paperworks.control.safe.feasibility import signed_costs
from paperworks.control.transitions import Transitions
from paperworks.core.errors import DataError

ConstraintColumn = Literal["auto", "signed", "costs"]


def log_constraint(log: Log, kind: Literal["hj", "qc"], column: ConstraintColumn, cost_scale: float) -> Tensor:
    """What values of this kind are fitted to: h of every row, or its cost. Raises DataError where the column is missing."""
    if kind == "hj" and column != "costs" and log.constraint is not None:
        return log.constraint
    if log.costs is None or (kind == "hj" and column == "signed"):
        raise DataError(_MISSING, field="costs")
    return log.costs if kind == "qc" else signed_costs(log.costs, cost_scale)


def check_constraints(log: Transitions, column: ConstraintColumn) -> Sequence[str]:
    """What a user should know of a log's constraint; nothing where all is well.

    Raises DataError where the column is missing, where every row is a violation, and where constraint and costs disagree.
    """
    where = log.source or None
    signed = log.constraint if column != "costs" else None
    if signed is None and (column == "signed" or log.costs is None):
        raise DataError(_MISSING, file=where, field="constraint" if column == "signed" else "costs")
    name = "costs" if signed is None else "constraint"
    values = np.asarray(log.costs if signed is None else signed)
    if log.costs is not None and (log.costs < 0).any():
        row = int(np.flatnonzero(log.costs < 0)[0])
        raise DataError(f"costs: row {row} is {log.costs[row]:g}; expected 0 or more", file=where, field="costs")
    if (values > 0).all():
        raise DataError(
            f"{name}: every row is a violation (above 0): no policy can be told to avoid what always is; is the sign turned?",
            file=where,
            field=name,
        )
    if log.costs is not None and log.constraint is not None:
        _check_agreement(log.costs > 0, log.constraint > 0, log.ends, where)
    if not (values > 0).any():
        return [
            f"{name}: no row is a violation, so there is nothing to learn to avoid: the policy will follow reward alone"
        ]
    return []


def _check_agreement(costly: np.ndarray, violated: np.ndarray, ends: np.ndarray, where: str | None) -> None:
    """Raises DataError unless both columns say the same of every row, or of every row and the one behind it."""
    inside = ~ends[:-1]
    shifts = (
        costly != violated,
        inside & (costly[:-1] != violated[1:]),
        inside & (costly[1:] != violated[:-1]),
    )
    if all(found.any() for found in shifts):
        row = int(np.flatnonzero(shifts[0])[0])
        raise DataError(
            f"costs and constraint disagree in {int(shifts[0].sum())} rows, the first is row {row}: a cost above 0 and a "
            "constraint above 0 must both mean a violation; turn the constraint's sign, or leave one column out",
            file=where,
            field="constraint",
        )


_MISSING = (
    "no array costs (0 or 1, or any cost above 0 for a violation) or constraint (signed, above 0 for a violation): what is "
    "to be avoided?"
)
