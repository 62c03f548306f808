"""`paperworks audit dataset`: measures of a log, what they suggest, and a page to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paperworks.control import measures
from paperworks.control.datasets import read_transitions
from paperworks.control.measures import Advice, Grid
from paperworks.control.transitions import Transitions
from paperworks.core import plots
from paperworks.core.errors import DataError, OptionError
from paperworks.core.options import check_ranges, option
from paperworks.core.report import Page

LIMITS = (
    "The rule is of a study of nine methods on six small tasks with discrete actions (arXiv 2111.04714): behaviour cloning "
    "went with quality, DQN-like methods with coverage, BCQ, CQL and CRR with either. It is no guarantee elsewhere, and the "
    "thresholds (0.8, 0.4) are ours."
)

COMMANDS = {
    "BC": ("bc", "discrete-bc"), "BCQ": ("bcq", "discrete-bcq"), "CQL": ("cql", "discrete-cql"), "CRR": ("", "crr"),
    "DQN": ("", "dqn"), "QR-DQN": ("", "qr-dqn"), "REM": ("", "rem"),
}  # fmt: skip
"""What `paperworks train` calls the study's methods: for continuous actions, for discrete ones."""


@dataclass(frozen=True)
class AuditOptions:
    """What a log is measured against."""

    reference: str | None = option(
        None, "a log of the same task that coverage is compared with, as the replay of a run"
    )
    random_return: float | None = option(None, "mean return of a random policy: quality 0")
    best_return: float | None = option(None, "mean return of a good policy: quality 1")
    env: str | None = option(None, "a gymnasium environment, whose random policy is rolled out for --random-return")
    random_episodes: int = option(50, "episodes of that random policy", low=1)
    limit: int | None = option(None, "only the first N transitions of the log", low=1)
    bins: int = option(100, "bins of every number when distinct pairs are counted", low=2)
    gamma: float = option(0.99, "discount of the returns that advantages are measured by", low=0, high=1)
    seed: int = option(0, "of subsamples, and of the random policy")

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Audit:
    """The measures of a log; None where a reference is missing."""

    source: str
    is_discrete: bool
    transitions: int
    episodes: int
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    sparsity: float  # share of rewards that are zero
    sparsities: tuple[float, ...]  # the same of each episode
    distinct: int
    duplicates: float  # share of transitions whose pair was there before
    entropy: float
    quality: float | None
    covered: float | None
    log_covered: float | None
    advantage_share: float
    curve: tuple[tuple[int, float], ...]
    random_return: float | None
    best_return: float | None
    advice: Advice

    def as_dict(self) -> dict[str, Any]:
        """Everything but the episodes' single numbers, as JSON values; quantiles are 0, 25, 50, 75 and 100%."""
        single = ("returns", "lengths", "sparsities", "advice")
        found = {name: value for name, value in vars(self).items() if name not in single}
        quantiles = {
            name: [float(value) for value in np.quantile(values, (0, 0.25, 0.5, 0.75, 1))]
            for name, values in (
                ("return_quantiles", self.returns),
                ("length_quantiles", self.lengths),
                ("sparsity_quantiles", self.sparsities),
            )
        }
        advice = {
            "methods": list(self.advice.methods), "commands": commands(self), "reason": self.advice.reason,
            "limits": LIMITS,
        }  # fmt: skip
        return {**found, "curve": [list(point) for point in self.curve], **quantiles, "advice": advice}


def audit_dataset(data: str, options: AuditOptions = AuditOptions()) -> Audit:
    """Measure a log. Raises DataError, and OptionError for references that do not go together."""
    log = read_transitions(data, limit=options.limit)
    reference = None if options.reference is None else read_transitions(options.reference)
    _check(log, reference, options)
    grid = Grid.of(log if reference is None else reference, options.bins)
    keys = grid.keys(log)
    returns, random_return = log.returns(), options.random_return
    if options.env is not None and random_return is None:
        random_return = _random_return(options)
    if options.best_return is not None and random_return is None:
        raise OptionError("--best-return goes with --random-return, or --env ID to measure it")
    quality = covered = log_covered = None
    if options.best_return is not None and random_return is not None:
        quality = measures.trajectory_quality(float(returns.mean()), random_return, options.best_return)
    if reference is not None:
        known = grid.keys(reference)
        covered = measures.coverage(keys, known, seed=options.seed)
        log_covered = measures.log_coverage(keys, known, seed=options.seed)
    distinct = measures.unique(keys)
    return Audit(
        source=data,
        is_discrete=log.is_discrete,
        transitions=len(log),
        episodes=len(returns),
        returns=tuple(map(float, returns)),
        lengths=tuple(map(int, measures.run_lengths(log))),
        sparsity=float((log.rewards == 0).mean()),
        sparsities=tuple(float((log.rewards[episode] == 0).mean()) for episode in log.episodes()),
        distinct=distinct,
        duplicates=1 - distinct / len(log),
        entropy=measures.entropy(keys),
        quality=quality,
        covered=covered,
        log_covered=log_covered,
        advantage_share=measures.advantage_share(log, gamma=options.gamma),
        curve=tuple(measures.coverage_curve(keys, seed=options.seed)),
        random_return=random_return,
        best_return=options.best_return,
        advice=measures.advise(quality, covered),
    )


