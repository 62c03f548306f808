"""The numbers of arXiv 2412.19792: calibrated rewards, win rates after best or worst of n, the best tilt for each."""

import math

import numpy as np
import pytest

from paperworks.core.errors import OptionError
from paperworks.language.rewards.best_of import win_rate, win_rate_of_levels
from paperworks.language.rewards.calibration import Transform, quantiles, transform_for
from paperworks.language.rewards.inference_planner import QuantilePolicy, at_kl, optimum, optimum_at_kl, tilted

REFERENCE = [0.1, 0.4, 0.4, 0.9]


def test_the_calibrated_reward_is_the_share_beaten_ties_half():
    found = quantiles([0.05, 0.1, 0.4, 0.5, 0.9, 1.0], REFERENCE)
    assert found.tolist() == [0, 0.125, 0.5, 0.75, 0.875, 1]


def test_no_increasing_change_of_a_prompts_rewards_matters():
    rewards = np.array([0.05, 0.1, 0.4, 0.5])
    changed = quantiles(np.exp(3 * rewards) - 7, np.exp(3 * np.array(REFERENCE)) - 7)
    assert changed.tolist() == quantiles(rewards, REFERENCE).tolist()


@pytest.mark.parametrize("kind", ["bon", "won"])
@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_a_policy_against_itself_wins_half(kind, n):
    flat = QuantilePolicy(np.ones(4000))
    assert flat.win_rate(kind, n) == pytest.approx(0.5, abs=1e-3)


def test_best_of_m_as_a_policy():
    u = (np.arange(20_000) + 0.5) / 20_000
    for m, worst in ((2, 0.802020), (4, 0.952987)):
        policy = QuantilePolicy(m * u ** (m - 1))
        assert policy.win_rate() == pytest.approx(m / (m + 1), abs=1e-4)
        assert policy.win_rate("bon", 4) == pytest.approx(m / (m + 1), abs=1e-3)
        assert policy.win_rate("won", 4) == pytest.approx(worst, abs=1e-3)
        assert policy.kl == pytest.approx(math.log(m) - (m - 1) / m, abs=1e-3)


@pytest.mark.parametrize(
    ("beta", "standard", "kl", "best", "worst"),
    [(0.5, 0.656518, 0.151596, 0.687183, 0.723024), (0.25, 0.768657, 0.479409, 0.795345, 0.879662)],
)
def test_the_identity_tilt(beta, standard, kl, best, worst):
    policy = tilted(Transform("identity"), beta)
    found = (policy.win_rate(), policy.kl, policy.win_rate("bon", 4), policy.win_rate("won", 4))
    assert found == pytest.approx((standard, kl, best, worst), abs=5e-4)


def test_discrete_rewards():
    flat, policy = [0.25] * 4, [0.1, 0.2, 0.3, 0.4]
    found = [
        float(win_rate_of_levels(policy, flat, kind=kind, n=n)) for kind, n in (("sample", 1), ("bon", 4), ("won", 4))
    ]
    assert found == pytest.approx([0.625, 0.596184, 0.687659], abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "n", "expected"),
    [("sample", 1, 0.46875), ("bon", 2, 0.569444), ("won", 2, 0.361111), ("bon", 4, 1.0), ("won", 4, 0.0)],
)
def test_win_rates_from_samples_count_every_subset(kind, n, expected):
    assert float(win_rate([1, 3, 4, 6], [2, 3, 5, 5], kind=kind, n=n)) == pytest.approx(expected, abs=1e-6)


def test_the_best_tilt_for_best_of_4():
    found = optimum("bon", 4, 0.1)
    measured = (
        found.policy.win_rate(),
        found.policy.win_rate("bon", 4),
        found.policy.win_rate("won", 4),
        found.policy.kl,
    )
    assert measured == pytest.approx((0.7608, 0.9312, 0.7199, 0.8909), abs=1e-4)


def test_the_optimum_beats_every_transform_at_the_same_kl():
    _, best = optimum_at_kl("bon", 4, 1.0)
    assert best.win_rate("bon", 4) == pytest.approx(0.9411, abs=1e-3)
    for transform in (Transform("identity"), Transform("exp", 5.0), Transform("exp", 10.0)):
        _, policy = at_kl(lambda beta, t=transform: tilted(t, beta), 1.0)
        assert policy.win_rate("bon", 4) <= best.win_rate("bon", 4) + 1e-4


def test_a_transform_of_the_wrong_sign_is_refused():
    with pytest.raises(OptionError):
        transform_for("exp", -5.0, "bon")
    with pytest.raises(OptionError):
        transform_for("exp", 5.0, "won")
