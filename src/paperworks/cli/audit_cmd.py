"""`paperworks audit dataset LOG`: what a log of transitions is good for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from paperworks.core.errors import OptionError, did_you_mean
from paperworks.core.options import Parser, add_dataclass_arguments, given_options

HELP = "Measure a log of transitions: quality, coverage, returns, and which methods suit it."
KINDS = ("dataset",)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command's arguments."""
    from paperworks.control.audit import AuditOptions

    kind = argv[0] if argv and not argv[0].startswith("-") else None
    if kind is None and not any(word in ("-h", "--help") for word in argv):
        raise OptionError(f"audit: name what to audit: paperworks audit {KINDS[0]} LOG")
    if kind is not None and kind not in KINDS:
        raise OptionError(f"unknown kind of audit {kind!r}{did_you_mean(kind, KINDS)}")
    parser = Parser(prog="paperworks audit dataset", description=HELP)
    parser.add_argument("kind", help=argparse.SUPPRESS)
    parser.add_argument(
        "data", metavar="LOG", help="an .npz, .hdf5 or .parquet file, or a Minari data set by id or folder"
    )
    add_dataclass_arguments(parser, AuditOptions, group="what it is measured against")
    run = parser.add_argument_group("run")
    run.add_argument("--out", metavar="FILE", help="write a page (.html) with the measures and figures")
    run.add_argument("--json", action="store_true", help="a JSON object for programs")
    return parser.parse_args(list(argv))


def run(args: argparse.Namespace) -> int:
    import json

    from paperworks.control.audit import AuditOptions, advice_line, audit_dataset, commands, figures, write_page
    from paperworks.core.files import json_value

    if args.out is not None and Path(args.out).suffix != ".html":
        raise OptionError(f"--out {args.out}: expected a file that ends in .html")
    found = audit_dataset(args.data, AuditOptions(**given_options(AuditOptions, args)))
    if args.out is not None:
        write_page(found, Path(args.out))
    if args.json:
        print(json.dumps(json_value(found.as_dict()), indent=2))
        return 0
    width = max(len(name) for name, _ in figures(found))
    for name, value in figures(found):
        print(f"{name:{width}}  {value}")
    print(f"\n{advice_line(found)}")
    for command in commands(found)[:1]:
        print(f"next  {command}")
    if args.out is not None:
        print(f"page  {args.out}")
    return 0
