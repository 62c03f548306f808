"""InfAlign (arXiv 2412.19792): calibrated rewards, transforms, win rates under a procedure, the optimum, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from paperworks.core.errors import OptionError, RewardError
from paperworks.language.rewards.best_of import win_rate, win_rate_of_levels
from paperworks.language.rewards.calibration import Transform, exponential, quantiles, transform_for
from paperworks.language.rewards.inference_planner import (
    QuantilePolicy,
    at_kl,
    optimum,
    optimum_at_kl,
    plan,
    recommended,
    tilted,
)

GRID = 4000
U = (np.arange(GRID) + 0.5) / GRID


def test_the_empirical_quantile_counts_ties_half() -> None:
    found = quantiles([0.05, 0.1, 0.4, 0.5, 0.9, 1.0], [0.1, 0.4, 0.4, 0.9])
    assert found.tolist() == [0, 0.125, 0.5, 0.75, 0.875, 1]


def test_rising_transforms_of_a_prompts_reward_change_nothing() -> None:
    rng = np.random.default_rng(0)
    reference, own = np.sort(rng.normal(size=64)), rng.normal(size=32)
    again = quantiles(np.exp(3 * own) - 7, np.sort(np.exp(3 * reference) - 7))
    assert again.tolist() == quantiles(own, reference).tolist()
    for kind, n in (("bon", 4), ("won", 4)):
        before = win_rate(own, reference, kind=kind, n=n)  # type: ignore[arg-type]
        assert win_rate(np.exp(3 * own) - 7, np.exp(3 * reference) - 7, kind=kind, n=n) == before  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_the_reference_wins_half_against_itself(n: int) -> None:
    start = QuantilePolicy(np.ones(GRID))
    assert start.win_rate() == pytest.approx(0.5)
    for kind in ("bon", "won"):
        assert start.win_rate(kind, n) == pytest.approx(0.5, abs=1e-5)  # type: ignore[arg-type]
        assert win_rate_of_levels([0.2, 0.5, 0.3], [0.2, 0.5, 0.3], kind=kind, n=n) == pytest.approx(0.5)  # type: ignore[arg-type]
    scores = np.random.default_rng(1).normal(size=40)
    assert win_rate(scores, scores, kind="bon", n=n) == pytest.approx(0.5)


@pytest.mark.parametrize(("m", "worst"), [(2, 0.802020), (4, 0.952987)])
def test_a_perfect_best_of_m_policy(m: int, worst: float) -> None:
    policy = QuantilePolicy(m * U ** (m - 1))
    assert policy.win_rate() == pytest.approx(m / (m + 1), abs=1e-6)
    assert policy.kl == pytest.approx(math.log(m) - (m - 1) / m, abs=2e-4)
    for n in (2, 4, 8):
        assert policy.win_rate("bon", n) == pytest.approx(m / (m + 1), abs=1e-5)
    assert policy.win_rate("won", 4) == pytest.approx(worst, abs=1e-5)


@pytest.mark.parametrize(
    ("beta", "standard", "kl", "best", "worst"),
    [(0.5, 0.656518, 0.151596, 0.687183, 0.723024), (0.25, 0.768657, 0.479409, 0.795345, 0.879662)],
)
def test_the_identity_tilt(beta: float, standard: float, kl: float, best: float, worst: float) -> None:
    policy = tilted(Transform(), beta)
    assert standard == pytest.approx(1 / (1 - math.exp(-1 / beta)) - beta, abs=1e-6)
    found = (policy.win_rate(), policy.kl, policy.win_rate("bon", 4), policy.win_rate("won", 4))
    assert found == pytest.approx((standard, kl, best, worst), abs=2e-6)


def test_discrete_rewards_tie() -> None:
    policy, reference = [0.1, 0.2, 0.3, 0.4], [0.25] * 4
    assert win_rate_of_levels(policy, reference) == pytest.approx(0.625)
    assert win_rate_of_levels(policy, reference, kind="bon", n=4) == pytest.approx(0.596184, abs=1e-6)
    assert win_rate_of_levels(policy, reference, kind="won", n=4) == pytest.approx(0.687659, abs=1e-6)


def test_the_estimator_counts_all_subsets() -> None:
    policy, reference = [1, 3, 4, 6], [2, 3, 5, 5]
    assert win_rate(policy, reference) == pytest.approx(0.46875)
    assert win_rate(policy, reference, kind="bon", n=2) == pytest.approx(0.569444, abs=1e-6)
    assert win_rate(policy, reference, kind="won", n=2) == pytest.approx(0.361111, abs=1e-6)
    assert win_rate(policy, reference, kind="bon", n=4) == 1
    assert win_rate(policy, reference, kind="won", n=4) == 0


def test_the_estimator_is_unbiased_for_levels() -> None:
    rng = np.random.default_rng(2)
    policy, reference = [0.1, 0.2, 0.3, 0.4], [0.25] * 4
    mine, theirs = (rng.choice(4, size=(4000, 12), p=p) for p in (policy, reference))
    for kind in ("bon", "won"):
        exact = win_rate_of_levels(policy, reference, kind=kind, n=4)  # type: ignore[arg-type]
        assert win_rate(mine, theirs, kind=kind, n=4).mean() == pytest.approx(exact, abs=0.01)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kl", "table"),
    [
        (
            1.0,
            {
                "u": (0.8646, 0.8770, 0.9745),
                "log u": (0.8631, 0.8631, 0.9859),
                "exp(5u)": (0.8390, 0.9192, 0.8572),
                "exp(10u)": (0.8010, 0.9351, 0.7712),
                "exp(-10u)": (0.8479, 0.8095, 0.9927),
                "optimum for best of n": (0.7738, 0.9411, 0.7329),
                "optimum for worst of n": (0.8389, 0.7864, 0.9929),
            },
        ),
        (
            0.25,
            {
                "u": (0.6989, 0.7304, 0.7847),
                "exp(10u)": (0.6479, 0.7966, 0.6167),
                "exp(-10u)": (0.6523, 0.6110, 0.8563),
            },
        ),
    ],
)
def test_transforms_at_matched_kl(kl: float, table: dict[str, tuple[float, float, float]]) -> None:
    rows = {row.transform: row for row in plan(4, kl)}
    for name, expected in table.items():
        row = rows[name]
        assert row.kl == pytest.approx(kl, abs=1e-4)
        assert (row.standard, row.best, row.worst) == pytest.approx(expected, abs=2e-4), name
    best, worst = rows["optimum for best of n"], rows["optimum for worst of n"]
    assert best.best >= max(row.best for row in rows.values())
    assert worst.worst >= max(row.worst for row in rows.values())
    if kl == 0.25:
        assert (best.best, worst.worst) == pytest.approx((0.7969, 0.8583), abs=1e-4)
    listed = list(rows.values())
    assert recommended(listed, "bon").transform == "exp(10u)"
    assert recommended(listed, "won").transform == "exp(-10u)"
    assert recommended(listed, "sample").transform == "u"


def test_the_fixed_point_at_a_beta() -> None:
    found = optimum("bon", 4, 0.1)
    policy = found.policy
    assert found.residual < 1e-8
    values = (policy.win_rate(), policy.win_rate("bon", 4), policy.win_rate("won", 4), policy.kl)
    assert values == pytest.approx((0.760789, 0.931170, 0.719920, 0.890859), abs=5e-6)  # the limit of finer grids
    finer = optimum("bon", 4, 0.1, grid=16_000).policy
    assert finer.win_rate("bon", 4) == pytest.approx(policy.win_rate("bon", 4), abs=1e-6)
    log_density = np.log(policy.density)
    inner = (policy.distribution * U) ** 3
    slope = 16 * inner / 0.1  # d/du of G(u)/beta
    assert np.gradient(log_density, U)[5:-5] == pytest.approx(slope[5:-5], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(("n", "beta"), [(8, 0.01), (16, 0.02)])
def test_the_damping_is_halved_where_it_must_be(n: int, beta: float) -> None:
    assert optimum("bon", n, beta, grid=1000).residual < 1e-8


def test_worst_of_eight_reaches_a_nat() -> None:
    beta, policy = optimum_at_kl("won", 8, 1.0, grid=1000)
    assert policy.kl == pytest.approx(1.0, abs=1e-4)
    assert beta == pytest.approx(0.00104, rel=0.01)


def test_transforms_are_normalised_and_rise() -> None:
    u = np.linspace(0, 1, 11)
    for transform in (
        Transform(),
        Transform("exp", 10),
        Transform("exp", -10),
        Transform("exp", 800),
        Transform("log"),
    ):
        values = transform(u, 10)
        assert values[0] == pytest.approx(0) and values[-1] == pytest.approx(1)
        assert (np.diff(values) >= 0).all() and np.isfinite(values).all()
    assert exponential(0.5, 10) == pytest.approx((math.exp(5) - 1) / (math.exp(10) - 1))
    assert exponential(0.5, -10) == pytest.approx((1 - math.exp(-5)) / (1 - math.exp(-10)))
    middle = Transform("log")(0.5, 9)  # rank 4.5 of 9: (4.5 + 1/2) / 10
    low, high = math.log(0.05), math.log(0.95)
    assert middle == pytest.approx((math.log(0.5) - low) / (high - low))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(OptionError, match="wants t above 0"):
        transform_for("exp", -5, "bon")
    with pytest.raises(OptionError, match="wants t below 0"):
        transform_for("auto", 5, "won")
    with pytest.raises(OptionError, match="has no strength"):
        transform_for("identity", 5, "sample")
    with pytest.raises(OptionError, match="other than 0"):
        Transform("exp", 0)
    assert transform_for("auto", None, "sample") == Transform("identity")
    assert (transform_for("auto", None, "bon").t, transform_for("auto", None, "won").t) == (10, -10)
    with pytest.raises(OptionError, match="KL budget"):
        at_kl(lambda beta: tilted(Transform(), beta), -1)
    with pytest.raises(OptionError, match="at least 2"):
        plan(1, 0.5)
    with pytest.raises(OptionError, match="beta=0"):
        optimum("bon", 4, 0)
    with pytest.raises(RewardError, match="NaN"):
        win_rate([math.nan], [1.0])
    with pytest.raises(OptionError, match="between 1 and the 2 samples"):
        win_rate([1.0, 2.0], [1.0, 2.0], kind="bon", n=3)
