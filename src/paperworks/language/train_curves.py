"""Which measures of a training run belong in one figure, and those figures over optimiser steps.

A measure without a place here gets a figure of its own, so that the measures of a user's own objective are shown too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paperworks.core import plots
from paperworks.language.unlearning.measured_sets import LABELS, MEASURES, SET_NAMES

Lines = Sequence[Mapping[str, Any]]  # lines of metrics.jsonl or entries of the history, each with its step

_NOT_DRAWN = ("step", "learning_rate", "rows_per_second")
_MOST_TICKS = 8
# By measure of a figure: the colour in training, and the stronger one at evaluations, or where there is only one line.
_HUES = (("#56B4E9", "#0072B2"), ("#E69F00", "#D55E00"), ("#44AA99", "#009E73"), ("#CC79A7", "#AA4499"))


@dataclass(frozen=True)
class Group:
    """Measures that share an axis."""

    file: str  # of the figure, without .svg
    title: str
    lines: Mapping[str, str]  # measure -> its name in the legend
    caption: str = ""
    at_least: int = 1  # measures there must be for the figure to say anything


GENERAL = (
    Group("loss", "Loss", {"loss": "loss"}),
    Group(
        "terms",
        "Terms of the loss",
        {name: name for name in ("alignment", "degree", "forget", "retain", "kl", "preference", "imitation")},
        "Each with its weight; their sum is the loss.",
        at_least=2,
    ),
    Group("accuracy", "Preference accuracy", {"accuracy": "accuracy", "debiased_accuracy": "debiased accuracy"}),
    Group("margin", "Mean margin", {"margin": "margin"}, "Mean margin, on the objective's own scale."),
    Group(
        "logps",
        "Log-probability of responses (nats)",
        {"logp_chosen": "chosen", "logp_rejected": "rejected", "logp": "response"},
    ),
    Group(
        "reward",
        "Mean reward",
        {"reward_chosen": "chosen", "reward_rejected": "rejected", "reward": "responses"},
        "Mean reward of the responses trained on.",
    ),
    Group("advantage", "Mean advantage", {"advantage": "rows drawn"}, "Mean advantage over the reference's value."),
    Group(
        "ratio",
        "Importance ratio",
        {"ratio": "ratio", "clipped": "share clipped"},
        "The factor on the loss after clipping, and the share of ratios at or beyond the clip's ends.",
    ),
    Group("grad_norm", "Gradient norm", {"grad_norm": "norm"}, "Gradient norm, before clipping."),
)

FORGETTING = (
    Group(
        "nll",
        "Loss of answers (nats a token)",
        {
            "forget_nll_per_token": "to forget",
            "alternative_nll_per_token": "in their place",
            "retain_nll_per_token": "to keep",
        },
        "The training rows of each step. Answers to keep should stay where they were; answers to forget that rise beyond a "
        "uniform guess, the log of the vocabulary's size, are a sign of collapse.",
    ),
    Group(
        "kl",
        "KL from the reference (nats a token)",
        {"kl_per_token": "KL"},
        "Over the whole vocabulary, at the tokens of answers.",
    ),
    Group(
        "adaptive-weight",
        "Mean adaptive weight W",
        {"adaptive_weight": "W"},
        "How hard answers are still pushed away: 1 as gradient ascent does, 0 no longer.",
    ),
)

MEASURED = (
    Group("utility", "Model utility", {"utility": "utility"}),
    Group(
        "forget-quality",
        "Forget quality (log10 p)",
        {"log10_forget_quality": "forget quality"},
        "Above -1.3 (p = 0.05) the model cannot be told from one that never saw the forget set.",
    ),
    Group("forget-loss", "Forget set: loss (nats a token)", {"forget_nll": "loss"}),
    *(
        Group(
            f"{name.replace('_', '-')}-measures",
            LABELS[name].capitalize(),
            {f"{name}_{measure}": LABELS[measure] for measure in MEASURES},
        )
        for name in SET_NAMES
    ),
)

OWN_ANSWERS = (
    Group("validation-reward", "Reward of own answers", {"validation_reward": "reward"}),
    Group("validation-length", "Tokens of own answers", {"tokens": "tokens"}),
)

DEGREES = (
    Group("degree-accuracy", "Share of degrees told right", {"degree_accuracy": "accuracy"}),
    Group(
        "degree-correlation",
        "Kendall's tau",
        {"degree_correlation": "tau"},
        "Between the objective's own reward and how little was removed: 1 where the reward falls from each degree to the "
        "next, 0 where it does not follow them.",
    ),
)


def figure(group: Group, steps: Lines, history: Lines) -> str | None:
    """The group's measures in training (`steps`) and at evaluations, as SVG; None where too few were measured.

    A measure that both have is drawn twice, the second line marked as held out.
    """
    series: dict[str, plots.Curve] = {}
    palette: dict[str, str] = {}
    measured = 0
    for name, label in group.lines.items():
        in_training, at_evaluations = _curve(steps, name), _curve(history, name)
        light, strong = _HUES[measured % len(_HUES)]
        if in_training is not None:
            series[label], palette[label] = in_training, strong if at_evaluations is None else light
        if at_evaluations is not None:
            held_out = label if in_training is None else f"{label} (held out)"
            series[held_out], palette[held_out] = at_evaluations, strong
        measured += in_training is not None or at_evaluations is not None
    if measured < group.at_least:
        return None
    ticks = step_ticks(max(max(curve.x) for curve in series.values()))
    return plots.lines(series, "step", group.title, x_ticks=ticks, colours_by_name=palette)


def others(steps: Lines, history: Lines, besides: Sequence[Group] = ()) -> Iterator[Group]:
    """A group for each measure that neither a group above nor one of `besides` has."""
    placed = {name for group in (*GENERAL, *FORGETTING, *MEASURED, *DEGREES, *besides) for name in group.lines}
    placed |= {*_NOT_DRAWN, "forget_quality", "tokens", "unfinished"}
    for name in dict.fromkeys(name for line in (*steps, *history) for name in line):
        if name not in placed:
            yield Group(
                "measure-" + re.sub(r"[^\w-]+", "-", name), name.replace("_", " "), {name: name.replace("_", " ")}
            )


def step_ticks(last: float) -> list[int]:
    """Round whole numbers from 0 to the last step, a handful."""
    distance = next(each for each in _round_numbers() if last / each <= _MOST_TICKS)
    return list(range(0, int(last) + 1, distance))


def _round_numbers() -> Iterator[int]:
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10


def _curve(lines: Lines, name: str) -> plots.Curve | None:
    points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    return plots.Curve([step for step, _ in points], [value for _, value in points]) if points else None
