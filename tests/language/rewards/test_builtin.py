"""The built-in rewards, and rewards made of rewards."""

from __future__ import annotations

import pytest

from paperworks.core.errors import OptionError
from paperworks.language.rewards import CheckedReward, clipped, load_reward, sum_of


def test_sentiment_is_vaders_compound():
    good, bad, none = load_reward("sentiment")(
        ["p"] * 3, ["VADER is smart, handsome, and funny.", "a horrible mess", ""]
    )
    assert good == pytest.approx(0.8316)  # the figure in VADER's own README
    assert -1 <= bad < -0.5 and none == 0


def test_lexicon_and_length_count_words():
    responses = ["A good, LOVELY film", "bad bad good", "", "neither"]
    assert load_reward("lexicon")(["p"] * 4, responses) == [2.0, -1.0, 0.0, 0.0]
    assert load_reward("length")(["p"] * 4, responses) == [4.0, 3.0, 0.0, 1.0]


def test_sums_and_clips():
    length = load_reward("length")
    constant = CheckedReward("one", lambda prompts, responses: [1] * len(responses))
    reward = sum_of([length, constant], [0.5, -2])
    assert reward(["p", "p"], ["a b", "a b c d"]) == [-1.0, 0.0]
    assert reward.name == "0.5*length + -2*one"
    assert sum_of([length, constant])(["p"], ["a b"]) == [3.0]
    limited = clipped(length, 1, 3)
    assert limited(["p"] * 3, ["", "a b", "a b c d e"]) == [1.0, 2.0, 3.0]
    assert limited.name == "clipped(length, 1, 3)"


def test_sums_and_clips_refuse():
    length = load_reward("length")
    for rewards, weights in (([], []), ([length], [1, 2]), ([length], [float("nan")])):
        with pytest.raises(OptionError, match="one finite weight a reward"):
            sum_of(rewards, weights)
    with pytest.raises(OptionError, match="low < high"):
        clipped(length, 1, float("nan"))
