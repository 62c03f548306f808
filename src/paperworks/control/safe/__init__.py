"""Policies that must not break a constraint, learned from logs that say when it was broken."""

from __future__ import annotations

from paperworks.control.learner import Learner
from paperworks.control.safe.fisor import FISOR
from paperworks.control.safe.lagrangian import BCQLagrangian, CQLLagrangian, IQLLagrangian

SAFE: dict[str, type[Learner]] = {each.name: each for each in (FISOR, CQLLagrangian, IQLLagrangian, BCQLagrangian)}
"""Algorithms for logs with costs or a constraint, by name."""