def write_page(found: Audit, path: Path) -> Path:
    """The audit as a page."""
    page = Page("Audit of a log", found.source)
    page.callout("What suits it", [advice_line(found), LIMITS])
    page.facts(dict(figures(found)))
    histogram = plots.histogram({"episodes": list(found.returns)}, "return", bins=30)
    page.section("Returns").figure(histogram, "returns of the log's episodes")
    sizes, counts = ([float(value) for value in column] for column in zip(*found.curve, strict=True))
    curve = plots.lines(
        {"distinct pairs": plots.Curve(sizes, counts), "all distinct": plots.Curve(sizes, sizes)},
        "transitions", "distinct (state, action) pairs", log_x=True, log_y=True,
    )  # fmt: skip
    page.section("Coverage", "Of random parts of the log. A curve that still climbs would gain from more data.")
    page.figure(curve, "distinct pairs against transitions")
    return page.save(path)


def figures(found: Audit) -> list[tuple[str, str]]:
    """Names and numbers, for the terminal and the page."""
    shown = [
        ("transitions", f"{found.transitions}"),
        ("episodes", f"{found.episodes}"),
        ("return", _spread(found.returns, ".4g")),
        ("length", _spread(found.lengths, ".4g")),
        ("rewards that are zero", _spread(found.sparsities, ".1%")),
        ("distinct pairs", f"{found.distinct} ({found.duplicates:.1%} of transitions repeat one)"),
        ("entropy of pairs", f"{found.entropy:.3f} nats"),
        ("better than usual nearby", f"{found.advantage_share:.1%} of transitions"),
    ]
    if found.quality is not None:
        shown.append(("TQ, trajectory quality", f"{found.quality:.3f}"))
    if found.covered is not None:
        of_logs = "" if found.log_covered is None else f" (logarithms: {found.log_covered:.3f})"
        shown.append(("SACo, coverage", f"{found.covered:.3f}{of_logs}"))
    return shown


def commands(found: Audit) -> list[str]:
    """What trains the methods that the advice names, where there is one for such actions."""
    names = [COMMANDS[method][found.is_discrete] for method in found.advice.methods]
    return [f"paperworks train {name} --data {found.source}" for name in names if name]


def advice_line(found: Audit) -> str:
    """The advice in a sentence."""
    named = f"{', '.join(found.advice.methods)}: " if found.advice.methods else ""
    return f"{named}{found.advice.reason}."


def _spread(values: Sequence[float], spec: str) -> str:
    """Mean and quantiles over episodes."""
    low, lower, middle, upper, high = (format(each, spec) for each in np.quantile(values, (0, 0.25, 0.5, 0.75, 1)))
    return f"{np.mean(values):{spec}} (median {middle}, half in {lower} to {upper}, all in {low} to {high})"


def _check(log: Transitions, reference: Transitions | None, options: AuditOptions) -> None:
    """Raises DataError for a log without an end of an episode, a reference that does not go with it, or wrong actions."""
    if not (log.terminations | log.truncations).any():
        raise DataError(
            "no episode ends in it (terminations and truncations are false throughout): returns cannot be told",
            file=log.source or None,
        )
    if reference is not None and _widths(reference) != _widths(log):
        raise DataError(
            f"states and actions of {_widths(reference)} numbers; {log.source} has {_widths(log)}",
            file=options.reference,
        )
    if reference is not None and len(reference) < len(log):
        raise DataError(
            f"{len(reference)} transitions, fewer than the {len(log)} of {log.source}: give a longer reference, or "
            f"--limit {len(reference)}",
            file=options.reference,
        )
    if options.env is not None:
        _check_actions(log, options.env)


def _check_actions(log: Transitions, environment: str) -> None:
    from paperworks.control.environments import spaces_of
    from paperworks.control.policy import DiscreteActions

    bounds = spaces_of(environment).bounds
    if isinstance(bounds, DiscreteActions) != log.is_discrete:
        kinds = ("continuous", "discrete") if log.is_discrete else ("discrete", "continuous")
        raise DataError(
            f"actions are {kinds[1]}; {environment} takes {kinds[0]} ones", file=log.source or None, field="actions"
        )
    bounds.check(log.actions, log.source)


def _widths(log: Transitions) -> tuple[int, int]:
    return log.observations.shape[1], 1 if log.is_discrete else log.actions.shape[1]


def _random_return(options: AuditOptions) -> float:
    from paperworks.control.environments import random_returns

    assert options.env is not None
    return float(random_returns(options.env, options.random_episodes, seed=options.seed).mean())
