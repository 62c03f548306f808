"""`--dry-run`: a command's checks without its work. It shows what would be run; nothing is computed, written or recorded.

What is checked, and how, is said by the jobs themselves (`check_job`): here is only the option, and what is shown at its end.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paperworks.core.files import json_value
from paperworks.core.options import plain, to_yaml
from paperworks.core.runs import check_folder

GOOD = "nothing was run; the options are good"


def add_dry_run(group: Any) -> None:
    """--dry-run, to a parser or a group of one."""
    group.add_argument(
        "--dry-run", action="store_true", help="check the options and show the run.yaml; nothing is computed or written"
    )


def show_dry_run(config: Mapping[str, Any], args: argparse.Namespace) -> int:
    """Says that all is well, and prints the configuration: run.yaml's text, or with --json an object. The exit code."""
    if args.json:
        print(json.dumps({"ok": True, "config": json_value(plain(config))}, indent=2, ensure_ascii=False))
    else:
        print(f"{GOOD}\n{to_yaml(config)}", end="")
    return 0


def check_out(args: argparse.Namespace, out: str | None) -> None:
    """Raises RunError where --out is a folder that the run would not be written into."""
    if out is not None:
        check_folder(Path(out), resume=args.resume, overwrite=args.overwrite)
