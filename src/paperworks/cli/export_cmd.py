"""`paperworks export policy --model DIR --out FILE.onnx`: a control policy for programs that have no Python."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from paperworks.core.errors import OptionError, did_you_mean
from paperworks.core.options import Parser

HELP = "Write a control policy as an ONNX graph: raw observations in, actions of the environment out."
KINDS = ("policy",)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command's arguments."""
    parser = Parser(prog="paperworks export", description=HELP)
    parser.add_argument("what", nargs="?", metavar="KIND", help="what to export: policy")
    parser.add_argument("--model", metavar="DIR", help="a policy's folder, or the run's that trained it")
    parser.add_argument("--out", metavar="FILE", help="the file to write, .onnx (default: policy.onnx)")
    return parser.parse_args(list(argv))


def run(args: argparse.Namespace) -> int:
    if args.what not in KINDS:
        named = (
            "name what to export"
            if args.what is None
            else f"export {args.what}: unknown{did_you_mean(args.what, KINDS)}"
        )
        raise OptionError(f"{named}: paperworks export policy --model DIR --out FILE.onnx")
    if args.model is None:
        raise OptionError("give the policy to export: --model DIR")
    from paperworks.control.onnx_export import export_onnx
    from paperworks.control.policy import ControlPolicy

    path = export_onnx(ControlPolicy.load(args.model), args.out or "policy.onnx")
    print(
        f"policy  {path}\ninput   observations [rows, state], float32, as the environment shows them\noutput  actions [rows, …]"
    )
    return 0
