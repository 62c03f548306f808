"""Figures as SVG text: one clean style, a colour-blind safe colour that stays with a name, ink that follows the page.

Axes and text are drawn in `currentColor`, so that a figure inside a page is legible on light and dark paper alike.
matplotlib is loaded on the first figure.
"""

from __future__ import annotations

import hashlib
import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from paperworks.core.files import write_atomic
from paperworks.core.statistics import Interval, pareto_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's set without black and yellow, and, for more names than those six, others of like lightness: legible on
# white and on near-black.
PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
    "#999933", "#AA4499", "#6A7BD1", "#44AA99", "#B07D4B", "#8A8A8A",
)  # fmt: skip

_FIRST_COLOURS = 6  # well apart from one another
_MARKERS = "os^DvPX<>h*d"
_INK = "#010203"  # stands for the page's text colour until the figure is text
_STYLE: Mapping[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "figure.constrained_layout.h_pad": 0.09,
    "figure.constrained_layout.w_pad": 0.08,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.parse_math": False,  # a "$" in a name is a dollar
    "svg.fonttype": "path",
    "svg.hashsalt": "paperworks",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
}
_DOT: Mapping[str, Any] = {"s": 13, "alpha": 0.45, "linewidths": 0}
_BAR: Mapping[str, Any] = {"linewidth": 3, "alpha": 0.85, "solid_capstyle": "round"}
_MEAN: Mapping[str, Any] = {"s": 52, "zorder": 3, "edgecolors": "white", "linewidths": 0.9}


class Curve(NamedTuple):
    """Points of a line and, where given, the bounds of a band around it."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class IntervalRow:
    """A name, its mean with interval, and the single values (a dot a seed) behind them."""

    name: str
    interval: Interval
    values: Sequence[float] = ()


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour a name: always the same for a name, unless another of these names has it already.

    Call it once with every name of a report and hand the result to its figures.
    """
    chosen: dict[str, str] = {}
    for name in dict.fromkeys(names):
        slot = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        first = [PALETTE[(slot + step) % _FIRST_COLOURS] for step in range(_FIRST_COLOURS)]
        wanted = [*first, *PALETTE[_FIRST_COLOURS:]]
        chosen[name] = next((colour for colour in wanted if colour not in chosen.values()), first[0])
    return chosen


def lines(
    series: Mapping[str, Curve],
    x: str,
    y: str,
    *,
    title: str = "",
    log_x: bool = False,
    log_y: bool = False,
    markers: bool | None = None,
    x_ticks: Sequence[float] | None = None,
    colours_by_name: Mapping[str, str] | None = None,
) -> str:
    """A line a name, with a band where the curve has bounds. Markers where a curve has few points, unless told.

    `x_ticks` are the values named on the x axis, for axes whose values were chosen by hand.
    """
    palette = _palette(series, colours_by_name)

    def draw(axes: Axes) -> None:
        for index, (name, curve) in enumerate(series.items()):
            has_markers = len(curve.x) <= 15 if markers is None else markers
            marker = _MARKERS[index % len(_MARKERS)] if has_markers else None
            axes.plot(curve.x, curve.y, color=palette[name], marker=marker, markersize=5, label=name)
            if curve.low is not None and curve.high is not None:
                axes.fill_between(curve.x, curve.low, curve.high, color=palette[name], alpha=0.16, linewidth=0)
        _label(axes, x, y, title, log_x, log_y)
        if x_ticks is not None:
            axes.set_xticks(list(x_ticks), [f"{value:g}" for value in x_ticks])
            axes.set_xticks([], minor=True)
        _grid(axes, "both")
        _legend(axes, len(series))

    return _drawn(draw, 7.2 if len(series) > 1 else 6.0, 3.5, title or f"{y} against {x}")


