"""The figures of an experiment: every arm with its seeds, every claim's paired differences. From results or a record alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from paperworks.core import plots
from paperworks.core.plots import IntervalRow
from paperworks.core.statistics import Interval
from paperworks.experiment.definition import Metric

ARMS_CAPTION = "Each small dot is a seed; the large dot is their mean, the bar its 95% bootstrap interval."
_DIFFERENCES_CAPTION = (
    "Each small dot is a seed: the difference of both arms from the same start. In favour of the claim: {}."
)


def arms_figure(metric: Metric, setting: str, rows: Sequence[IntervalRow], colours: Mapping[str, str]) -> str:
    """A row an arm: each seed, the mean, its interval. SVG."""
    unit = f" ({metric.unit})" if metric.unit else ""
    x = f"{metric.label}{unit}, {'higher' if metric.higher_is_better else 'lower'} is better"
    return plots.intervals(rows, x, title=setting, format_spec=metric.format, colours_by_name=colours)


def differences_figure(metric: Metric, rows: Sequence[IntervalRow], colours: Mapping[str, str]) -> str:
    """A row a claim: the difference of its two arms at each seed, the mean, its interval, and where 0 lies. SVG."""
    unit = f" ({metric.unit})" if metric.unit else ""
    return plots.intervals(
        rows,
        f"difference in {metric.label}{unit}",
        title="Paired differences",
        zero_line=True,
        format_spec=metric.format,
        colours_by_name=colours,
    )


def differences_caption(metric: Metric) -> str:
    """What stands below `differences_figure`."""
    return _DIFFERENCES_CAPTION.format("right" if metric.higher_is_better else "left")


def difference_name(better: str, than: str, where: str) -> str:
    """How a row of `differences_figure` is named."""
    return ", ".join(filter(None, [f"{better} − {than}", where]))


class RecordFigure(NamedTuple):
    """A figure of a recorded result. `kind`: every arm's seeds, or the paired differences of the claims."""

    kind: Literal["arms", "differences"]
    svg: str
    caption: str


def record_figures(record: Mapping[str, Any]) -> dict[str, list[RecordFigure]]:
    """The figures of a recorded result by part, the same that the run's report has of its claims.

    Curves that an experiment draws itself are in the report alone: a record holds no curves.
    """
    labels = [arm["label"] for part in record["parts"] for setting in part["settings"] for arm in setting["arms"]]
    colours = plots.colours(labels)
    return {part["name"]: _part_figures(part, record["claims"], colours) for part in record["parts"]}


def _part_figures(
    part: Mapping[str, Any], claims: Sequence[Mapping[str, Any]], colours: Mapping[str, str]
) -> list[RecordFigure]:
    own = [claim for claim in claims if claim["part"] == part["name"]]
    claimed = {claim["metric"] for claim in own}
    metrics = [Metric(**metric) for metric in part["metrics"]]
    shown = [metric for metric in metrics if metric.name in claimed] or metrics[:1]
    figures: list[RecordFigure] = []
    for metric in shown:
        settings = {claim["where"] for claim in own if claim["metric"] == metric.name}
        for setting in part["settings"]:
            if not settings or setting["name"] in settings:
                rows = _arm_rows(setting["arms"], metric)
                if rows:
                    figures.append(
                        RecordFigure("arms", arms_figure(metric, setting["name"], rows, colours), ARMS_CAPTION)
                    )
        rows, palette = _difference_rows(part, own, metric, colours)
        if rows:
            svg = differences_figure(metric, rows, palette)
            figures.append(RecordFigure("differences", svg, differences_caption(metric)))
    return figures


def _arm_rows(arms: Sequence[Mapping[str, Any]], metric: Metric) -> list[IntervalRow]:
    rows = []
    for arm in arms:
        found = arm["metrics"].get(metric.name)
        if found and found["mean"] is not None:
            values = [value for value in found["values"] if value is not None]
            rows.append(IntervalRow(arm["label"], _interval(found), values))
    return rows


def _difference_rows(
    part: Mapping[str, Any], claims: Sequence[Mapping[str, Any]], metric: Metric, colours: Mapping[str, str]
) -> tuple[list[IntervalRow], dict[str, str]]:
    labels = {arm["name"]: arm["label"] for setting in part["settings"] for arm in setting["arms"]}
    rows, palette = [], {}
    for claim in claims:
        if claim["metric"] == metric.name and claim["difference"]["mean"] is not None:
            name = difference_name(labels[claim["better"]], labels[claim["than"]], claim["where"])
            values = [value for value in claim["differences"].values() if value is not None]
            rows.append(IntervalRow(name, _interval(claim["difference"]), values))
            palette[name] = colours[labels[claim["better"]]]
    return rows, palette


def _interval(found: Mapping[str, Any]) -> Interval:
    return Interval(found["mean"], found["low"], found["high"], found["n"])
