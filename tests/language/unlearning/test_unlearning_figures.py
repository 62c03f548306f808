"""Figures of unlearning: what is drawn, what is left out."""

from __future__ import annotations

import math

import pytest

from paperworks.core import plots
from paperworks.language.unlearning import figures
from paperworks.language.unlearning.figures import PlanePoint
from paperworks.language.unlearning.measured_sets import MeasuredItem, MeasuredSet


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, plots.Curve]]:
    """The series of every line figure, in place of the drawing."""
    seen: list[dict[str, plots.Curve]] = []
    monkeypatch.setattr(plots, "lines", lambda series, *_, **__: seen.append(dict(series)) or "<svg/>")
    return seen


def test_the_plane_marks_start_retain_only_and_the_threshold(drawn: list[dict[str, plots.Curve]]) -> None:
    way = [PlanePoint(0.6, -12.0), PlanePoint(0.5, -0.5), PlanePoint(0.0, -math.inf)]
    figures.plane({"npo": way}, start=PlanePoint(0.62, -12.5), retain_only=PlanePoint(0.61, 0.0))
    (series,) = drawn
    assert list(series) == ["npo", "before unlearning", "retain-only model", "p = 0.05"]
    assert series["npo"] == ([0.6, 0.5], [-12.0, -0.5], None, None)  # the collapsed point has no finite p
    assert series["p = 0.05"].y == [math.log10(0.05)] * 2


def test_the_collapse_curve_leaves_step_0_out_of_a_logarithmic_axis(drawn: list[dict[str, plots.Curve]]) -> None:
    losses = {"ga": [(0.0, 1.0), (10.0, 5.0)]}
    figures.collapse_curve(losses)
    figures.collapse_curve(losses, log_x=True)
    assert [series["ga"].x for series in drawn] == [[0.0, 10.0], [10.0]]


def test_histories_give_the_collapse_curve() -> None:
    runs = {"npo": [{"step": 0, "forget_nll": 1.0}, {"step": 5, "forget_nll": 2.0}, {"step": 6, "loss": 3.0}]}
    assert figures.histories(runs) == {"npo": [(0, 1.0), (5, 2.0)]}


def test_a_point_needs_both_numbers() -> None:
    assert figures.plane_point({"utility": 0.5}) is None
    assert figures.plane_point({"utility": 0.5, "log10_forget_quality": -2.0}) == (0.5, -2.0)


def test_every_figure_is_drawn() -> None:
    measured = MeasuredSet("forget", tuple(MeasuredItem(1.0, 1.0, (1.0 + i, 2.0)) for i in range(9)))
    assert figures.statistic_histograms({"npo": measured, "retain-only model": measured}).startswith("<svg")
    assert figures.plane({}).startswith("<svg")
    assert figures.plane({"npo": [PlanePoint(0.5, -1.0)]}).startswith("<svg")
    assert figures.collapse_curve({"ga": [(1, 2.0), (2, 4.0)]}, log_x=True).startswith("<svg")
