"""What stands between a sandbox and the program in it: run by `python -c`, never imported.

It takes one job from standard input, lowers its own limits and rights for good, runs the program and then its checks,
and reports each on a file descriptor of its own, every line behind a secret word. Only built-in and small modules are
imported: this start is paid for every program.
"""

from __future__ import annotations

import marshal
import os
import resource
import signal
import sys

TYPE_CHECKING = False  # as in typing, which costs more time than all the rest
if TYPE_CHECKING:
    from typing import Any, NoReturn


def main(report: int) -> NoReturn:
    """Runs the job on standard input; `report` is the file descriptor that the caller reads."""
    job = marshal.loads(sys.stdin.buffer.read())
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    lower(job)
    mine, word = os.getpid(), job["word"]

    def say(kind: str, detail: str = "") -> None:
        if os.getpid() == mine:  # a fork of the program that comes this far has nothing to report
            os.write(report, f"{word} {kind} {detail[:300]}\n".encode("utf-8", "replace"))

    program = type(sys)("__main__")
    sys.modules["__main__"] = program
    sys.argv = ["program.py"]
    say("begin")
    parts = [("code", job["code"]), *((f"check{number}", text) for number, text in enumerate(job["checks"]))]
    for name, text in parts:
        kind, detail = attempt(text, "<program>" if name == "code" else "<test>", vars(program))
        say(name, f"{kind} {detail}")
        if name == "code" and kind != "ok":
            break
    else:
        say("end")
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 -- contextlib is an import
            stream.flush()
        except BaseException:  # the program may have put anything in their place
            pass
    os._exit(0)  # threads and exit handlers of the program end here


def lower(job: dict[str, Any]) -> None:
    """Sets the limits, which the program cannot raise again, and gives up the rights of root where it has them."""
    for name, limits in job["limits"].items():
        resource.setrlimit(getattr(resource, name), limits)
    signal.alarm(job["alarm"])  # for the case that the one who waits for us is killed
    os.umask(0o077)
    if job["uid"]:
        os.chmod(".", 0o1777)  # noqa: PTH101 -- pathlib would cost more than all the rest
        os.setgroups([])
        os.setresgid(job["uid"], job["uid"], job["uid"])
        os.setresuid(job["uid"], job["uid"], job["uid"])


def attempt(text: str, name: str, names: dict[str, Any]) -> tuple[str, str]:
    """`("ok", "")`, `("memory", …)` or `("failed", "ValueError: bad (line 3)")` for a piece of Python."""
    try:
        exec(compile(text, name, "exec"), names)
    except MemoryError:
        return "memory", "out of memory"
    except BaseException as error:  # a program may raise anything, SystemExit too
        return "failed", described(error, name)
    return "ok", ""


def described(error: BaseException, name: str) -> str:
    """`ValueError: bad (line 3)` on one line; the line is the deepest one in the piece that ran."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == name else line
        trace = trace.tb_next
    try:
        text = " ".join(str(error).split())[:200]
    except BaseException:  # an exception of the program's own may not even be shown
        text = ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{f' (line {line})' if line else ''}"


if __name__ == "__main__":
    main(int(sys.argv[1]))
