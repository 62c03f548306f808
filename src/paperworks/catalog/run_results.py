"""What came out of a run, in a few words. Damage in one run's folder hides no other run."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from paperworks.core.errors import PaperworksError
from paperworks.core.runs import RunRecord

DAMAGE = (PaperworksError, AttributeError, TypeError, KeyError, OSError)  # what a spoilt results.json leads to


def claim_counts(run: RunRecord) -> Mapping[str, int]:
    """How many claims of an experiment's run came out each way; empty where it has none, or is no evidence (smoke)."""
    with contextlib.suppress(*DAMAGE):
        results = run.results()
        if results.get("budget") != "smoke":
            return Counter(claim["verdict"] for claim in results.get("claims", ()))
    return {}


def result_text(run: RunRecord) -> str:
    """What came out, in a few words: the claims of an experiment, or the error of a run that failed."""
    if run.error:
        return run.error
    counts = claim_counts(run)
    if counts:
        return f"{counts['holds']}/{sum(counts.values())} claims hold"
    with contextlib.suppress(*DAMAGE):
        if run.results().get("budget") == "smoke":
            return "smoke: no evidence"
    return ""


def claims(run: RunRecord) -> list[Mapping[str, Any]]:
    """The claims of an experiment's run with their verdicts."""
    with contextlib.suppress(*DAMAGE):
        return [claim for claim in run.results().get("claims", ()) if {"verdict", "text", "evidence"} <= claim.keys()]
    return []
