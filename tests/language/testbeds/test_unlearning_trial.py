"""Trials of unlearning: which epoch counts, how the rate is chosen, and that a trial measures before and every epoch."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from paperworks.language.objectives.npo import NPORetain
from paperworks.language.objectives.unlearning import GradientAscent
from paperworks.language.testbeds import trial_figures, unlearning_trial
from paperworks.language.testbeds.fact_models import SMOKE
from paperworks.language.testbeds.unlearning_trial import CURVES, Trial, TrialSpec, tuned_rate, unlearn

MODELS = dataclasses.replace(SMOKE, forget=1, retain=2, held_out=1, lesson_people=2, lesson_epochs=0.2, epochs=1.0)
SPEC = TrialSpec(MODELS, epochs=2, batch_size=7, rouge=False, rates=(1e-3, 1e-2))


def trial_of(*points: tuple[float, float]) -> Trial:
    """A trial of (utility, log10 forget quality) at every evaluation."""
    history = [{"utility": utility, "log10_forget_quality": quality} for utility, quality in points]
    return Trial(history, (), None)  # type: ignore[arg-type]


def test_the_best_epoch_keeps_nine_tenths_of_the_utility() -> None:
    found = trial_of((0.6, -9.0), (0.55, -5.0), (0.54, -4.0), (0.53, -0.1), (0.1, -3.0)).best
    assert found["log10_forget_quality"] == -4.0


def test_who_loses_utility_at_once_has_the_quality_of_the_start() -> None:
    assert trial_of((0.6, -9.0), (0.4, -1.0), (0.0, -7.0)).best["log10_forget_quality"] == -9.0


def test_the_rate_is_the_best_of_the_tuning_world_and_found_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def fake(folder, objective, rate, seed, spec, *, held_out):  # type: ignore[no-untyped-def]
        asked.append((rate, seed))
        return trial_of((0.6, -9.0), (0.6, -8.0 if rate < 5e-3 else -2.0))

    monkeypatch.setattr(unlearning_trial, "unlearn", fake)
    assert tuned_rate(tmp_path, NPORetain(), SPEC) == tuned_rate(tmp_path, NPORetain(), SPEC) == 1e-2
    assert asked == [(1e-3, SPEC.tuning_seed), (1e-2, SPEC.tuning_seed)]
    tuned_rate(tmp_path, NPORetain(beta=0.5), SPEC)  # another objective, whatever its name
    assert len(asked) == 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trials")


def test_a_trial_is_measured_before_and_after_every_epoch(folder: Path) -> None:
    trial = unlearn(folder, GradientAscent(), 1e-2, 3, SPEC)
    assert [values["step"] for values in trial.history] == [0, 2, 4]
    assert trial.end["forget_nll"] > trial.start["forget_nll"]
    found = trial.as_dict()
    assert all(len(found[f"{name}_curve"]) == 3 for name in CURVES)
    assert all(math.isfinite(value) for value in found.values() if isinstance(value, float))
    assert len(found["end_log_s"]) == len(found["retain_only_log_s"]) == 14
    assert len(trial_figures.draw({"gradient ascent": [found]}, histograms=["gradient ascent"])) == 4


def test_people_held_out_change_nothing_else(folder: Path) -> None:
    both, without = (unlearn(folder, GradientAscent(), 1e-2, 3, SPEC, held_out=held_out) for held_out in (True, False))
    assert "held_out_utility" not in without.end
    for name in without.end:
        assert both.end[name] == pytest.approx(without.end[name], rel=1e-5), name