def intervals(
    rows: Sequence[IntervalRow],
    x: str,
    *,
    title: str = "",
    zero_line: bool = False,
    format_spec: str = ".3f",
    colours_by_name: Mapping[str, str] | None = None,
) -> str:
    """A row a name: every value a small dot, the mean a large one, its interval a bar, the numbers at the right."""
    palette = _palette((row.name for row in rows), colours_by_name)

    def draw(axes: Axes) -> None:
        for place, row in enumerate(rows):
            colour, height = palette[row.name], len(rows) - 1 - place
            values = [value for value in row.values if math.isfinite(value)]
            heights = [height + _spread(index, len(values)) for index in range(len(values))]
            axes.scatter(values, heights, **_DOT, color=colour)
            if math.isfinite(row.interval.low):
                axes.plot([row.interval.low, row.interval.high], [height, height], **_BAR, color=colour)
            if math.isfinite(row.interval.mean):
                axes.scatter([row.interval.mean], [height], **_MEAN, color=colour)
            numbers = row.interval.format(format_spec) if math.isfinite(row.interval.mean) else "–"
            axes.text(1.02, height, numbers, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
        if zero_line:
            axes.axvline(0, color=_INK, linewidth=0.9, alpha=0.6, zorder=0)
        axes.set_yticks(range(len(rows)), [_shortened(row.name) for row in reversed(rows)])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.margins(x=0.06)
        _label(axes, x, "", title)
        _grid(axes, "x")

    return _drawn(draw, 7.2, 0.95 + 0.38 * max(1, len(rows)) + (0.3 if title else 0), title or x)


def frontier(
    points_by_arm: Mapping[str, Sequence[tuple[float, float]]],
    x: str = "KL",
    y: str = "reward",
    *,
    title: str = "",
    colours_by_name: Mapping[str, str] | None = None,
) -> str:
    """Every arm's points (cost, value), and a line through those of them that none of its own beats."""
    palette = _palette(points_by_arm, colours_by_name)

    def draw(axes: Axes) -> None:
        for index, (name, points) in enumerate(points_by_arm.items()):
            marker = _MARKERS[index % len(_MARKERS)]
            front = [points[i] for i in pareto_front(points)]
            others = [point for point in points if point not in front]
            axes.scatter(*_columns(others), s=18, marker=marker, color=palette[name], alpha=0.35, linewidths=0)
            axes.plot(*_columns(front), marker=marker, markersize=5.5, color=palette[name], label=name)
        _label(axes, x, y, title)
        _grid(axes, "both")
        _legend(axes, len(points_by_arm))

    return _drawn(draw, 7.2 if len(points_by_arm) > 1 else 6.0, 3.8, title or f"{y} against {x}")


def scatter(
    points_by_name: Mapping[str, Sequence[tuple[float, float]]],
    x: str,
    y: str,
    *,
    title: str = "",
    colours_by_name: Mapping[str, str] | None = None,
) -> str:
    """Points (x, y) of every name, without lines; later names lie on top and are smaller, so that none hides another."""
    palette = _palette(points_by_name, colours_by_name)

    def draw(axes: Axes) -> None:
        for index, (name, points) in enumerate(points_by_name.items()):
            marker = _MARKERS[index % len(_MARKERS)]
            axes.scatter(
                *_columns(points),
                s=22 + 16 * (len(points_by_name) - 1 - index),
                marker=marker,
                color=palette[name],
                alpha=0.8,
                label=name,
            )
        _label(axes, x, y, title)
        _grid(axes, "both")
        _legend(axes, len(points_by_name))

    return _drawn(draw, 7.2 if len(points_by_name) > 1 else 6.0, 3.8, title or f"{y} against {x}")


def histogram(
    values_by_name: Mapping[str, Sequence[float]],
    x: str,
    *,
    bins: int = 40,
    title: str = "",
    colours_by_name: Mapping[str, str] | None = None,
) -> str:
    """The share of values in common bins, an outline a name."""
    palette = _palette(values_by_name, colours_by_name)

    def draw(axes: Axes) -> None:
        import numpy as np

        finite = {name: np.asarray([v for v in values if math.isfinite(v)]) for name, values in values_by_name.items()}
        everything = np.concatenate([*finite.values(), np.empty(0)])
        edges: Any = np.histogram_bin_edges(everything, bins=bins) if len(everything) else np.linspace(0, 1, bins + 1)
        for name, values in finite.items():
            weights = np.full(len(values), 1 / max(1, len(values)))
            axes.hist(values, edges, weights=weights, histtype="stepfilled", color=palette[name], alpha=0.22)
            axes.hist(values, edges, weights=weights, histtype="step", color=palette[name], linewidth=1.6, label=name)
        _label(axes, x, "share", title)
        _grid(axes, "y")
        _legend(axes, len(values_by_name))

    return _drawn(draw, 7.2 if len(values_by_name) > 1 else 6.0, 3.2, title or x)


def heatmap(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    title: str = "",
    row_title: str = "",
    column_title: str = "",
    format_spec: str = ".2f",
    low: float = 0.0,
    high: float = 1.0,
) -> str:
    """A matrix with its numbers, blue above the middle of [low, high] and orange below. NaN cells stay empty."""

    def draw(axes: Axes) -> None:
        import numpy as np
        from matplotlib.colors import LinearSegmentedColormap

        matrix = np.asarray(values, dtype=float).reshape(len(rows), len(columns))
        shades = LinearSegmentedColormap.from_list("wins", ["#D55E00", "#F7C9A8", "#F2F2F0", "#A9CDE6", "#0072B2"])
        axes.pcolormesh(matrix, cmap=shades, vmin=low, vmax=high, edgecolors="white", linewidth=1.5)
        for row in range(len(rows)):
            for column in range(len(columns)):
                value = matrix[row, column]
                if math.isfinite(value):
                    place = (value - low) / ((high - low) or 1)
                    ink = "white" if not 0.12 <= place <= 0.88 else "#1A1A1A"
                    axes.text(column + 0.5, row + 0.5, format(value, format_spec), ha="center", va="center", color=ink)
        axes.invert_yaxis()
        axes.set_xticks([i + 0.5 for i in range(len(columns))], [_shortened(name, 18) for name in columns])
        axes.set_yticks([i + 0.5 for i in range(len(rows))], [_shortened(name) for name in rows])
        axes.tick_params(length=0)
        if max((len(name) for name in columns), default=0) * len(columns) > 48:
            for label in axes.get_xticklabels():
                label.set(rotation=35, ha="right", rotation_mode="anchor")
        for spine in axes.spines.values():
            spine.set_visible(False)
        _label(axes, column_title, row_title, title)

    width = min(11.0, 2.2 + 0.82 * len(columns))
    return _drawn(draw, width, 1.2 + 0.46 * len(rows), title or "matrix")


def field(
    x: Sequence[float],
    y: Sequence[float],
    values: Sequence[Sequence[float]],
    x_title: str,
    y_title: str,
    *,
    title: str = "",
    outlines: Mapping[str, Sequence[Sequence[float]]] = {},
    is_to_scale: bool = False,
) -> str:
    """A field over a plane, `values[row of y][column of x]`: blue below 0, orange above, a line where it is 0.

    Each of `outlines` is a field of its own, of which the line at 0 is drawn, dashed. `is_to_scale`: x and y share a unit.
    """

    def draw(axes: Axes) -> None:
        import numpy as np
        from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

        shown = np.asarray(values, dtype=float)
        low, high = min(float(np.nanmin(shown)), -1e-6), max(float(np.nanmax(shown)), 1e-6)
        levels = [*np.linspace(low, 0, 9), *np.linspace(0, high, 9)[1:]]
        shades = LinearSegmentedColormap.from_list("field", ["#0072B2", "#A9CDE6", "#F2F2F0", "#F7C9A8", "#D55E00"])
        filled = axes.contourf(x, y, shown, levels=levels, cmap=shades, norm=TwoSlopeNorm(0, low, high))
        axes.figure.colorbar(filled, ax=axes, shrink=0.85, ticks=levels[::4], format="%.2g")
        axes.contour(x, y, shown, levels=[0.0], colors=[_INK], linewidths=1.6)
        for number, outline in enumerate(outlines.values()):
            line = axes.contour(x, y, np.asarray(outline, dtype=float), levels=[0.0], colors=[PALETTE[2 + number]])
            line.set(linewidth=1.8, linestyle="--")
        for number, name in enumerate(outlines):
            axes.plot([], [], color=PALETTE[2 + number], linestyle="--", label=name)
        if is_to_scale:
            axes.set_aspect("equal")
        _label(axes, x_title, y_title, title)
        if outlines:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)

    return _drawn(draw, 5.6, 4.6 if outlines else 4.2, title or f"a field over {x_title} and {y_title}")


