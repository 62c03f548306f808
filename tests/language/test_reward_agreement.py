"""Agreement within an ensemble: correlation, pairs in dispute, and whether disagreement goes with error."""

from __future__ import annotations

import numpy as np
import pytest

from paperworks.language.reward_agreement import agreement_on_pairs, agreement_on_scores

NAMES = ("a", "b", "c")


def test_members_that_are_one_agree_about_everything() -> None:
    chosen, rejected = np.tile([1.0, 2.0, 0.0], (3, 1)), np.tile([0.0, 1.5, 4.0], (3, 1))
    found = agreement_on_pairs(chosen, rejected, (chosen - rejected)[0], ["x", "y", "z"], NAMES)
    assert found.mean_correlation == pytest.approx(1)
    assert found.differ is not None and found.differ.mean == 0
    assert found.variance.mean == 0
    assert [each.mean for each in found.member_accuracy] == pytest.approx([2 / 3] * 3)
    assert np.isnan(found.error_correlation)


def test_pairs_in_dispute_are_those_that_not_all_rank_alike() -> None:
    chosen = np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    found = agreement_on_pairs(chosen, np.zeros((3, 2)), [1, 1 / 3], ["x", "y"], NAMES)
    assert found.differ is not None and found.differ.mean == 0.5


def test_disagreement_that_goes_with_error_is_seen() -> None:
    rng = np.random.default_rng(0)
    truth, doubt = rng.normal(size=400), rng.uniform(0.1, 3, size=400)
    members = truth + doubt * rng.normal(size=(3, 400))
    found = agreement_on_scores(members, (members.mean(0) - truth) ** 2, list(range(400)), NAMES)
    assert found.error_correlation > 0.2
    assert found.bins[-1].error.mean > 3 * found.bins[0].error.mean
    assert sum(each.rows for each in found.bins) == 400
    assert found.differ is None and found.member_accuracy == ()
