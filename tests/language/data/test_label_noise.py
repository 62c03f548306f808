"""Flip rates from annotators who disagree, and flips that are fixed once."""

from __future__ import annotations

import numpy as np
import pytest

from paperworks.core.errors import OptionError
from paperworks.language.data import Preference, estimate_flip_rate, flip_preferences


def labelled(*labels: int) -> Preference:
    return Preference("p", "a", "b", annotator_labels=labels)


def test_flip_rate_solves_the_disagreement():
    # 8 of 25 rows disagree: q = 0.32 = 2·0.2·0.8
    assert estimate_flip_rate([labelled(1, 0)] * 8 + [labelled(1, 1)] * 17) == pytest.approx(0.2)
    assert estimate_flip_rate([labelled(1, 1), labelled(0, 0), labelled(1)]) == 0.0
    # three annotators, one apart: 2 of 3 pairs disagree
    assert estimate_flip_rate([labelled(1, 1, 0)] + [labelled(1, 1, 1)] * 2) == pytest.approx((1 - (5 / 9) ** 0.5) / 2)


def test_flip_rate_is_recovered_from_simulated_annotators():
    flipped = np.random.default_rng(0).random((20_000, 2)) < 0.15
    rows = [labelled(*(1 - int(flip) for flip in both)) for both in flipped]
    assert estimate_flip_rate(rows) == pytest.approx(0.15, abs=0.01)


def test_flip_rate_refuses():
    with pytest.raises(OptionError, match="give --flip-rate a number"):
        estimate_flip_rate([Preference("p", "a", "b"), labelled(1)])
    with pytest.raises(OptionError, match="no better than chance"):
        estimate_flip_rate([labelled(1, 0), labelled(1, 1)])


def test_flips_are_fixed_nested_and_as_many_as_asked():
    rows = [Preference(str(at), "a", "b", annotator_labels=(1, 1, 0)) for at in range(4000)]
    few, many = flip_preferences(rows, 0.1, seed=3), flip_preferences(rows, 0.3, seed=3)
    assert few == flip_preferences(rows, 0.1, seed=3) != flip_preferences(rows, 0.1, seed=4)
    is_flipped = [[row.chosen == "b" for row in flipped] for flipped in (few, many)]
    assert np.mean(is_flipped[0]) == pytest.approx(0.1, abs=0.02)
    assert np.mean(is_flipped[1]) == pytest.approx(0.3, abs=0.03)
    assert all(more for fewer, more in zip(*is_flipped) if fewer)
    assert flip_preferences(rows, 0.0, seed=3) == rows
    assert flip_preferences(rows, 1.0, seed=3)[0] == Preference("0", "b", "a", annotator_labels=(0, 0, 1))
    with pytest.raises(OptionError, match=r"\[0, 1\]"):
        flip_preferences(rows, 1.1, seed=3)
