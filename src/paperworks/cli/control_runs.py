"""What the commands that train control policies share: which are meant, their configuration, the folder, what is said."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paperworks.cli.dry_run import check_out, show_dry_run
from paperworks.core.errors import OptionError
from paperworks.core.options import given_options

if TYPE_CHECKING:
    from paperworks.core.progress import Progress


def named(argv: Sequence[str], config: Mapping[str, Any], key: str) -> str | None:
    """The method that a training command names, or its configuration under `key`, as it is spelled in lists."""
    name = argv[0] if argv and not argv[0].startswith("-") else config.get(key)
    return None if name is None else str(name).lower().replace("_", "-")


def with_name(argv: Sequence[str], name: str) -> list[str]:
    """The command's words, the method's name in front where the configuration gave it."""
    return list(argv) if argv and not argv[0].startswith("-") else [name, *argv]


def job_values(
    args: argparse.Namespace, key: str, groups: Mapping[str, type], names: Sequence[str] = ()
) -> dict[str, Any]:
    """The configuration of a job: the command line's options over those of --config."""
    values, name = dict(args.config_values), getattr(args, key)
    if values.get(key) not in (None, name):
        raise OptionError(f"the configuration is of {values[key]}, the command of {name}")
    values[key] = name
    for group, options in groups.items():
        values[group] = {**(values.get(group) or {}), **given_options(options, args)}
    for plain in names:
        if getattr(args, plain, None) is not None:
            values[plain] = getattr(args, plain)
    return values


def folder_of(args: argparse.Namespace) -> str | None:
    """Where the run goes. Raises OptionError where one that goes on has no folder."""
    out: str | None = args.out or (str(Path(args.config).parent) if args.resume and args.config else None)
    if args.resume and out is None:
        raise OptionError("--resume needs the folder of the run: --out DIR")
    return out


def train_policies(
    args: argparse.Namespace,
    job: Any,
    work: Callable[[str | None, Progress], tuple[Any, Path]],
    check: Callable[[str | None], object],
) -> int:
    """Do the job's work and say where its policies and report are, or give the numbers as JSON; a dry run only checks.

    `work` and `check` are given the folder of the run.
    """
    from paperworks.cli.train_cmd import relative
    from paperworks.core.files import json_value
    from paperworks.core.progress import Progress

    out = folder_of(args)
    if args.dry_run:
        check_out(args, out)
        check(out)
        return show_dry_run(job.config(), args)
    with Progress(quiet=args.quiet) as progress:
        result, folder = work(out, progress)
    if args.json:
        found = {"folder": str(folder), "evaluations": result.evaluations, "final": result.final}
        print(json.dumps(json_value(found), indent=2))
        return 0
    shown = relative(folder)
    policy = "policy" if len(result.policies) == 1 else f"policy-{job.training.seed} …"
    print(f"\npolicy  {shown}/{policy}\nreport  {shown}/report.html")
    print(f"next    paperworks evaluate policy --model {shown}/{policy.split()[0]} --env {job.env or 'ID'}")
    return 0
