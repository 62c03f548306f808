"""The findings of a comparison in plain words: the bottom line, and what a reader must not overlook."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paperworks.core.progress import duration
from paperworks.core.statistics import Interval, verdict
from paperworks.language.comparison.findings import Findings, PointFindings
from paperworks.language.comparison.grid import START, Point, points_of
from paperworks.language.comparison.measures import Plan

FEW_SEEDS = 5  # below: intervals over trainings are rough
FEW_PROMPTS = 30
MUCH_LONGER = 1.2  # times the untrained model's length
LARGE_KL_A_TOKEN = 0.5  # nats
LARGE_KL = 25.0  # nats a response
MANY_AT_CAP = 0.1


def what_is_compared(plan: Plan) -> str:
    """The criterion in words."""
    return f"mean reward `{plan.rewards[0]}`" if plan.rewards else "accuracy on held-out pairs (own implicit reward)"


def bottom_line(findings: Findings, plan: Plan) -> list[str]:
    """A few sentences: which is best, from which others it can be told apart, what it costs."""
    best = findings.best
    if best is None:
        return ["No training of any objective finished, so nothing can be said about them."]
    lines = [_best_line(findings, plan, best)]
    others = [point for point in findings.chosen if point is not best]
    worse = [p for p in others if verdict(findings.pairs[best.name][p.name].criterion) == "holds"]
    open_ = [p for p in others if p not in worse]
    if worse:
        lines.append(f"Shown to be below it: {_listed(findings, best, worse)}.")
    if open_:
        lines.append(
            f"Not told apart from it: {_listed(findings, best, open_)}. Between these, other columns may decide."
        )
    lines.append(_cost_line(findings, best))
    return lines


def warnings(findings: Findings, plan: Plan) -> list[str]:
    """What limits or contradicts the bottom line, the gravest first."""
    lines = [*_failed(findings), *_evidence(findings, plan)]
    lines += [*_length(findings), *_distance(findings), *_at_the_edge(findings, plan)]
    lines += _cut(findings, plan)
    lines += [f"{arm}: {line}" for arm, found in findings.training_warnings.items() for line in found]
    return [*lines, *(f"Data: {line}." for line in plan.rows["warnings"])]


def setting_of(point: PointFindings) -> str:
    """`rdpo (beta=0.1)`, `dpo (default options)`."""
    options = Point(point.objective, point.options, ()).assignments()
    return f"{point.objective} ({'default options' if options == 'defaults' else options})"


def _best_line(findings: Findings, plan: Plan, best: PointFindings) -> str:
    level = best.metrics[findings.criterion]
    what = f"{what_is_compared(plan)} {level}"
    gain = best.than_start
    start = findings.start.get(findings.criterion)
    against = f", the untrained model's is {start.mean:.3f}" if start is not None and math.isfinite(start.mean) else ""
    change = f"{'a gain' if gain.mean >= 0 else 'a change'} of {_signed(gain)}"
    if verdict(gain) == "holds":
        line = f"Best: {setting_of(best)}, {what}{against}; {change}."
    elif math.isnan(gain.mean):
        line = f"Highest: {setting_of(best)}, {what}; the untrained model has no result to compare with."
    else:
        return (
            f"No objective is shown to be better than the untrained model on these prompts. Highest is "
            f"{setting_of(best)}, {what}{against}; {change}, an interval that does not exclude 0."
        )
    against_start = findings.pairs[best.name].get(START)
    if against_start is not None and against_start.win_rate is not None:
        line += f" It wins {_percent(against_start.win_rate)} of comparisons with the untrained model's answers."
    return line


def _listed(findings: Findings, best: PointFindings, points: Sequence[PointFindings]) -> str:
    return "; ".join(
        f"{setting_of(p)} by {_signed(findings.pairs[best.name][p.name].criterion, plus=False)}" for p in points
    )


def _cost_line(findings: Findings, best: PointFindings) -> str:
    kl, tokens = best.metrics["kl"], best.metrics["tokens"]
    start = findings.start.get("tokens")
    than = f" (untrained {start.mean:.1f})" if start is not None else ""
    return (
        f"Its cost: KL {kl.mean:.2f} nats a response from the untrained model, answers of {tokens.mean:.1f} tokens{than}, "
        f"{duration(best.seconds)} of training a seed here."
    )


def _failed(findings: Findings) -> list[str]:
    lines = []
    for each in findings.objectives:
        if each.chosen is None:
            has_diverged = any(point.diverged for point in each.points)
            lines.append(f"{each.name}: every training {'diverged' if has_diverged else 'failed or is not finished'}.")
    if findings.diverged:
        first = next(iter(findings.diverged))
        lines.append(
            f"{len(findings.diverged)} trainings diverged ({', '.join(list(findings.diverged)[:6])}): "
            f"{findings.diverged[first]}"
        )
    if findings.missing:
        lines.append(
            f"{len(findings.missing)} trainings have no result, failed or not finished "
            f"({', '.join(findings.missing[:6])}{', …' if len(findings.missing) > 6 else ''}); arms are paired on the seeds "
            "that both have."
        )
    return lines


def _evidence(findings: Findings, plan: Plan) -> list[str]:
    lines = []
    if plan.seeds == 1:
        lines.append(
            "One seed: the intervals cover the choice of prompts alone, not the chance in training. Use --seeds 5."
        )
    elif plan.seeds < FEW_SEEDS:
        lines.append(
            f"{plan.seeds} seeds: intervals over so few trainings are rough and tend to be too narrow. Use --seeds 5 or more "
            "before a decision that is hard to undo; finished trainings are kept."
        )
    if findings.prompts < FEW_PROMPTS:
        lines.append(
            f"Everything is measured on {findings.prompts} prompts: differences on other prompts may be others. More with "
            "--held-out or --eval-prompts."
        )
    counts = {name: len(points_of(plan.all_points, name)) for name in plan.objectives}
    if len(set(counts.values())) > 1:
        lines.append(f"Unequal tuning: settings tried are {', '.join(f'{n} {c}' for n, c in counts.items())}.")
    return lines


def _length(findings: Findings) -> list[str]:
    grown, explained = [], []
    for point in findings.chosen:
        against = findings.pairs[point.name].get(START)
        if against is None:
            continue
        ratio = point.metrics["tokens"].mean / findings.start["tokens"].mean
        if verdict(against.tokens) == "holds" and ratio > MUCH_LONGER:
            grown.append(f"{point.objective} {ratio:.2f} times")
        controlled = against.length_controlled
        if controlled is not None and verdict(against.criterion) == "holds" and verdict(controlled) != "holds":
            explained.append(f"{point.objective} ({_signed(controlled)})")
    lines = [f"Answers became longer than the untrained model's: {', '.join(grown)}."] if grown else []
    if explained:
        lines.append(
            f"At equal length the gain in reward is not shown: {', '.join(explained)}. Length alone may explain it."
        )
    return lines


def _distance(findings: Findings) -> list[str]:
    far = []
    for point in findings.chosen:
        kl, tokens = point.metrics["kl"].mean, point.metrics["tokens"].mean
        if kl > LARGE_KL or kl > LARGE_KL_A_TOKEN * tokens:
            far.append(f"{point.objective} {kl:.1f} nats a response, {kl / tokens:.2f} a token")
    if not far:
        return []
    return [f"KL is large: {'; '.join(far)}. Read the answers below for lost fluency or a reward that is being gamed."]


def _at_the_edge(findings: Findings, plan: Plan) -> list[str]:
    """Chosen values at the end of their sweep."""
    found = []
    for point in findings.chosen:
        points = points_of(plan.all_points, point.objective)
        for name in points[0].swept:
            values = sorted({p.options[name] for p in points if isinstance(p.options[name], (int, float))})
            if len(values) > 1 and point.options[name] in (values[0], values[-1]):
                end = "smallest" if point.options[name] == values[0] else "largest"
                found.append(f"{point.objective} {name}={point.options[name]:g} ({end})")
    if not found:
        return []
    return [f"At the edge of what was tried: {', '.join(found)}. Better values may lie beyond; widen --sweep."]


def _cut(findings: Findings, plan: Plan) -> list[str]:
    cut = {p.objective: p.metrics["at_cap"].mean for p in findings.chosen}
    if "at_cap" in findings.start:
        cut["the untrained model"] = findings.start["at_cap"].mean
    many = ", ".join(f"{share:.0%} of {name}" for name, share in cut.items() if share > MANY_AT_CAP)
    if not many:
        return []
    limit = plan.job["measure"]["max_new_tokens"]
    return [
        f"Answers cut at {limit} tokens: {many}. Rewards and lengths are those of the cut answers; raise --max-new-tokens."
    ]


def _signed(interval: Interval, *, plus: bool = True) -> str:
    return interval.format("+.3f" if plus else ".3f")


def _percent(interval: Interval) -> str:
    if math.isnan(interval.low):
        return f"{interval.mean:.0%}"
    return f"{interval.mean:.0%} [{interval.low:.0%}, {interval.high:.0%}]"
