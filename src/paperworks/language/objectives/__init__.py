"""Objectives: log-probabilities in, a loss out. Each is a frozen dataclass, found by its name."""

from paperworks.language.objectives.cpo import CPO
from paperworks.language.objectives.dpo import DPO
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
from paperworks.language.objectives.sft import SFT
from paperworks.language.objectives.simpo import SimPO
from paperworks.language.objectives.slic import HingeNorm, SLiC

__all__ = [
    "ByToken",
    "CPO",
    "DPO",
    "IPO",
    "KTO",
    "LNDPO",
    "ORPO",
    "RPO",
    "SFT",
    "ConservativeDPO",
    "DemonstrationLogps",
    "DemonstrationObjective",
    "FeedbackLogps",
    "FeedbackObjective",
    "HingeNorm",
    "Objective",
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
    "debiased",
    "debiased_accuracy",
    "load_objective_file",
    "make",
    "objective_class",
    "objective_names",
    "smoothed",
]
