"""Figures of a training run's measures: which lines there are, and round numbers on the axis of steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from paperworks.core import plots
from paperworks.language.train_curves import FORGETTING, GENERAL, Group, figure, others, step_ticks

PAIR = Group("pair", "Pair", {"a": "first", "b": "second"}, at_least=2)
LINES = [{"step": 1, "a": 1.0, "b": 2.0}, {"step": 2, "a": None, "b": 1.0}]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The names of the lines of each figure that is drawn."""
    found: list[set[str]] = []
    really = plots.lines

    def lines(curves: Mapping[str, Any], *rest: Any, **options: Any) -> str:
        found.append(set(curves))
        return really(curves, *rest, **options)

    monkeypatch.setattr(plots, "lines", lines)
    return found


@pytest.mark.parametrize(
    ("last", "ticks"),
    [
        (1, [0, 1]),
        (8, list(range(9))),
        (20, [0, 5, 10, 15, 20]),
        (60, list(range(0, 61, 10))),
        (1000, list(range(0, 1001, 200))),
    ],
)
def test_ticks_are_round_steps(last: int, ticks: list[int]) -> None:
    assert step_ticks(last) == ticks


def test_a_measure_of_both_is_two_lines(drawn: list[set[str]]) -> None:
    assert figure(PAIR, LINES, [{"step": 0, "a": 3.0}]) is not None
    assert figure(PAIR, LINES, []) is not None
    assert drawn == [{"first", "first (held out)", "second"}, {"first", "second"}]


def test_too_few_measures_are_no_figure() -> None:
    assert figure(PAIR, [{"step": 1, "a": 1.0}], []) is None
    assert figure(PAIR, [{"step": 1, "a": 1.0, "b": None}], []) is None
    assert figure(PAIR, [], []) is None


def test_only_measures_without_a_place_are_others() -> None:
    placed = [name for group in (*GENERAL, *FORGETTING) for name in group.lines]
    line = {**dict.fromkeys(placed, 1.0), "step": 1, "learning_rate": 1.0, "rows_per_second": 1.0}
    found = others([{**line, "odds_ratio": 1.0}], [{"step": 0, "mine": 2.0}])
    assert [group.title for group in found] == ["odds ratio", "mine"]
