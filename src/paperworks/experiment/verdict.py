"""Claims decided: the paired difference at the same seed, its interval, and what it shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from paperworks.core.statistics import Interval, Verdict, bootstrap_mean, verdict
from paperworks.experiment.definition import Claim, Metric
from paperworks.experiment.results import Results

FEW_SEEDS = 5  # below this an interval over seeds says little


@dataclass(frozen=True)
class ClaimVerdict:
    """What became of a claim. `differences` are better minus than, by seed; `wins` counts those the claimed way."""

    claim: Claim
    metric: Metric
    verdict: Verdict
    difference: Interval
    differences: Mapping[int, float]
    higher_is_better: bool
    better_label: str
    than_label: str

    @property
    def gain(self) -> Interval:
        """The difference in the claimed direction: above 0 speaks for the claim."""
        found = self.difference
        return found if self.higher_is_better else Interval(-found.mean, -found.high, -found.low, found.n)

    @property
    def wins(self) -> int:
        sign = 1 if self.higher_is_better else -1
        return sum(sign * difference > 0 for difference in self.differences.values())

    @property
    def was_tested(self) -> bool:
        """Whether there is any seed that both arms finished."""
        return bool(self.differences)

    @property
    def is_as_expected(self) -> bool:
        return self.was_tested and self.verdict == self.claim.expected

    def sentence(self) -> str:
        """The claim in one sentence."""
        if self.claim.text:
            return self.claim.text
        where = f" at {self.claim.where}" if self.claim.where else ""
        direction = "higher" if self.higher_is_better else "lower"
        return f"{self.better_label} has {direction} {self.metric.label} than {self.than_label}{where}"

    def evidence(self) -> str:
        """The difference with its interval and the seeds that go along."""
        if not self.was_tested:
            return "not tested: no seed has both arms"
        unit = f" {self.metric.unit}" if self.metric.unit else ""
        spec = self.metric.format if self.metric.format.startswith("+") else "+" + self.metric.format
        if not math.isfinite(self.difference.mean):
            return f"a seed has no number there: no difference over {self.difference.n} seeds"
        number = f"{self.better_label} − {self.than_label}: {self.difference.format(spec)}{unit}"
        few = "; too few seeds to show anything" if len(self.differences) < FEW_SEEDS else ""
        return f"{number}, {self.wins} of {len(self.differences)} seeds{few}"


def judge(results: Results) -> list[ClaimVerdict]:
    """The verdict of every claim whose part ran, in the experiment's order.

    A claim *holds* when the 95% bootstrap interval of the paired difference excludes 0 in the claimed direction, is
    *reversed* when it excludes 0 in the other, and is *not shown* otherwise, or below FEW_SEEDS seeds. Only seeds that
    both arms finished count.
    """
    present = {part.name for part in results.parts()}
    return [_judge_one(results, claim) for claim in results.experiment.claims if claim.part in present]


def _judge_one(results: Results, claim: Claim) -> ClaimVerdict:
    part = results.experiment.part(claim.part)
    metric = part.metric(claim.metric)
    higher_is_better = metric.higher_is_better if claim.higher_is_better is None else claim.higher_is_better
    better = results.values(claim.part, claim.better, claim.metric, claim.where)
    than = results.values(claim.part, claim.than, claim.metric, claim.where)
    differences = {seed: better[seed] - than[seed] for seed in sorted(better.keys() & than.keys())}
    difference = bootstrap_mean(list(differences.values()))
    decided = verdict(difference, +1 if higher_is_better else -1)
    return ClaimVerdict(
        claim=claim,
        metric=metric,
        verdict=decided if len(differences) >= FEW_SEEDS else "not shown",
        difference=difference,
        differences=differences,
        higher_is_better=higher_is_better,
        better_label=part.arm(claim.better).label,
        than_label=part.arm(claim.than).label,
    )
