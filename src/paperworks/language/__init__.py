"""Language models: policies, data, objectives, rewards, sampling, training and evaluation.

    from paperworks.language import Policy, TrainOptions, read, make, train

The names below are imported when they are first used, so that reading data does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "data": (
        "Dataset",
        "Demonstration",
        "Feedback",
        "Forget",
        "Preference",
        "PromptRow",
        "QuestionAnswer",
        "Retain",
        "Scored",
        "ScoredGroup",
        "read",
    ),
    "decoding": ("BestOf", "best_of", "best_of_n"),
    "evaluation": ("kl_to_reference", "perplexity", "preference_accuracy", "reward_of_samples", "sample_report"),
    "logprobs": ("Tree", "token_logps"),
    "objectives": ("load_objective_file", "make", "objective_class", "objective_names"),
    "objectives.objective": (
        "DemonstrationObjective",
        "FeedbackObjective",
        "Objective",
        "PairLogps",
        "PairObjective",
        "ResponseLogps",
    ),
    "policy": ("LoraOptions", "Policy"),
    "rewards": ("Reward", "load_reward"),
    "rewards.model": ("RewardModel",),
    "sampling": ("Sample", "Samples", "SamplingOptions", "sample"),
    "train_job": ("DataSource", "TrainJob", "train_job"),
    "training": ("Evaluator", "TrainOptions", "TrainResult", "train"),
    "unlearning.protocol": ("UnlearningSets", "evaluate_unlearning"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)

if TYPE_CHECKING:
    from paperworks.language.data import (
        Dataset,
        Demonstration,
        Feedback,
        Forget,
        Preference,
        PromptRow,
        QuestionAnswer,
        Retain,
        Scored,
        ScoredGroup,
        read,
    )
    from paperworks.language.decoding import BestOf, best_of, best_of_n
    from paperworks.language.evaluation import (
        kl_to_reference,
        perplexity,
        preference_accuracy,
        reward_of_samples,
        sample_report,
    )
    from paperworks.language.logprobs import Tree, token_logps
    from paperworks.language.objectives import load_objective_file, make, objective_class, objective_names
    from paperworks.language.objectives.objective import (
        DemonstrationObjective,
        FeedbackObjective,
        Objective,
        PairLogps,
        PairObjective,
        ResponseLogps,
    )
    from paperworks.language.policy import LoraOptions, Policy
    from paperworks.language.rewards import Reward, load_reward
    from paperworks.language.rewards.model import RewardModel
    from paperworks.language.sampling import Sample, Samples, SamplingOptions, sample
    from paperworks.language.train_job import DataSource, TrainJob, train_job
    from paperworks.language.training import Evaluator, TrainOptions, TrainResult, train
    from paperworks.language.unlearning.protocol import UnlearningSets, evaluate_unlearning


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
