"""The outcome of evaluating one model: model utility, forget quality, and what they were made from.

Made from measured sets alone, so that a log from a file gives the same outcome as the model it was made with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from paperworks.language.unlearning.measured_sets import (
    LABELS,
    MEASURES,
    UTILITY_SETS,
    MeasuredSet,
    SetName,
)
from paperworks.language.unlearning.measures import FEWEST_FOR_A_TEST, ForgetQuality, forget_quality, model_utility


@dataclass(frozen=True)
class UnlearningReport:
    """One model under the TOFU protocol. `retain_only` holds the retain-only model's forget set, question by question."""

    model: str
    sets: Mapping[SetName, MeasuredSet]
    retain_only: MeasuredSet | None = None
    retain_only_name: str = ""

    @property
    def forget(self) -> MeasuredSet:
        return self.sets["forget"]

    @cached_property
    def utility_parts(self) -> dict[str, float]:
        """The numbers in the model utility, by name (`retain_probability`, …): nine where all sets were given."""
        return {
            f"{name}_{measure}": self.sets[name].mean(measure)
            for name in UTILITY_SETS
            if name in self.sets
            for measure in self.sets[name].available
        }

    @cached_property
    def utility(self) -> float | None:
        """Harmonic mean of `utility_parts`; None where only the forget set was given."""
        return model_utility(list(self.utility_parts.values())) if self.utility_parts else None

    @cached_property
    def forget_quality(self) -> ForgetQuality | None:
        """KS test of the statistic s against the retain-only model's; None without one."""
        if self.retain_only is None:
            return None
        return forget_quality(self.forget.log_s, self.retain_only.log_s)

    @cached_property
    def values(self) -> dict[str, float]:
        """Every number by name: `utility`, `forget_quality`, `forget_nll`, `forget_rouge`, `retain_probability`, …"""
        found: dict[str, float] = {}
        if self.utility is not None:
            found["utility"] = self.utility
        if self.forget_quality is not None:
            found["forget_quality"] = self.forget_quality.p
            found["log10_forget_quality"] = self.forget_quality.log10
        found["forget_nll"] = float(self.forget.nll.mean())
        found |= {f"forget_{measure}": self.forget.mean(measure) for measure in self.forget.available}
        return found | self.utility_parts

    @cached_property
    def notes(self) -> list[str]:
        """One line each on what is missing or must not be relied on."""
        lines = []
        if self.utility is not None and len(self.utility_parts) < len(UTILITY_SETS) * len(MEASURES):
            went_in = ", ".join(
                f"{LABELS[name]} ({', '.join(LABELS[measure] for measure in self.sets[name].available)})"
                for name in UTILITY_SETS
                if name in self.sets
            )
            lines.append(
                f"model utility is over {len(self.utility_parts)} of the protocol's 9 numbers, from {went_in}: "
                "not comparable with published ones"
            )
        if self.forget_quality is not None and self.forget_quality.warning:
            lines.append(self.forget_quality.warning)
        few = [LABELS[name] for name in UTILITY_SETS if name in self.sets and len(self.sets[name]) < FEWEST_FOR_A_TEST]
        if few:
            lines.append(f"fewer than {FEWEST_FOR_A_TEST} questions: {', '.join(few)}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Everything but the single questions, as JSON values."""
        quality = self.forget_quality
        return {
            "model": self.model,
            "utility": self.utility,
            "utility_parts": self.utility_parts,
            "forget_quality": None
            if quality is None
            else {
                "p": quality.p,
                "log10": quality.log10,
                "ks_statistic": quality.statistic,
                "items": list(quality.items),
                "retain_only": self.retain_only_name,
                "is_forgotten": quality.is_forgotten,
            },
            "sets": {name: _set_as_dict(measured) for name, measured in self.sets.items()},
            "notes": self.notes,
        }


def _set_as_dict(measured: MeasuredSet) -> dict[str, Any]:
    return {
        "items": len(measured),
        "nll": float(measured.nll.mean()),
        **{measure: vars(measured.interval(measure)) for measure in measured.available},
        "log_s": log_s_quantiles(measured),
    }


def log_s_quantiles(measured: MeasuredSet) -> dict[str, float]:
    """The distribution of log s in five numbers."""
    import numpy as np

    shares = {"lowest": 0.0, "quarter": 0.25, "median": 0.5, "three_quarters": 0.75, "highest": 1.0}
    return {name: float(np.quantile(measured.log_s, share)) for name, share in shares.items()}


def direction(report: UnlearningReport) -> str:
    """In words, where the statistic s lies against the retain-only model's: a p-value alone does not say.

    Empty without a retain-only model.
    """
    if report.forget_quality is None or report.retain_only is None:
        return ""
    if report.forget_quality.is_forgotten:
        return "cannot be told apart from the retain-only model"
    own, other = (log_s_quantiles(measured)["median"] for measured in (report.forget, report.retain_only))
    if math.isclose(own, other, abs_tol=1e-9):
        return "differs from the retain-only model in spread"
    return "still prefers the true answers" if own > other else "shuns the true answers: forgot too much"


def best_first(reports: Sequence[UnlearningReport]) -> list[UnlearningReport]:
    """By forget quality where there is one, then by utility."""

    def order(report: UnlearningReport) -> tuple[float, float]:
        quality = report.forget_quality
        return (0.0 if quality is None else quality.log10), (report.utility or 0.0)

    return sorted(reports, key=order, reverse=True)
