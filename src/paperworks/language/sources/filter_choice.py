"""Which filter to train with, decided before training: how well rewards predict real scores among what a filter keeps.

For samples of the starting policy with a reward and an actual score (unit tests, say), the survivors of each filter are
grouped by reward, and R^2 is that of a straight line through the groups' means (PF-PPO, arXiv 2409.06957, section 4). It
says how far the reward can be trusted where the filter looks, not how good the filtered policy will be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from paperworks.core.errors import DataError, OptionError, RewardError
from paperworks.core.options import check_ranges, option
from paperworks.core.seeding import derive_seed
from paperworks.core.statistics import Interval
from paperworks.language.sources.filters import Filter, tied_prompts
from paperworks.language.sources.rejection import Numbers

FEWEST_GROUPS = 4  # a line through two groups always fits
ROUNDING = 1e-24  # means of equal numbers differ by rounding: smaller mean squares (of 1) are no variation
AS_GOOD = 0.02  # filters this near the highest R^2 are called as good


@dataclass(frozen=True)
class ChoiceOptions:
    """How survivors are grouped and how sure the figure is. The grouping is our decision; the paper says "similar reward"."""

    groups: int = option(10, "groups of similar reward, the same for all filters", low=FEWEST_GROUPS)
    bins: Literal["width", "quantile"] = option("width", "groups of equal width in reward, or of as many samples")
    survivors: Literal["drawn", "expected"] = option(
        "drawn", "draw the survivors once, or give every sample the weight that it has over all draws"
    )
    resamples: int = option(2000, "bootstrap samples of prompts behind each interval", low=100)
    seed: int = option(0, "of ties, draws and the bootstrap")

    def __post_init__(self) -> None:
        check_ranges(self, what="filter choice")
        for name, allowed in (("bins", ("width", "quantile")), ("survivors", ("drawn", "expected"))):
            if getattr(self, name) not in allowed:
                raise OptionError(f"option {name}={getattr(self, name)}: expected {' or '.join(allowed)}")


@dataclass(frozen=True)
class Group:
    """The survivors with like rewards: their means, and how many they are (a sum of weights)."""

    reward: float
    score: float
    samples: float


@dataclass(frozen=True)
class LineFit:
    """score = slope * reward + intercept over group means by least squares, and three R^2.

    `r2` weights all groups alike (the paper's), `weighted_r2` by their samples, with a line of its own; `sample_r2` is that of
    a line through single samples, much lower.
    """

    slope: float
    intercept: float
    r2: float
    weighted_r2: float
    sample_r2: float
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class FilterFigures:
    """What one filter keeps and how well rewards predict scores in it; `fit` is None where `why_not` says why."""

    filter: Filter
    kept_share: float
    mean_score: float  # of the survivors
    fit: LineFit | None
    interval: Interval  # of r2, over prompts
    why_not: str = ""

    @property
    def name(self) -> str:
        return self.filter.name

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where there is no number."""
        fit = self.fit
        return {
            "filter": self.name,
            "r2": fit and fit.r2,
            "low": None if math.isnan(self.interval.low) else self.interval.low,
            "high": None if math.isnan(self.interval.high) else self.interval.high,
            "weighted_r2": fit and fit.weighted_r2,
            "sample_r2": fit and fit.sample_r2,
            "slope": fit and fit.slope,
            "intercept": fit and fit.intercept,
            "kept_share": self.kept_share,
            "mean_score": self.mean_score,
            "groups": [asdict(group) for group in fit.groups] if fit else [],
            "why_not": self.why_not,
        }


@dataclass(frozen=True)
class FilterChoice:
    """The figures of all filters, the highest R^2 first, and what follows from them."""

    figures: tuple[FilterFigures, ...]
    prompts: int
    samples: int  # a prompt
    tied: float  # share of prompts whose best reward several samples have

    @property
    def usable(self) -> tuple[FilterFigures, ...]:
        return tuple(figures for figures in self.figures if figures.fit is not None)

    def recommendation(self) -> list[str]:
        """Sentences on which filter to take, and why with care."""
        usable = self.usable
        best = usable[0]
        assert best.fit is not None
        near = [f.name for f in usable[1:] if f.fit is not None and f.fit.r2 > best.fit.r2 - AS_GOOD]
        overlapping = [f.name for f in usable[1:] if f.name not in near and f.interval.high >= best.interval.low]
        lines = [f"expected order: {' > '.join(figures.name for figures in usable)}"]
        also = f", {', '.join(near)} is within {AS_GOOD:g}" if near else ""
        lines.append(
            f"recommended: {best.name}, rewards predict scores best where it looks (R² {best.fit.r2:.3f}{also})"
        )
        if overlapping:
            lines.append(f"not told apart from it by these prompts: {', '.join(overlapping)} (intervals overlap)")
        if best.fit.slope <= 0:
            lines.append(f"beware: higher rewards go with lower scores under {best.name} (slope {best.fit.slope:.3g})")
        if best.name == "none":
            lines.append("filtering does not help here: the reward is as reliable in the middle as at its ends")
        for figures in self.figures:
            if figures.fit is None:
                lines.append(f"{figures.name}: R² is not meaningful, {figures.why_not}")
        if self.tied > 0.2:
            lines.append(f"{self.tied:.0%} of prompts have several samples with the best reward; there chance decides")
        return lines


def fit_groups(
    rewards: ArrayLike,
    scores: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    edges: ArrayLike | None = None,
    groups: int = 10,
) -> LineFit:
    """The line through groups of samples [n] with like rewards, groups of equal width unless `edges` are given.

    Raises DataError for fewer than four groups that have samples, or scores that do not vary.
    """
    x, y = np.asarray(rewards, dtype=np.float64).ravel(), np.asarray(scores, dtype=np.float64).ravel()
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64).ravel()
    if edges is None:
        edges = np.linspace(x.min(), x.max(), groups + 1)
    found = np.asarray(edges, dtype=np.float64)
    totals = _totals(_group_of(x, found)[None], x[None], y[None], w[None], len(found) - 1)[:, 0]
    has = totals[0] > 0
    if has.sum() < FEWEST_GROUPS:
        raise DataError(
            f"{int(has.sum())} of {len(has)} groups of rewards have samples, a line takes {FEWEST_GROUPS} or more"
        )
    n, mean_x, mean_y = totals[0][has], (totals[1][has] / totals[0][has]), (totals[2][has] / totals[0][has])
    slope, intercept, r2 = _line(mean_x, mean_y, np.ones_like(n))
    _, _, weighted = _line(mean_x, mean_y, n)
    _, _, single = _line(x[w > 0], y[w > 0], w[w > 0])
    if not math.isfinite(r2):
        raise DataError("the scores of all groups are equal, there is nothing to predict")
    table = tuple(Group(float(a), float(b), float(c)) for a, b, c in zip(mean_x, mean_y, n))
    return LineFit(slope, intercept, r2, weighted, single, table)


