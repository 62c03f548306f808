"""`python -m paperworks.cli.describe FILE`: the options of every command that forms are made of, in one JSON file.

One process for all, because importing the methods takes seconds. What a command's options are is what its own `--describe`
prints; here is only the list of commands. Nothing is run.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from paperworks.core.errors import OptionError, PaperworksError, first_line

Family = Literal["rows", "answers", "log", "environment", "front"]
"""What a method of `train` learns from: a file of rows, its own answers to prompts, a log of transitions, an environment
that it acts in (hnpg with a log beside it), or an environment with several rewards."""


def describe_all() -> dict[str, Any]:
    """`{"commands": {"run": …, "compare": …, "compare td3-bc": …, "train rdpo": …}, "methods": {"rdpo": …}}`.

    A command is what its `--describe` gives, or `{"problem": line}` where it cannot be described here, as without an extra.
    A method is `{"family", "trains"}` ("policy", "reward-model" or "front"), and where it learns from rows or prompts
    "schema", their kind.
    """
    methods = dict(_methods())
    # a comparison's options do not depend on what is compared, but on whether that is an algorithm for logs
    words = [["run"], ["compare"], ["compare", "td3-bc"], *(["train", name] for name in methods)]
    return {"commands": {" ".join(command): describe(command) for command in words}, "methods": methods}


def describe(command: Sequence[str]) -> dict[str, Any]:
    """The options of a command, as `paperworks COMMAND --describe` prints them; `{"problem": line}` where it cannot."""
    from paperworks.cli.main import dispatch

    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            dispatch([*command, "--describe"])
        described: dict[str, Any] = json.loads(printed.getvalue())
    except (PaperworksError, ImportError) as error:
        return {"problem": first_line(error)}
    return described


def _methods() -> Iterator[tuple[str, dict[str, Any]]]:
    """What `train` knows by name, in the order of its help."""
    from paperworks.cli import train_acting, train_control, train_fronts, train_hybrid
    from paperworks.language.data.schemas import SCHEMAS, PromptRow
    from paperworks.language.objectives import objective_class, objective_names
    from paperworks.language.online.methods import METHODS

    kinds = {row_type: name for name, row_type in SCHEMAS.items()}
    for name in objective_names():
        if name not in METHODS:
            objective = objective_class(name)
            yield name, {"family": "rows", "trains": objective.trains, "schema": kinds[objective.schema]}
    for name, method in METHODS.items():
        rows = "preference" if method.takes_pairs else kinds[PromptRow]
        yield name, {"family": "answers", "trains": "policy", "schema": rows}
    logged = (*train_control.ALGORITHMS, *train_control.DISCRETE_ALGORITHMS, *train_control.SAFE_ALGORITHMS)
    acting = (*train_acting.ALGORITHMS, *train_hybrid.METHODS)
    families: dict[Family, Sequence[str]] = {"log": logged, "environment": acting, "front": train_fronts.SEARCHES}
    for family, names in families.items():
        for name in names:
            yield name, {"family": family, "trains": "front" if family == "front" else "policy"}


def main(words: Sequence[str]) -> int:
    """Writes the descriptions into the file named, and returns the exit code."""
    from paperworks.core.files import write_json_atomic

    try:
        if len(words) != 1:
            raise OptionError("expected one word, the file to write: python -m paperworks.cli.describe FILE")
        write_json_atomic(words[0], describe_all())
    except PaperworksError as error:
        print(f"paperworks: error: {first_line(error)}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
