"""The collapse curve of one parameter (arXiv 2404.05868): gradient ascent runs off linearly, NPO logarithmically.

theta starts at 2, the label to forget has probability sigmoid(theta), the learning rate is 0.1.
"""

from __future__ import annotations

import math

import pytest
import torch

from paperworks.language.testbeds.forget_logistic import Examples, ForgetProblem, Method, unlearn

START, RATE = 2.0, 0.1


def one_parameter() -> ForgetProblem:
    one = torch.ones(1, 1, dtype=torch.float64)
    example = Examples(one[None], one)
    return ForgetProblem(example, example, -one, example, example, START * one, 0 * one)


def steps_of(beta: float | None, steps: int) -> list[float]:
    """theta at every step, NPO's for a beta, gradient ascent's without: the recursion in plain floats."""
    theta, found = START, [START]
    reference = 1 / (1 + math.exp(-START))
    for _ in range(steps):
        away = 1 / (1 + math.exp(theta))  # d log sigmoid(theta) / d theta
        ratio = 1.0 if beta is None else (1 / (1 + math.exp(-theta)) / reference) ** beta
        theta -= RATE * away * (1.0 if beta is None else 2 * ratio / (1 + ratio))
        found.append(theta)
    return found


@pytest.mark.parametrize(
    ("beta", "after_ten_thousand", "after_a_hundred_thousand"),
    [(None, -990.50, -9990.50), (1.0, -7.7076, -10.0281)],
    ids=["ga", "npo"],
)
def test_theta_after_many_steps(beta, after_ten_thousand, after_a_hundred_thousand) -> None:
    path = steps_of(beta, 100_000)
    tolerance = 0.005 if beta is None else 5e-5
    assert path[10_000] == pytest.approx(after_ten_thousand, abs=tolerance)
    assert path[100_000] == pytest.approx(after_a_hundred_thousand, abs=tolerance)


@pytest.mark.parametrize("beta", [None, 1.0, 0.1], ids=["ga", "npo", "npo-0.1"])
def test_the_testbed_takes_the_same_steps(beta) -> None:
    method = Method("ga") if beta is None else Method("npo", beta=beta)
    course = unlearn(one_parameter(), method, [RATE], steps=1000, record_every=100)
    expected = [START - theta for theta in steps_of(beta, 1000)[::100]]
    assert course.distance.flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_ascent_has_a_linear_and_npo_a_logarithmic_law() -> None:
    ascent, npo = steps_of(None, 4000), steps_of(1.0, 80_000)
    assert ascent[4000] - ascent[2000] == pytest.approx(-RATE * 2000, rel=1e-9)
    gained = [npo[2 * steps] - npo[steps] for steps in (10_000, 20_000, 40_000)]
    assert gained == pytest.approx([-math.log(2)] * 3, abs=0.01)  # each doubling of the steps takes log 2 / beta
