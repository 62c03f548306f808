"""The numbers of arXiv 2310.02743: conservative combinations of reward models, best of n without bias."""

import math

import numpy as np
import pytest

from paperworks.core.errors import DataError, OptionError, RewardError
from paperworks.language.rewards.best_of import best_of_curve, best_of_weights, kl_of_best_of
from paperworks.language.rewards.ensemble import combine, member_variance, refuse_duplicates, scale_of, standardised
from paperworks.language.rewards.length_penalty import length_penalised
from paperworks.language.rewards.options import RewardOptions, reward_from_options
from paperworks.language.rewards.reward import CheckedReward

ONE_ANSWER = [[1.0], [2.0], [4.0], [1.5], [1.5]]


def test_combinations_of_five_members():
    assert combine(ONE_ANSWER, "mean").tolist() == [2.0]
    assert combine(ONE_ANSWER, "wco").tolist() == [1.0]
    assert member_variance(ONE_ANSWER).tolist() == pytest.approx([1.1])  # over 5, not over 4
    assert combine(ONE_ANSWER, "uwo", 0.5).tolist() == pytest.approx([1.45])
    assert combine(ONE_ANSWER, "uwo", 0.0).tolist() == combine(ONE_ANSWER, "mean").tolist()


def test_equal_members_agree_and_conservative_is_never_above_the_mean():
    same = [[0.3, -1.0]] * 3
    assert {tuple(combine(same, rule).round(12)) for rule in ("mean", "wco", "uwo")} == {(0.3, -1.0)}
    drawn = np.random.default_rng(0).normal(size=(4, 50))
    mean = combine(drawn, "mean")
    assert (combine(drawn, "wco") <= mean).all() and (combine(drawn, "uwo") <= mean).all()


def test_standardising_makes_members_comparable():
    members = [[1, 3, 5, 7], [10, 10, 30, 30]]
    z = standardised(members, [scale_of(row) for row in members])
    assert z[0] == pytest.approx([-1.341641, -0.447214, 0.447214, 1.341641], abs=1e-6)
    assert z[1].tolist() == [-1, -1, 1, 1]
    assert combine(z, "mean") == pytest.approx([-1.170820, -0.723607, 0.723607, 1.170820], abs=1e-6)
    assert combine(z, "wco") == pytest.approx([-1.341641, -1, 0.447214, 1], abs=1e-6)
    assert combine(z, "uwo", 0.5) == pytest.approx([-1.185410, -0.761803, 0.685410, 1.156231], abs=1e-6)
    moved = [members[0], [value + 100 for value in members[1]]]
    assert standardised(moved, [scale_of(row) for row in moved]) == pytest.approx(z)


def test_best_of_n_counts_every_subset():
    gold = [0.1, 0.4, 0.9, 0.2]  # in the order of the proxy
    found = best_of_curve([[0.0, 1.0, 2.0, 3.0]], [gold], [1, 2, 3, 4])
    assert found.ravel() == pytest.approx([0.4, 0.466667, 0.375, 0.2], abs=1e-6)
    for n in (1, 2, 7, 100, 12_500):
        assert best_of_weights(12_600, n).sum() == pytest.approx(1)


def test_the_order_of_answers_does_not_matter():
    draw = np.random.default_rng(1)
    proxy, gold = draw.normal(size=(1, 30)), draw.normal(size=(1, 30))
    order = draw.permutation(30)
    ns = [1, 3, 10]
    assert best_of_curve(proxy[:, order], gold[:, order], ns) == pytest.approx(best_of_curve(proxy, gold, ns))
    own = best_of_curve(gold, gold, range(1, 31)).ravel()
    assert (np.diff(own) >= -1e-12).all()


def test_the_kl_of_best_of_n():
    known = {1: 0, 2: 0.193147, 4: 0.636294, 16: 1.835089, 128: 3.859843, 12_500: 8.433564}
    for n, kl in known.items():
        assert kl_of_best_of(n) == pytest.approx(kl, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: combine([[1.0], [2.0]], "median"), OptionError, "unknown combination"),
        (lambda: combine([[1.0], [2.0]], "uwo", -1.0), OptionError, "lambda"),
        (lambda: combine([[1.0, 2.0], [2.0]], "mean"), RewardError, None),
        (lambda: combine([[1.0], [math.nan]], "mean"), RewardError, None),
        (lambda: scale_of([2.0, 2.0, 2.0]), DataError, None),
        (lambda: refuse_duplicates([[1, 2, 3, 4], [2, 4, 6, 8]], ["a", "b"]), OptionError, None),
        (lambda: best_of_weights(4, 5), OptionError, None),
        (lambda: reward_from_options(["length", "sentiment"]), OptionError, "--combine"),
        (lambda: reward_from_options(["length"], RewardOptions(combine="wco")), OptionError, "at least 2 members"),
        (lambda: reward_from_options(["length", "length"], RewardOptions(combine="sum")), OptionError, "twice"),
        (lambda: RewardOptions(transform="log"), OptionError, "--calibrate"),
    ],
)
def test_what_cannot_be_combined_is_refused(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_options_make_one_reward(tmp_path):
    (tmp_path / "r.py").write_text("def one(prompts, responses):\n    return [len(r) for r in responses]\n")
    spec = f"{tmp_path}/r.py:one"
    reward = reward_from_options([spec], RewardOptions(reward_high=3.0, length_penalty=0.5, length_in="characters"))
    assert reward(["p", "p"], ["ab", "abcdef"]) == [1.0, 0.0]


def test_a_length_penalty_counts_tokens_of_the_policy():
    reward = length_penalised(
        CheckedReward("r", lambda prompts, responses: [1.0] * len(responses)),
        0.1,
        count_tokens=lambda texts: [4] * len(texts),
    )
    assert reward(["p"], ["anything"]) == pytest.approx([0.6])
