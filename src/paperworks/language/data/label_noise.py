"""Noise in preference labels: estimating how many are flipped, and flipping some on purpose.

Source of the noise model: each label is swapped independently with one probability (random flips, as in Chowdhury et
al. 2024, arXiv 2403.00409, section 3).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from paperworks.core.errors import OptionError
from paperworks.language.data.schemas import Preference


def estimate_flip_rate(rows: Iterable[Preference]) -> float:
    """The probability eps that one annotator's label is flipped, from rows that several annotators labelled.

    Two annotators who each flip with probability eps, independently, disagree with probability
    q = 2·eps·(1 − eps); q is measured over all pairs of annotators of a row, rows weighing the same, and the lower root
    eps = (1 − √(1 − 2q)) / 2 is returned, in [0, 0.5).
    Raises OptionError where no row has two labels, or where annotators disagree at least as often as chance (q ≥ ½).
    """
    disagreements = []
    for row in rows:
        n, ones = len(row.annotator_labels), sum(label == 1 for label in row.annotator_labels)
        if n >= 2:
            disagreements.append(2 * ones * (n - ones) / (n * (n - 1)))
    if not disagreements:
        raise OptionError(
            "flip rate cannot be estimated: no row has annotator_labels of two or more annotators; "
            "give --flip-rate a number"
        )
    q = math.fsum(disagreements) / len(disagreements)
    if q >= 0.5:
        raise OptionError(
            f"flip rate cannot be estimated: two annotators disagree on {q:.0%} of rows, no better than chance; "
            "give --flip-rate a number below 0.5"
        )
    return (1 - math.sqrt(1 - 2 * q)) / 2


def flip_preferences(rows: Sequence[Preference], rate: float, seed: int) -> list[Preference]:
    """The rows with chosen and rejected swapped, each with probability `rate`: fixed, corrupted data.

    With one seed, the rows flipped at a lower rate are among those flipped at a higher one. annotator_labels turn with
    the pair, so that they still speak of the same two texts. Raises OptionError for a rate outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise OptionError(f"flip rate {rate}: expected a number in [0, 1]")
    draws = np.random.default_rng(seed).random(len(rows))
    return [_flipped(row) if draw < rate else row for row, draw in zip(rows, draws, strict=True)]


def _flipped(row: Preference) -> Preference:
    labels = tuple(int(label != 1) for label in row.annotator_labels)
    return dataclasses.replace(row, chosen=row.rejected, rejected=row.chosen, annotator_labels=labels)