def choose_filter(
    rewards: ArrayLike, scores: ArrayLike, filters: Sequence[Filter], options: ChoiceOptions = ChoiceOptions()
) -> FilterChoice:
    """R^2 of every filter on rewards and actual scores [prompts, samples], with intervals over prompts.

    Raises DataError for scores or rewards that do not vary, and where no filter leaves four groups; OptionError for a filter
    that does not fit; RewardError for numbers that are not finite.
    """
    x, y = np.asarray(rewards, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if x.ndim != 2 or x.shape != y.shape or not x.size:
        raise DataError(f"expected rewards and scores [prompts, samples] alike; got the shapes {x.shape} and {y.shape}")
    if not filters:
        raise OptionError("no filter to judge; name at least one")
    if not np.isfinite(y).all():
        raise RewardError(f"{int((~np.isfinite(y)).sum())} of {y.size} scores are not finite numbers; mend them")
    if y.min() == y.max():
        raise DataError(f"all scores are {y.min():g}: nothing to predict; give scores that vary")
    if x.min() == x.max():
        raise DataError(f"all rewards are {x.min():g}: no filter can tell samples apart; check the reward")
    if options.bins == "width":
        edges = np.linspace(x.min(), x.max(), options.groups + 1)
    else:
        edges = np.unique(np.quantile(x, np.linspace(0, 1, options.groups + 1)))
    figures = [_figures(x, y, each, edges, options) for each in filters]
    if all(each.fit is None for each in figures):
        raise DataError(
            f"R² is not meaningful for any filter: {figures[0].why_not}; give more prompts or another reward"
        )
    figures.sort(key=lambda each: -math.inf if each.fit is None else each.fit.r2, reverse=True)
    return FilterChoice(tuple(figures), len(x), x.shape[1], tied_prompts(x))


def _figures(x: Numbers, y: Numbers, chosen: Filter, edges: Numbers, options: ChoiceOptions) -> FilterFigures:
    kept = np.zeros(x.size)
    kept[chosen.kept_only(x, seed=options.seed)] = 1.0
    if options.survivors == "expected":
        weights = chosen.weights(x, seed=options.seed) * kept.sum()
    else:
        weights = kept.reshape(x.shape)
    share, mean_score = float(kept.mean()), float((weights * y).sum() / weights.sum())
    nothing = Interval(math.nan, math.nan, math.nan, len(x))
    try:
        fit = fit_groups(x, y, weights, edges=edges)
    except DataError as error:
        return FilterFigures(chosen, share, mean_score, None, nothing, str(error))
    totals = _totals(_group_of(x, edges), x, y, weights, len(edges) - 1)
    return FilterFigures(chosen, share, mean_score, fit, _interval(totals, fit.r2, options))


def _interval(totals: Numbers, r2: float, options: ChoiceOptions) -> Interval:
    """Percentile bootstrap of R^2 over prompts; resamples with fewer than four groups or equal scores are left out."""
    prompts = totals.shape[1]
    if prompts < 2:
        return Interval(r2, math.nan, math.nan, prompts)
    rng = np.random.default_rng(derive_seed(options.seed, "filter choice"))
    found: list[float] = []
    at_once = max(1, 4_000_000 // prompts)
    for start in range(0, options.resamples, at_once):
        counts = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=min(at_once, options.resamples - start))
        sums = np.tensordot(counts.astype(np.float64), totals, axes=(1, 1))  # [rows, 3, groups]
        found.extend(_r2_of_rows(sums[:, 0], sums[:, 1], sums[:, 2]))
    values = np.asarray(found)
    values = values[np.isfinite(values)]
    if len(values) < options.resamples / 2:
        return Interval(r2, math.nan, math.nan, prompts)
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(r2, float(low), float(high), prompts)


def _r2_of_rows(n: Numbers, sum_x: Numbers, sum_y: Numbers) -> list[float]:
    """R^2 of unweighted lines through the groups of each row [rows, groups]; NaN where there are too few or scores equal."""
    has = n > 0
    safe = np.where(has, n, 1.0)
    x, y, w = sum_x / safe, sum_y / safe, has.astype(np.float64)
    count = w.sum(1)
    centre_x, centre_y = (w * x).sum(1) / count, (w * y).sum(1) / count
    dx, dy = w * (x - centre_x[:, None]), w * (y - centre_y[:, None])
    yy = (dy**2).sum(1)
    varies = (count >= FEWEST_GROUPS) & (yy > ROUNDING * count * (w * y**2).max(1))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (dx * dy).sum(1) ** 2 / ((dx**2).sum(1) * yy)
    return np.where(varies, values, math.nan).tolist()


def _line(x: Numbers, y: Numbers, w: Numbers) -> tuple[float, float, float]:
    """Slope, intercept and R^2 = 1 - SS_res / SS_tot of the weighted least squares line; R^2 is NaN for equal y."""
    total = w.sum()
    centre_x, centre_y = (w * x).sum() / total, (w * y).sum() / total
    dx, dy = x - centre_x, y - centre_y
    xx, yy = (w * dx * dx).sum(), (w * dy * dy).sum()
    slope = (w * dx * dy).sum() / xx if xx > 0 else 0.0
    left = (w * (dy - slope * dx) ** 2).sum()
    varies = yy > ROUNDING * total * (y * y).max()
    return float(slope), float(centre_y - slope * centre_x), float(1 - left / yy) if varies else math.nan


def _group_of(x: Numbers, edges: Numbers) -> Any:
    return np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)


def _totals(group: Any, x: Numbers, y: Numbers, w: Numbers, groups: int) -> Numbers:
    """Sums of weights, rewards and scores [3, prompts, groups] of each prompt's samples in each group."""
    inside = (group[..., None] == np.arange(groups)) * w[..., None]
    return np.stack([inside.sum(1), (inside * x[..., None]).sum(1), (inside * y[..., None]).sum(1)])
