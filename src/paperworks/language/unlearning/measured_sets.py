"""What was measured on each question of a set, and the set's probability, ROUGE and truth ratio from it.

The one form that a fresh evaluation and a log read from a file share. Knows nothing of models or files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from paperworks.core.statistics import Interval, bootstrap_mean
from paperworks.language.data.schemas import Text
from paperworks.language.unlearning import measures
from paperworks.language.unlearning.measures import Averaging

SetName = Literal["forget", "retain", "real_authors", "world_facts"]
Measure = Literal["probability", "rouge", "truth_ratio"]

SET_NAMES: tuple[SetName, ...] = ("forget", "retain", "real_authors", "world_facts")
UTILITY_SETS: tuple[SetName, ...] = SET_NAMES[1:]
MEASURES: tuple[Measure, ...] = ("probability", "rouge", "truth_ratio")
LABELS = {
    "forget": "forget set",
    "retain": "retain set",
    "real_authors": "real authors",
    "world_facts": "world facts",
    "probability": "probability",
    "rouge": "ROUGE-L recall",
    "truth_ratio": "truth ratio",
}


@dataclass(frozen=True)
class MeasuredItem:
    """One question. Losses are l: nats an answer token, the end token included."""

    nll: float  # of the true answer
    paraphrased_nll: float  # of its paraphrase (of the answer itself where there is none)
    perturbed_nll: tuple[float, ...]  # of each wrong answer
    tokens: int | None = None  # of the true answer
    rouge: float | None = None  # ROUGE-L recall of the greedy answer; None where none was generated
    key: str = ""  # tells the question from others; empty in logs that only number their questions
    where: str = ""
    question: str = ""
    answer: str = ""
    generated: str | None = None


@dataclass(frozen=True)
class MeasuredSet:
    """The questions of a set; its name decides the formulas."""

    name: SetName
    items: tuple[MeasuredItem, ...]
    averaging: Averaging = "geometric"

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def log_s(self) -> NDArray[np.float64]:
        """log of the truth-ratio statistic of every question [n]."""
        return np.array(
            [
                measures.log_truth_statistic(item.paraphrased_nll, item.perturbed_nll, self.averaging)
                for item in self.items
            ]
        )

    @cached_property
    def nll(self) -> NDArray[np.float64]:
        """l of the true answers [n]."""
        return np.array([item.nll for item in self.items])

    @property
    def available(self) -> tuple[Measure, ...]:
        """Those that were measured: ROUGE only where every question was answered."""
        has_rouge = all(item.rouge is not None for item in self.items)
        return MEASURES if has_rouge else ("probability", "truth_ratio")

    def values(self, measure: Measure) -> NDArray[np.float64]:
        """A measure of every question [n], in [0, 1].

        Probability is exp(-l) for the forget and retain sets, and that share of all answers' for the other two; the truth
        ratio is min(s, 1/s) for the forget set and max(0, 1 - 1/s) for the others.
        """
        if measure == "rouge":
            return np.array([np.nan if item.rouge is None else item.rouge for item in self.items])
        if measure == "truth_ratio":
            of = measures.forget_truth_ratio if self.name == "forget" else measures.other_truth_ratio
            return of(self.log_s)
        if self.name in ("forget", "retain"):
            return np.exp(-self.nll)
        return np.array([measures.normalised_probability(item.nll, item.perturbed_nll) for item in self.items])

    def mean(self, measure: Measure) -> float:
        """Its mean over the questions."""
        return float(self.values(measure).mean())

    def interval(self, measure: Measure) -> Interval:
        """Its mean and 95% bootstrap interval over the questions, taken as independent of each other."""
        return bootstrap_mean(self.values(measure))


def question_key(*texts: Text | Sequence[str]) -> str:
    """The same for the same question, answer, paraphrase and wrong answers, whatever file they stand in (16 hex digits)."""
    content = json.dumps(texts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
