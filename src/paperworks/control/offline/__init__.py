"""Algorithms that learn from a log alone, by name."""

from __future__ import annotations

from paperworks.control.discrete import DISCRETE
from paperworks.control.learner import Learner
from paperworks.control.offline.a2pr import A2PR
from paperworks.control.offline.awac import AWAC
from paperworks.control.offline.bc import BC
from paperworks.control.offline.bcq import BCQ
from paperworks.control.offline.cql import CQL
from paperworks.control.offline.famo2o import FamO2O
from paperworks.control.offline.iql import IQL
from paperworks.control.offline.prdc import PRDC
from paperworks.control.offline.td3_bc import TD3BC
from paperworks.core.errors import OptionError, did_you_mean

OFFLINE: dict[str, type[Learner]] = {each.name: each for each in (BC, TD3BC, CQL, IQL, AWAC, PRDC, A2PR, BCQ, FamO2O)}


def offline_learner(name: str) -> type[Learner]:
    """The algorithm of that name, for continuous or discrete actions, or for logs with costs. Raises OptionError."""
    from paperworks.control.safe import SAFE  # they build on algorithms of this room

    known = {**OFFLINE, **DISCRETE, **SAFE}
    if name not in known:
        raise OptionError(f"unknown algorithm {name!r}{did_you_mean(name, known)}")
    return known[name]
