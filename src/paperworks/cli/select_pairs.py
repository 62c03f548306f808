"""`paperworks select pairs`: preference pairs out of candidates that were drawn and scored already."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from paperworks.cli.train_cmd import add_data_arguments, data_values
from paperworks.core.errors import OptionError
from paperworks.core.options import add_dataclass_arguments, from_namespace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `select pairs`."""
    from paperworks.language.sources.rejection_pairs import PairOptions

    add_data_arguments(parser, held_out=False)
    parser.epilog = (
        "rows: prompt, responses (a list), scores (a number each, in nats); other names with --map responses=candidates"
    )
    add_dataclass_arguments(parser, PairOptions, group="statistical rejection sampling")
    out = parser.add_argument_group("output")
    out.add_argument(
        "--out", metavar="FILE", help="write the pairs: prompt, chosen, rejected, their rewards, probability"
    )
    out.add_argument("--overwrite", action="store_true", help="replace --out where it exists")
    out.add_argument("--json", action="store_true", help="the figures as a JSON object for programs, nothing else")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, accept, pair, write."""
    from paperworks.core.files import write_atomic
    from paperworks.language.data import read
    from paperworks.language.sources.rejection_pairs import PairOptions, candidate_pairs

    options = from_namespace(PairOptions, args)
    if args.out and Path(args.out).exists() and not args.overwrite:
        raise OptionError(f"--out {args.out}: exists; give another file or --overwrite")
    source = data_values(args, {})
    rows: Any = read(source.pop("path"), "scored-group", **source)
    made = candidate_pairs(rows.rows, options, skip_short=args.bad_rows == "skip")
    if args.out:
        write_atomic(args.out, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in made.rows))
    if args.json:
        found = {
            "prompts": len(made.acceptance.rates),
            "pairs": len(made.rows),
            "left_out": made.left_out,
            "acceptance": float(made.acceptance.rates.mean()),
            "mean_reward": made.mean_reward,
            "accepted_reward": made.accepted_reward,
            "notes": made.acceptance.notes(options.beta),
            "out": args.out,
        }
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    print("\n".join([*rows.report.lines(), "", *made.lines(options)]))
    if args.out:
        print(f"pairs {args.out}")
    return 0
