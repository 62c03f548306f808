"""Figures of unlearning trials from what `Trial.as_dict` keeps: the plane, the collapse curve, the statistic s at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from paperworks.core import plots
from paperworks.language.testbeds.unlearning_trial import CURVES
from paperworks.language.unlearning import figures
from paperworks.language.unlearning.figures import PlanePoint


def draw(trials: Mapping[str, Sequence[Mapping[str, Any]]], *, histograms: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(SVG, caption) of every figure.

    Parameters:
      trials: by the arm's label, its seeds' trials, the same seeds in every arm; no arm without any.
      histograms: the arms whose statistic s is shown, of the first seed, beside the retain-only model's.
    """
    if not trials:
        return []
    means = {name: _means(of_arm) for name, of_arm in trials.items()}
    colours = plots.colours([*means, figures.START, figures.RETAIN_ONLY])
    drawn = [
        (
            _plane(means, [trial for of_arm in trials.values() for trial in of_arm], colours),
            "forget quality over utility, epoch by epoch, mean over seeds, each arm at its own rate",
        )
    ]
    losses = {name: list(zip(mean["step"], mean["forget_nll"], strict=True)) for name, mean in means.items()}
    for log_x, how in ((False, ""), (True, " on a logarithmic axis")):
        svg = figures.collapse_curve(losses, log_x=log_x, colours_by_name=colours)
        drawn.append(
            (svg, f"loss on what is to be forgotten against steps{how}, mean over seeds, each at its own rate")
        )
    log_s = {name: trials[name][0]["end_log_s"] for name in histograms if name in trials}
    if log_s:
        log_s = {figures.RETAIN_ONLY: next(iter(trials.values()))[0]["retain_only_log_s"], **log_s}
        svg = plots.histogram(
            {name: [value / math.log(10) for value in values] for name, values in log_s.items()},
            "log10 s: true against wrong answers",
            bins=20,
            colours_by_name=colours,
        )
        drawn.append((svg, "the statistic s of the questions to forget after the last epoch, first seed"))
    return drawn


def _means(trials: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Each curve's mean over trials."""
    return {
        name: [sum(at) / len(trials) for at in zip(*(trial[f"{name}_curve"] for trial in trials), strict=True)]
        for name in CURVES
    }


def _plane(
    means: Mapping[str, Mapping[str, Sequence[float]]],
    trials: Sequence[Mapping[str, Any]],
    colours: Mapping[str, str],
) -> str:
    ways = {
        name: [PlanePoint(*point) for point in zip(mean["utility"], mean["log10_forget_quality"], strict=True)]
        for name, mean in means.items()
    }
    utility = sum(trial["retain_only_utility"] for trial in trials) / len(trials)
    start = next(iter(ways.values()))[0]
    return figures.plane(ways, start=start, retain_only=PlanePoint(utility, 0.0), colours_by_name=colours)
