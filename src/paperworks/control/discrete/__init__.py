"""Algorithms for discrete actions that learn from a log alone: the nine of the study of data sets (arXiv 2111.04714)."""

from __future__ import annotations

from paperworks.control.discrete.bc import DiscreteBC
from paperworks.control.discrete.bcq import DiscreteBCQ
from paperworks.control.discrete.bve import BVE
from paperworks.control.discrete.cql import DiscreteCQL
from paperworks.control.discrete.crr import CRR
from paperworks.control.discrete.dqn import DQN
from paperworks.control.discrete.learner import DiscreteLearner
from paperworks.control.discrete.mce import MCE
from paperworks.control.discrete.qr_dqn import QRDQN
from paperworks.control.discrete.rem import REM

DISCRETE: dict[str, type[DiscreteLearner]] = {
    each.name: each for each in (DiscreteBC, DQN, QRDQN, REM, BVE, MCE, DiscreteBCQ, DiscreteCQL, CRR)
}
