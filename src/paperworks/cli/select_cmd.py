"""`paperworks select WHAT`: choose, grade and look at training data before training.

`ladder` builds graded versions of responses and shows them, `filter` (in `select_filter`) says which of a prompt's samples
to train on, `pairs` (in `select_pairs`) makes preference pairs of scored candidates. Nothing trains. Another way to select
is a function of `ACTIONS`: it gets a parser to fill and returns what runs with the arguments.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paperworks.cli.train_cmd import add_data_arguments, data_values
from paperworks.core.errors import OptionError
from paperworks.core.options import Parser, add_dataclass_arguments, from_namespace

HELP = "Choose, grade and look at training data before training."

SOURCES = {"chosen": ("chosen",), "both": ("chosen", "rejected"), "response": ("response",)}
WORTH_PROCESSES = 50_000  # responses; fewer are done before new processes have started


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command's arguments; the action named decides which options there are."""
    parser = Parser(prog="paperworks select", description=HELP)
    actions = parser.add_subparsers(dest="action", metavar="WHAT", title="what to select")
    # An action's options come from modules that a list of actions does not need.
    named = argv[0] if argv else None
    for name, (help_line, add) in ACTIONS.items():
        action = actions.add_parser(name, help=help_line, description=f"{help_line[0].upper()}{help_line[1:]}.")
        if name == named:
            add(action)
    args = parser.parse_args(argv)
    if args.action is None:
        raise OptionError(f"select: name what to select: paperworks select WHAT (known: {', '.join(ACTIONS)})")
    return args


def run(args: argparse.Namespace) -> int:
    return int(args.run(args))


def _add_ladder(parser: argparse.ArgumentParser) -> None:
    from paperworks.language.degrees import LadderOptions

    add_data_arguments(parser, held_out=False)
    parser.add_argument(
        "--source", choices=tuple(SOURCES), default="chosen",
        help="responses to grade: chosen or both of a preference, or the response of a demonstration (default chosen)",
    )  # fmt: skip
    add_dataclass_arguments(parser, LadderOptions, group="ladders")
    out = parser.add_argument_group("output")
    out.add_argument("--out", metavar="FILE", help="write every version: prompt, role, degree, text, removed phrases")
    out.add_argument("--overwrite", action="store_true", help="replace --out where it exists")
    out.add_argument("--show", type=int, default=3, metavar="N", help="print N ladders (default 3)")
    out.add_argument("--json", action="store_true", help="the statistics as a JSON object for programs, nothing else")
    parser.set_defaults(run=_ladder)


def _ladder(args: argparse.Namespace) -> int:
    import os

    from paperworks.language.data import read
    from paperworks.language.degrees import LadderOptions, build_ladders
    from paperworks.language.degrees.ladder_file import write_ladders

    options = from_namespace(LadderOptions, args)
    if args.show < 0:
        raise OptionError(f"--show: expected a whole number of at least 0, got {args.show}")
    if args.out and Path(args.out).exists() and not args.overwrite:
        raise OptionError(f"--out {args.out}: exists; give another file or --overwrite")
    source = data_values(args, {})
    roles = SOURCES[args.source]
    rows: Any = read(source.pop("path"), "demonstration" if args.source == "response" else "preference", **source)
    of = [(row, role) for row in rows for role in roles]
    texts = [_plain(row, role) for row, role in of]
    workers = (os.cpu_count() or 1) if len(texts) >= WORTH_PROCESSES else 1
    made = build_ladders(texts, options, workers=workers)
    made.require_enough(options)
    found = [(row.prompt, role, ladder) for (row, role), ladder in zip(of, made.ladders, strict=True) if ladder]
    if args.out:
        write_ladders(args.out, found)
    if args.json:
        print(json.dumps({**made.statistics.as_dict(), "out": args.out}, indent=2))
        return 0
    print("\n".join([*rows.report.lines(), "", *made.statistics.lines()]))
    for prompt, role, ladder in found[: args.show]:
        print(f"\n{_described(prompt, role, ladder)}")
    if args.out:
        print(f"\nladders {args.out}")
    return 0


def _plain(row: Any, role: str) -> str:
    from paperworks.core.errors import DataError

    text = getattr(row, role)
    if isinstance(text, str):
        return text
    raise DataError(
        "ladders take responses of plain text; found messages of several turns",
        file=row.where.file or None,
        line=row.where.line or None,
        field=role,
    )


def _described(prompt: Any, role: str, ladder: Any) -> str:
    """A ladder for reading: the prompt's end, then a version a line with what it lacks more than the one before."""
    from paperworks.cli.layout import paint, paragraph, width
    from paperworks.language.data import plain_text

    one_line = " ".join(plain_text(prompt).split())
    room = max(width() - len(role) - 8, 20)
    end = one_line if len(one_line) <= room else f"…{one_line[1 - room :]}"
    lines = [paint(f"{role} of “{end}”", "bold")]
    gone = 0
    for version, removed in zip(ladder.versions, ladder.removed, strict=True):
        lines.append(paragraph(f"{version.degree}  {' '.join(version.text.split())}", hanging=3))
        if len(removed) > gone:
            lines.append(paint(paragraph(f"without {', '.join(removed[gone:])}", indent=5), "dim"))
        gone = len(removed)
    return "\n".join(lines)


def _add_filter(parser: argparse.ArgumentParser) -> None:
    from paperworks.cli.select_filter import add_arguments

    add_arguments(parser)


def _add_pairs(parser: argparse.ArgumentParser) -> None:
    from paperworks.cli.select_pairs import add_arguments

    add_arguments(parser)


Action = tuple[str, Callable[[argparse.ArgumentParser], None]]
ACTIONS: Mapping[str, Action] = {
    "ladder": ("build graded versions of responses by removing key phrases, and show them", _add_ladder),
    "filter": ("choose which samples of a prompt to train on, from rewards beside actual scores", _add_filter),
    "pairs": ("make preference pairs of scored candidates by statistical rejection sampling", _add_pairs),
}
