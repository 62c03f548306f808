"""Two runs side by side: what differs in facts and settings, what each showed, and where their metrics ended. Reads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paperworks.core.progress import duration
from paperworks.web.run_view import Curve, RunView, curves

Row = tuple[str, str, str]  # name, of the first, of the second
ABSENT = "–"


@dataclass(frozen=True)
class Comparison:
    """Two runs. Rows are the name and both values; those of `metrics` have the difference, second − first, behind them."""

    views: tuple[RunView, RunView]
    facts: Sequence[Row]  # that differ
    settings: Sequence[Row]  # that differ
    same_settings: Sequence[tuple[str, str]]
    claims: Sequence[Row]
    metrics: Sequence[tuple[str, str, str, str]]
    curves: Mapping[str, tuple[Curve, Curve]]  # of the metrics that both have more than once


def comparison(first: RunView, second: RunView) -> Comparison:
    """Compares two runs."""
    settings = _rows(first.settings, second.settings)
    own, others = curves(first.metrics), curves(second.metrics)
    return Comparison(
        views=(first, second),
        facts=_different(_rows(_all_facts(first), _all_facts(second))),
        settings=_different(settings),
        same_settings=[(name, value) for name, value, other in settings if value == other],
        claims=_rows(_verdicts(first), _verdicts(second)),
        metrics=_metrics(_last(first, own), _last(second, others)),
        curves={
            name: (own[name], others[name])
            for name in own
            if len(own[name][0]) > 1 and len(others.get(name, ([], []))[0]) > 1
        },
    )


def _rows(first: Mapping[str, str], second: Mapping[str, str]) -> list[Row]:
    return [(name, first.get(name, ABSENT), second.get(name, ABSENT)) for name in {**first, **second}]


def _different(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row[1] != row[2]]


def _all_facts(view: RunView) -> dict[str, str]:
    record = view.record
    took = "" if record.wall_s is None else duration(record.wall_s)
    facts = {"verb": record.verb, "name": record.name, "state": record.status, "took": took, "result": view.result}
    return {name: text for name, text in facts.items() if text} | dict(view.facts)


def _verdicts(view: RunView) -> dict[str, str]:
    return {f"{claim['part']}. {claim['text']}".removeprefix(". "): claim["verdict"] for claim in view.claims}


def _last(view: RunView, own: Mapping[str, Curve]) -> dict[str, float]:
    """Where the metrics ended; a number of the results counts more than the last line of that name."""
    return {name: values[-1] for name, (_, values) in own.items()} | dict(view.numbers)


def _metrics(first: Mapping[str, float], second: Mapping[str, float]) -> list[tuple[str, str, str, str]]:
    rows = []
    for name in {**first, **second}:
        pair = (first.get(name), second.get(name))
        shown = [ABSENT if value is None else f"{value:.4g}" for value in pair]
        difference = ABSENT if pair[0] is None or pair[1] is None else f"{pair[1] - pair[0]:+.4g}".replace("-", "−")
        rows.append((name, shown[0], shown[1], difference))
    return rows
