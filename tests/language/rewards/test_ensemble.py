"""Ensembles of rewards: members scored, standardised and combined; what an ensemble refuses to be."""

from __future__ import annotations

import numpy as np
import pytest

from paperworks.core.errors import DataError, OptionError
from paperworks.language.decoding import best_of
from paperworks.language.rewards import CheckedReward, EnsembleReward, combine, ensemble_of
from paperworks.language.sampling import Sample, Samples

TEXTS = ["a", "bb b", "ccc", "d d d d", "e!"]
PROMPTS = ["p"] * len(TEXTS)
CALIBRATION = (PROMPTS, TEXTS)
LENGTH = CheckedReward("length", lambda prompts, responses: [len(each) for each in responses])
WORDS = CheckedReward("words", lambda prompts, responses: [100 + 7.0 * len(each.split()) for each in responses])


def test_members_are_standardised_on_the_calibration_texts() -> None:
    made = ensemble_of([LENGTH, WORDS], "wco", calibration=CALIBRATION)
    z = made.member_scores(*CALIBRATION)
    assert z.mean(1) == pytest.approx([0, 0]) and z.std(1) == pytest.approx([1, 1])
    assert made(*CALIBRATION) == pytest.approx(z.min(0).tolist())
    assert made.name == "wco(length, words)"
    assert made([], []) == []


def test_the_same_members_are_combined_in_other_ways() -> None:
    made = ensemble_of([LENGTH, WORDS], "mean", calibration=CALIBRATION)
    z = made.member_scores(*CALIBRATION)
    assert made.combined_by("uwo", 0.3)(*CALIBRATION) == pytest.approx(combine(z, "uwo", 0.3).tolist())


def test_an_ensemble_within_an_ensemble_gives_its_members_and_keeps_their_scales() -> None:
    pair = ensemble_of([LENGTH, WORDS], "mean", calibration=CALIBRATION)
    vowels = CheckedReward("vowels", lambda prompts, responses: [sum(c in "ae" for c in each) for each in responses])
    with pytest.raises(OptionError, match="no calibration texts for vowels"):
        ensemble_of([pair, vowels], "wco")
    joined = ensemble_of([pair, vowels], "wco", calibration=CALIBRATION)
    assert joined.members.names == ("length", "words", "vowels")
    assert joined.member_scores(*CALIBRATION)[:2] == pytest.approx(pair.member_scores(*CALIBRATION))
    again = ensemble_of([pair], "wco")
    assert again.scales == pair.scales


def test_raw_scores_are_combined_when_asked() -> None:
    made = ensemble_of([LENGTH, WORDS], "wco", raw=True)
    assert made(["p"], ["abc"]) == [3.0]


def test_best_of_knows_how_far_members_disagree() -> None:
    made = ensemble_of([LENGTH, WORDS], "mean", calibration=CALIBRATION)
    samples = Samples("p", tuple(Sample(text, (1,), -1.0, True) for text in TEXTS))
    found = best_of(samples, made)
    assert found.variances == pytest.approx(made.member_scores(*CALIBRATION).var(0))
    assert best_of(samples, LENGTH).variances is None


def test_members_that_are_one_are_refused() -> None:
    twice = CheckedReward("twice the length", lambda prompts, responses: [2 * len(each) for each in responses])
    with pytest.raises(OptionError, match=r"length and twice the length agree to a correlation of 1\.0"):
        ensemble_of([LENGTH, twice], "mean", calibration=CALIBRATION)
    with pytest.raises(OptionError, match="length is given twice"):
        ensemble_of([LENGTH, LENGTH], "mean", raw=True)


def test_a_member_without_a_scale_is_named() -> None:
    flat = CheckedReward("flat", lambda prompts, responses: [3.0] * len(responses))
    with pytest.raises(DataError, match="flat: all 5 texts have the score 3"):
        ensemble_of([LENGTH, flat], "mean", calibration=CALIBRATION)
    with pytest.raises(DataError, match="at least 2 texts"):
        ensemble_of([LENGTH, WORDS], "mean", calibration=(["p"], ["a"]))


def test_one_member_cannot_be_conservative() -> None:
    from paperworks.language.rewards.ensemble import SeparateMembers

    with pytest.raises(OptionError, match="at least 2 members"):
        EnsembleReward("alone", SeparateMembers((LENGTH,)), None, "wco")
    assert np.isfinite(EnsembleReward("alone", SeparateMembers((LENGTH,)), None)(["p"], ["a"])).all()
