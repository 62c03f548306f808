"""Rows of prompt, reward and actual score from a file, as one matrix: what a filter is chosen on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from paperworks.core.errors import DataError, did_you_mean
from paperworks.language.data.problems import BadRow, Tally, shown
from paperworks.language.data.sources import open_source
from paperworks.language.sources.rejection import Numbers


@dataclass(frozen=True)
class ScoredRows:
    """Rewards and scores [prompts, samples]; prompts in the order of their first row, samples in the order of the rows."""

    rewards: Numbers
    scores: Numbers
    prompts: tuple[str, ...]
    skipped: Mapping[str, int]  # bad rows by kind, and rows of prompts with another number of samples

    def lines(self, source: str) -> list[str]:
        """What was read, for people."""
        prompts, samples = self.rewards.shape
        left_out = "".join(f", {count} left out ({kind})" for kind, count in self.skipped.items())
        return [f"{source}: {prompts} prompts of {samples} samples{left_out}"]


def read_scored_rows(
    source: str,
    *,
    prompt: str = "prompt_id",
    reward: str = "reward",
    score: str = "score",
    bad_rows: Literal["error", "skip"] = "error",
) -> ScoredRows:
    """Rows with a prompt's id (any text or number, or the prompt itself), a reward and a score, several rows a prompt.

    Raises DataError (file, line, field) for a row without one of them, and for a prompt with fewer or more rows than most;
    with bad_rows="skip" both are left out and counted.
    """
    found: dict[str, list[tuple[int, float, float]]] = {}
    with open_source(source) as opened:
        tally = Tally(opened.name)
        for line, record in opened.records:
            try:
                if isinstance(record, BadRow):
                    raise record
                key, numbers = _key(record, prompt), (_number(record, reward), _number(record, score))
            except BadRow as problem:
                tally.add(line, problem)
                continue
            found.setdefault(key, []).append((line, *numbers))
    if tally.first is not None and bad_rows == "error":
        raise tally.error()
    if not found:
        raise DataError(f"no usable rows; expected rows with {prompt}, {reward} and {score}", file=tally.file)
    skipped = dict(tally.kinds)
    sizes = [len(rows) for rows in found.values()]
    usual = max(set(sizes), key=lambda size: (sizes.count(size), size))
    for key, rows in list(found.items()):
        if len(rows) == usual:
            continue
        if bad_rows == "error":
            others = sum(size != usual for size in sizes) - 1
            raise DataError(
                f"prompt {shown(key)} has {len(rows)} rows where most have {usual}; every prompt needs as many samples"
                + (f" ({others} more prompts like it)" if others else "")
                + "; mend it, or leave such prompts out with --bad-rows skip",
                file=tally.file,
                line=rows[0][0],
                field=prompt,
            )
        skipped["another number of samples"] = skipped.get("another number of samples", 0) + len(rows)
        del found[key]
    table = np.array([[numbers for _, *numbers in rows] for rows in found.values()], dtype=np.float64)
    return ScoredRows(table[..., 0], table[..., 1], tuple(found), skipped)


def _key(record: Mapping[str, Any], field: str) -> str:
    value = _field(record, field)
    if not isinstance(value, str | int) or isinstance(value, bool) or (isinstance(value, str) and not value.strip()):
        raise BadRow(
            "wrong type", f"expected a text or a whole number that names the prompt, found {shown(value)}", field
        )
    return str(value)


def _number(record: Mapping[str, Any], field: str) -> float:
    value = _field(record, field)
    if isinstance(value, bool):  # whether tests passed
        return float(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadRow("wrong type", f"expected a number, found {shown(value)}", field) from None
    if not math.isfinite(number):
        raise BadRow("not finite", f"expected a finite number, found {shown(value)}", field)
    return number


def _field(record: Mapping[str, Any], field: str) -> Any:
    if record.get(field) is None:
        near = did_you_mean(field, [name for name in record if isinstance(name, str)]) if field not in record else ""
        raise BadRow("missing field", f"missing{near}", field)
    return record[field]
