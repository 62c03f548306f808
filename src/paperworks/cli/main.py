"""`paperworks VERB …`: finds the verb's module, runs it, and turns whatever goes wrong into one line and an exit code.

A verb is a module `cli/<verb>_cmd.py` with `HELP: str`, `run(args) -> int` and either `add_arguments(parser)` or, where
options depend on an earlier argument, `parse(argv) -> Namespace`. Only the module of the verb typed is imported, so
help, `--version` and the catalogue start fast. Exit codes: 0 done, 1 a bug of ours, 2 a mistake the user can mend
(`PaperworksError.exit_code`), 130 interrupted, 141 the reader of a pipe went away.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from paperworks import __version__
from paperworks.core.errors import OptionError, PaperworksError, did_you_mean


class Verb(NamedTuple):
    """Where a verb lives, and the line that the list of verbs shows for it."""

    module: str
    help: str


VERBS: Mapping[str, Verb] = {
    "list": Verb("paperworks.cli.list_cmd", "all papers: what each gives, what is usable, what experiments showed"),
    "show": Verb("paperworks.cli.show_cmd", "everything about one paper"),
    "search": Verb("paperworks.cli.search_cmd", "find papers by words"),
    "run": Verb("paperworks.cli.run_cmd", "run a paper's experiment: its claims tested against its baselines"),
    "train": Verb("paperworks.cli.train_cmd", "train a model on your own data with an objective"),
    "compare": Verb("paperworks.cli.compare_cmd", "find out which objective works best on your data"),
    "generate": Verb("paperworks.cli.generate_cmd", "sample from a model, plain or best of n"),
    "evaluate": Verb(
        "paperworks.cli.evaluate_cmd", "measure a model: accuracy, KL, reward; unlearning; a reward model"
    ),
    "act": Verb("paperworks.cli.act_cmd", "a policy's action, or its episodes; of a front, the one for a preference"),
    "export": Verb("paperworks.cli.export_cmd", "a control policy as an ONNX graph"),
    "select": Verb(
        "paperworks.cli.select_cmd",
        "choose training data: filters by reward, pairs of scored candidates, graded responses",
    ),
    "collect": Verb("paperworks.cli.collect_cmd", "log an environment at several levels of quality"),
    "audit": Verb("paperworks.cli.audit_cmd", "what a log of transitions is good for"),
    "runs": Verb("paperworks.cli.runs_cmd", "what was run here"),
    "report": Verb("paperworks.cli.report_cmd", "the report of a run"),
    "serve": Verb("paperworks.cli.serve_cmd", "the page: search, read, run, compare and follow in a browser"),
    "digest": Verb("paperworks.cli.digest_cmd", "what is new, by e-mail to who subscribed"),
}

USER_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}  # the machine's state, not our bug


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code; `argv` is without the program's name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter must not end the run
    try:
        code = dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # here, so that a reader that went away is noticed inside this `try`
        return code
    except PaperworksError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        print(f"\npaperworks: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError as error:
        return 141 if _reader_went_away() else _report_bug(error)
    except OSError as error:
        if error.errno in USER_ERRNOS:
            where = f"{error.filename}: " if error.filename else ""
            return _fail(f"{where}{error.strerror}", PaperworksError.exit_code)
        return _report_bug(error)
    except Exception as error:
        return _report_bug(error)


def dispatch(argv: Sequence[str]) -> int:
    """Runs one verb and returns its exit code. Raises what the verb raises; help and `--version` are answered here."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"paperworks {__version__}")
        return 0
    verb, rest = argv[0], list(argv[1:])
    if verb.startswith("-"):
        raise OptionError(f"unknown option {verb}; options stand behind the verb: paperworks VERB {verb}")
    if verb not in VERBS:
        raise OptionError(f"unknown verb {verb!r}{did_you_mean(verb, VERBS)}")
    module = importlib.import_module(VERBS[verb].module)
    try:
        if hasattr(module, "parse"):
            args = module.parse(rest)
        else:
            from paperworks.core.options import Parser

            parser = Parser(prog=f"paperworks {verb}", description=module.HELP)
            module.add_arguments(parser)
            args = parser.parse_args(rest)
    except SystemExit as stop:  # argparse leaves this way after printing a verb's help
        return stop.code if isinstance(stop.code, int) else 0
    return int(module.run(args) or 0)


def usage() -> str:
    """The help of `paperworks` itself."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {name:{width}}{verb.help}" for name, verb in VERBS.items())
    return f"""usage: paperworks VERB …

Seventy-one research papers that work: methods for your own model and data, experiments that test their claims.

{verbs}

  paperworks VERB --help    the options of a verb
  paperworks --version      the version"""


def _fail(message: str, code: int) -> int:
    one_line = " ".join(message.splitlines())
    print(f"paperworks: error: {one_line}", file=sys.stderr)
    return code


def _reader_went_away() -> bool:
    """Whether standard output is what broke (as in `paperworks list | head`); if so, nothing more is written to it."""
    import select

    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file: a pipe that broke was another
        return False
    poll = select.poll()
    poll.register(output, 0)  # errors are reported without being asked for
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    with contextlib.suppress(OSError):  # else the interpreter complains when it flushes at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def _report_bug(error: Exception) -> int:
    """One line that owns up, and the traceback in a file (or on the terminal with PAPERWORKS_DEBUG=1)."""
    import traceback

    text = "".join(traceback.format_exception(error))
    if os.environ.get("PAPERWORKS_DEBUG", "") not in ("", "0"):
        print(text, end="", file=sys.stderr)
        return 1
    what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    place = _write_traceback(text)
    kept = f"the traceback is in {place}" if place else "run it again with PAPERWORKS_DEBUG=1 to see the traceback"
    print(f"paperworks: this is a bug of ours, not a mistake of yours ({what}); {kept}", file=sys.stderr)
    return 1


def _write_traceback(text: str) -> Path | None:
    import tempfile
    import time

    from paperworks.core.files import home

    command = " ".join(sys.argv[1:])
    content = f"paperworks {__version__}, Python {sys.version}\n$ paperworks {command}\n\n{text}"
    for folder in (lambda: home() / "bugs", lambda: Path(tempfile.gettempdir())):
        try:
            place = folder() / f"paperworks-bug-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
            place.parent.mkdir(exist_ok=True)
            place.write_text(content, encoding="utf-8", errors="backslashreplace")
            return place
        except (OSError, PaperworksError):
            continue
    return None
