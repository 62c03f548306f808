"""Objectives: log-probabilities in, a loss out. Each is a frozen dataclass, found by its name."""

from paperworks.language.objectives.copg import CoPG, GroupLogps
from paperworks.language.objectives.cpo import CPO
from paperworks.language.objectives.dpo import DPO
from paperworks.language.objectives.hypo import HybridLogps, HyPO
from paperworks.language.objectives.ipo import IPO
from paperworks.language.objectives.kto import KTO
from paperworks.language.objectives.ln_dpo import LNDPO
from paperworks.language.objectives.objective import (
    ByToken,
    DemonstrationLogps,
    DemonstrationObjective,
    FeedbackLogps,
    FeedbackObjective,
    Objective,
    PairLogps,
    PairObjective,
    Prepared,
    ResponseLogps,
    ScoredLogps,
    StepInputs,
    UnlearningLogps,
)
from paperworks.language.objectives.orpo import ORPO
from paperworks.language.objectives.rdpo import ConservativeDPO, RobustDPO, debiased, debiased_accuracy, smoothed
from paperworks.language.objectives.registry import (
    Registry,
    load_objective_file,
    make,
    objective_class,
    objective_names,
)
from paperworks.language.objectives.rpo import RPO
from paperworks.language.objectives.rso import RSO
from paperworks.language.objectives.sft import SFT
from paperworks.language.objectives.simpo import SimPO
from paperworks.language.objectives.slic import HingeNorm, SLiC
from paperworks.language.objectives.soft_preferences import (
    DNO,
    IPOMD,
    JudgedPairLogps,
    OnlineDPO,
    OnlineIPO,
    OnlineSLiC,
)
from paperworks.language.objectives.xpo import XPO, ExploredPairs

__all__ = [
    "ByToken",
    "CoPG",
    "CPO",
    "DNO",
    "DPO",
    "IPO",
    "IPOMD",
    "JudgedPairLogps",
    "KTO",
    "LNDPO",
    "ORPO",
    "RPO",
    "RSO",
    "SFT",
    "ConservativeDPO",
    "DemonstrationLogps",
    "DemonstrationObjective",
    "FeedbackLogps",
    "FeedbackObjective",
    "ExploredPairs",
    "GroupLogps",
    "HingeNorm",
    "HyPO",
    "HybridLogps",
    "Objective",
    "OnlineDPO",
    "OnlineIPO",
    "OnlineSLiC",
    "PairLogps",
    "PairObjective",
    "Prepared",
    "Registry",
    "ResponseLogps",
    "RobustDPO",
    "SLiC",
    "ScoredLogps",
    "SimPO",
    "StepInputs",
    "UnlearningLogps",
    "XPO",
    "debiased",
    "debiased_accuracy",
    "load_objective_file",
    "make",
    "objective_class",
    "objective_names",
    "smoothed",
]
