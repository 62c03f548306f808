"""Experiments: arms x seeds x metrics, claims with computed verdicts, a runner that never loses a finished cell."""

from paperworks.experiment.definition import Arm, Budget, Claim, Experiment, Metric, Part, Published, Workspace
from paperworks.experiment.results import CellResult, Results
from paperworks.experiment.runner import run_experiment

__all__ = [
    "Arm",
    "Budget",
    "CellResult",
    "Claim",
    "Experiment",
    "Metric",
    "Part",
    "Published",
    "Results",
    "Workspace",
    "run_experiment",
]
