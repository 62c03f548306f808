"""`paperworks select filter`: which samples to train on, chosen before training from rewards beside actual scores."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from paperworks.core.errors import OptionError, RewardError
from paperworks.core.options import add_dataclass_arguments, from_namespace

if TYPE_CHECKING:
    from paperworks.language.sources.filter_choice import FilterChoice
    from paperworks.language.sources.filters import Filter

USUAL = ("none", "bon", "br", "bw")
POWERS = ("pow:1", "pow:2", "pow:3")  # judged beside them where all rewards lie in [-1, 1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `select filter`."""
    from paperworks.language.sources.filter_choice import ChoiceOptions

    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        metavar="FILE",
        help="rows of prompt_id, reward, score, several a prompt (.jsonl, .csv, .parquet, …, or -)",
    )
    group.add_argument(
        "--prompt-field", default="prompt_id", metavar="NAME", help="what names a row's prompt (prompt_id)"
    )
    group.add_argument("--reward-field", default="reward", metavar="NAME", help="the learned reward (reward)")
    group.add_argument(
        "--score-field", default="score", metavar="NAME", help="the actual score, tests passed say (score)"
    )
    group.add_argument(
        "--bad-rows",
        choices=("error", "skip"),
        default="error",
        help="stop at a bad row, or skip and count (default error)",
    )
    group = parser.add_argument_group("filters")
    group.add_argument(
        "--filter", nargs="+", action="extend", metavar="F",
        help="none, bon, br, bw, top, top_random, top_bottom, pow:K, custom:W,W,… "
        "(default none bon br bw; pow:1 to pow:3 too where rewards are in [-1, 1])",
    )  # fmt: skip
    group.add_argument("--high", type=float, metavar="R", help="threshold of top, top_random and top_bottom")
    group.add_argument("--low", type=float, metavar="R", help="lower threshold of top_bottom")
    group.add_argument(
        "--keep", type=int, default=2, metavar="N", help="samples a prompt that pow and custom keep (default 2)"
    )
    add_dataclass_arguments(parser, ChoiceOptions, group="how R² is measured")
    out = parser.add_argument_group("output")
    out.add_argument("--out", metavar="FILE", help="a page with the groups of each filter as a plot (.html)")
    out.add_argument("--overwrite", action="store_true", help="replace --out where it exists")
    out.add_argument("--json", action="store_true", help="a JSON object for programs, nothing else")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, judge the filters, print."""
    from paperworks.core.progress import table
    from paperworks.language.sources.filter_choice import ChoiceOptions, choose_filter
    from paperworks.language.sources.scored_rows import read_scored_rows

    options = from_namespace(ChoiceOptions, args)
    if not args.data:
        raise OptionError("give the scored samples: --data FILE with prompt_id, reward, score, several rows a prompt")
    if args.out and Path(args.out).exists() and not args.overwrite:
        raise OptionError(f"--out {args.out}: exists; give another file or --overwrite")
    rows = read_scored_rows(
        args.data, prompt=args.prompt_field, reward=args.reward_field, score=args.score_field, bad_rows=args.bad_rows
    )
    bounded = bool(abs(rows.rewards).max() <= 1)
    choice = choose_filter(rows.rewards, rows.scores, _filters(args, rows.rewards.shape[1], bounded), options)
    if args.out:
        _page(args.data, choice, args.out)
    if args.json:
        found = {
            "prompts": choice.prompts,
            "samples": choice.samples,
            "skipped": dict(rows.skipped),
            "tied": choice.tied,
            "filters": [figures.as_dict() for figures in choice.figures],
            "order": [figures.name for figures in choice.usable],
            "recommended": choice.usable[0].name,
            "notes": choice.recommendation(),
            "out": args.out,
        }
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    print("\n".join(rows.lines(args.data)))
    columns = ("filter", "R²", "95% interval", "weighted R²", "sample R²", "kept", "mean score", "groups")
    table(_cells(choice), columns, "", right=columns[1:])
    print("\n".join(choice.recommendation()))
    if args.out:
        print(f"page {args.out}")
    return 0


def _filters(args: argparse.Namespace, samples: int, bounded: bool) -> list[Filter]:
    """The filters to judge. Raises OptionError or RewardError for one that cannot be applied to these samples."""
    from paperworks.language.sources.filters import parse_filter

    names = list(dict.fromkeys(args.filter or (*USUAL, *(POWERS if bounded else ()))))
    filters = [parse_filter(name, high=args.high, low=args.low, keep=args.keep) for name in names]
    for each in filters:
        if each.kind in ("bon", "br", "bw", "custom"):
            each.rank_weights(samples)  # refuses a single sample, or another number of weights
        if each.kind == "pow" and not bounded:
            raise RewardError(
                f"filter {each.name}: takes rewards in [-1, 1]; scale and centre the column {args.reward_field}"
            )
    return filters


def _cells(choice: FilterChoice) -> list[list[str]]:
    rows = []
    for figures in choice.figures:
        fit, interval = figures.fit, figures.interval
        bounds = "" if math.isnan(interval.low) else f"[{interval.low:.3f}, {interval.high:.3f}]"
        numbers = (
            [f"{fit.r2:.3f}", bounds, f"{fit.weighted_r2:.3f}", f"{fit.sample_r2:.3f}"] if fit else ["–", "", "–", "–"]
        )
        groups = str(len(fit.groups)) if fit else "–"
        rows.append([figures.name, *numbers, f"{figures.kept_share:.1%}", f"{figures.mean_score:.3f}", groups])
    return rows


def _page(source: str, choice: FilterChoice, path: str) -> None:
    from paperworks.core import plots
    from paperworks.core.report import Page

    page = Page("Which samples to train on", f"{source}: {choice.prompts} prompts of {choice.samples} samples")
    page.callout("Recommendation", choice.recommendation())
    columns = ("filter", "R²", "95% interval", "weighted R²", "sample R²", "kept", "mean score", "groups")
    page.table(columns, _cells(choice), right=columns[1:])
    curves = {
        figures.name: plots.Curve(
            [group.reward for group in figures.fit.groups], [group.score for group in figures.fit.groups]
        )
        for figures in choice.figures
        if figures.fit
    }
    page.figure(
        plots.lines(curves, "mean reward of a group", "mean score", markers=True),
        "groups of samples with like rewards among what each filter keeps; R² is that of a straight line through them",
    )
    page.save(path)
