"""The TOFU evaluation as what a training run measures: which weights are kept, and when it is time to stop.

Given to `training.train(..., evaluator=...)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from paperworks.core.errors import OptionError
from paperworks.language.policy import Policy
from paperworks.language.unlearning.logs import UnlearningLog
from paperworks.language.unlearning.outcome import UnlearningReport
from paperworks.language.unlearning.protocol import UnlearningOptions, UnlearningSets, evaluate_unlearning

_WORTHLESS = -1e6
"""What weights below the utility floor are worth at most: less than any log10 p-value and any step."""


@dataclass
class UnlearningEvaluator:
    """Measures utility and forget quality at every evaluation.

    The weights kept are those of the highest forget quality among those whose utility is at least `keep_floor` of what it
    was before training; without a retain-only model's log, the latest of these. Training stops early when utility falls
    below `utility_floor` of its start (0: never). Both floors need rows beside the forget set.
    """

    sets: UnlearningSets
    options: UnlearningOptions = field(default_factory=UnlearningOptions)
    retain_log: UnlearningLog | None = None
    keep_floor: float = 0.9
    utility_floor: float = 0.0
    start_utility: float | None = None  # before training; taken from the first evaluation, or from a resumed history
    reports: list[UnlearningReport] = field(default_factory=list)  # of every call, in order

    def __post_init__(self) -> None:
        for name in ("keep_floor", "utility_floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name}={getattr(self, name)} is out of range: it must be between 0 and 1")
        self.sets.check()
        if self.retain_log is not None:
            self.sets.retain_only(self.retain_log, self.options)
        if self.utility_floor and len(self.sets.named()) < 2:
            raise OptionError(
                f"utility_floor={self.utility_floor:g} needs rows that the model is to keep: a retain, real-authors or "
                "world-facts set with perturbed answers"
            )

    def __call__(self, policy: Policy) -> Mapping[str, float]:
        """The numbers of `UnlearningReport.values`, by name. Raises what `evaluate_unlearning` raises."""
        report = evaluate_unlearning(policy, self.sets, self.options, retain_log=self.retain_log)
        self.reports.append(report)
        if self.start_utility is None:
            self.start_utility = report.utility
        return report.values

    def quality(self, values: Mapping[str, float], step: int) -> float:
        """log10 of the forget quality (without one, the step) where utility is above the floor; else far below."""
        utility = values.get("utility")
        if utility is not None and not utility >= self.keep_floor * (self.start_utility or 0.0):  # NaN fails too
            return _WORTHLESS + (utility if math.isfinite(utility) else -1.0)
        return max(values.get("log10_forget_quality", float(step)), _WORTHLESS / 2)

    def stop(self, history: Sequence[Mapping[str, float]]) -> str | None:
        """A reason to stop; `history[0]` is before training."""
        if not history or "utility" not in history[0]:
            return None
        self.start_utility = start = history[0]["utility"]
        now = history[-1]["utility"]
        if now >= self.utility_floor * start:
            return None
        return (
            f"model utility {now:.3f} fell below {self.utility_floor:g} of the {start:.3f} before training "
            f"(utility_floor={self.utility_floor:g})"
        )
