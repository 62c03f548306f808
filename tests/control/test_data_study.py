"""The study of data sets: the five logs of a run, their measures, and what the trial makes of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paperworks.control.measures import Grid, coverage
from paperworks.control.testbeds.data_study import KINDS, DataSets, RunSize, joined, make_sets, mean_return
from paperworks.control.testbeds.data_study_trial import (
    Points,
    StudySize,
    learned,
    pearson,
    standardised_weights,
)
from paperworks.control.testbeds.discrete_worlds import Scaled
from paperworks.control.transitions import Transitions

SIZE = RunSize(120, lanes=5, warm_up=20, evaluations=4, episodes=2)


@pytest.fixture(scope="module")
def runs() -> list[DataSets]:
    return [make_sets("cartpole", SIZE, seed) for seed in (0, 2)]


def test_the_five_logs_of_a_run(runs: list[DataSets]) -> None:
    run, sets = runs[0], runs[0].sets
    assert tuple(sets) == KINDS and {len(each.log) for each in sets.values()} == {600}
    assert sets["random"].quality == 0 and sets["replay"].coverage == 1
    assert (run.scaled(run.random_return), run.scaled(run.best_return)) == (0, 100)
    grid = Grid.of(sets["replay"].log)
    own = coverage(grid.keys(sets["expert"].log), grid.keys(sets["replay"].log))
    assert sets["expert"].coverage == own <= 1.5
    for each in sets.values():
        log = each.log
        assert log.is_discrete and log.ends[-1] and not (log.terminations & log.truncations).any()
        inside = ~log.ends[:-1]
        np.testing.assert_array_equal(log.next_observations[:-1][inside], log.observations[1:][inside])


def test_mixed_is_cut_at_its_seam(runs: list[DataSets]) -> None:
    sets = runs[0].sets
    mixed, random, expert = (sets[kind].log for kind in ("mixed", "random", "expert"))
    np.testing.assert_array_equal(mixed.observations[:480], random.observations[:480])
    np.testing.assert_array_equal(mixed.observations[480:], expert.observations[:120])
    assert mixed.ends[479] and mixed.ends[-1]
    kept = joined(random, expert, 480)
    assert not np.shares_memory(kept.truncations, random.truncations)


def test_a_run_can_be_had_again_from_its_seed_and_from_its_files(runs: list[DataSets], tmp_path: Path) -> None:
    runs[0].save(tmp_path / "run")
    for again in (make_sets("cartpole", SIZE, 0), DataSets.load(tmp_path / "run")):
        assert (again.random_return, again.best_return) == (runs[0].random_return, runs[0].best_return)
        for kind in KINDS:
            one, two = again.sets[kind], runs[0].sets[kind]
            assert (one.quality, one.coverage) == (two.quality, two.coverage)
            np.testing.assert_array_equal(one.log.observations, two.log.observations)
            np.testing.assert_array_equal(one.log.actions, two.log.actions)


def test_a_run_that_never_beat_random_has_no_scale(runs: list[DataSets], tmp_path: Path) -> None:
    lost = make_sets("cartpole", SIZE, 5)
    assert lost.best_return < lost.random_return and math.isnan(lost.sets["expert"].quality)
    lost.save(tmp_path / "lost")
    points = Points()
    for run in (DataSets.load(tmp_path / "lost"), runs[0]):
        for number, kind in enumerate(KINDS):
            points.add("cartpole", kind, run, np.array([20.0 + number]))
    found, alone = points.measured(), Points()
    for number, kind in enumerate(KINDS):
        alone.add("cartpole", kind, runs[0], np.array([20.0 + number]))
    assert len(found["best"]) == 10 and found["logs"] == 5
    assert all(found[name] == value for name, value in alone.measured().items() if isinstance(value, float))


def test_the_mean_return_is_of_whole_episodes() -> None:
    zeros = np.zeros((7, 1), np.float32)
    terminations, truncations = np.zeros((2, 7), bool)
    terminations[1], truncations[4], truncations[6] = True, True, True  # of 2, 3 (the limit) and 2 (cut) steps
    log = Transitions(zeros, np.zeros(7, np.int64), np.ones(7, np.float32), zeros, terminations, truncations)
    assert mean_return(log, limit=3) == 2.5
    assert mean_return(log.take(slice(5, 7)), limit=3) == 2


@pytest.mark.parametrize("algorithm", ["dqn", "discrete-bc"])
def test_a_run_s_policies_do_not_depend_on_its_company(algorithm: str, runs: list[DataSets]) -> None:
    size = StudySize(SIZE, updates=6, evaluations=2, episodes=3)
    world = Scaled.named("cartpole")
    together = learned(algorithm, world, runs, [0, 1], size)
    assert together.shape == (2, 2, 5)
    for place in range(2):
        alone = learned(algorithm, world, runs[place : place + 1], [place], size)
        np.testing.assert_allclose(alone[:, 0], together[:, place], atol=1e-3)


def test_correlations_and_weights() -> None:
    draw = np.random.default_rng(0)
    quality, coverage_of = draw.normal(size=(2, 400))
    performance = 3 * quality - 4 * coverage_of
    assert pearson(quality, 2 * quality + 1) == pytest.approx(1) and pearson(quality, -quality) == pytest.approx(-1)
    assert math.isnan(pearson(quality, np.ones(400)))
    first, second = standardised_weights(performance, quality, coverage_of)
    assert first == pytest.approx(3 * quality.std() / performance.std())
    assert second == pytest.approx(-4 * coverage_of.std() / performance.std())
    assert all(map(math.isnan, standardised_weights(performance, quality, np.ones(400))))


def test_what_a_cell_measures(runs: list[DataSets]) -> None:
    """Performance is the best evaluation, scaled; a log of high quality is one above 0.8."""
    points, run = Points(), runs[0]
    returns = {kind: run.random_return + number * 10 for number, kind in enumerate(KINDS)}
    for kind in KINDS:
        points.add("cartpole", kind, run, np.array([0.0, returns[kind], 1.0]))
    points.quality = [0.0, 0.5, 0.9, 1.1, 0.1]
    points.coverage = [0.5, 1.0, 0.2, 0.3, 0.9]
    found: dict[str, Any] = points.measured()
    scaled = [run.scaled(returns[kind]) for kind in KINDS]
    assert found["best"] == scaled and found["performance"] == pytest.approx(np.mean(scaled))
    assert found["at_high_quality"] == pytest.approx((scaled[2] + scaled[3]) / 2)
    assert found["at_either"] == pytest.approx(np.mean(scaled[1:]))
    assert found["on_mixed"] == scaled[4]
    assert found["last_performance"] == pytest.approx(run.scaled(1.0))