def save(svg: str, path: str | Path) -> None:
    """Writes a figure as an .svg file that stands alone."""
    write_atomic(path, '<?xml version="1.0" encoding="utf-8"?>\n' + svg)


def with_shared_glyphs(svg: str, known: dict[str, str]) -> str:
    """A figure for a page that has others: letters whose outline the page has already are referred to, not repeated.

    `known` holds the page's outlines with their names, and takes in the figure's.
    """
    elsewhere: dict[str, str] = {}

    def once(found: re.Match[str]) -> str:
        name, outline = found.groups()
        if known.setdefault(outline, name) == name:
            return found[0]
        elsewhere[name] = known[outline]
        return ""

    svg = re.sub(r'<path id="([\w-]+)" (d="[^"]*" transform="scale\(0\.015625\)"/>)\n', once, svg)
    svg = re.sub(r'href="#([\w-]+)"', lambda found: f'href="#{elsewhere.get(found[1], found[1])}"', svg)
    return svg.replace("<defs>\n</defs>\n", "")


def _drawn(draw: Any, width_inches: float, height_inches: float, description: str) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # A Figure of its own, not pyplot's: nothing is registered globally and no display is asked for.
    style: Any = {**mpl.rcParamsDefault, **_STYLE, "backend": "agg"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
        draw(figure.add_subplot())
        return _svg(figure, description)


def _svg(figure: Figure, description: str) -> str:
    import io

    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # A style sheet inside a figure would hold for the whole page; its one rule goes to the figure's own element.
    text = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = _without_ballast(text)
    # Several figures share a page: names inside a figure must not meet those of another.
    prefix = "f" + hashlib.sha256(text.encode()).hexdigest()[:7]
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    label = html.escape(description, quote=True)
    opening = f'<svg role="img" aria-label="{label}" style="stroke-linejoin: round; stroke-linecap: butt" '
    return opening + text.removeprefix("<svg ").rstrip() + "\n"


def _without_ballast(text: str) -> str:
    """An SVG without comments, indentation, unused names of groups and digits beyond a hundredth; shifts as `x`."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"(?<![\w.])(-?[1-9]\d*\.\d\d)\d+", r"\1", text)
    text = re.sub(r'(<use [^>]*)transform="translate\(([-\d.]+) 0\)"', r'\1x="\2"', text)
    return re.sub(r"\s*\n\s*", "\n", text).replace("DejaVuSans-", "g")


def _palette(names: Iterable[str], given: Mapping[str, str] | None) -> Mapping[str, str]:
    names = list(names)
    return {**colours(name for name in names if name not in (given or {})), **(given or {})}


def _label(axes: Axes, x: str, y: str, title: str, log_x: bool = False, log_y: bool = False) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title:
        axes.set_title(title)
    for is_log, set_scale, axis in ((log_x, axes.set_xscale, axes.xaxis), (log_y, axes.set_yscale, axes.yaxis)):
        if is_log:
            set_scale("log")
            axis.set_major_formatter(lambda value, place: f"{value:g}")
            axis.set_minor_formatter(lambda value, place: "")


def _grid(axes: Axes, axis: Any) -> None:
    axes.grid(axis=axis, color=_INK, alpha=0.13, linewidth=0.7)


def _legend(axes: Axes, names: int) -> None:
    if names > 1:  # beside the axes: never on top of the data
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=1.8, labelspacing=0.7)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def _spread(index: int, count: int) -> float:
    # Beside the bar rather than on it: values of one row differ a little in height so that equal ones are both seen.
    return (
        0.0 if count < 2 else 0.18 * (2 * (index % 5) / 4 - 1) if count >= 5 else 0.18 * (2 * index / (count - 1) - 1)
    )


def _shortened(name: str, length: int = 34) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
