"""Running programs that a model wrote: contained, limited, in parallel, with one outcome for each.

Bubblewrap is the sandbox: no network, a system that can only be read and holds nothing of the user's, a scratch folder
in memory, process, message and host names of its own. Without it nothing runs, unless the caller accepts limits alone.
What is passed is what the program says of itself from inside one interpreter: one that is written to deceive its own
tests can. Nothing here knows what the programs are for.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import queue
import resource
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from paperworks.core.errors import OptionError
from paperworks.core.options import check_ranges, option

Status = Literal["passed", "failed", "timeout", "memory", "too much output", "crashed"]
STATUSES: tuple[Status, ...] = ("passed", "failed", "timeout", "memory", "too much output", "crashed")

_MEGABYTE = 2**20
_RUNNER = (Path(__file__).parent / "sandbox_inside.py").read_text(encoding="utf-8")
# Not -I: it would ignore PYTHONHASHSEED, and what a program does must not differ from one run to the next.
_PYTHON_FLAGS = ("-B", "-P", "-s", "-S")
_FIRST_UID, _UIDS = 64000, 1000  # for programs where we are root: limits on processes do not hold for root
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")
_REPORT_BYTES = 400  # most of one line of a report


@dataclass(frozen=True)
class Limits:
    """What one program may use. Beyond it the program is ended and counts as failed."""

    wall_seconds: float = option(10.0, "longest time from start to end", above=0)
    cpu_seconds: int = option(5, "longest processor time, of each process", low=1)
    memory_megabytes: int = option(512, "address space, of each process", low=64)
    processes: int = option(
        8, "most processes and threads at a time; without a sandbox, a program may start none", low=1
    )
    file_megabytes: int = option(16, "largest file written", low=0)
    scratch_megabytes: int = option(64, "size of the scratch folder (in a sandbox)", low=1)
    output_kilobytes: int = option(64, "most text printed", low=1)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Program:
    """Python source, and checks: pieces of source run one after another behind it, each passed unless it raises."""

    code: str
    checks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a program.

    `status` is passed only where the code and all checks ran to their end; `checks` tells each (all false where the
    code failed); `detail` says in a line what went wrong; `output` is what it printed, cut at the limit.
    """

    status: Status
    checks: tuple[bool, ...] = ()
    detail: str = ""
    output: str = ""
    seconds: float = 0.0

    @property
    def share(self) -> float:
        """Share of checks passed, in [0, 1]; of a program without checks 1 where it passed."""
        return sum(self.checks) / len(self.checks) if self.checks else float(self.status == "passed")


def counted(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """How many outcomes of each status there are, every status named."""
    counts = Counter(outcome.status for outcome in outcomes)
    return {status: counts[status] for status in STATUSES}


class Sandbox:
    """Runs programs, each in an interpreter of its own; `workers` at a time (default: the machine's cores).

    `allow_unsandboxed` accepts running without a sandbox where there is none: time, memory and output are still
    limited, the environment is empty and the folder temporary, but programs can read what the user can, write where the
    user can, and use the network.
    Raises OptionError where there is no sandbox and that is not accepted.
    """

    def __init__(
        self, limits: Limits | None = None, *, workers: int | None = None, allow_unsandboxed: bool = False
    ) -> None:
        from paperworks.core.devices import cores

        problem = sandbox_problem()
        if problem is not None and not allow_unsandboxed:
            raise OptionError(
                f"programs written by a model run only in a sandbox, and there is none here: {problem}; install "
                "bubblewrap, or accept limits alone with --allow-unsandboxed"
            )
        if workers is not None and workers < 1:
            raise OptionError(f"workers {workers}: expected at least 1")
        self.limits = limits or Limits()
        self.workers = workers or cores()
        self._way = _Bubblewrap() if problem is None else _LimitsAlone()

    @property
    def is_contained(self) -> bool:
        """Whether programs run in a sandbox rather than under limits alone."""
        return isinstance(self._way, _Bubblewrap)

    @property
    def description(self) -> str:
        """What programs can and cannot do, in a line."""
        return self._way.description

    def run(self, programs: Sequence[Program], on_done: Callable[[int], None] | None = None) -> list[Outcome]:
        """The outcome of each program, in order; `on_done(how_many)` is called as they end.

        A KeyboardInterrupt ends all programs that still run.
        """
        slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(self.workers):
            slots.put(slot)
        stop = _Stop()

        def run_one(program: Program) -> Outcome:
            slot = slots.get()
            try:
                return _run(program, self.limits, self._way, slot, stop)
            finally:
                slots.put(slot)

        with ThreadPoolExecutor(min(self.workers, max(len(programs), 1)), "sandbox") as pool:
            try:
                outcomes = []
                for outcome in pool.map(run_one, programs):
                    outcomes.append(outcome)
                    if on_done is not None:
                        on_done(len(outcomes))
                return outcomes
            except BaseException:
                stop.is_asked = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise


@cache
def sandbox_problem() -> str | None:
    """Why there is no sandbox here, in a line; None where there is one. Tried out once."""
    if shutil.which("bwrap") is None:
        return "bubblewrap (the program bwrap) is not installed"
    try:
        outcome = _run(
            Program("import json, math, socket", ("assert json and socket",)), Limits(), _Bubblewrap(), 0, _Stop()
        )
    except OSError as error:
        return f"bwrap does not start ({error.strerror or error})"
    if outcome.status == "passed":
        return None
    said = (outcome.output.strip().splitlines() or [outcome.detail])[0][:200]
    return f"bubblewrap does not work on this machine ({said})"


# ------------------------------------------------------------------------------------------------------- ways of running


class _Bubblewrap:
    """Inside bubblewrap."""

    description = "bubblewrap: no network, no files but the Python it runs, a scratch folder in memory, limits"

    def __init__(self) -> None:
        self.bwrap = shutil.which("bwrap") or "bwrap"
        self.is_root = os.geteuid() == 0

    def uid(self, slot: int) -> int:
        """The user that a program becomes inside; 0: it stays who it is."""
        return _uid(slot) if self.is_root else 0

    def limits(self, limits: Limits) -> dict[str, tuple[int, int]]:
        return {**_limits(limits), "RLIMIT_NPROC": (limits.processes + 1,) * 2}  # 1: bubblewrap's own first process

    @contextlib.contextmanager
    def command(self, limits: Limits, slot: int) -> Iterator[tuple[list[str], str, dict[str, str]]]:
        """Command, working folder and environment."""
        words = [self.bwrap, "--die-with-parent", "--cap-drop", "ALL"]
        # Root keeps just what it needs to become somebody else: in a user namespace of one user it could not.
        words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if self.is_root else ["--unshare-user"]
        words += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        words += ["--hostname", "sandbox"]
        for folder in _SYSTEM:
            if Path(folder).is_symlink():
                words += ["--symlink", str(Path(folder).readlink()), folder]
            elif Path(folder).is_dir():
                words += ["--ro-bind", folder, folder]
        words += ["--dir", "/etc", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
        for python in dict.fromkeys((Path(sys.base_prefix), Path(sys.base_exec_prefix), _python().parent)):
            if not python.is_relative_to("/usr"):
                # What it makes on the way to a folder of its own accord, only root may enter.
                words += [word for parent in reversed(python.parents[:-1]) for word in ("--dir", str(parent))]
                words += ["--ro-bind", str(python), str(python)]
        size = ["--size", str(limits.scratch_megabytes * _MEGABYTE)] if _knows_size(self.bwrap) else []
        words += [*size, "--tmpfs", "/tmp", "--dev", "/dev", "--remount-ro", "/dev", "--remount-ro", "/"]
        yield [*words, "--chdir", "/tmp", "--"], "/", _environment("/tmp")

    def end_all(self, process: subprocess.Popen[bytes], slot: int, mark: str) -> None:
        """Ends the program: with the first process of a process namespace all others die."""
        _kill_group(process)


class _LimitsAlone:
    """Without a sandbox."""

    description = "NO SANDBOX: time, memory and output are limited, but programs can reach your files and the network"

    def __init__(self) -> None:
        # Root's programs become nobody in particular where the interpreter can be read by everybody.
        self.drops_rights = os.geteuid() == 0 and _is_readable_by_all(_python(), Path(os.__file__))

    def uid(self, slot: int) -> int:
        return _uid(slot) if self.drops_rights else 0

    def limits(self, limits: Limits) -> dict[str, tuple[int, int]]:
        # The system counts all processes of a user: where the user is not the program's own, it gets none.
        return {**_limits(limits), "RLIMIT_NPROC": (limits.processes if self.drops_rights else 0,) * 2}

    @contextlib.contextmanager
    def command(self, limits: Limits, slot: int) -> Iterator[tuple[list[str], str, dict[str, str]]]:
        folder = tempfile.mkdtemp(prefix="paperworks-program-")
        try:
            yield [], folder, _environment(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def end_all(self, process: subprocess.Popen[bytes], slot: int, mark: str) -> None:
        """Ends the program's session, and then whatever left it, told by its user or by the mark in its environment."""
        _kill_group(process)
        for _ in range(20):  # what forks while we look is found in the next round
            if not _kill_marked(mark.encode(), self.uid(slot)):
                return


_Way = _Bubblewrap | _LimitsAlone


@cache
def _knows_size(bwrap: str) -> bool:
    """Whether this bubblewrap can limit a folder in memory (0.7 and later)."""
    return "--size" in subprocess.run([bwrap, "--help"], capture_output=True, text=True).stdout


def _limits(limits: Limits) -> dict[str, tuple[int, int]]:
    wanted = {
        "RLIMIT_AS": (limits.memory_megabytes * _MEGABYTE,) * 2,
        "RLIMIT_CPU": (limits.cpu_seconds, limits.cpu_seconds + 1),
        "RLIMIT_FSIZE": (limits.file_megabytes * _MEGABYTE,) * 2,
        "RLIMIT_NOFILE": (64, 64),
        "RLIMIT_CORE": (0, 0),
    }
    return {name: _at_most(name, *pair) for name, pair in wanted.items()}


def _at_most(name: str, soft: int, hard: int) -> tuple[int, int]:
    """The limit, or the one already in force where that is lower."""
    highest = resource.getrlimit(getattr(resource, name))[1]
    return (soft, hard) if highest == resource.RLIM_INFINITY else (min(soft, highest), min(hard, highest))


def _environment(folder: str) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": folder,
        "TMPDIR": folder,
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
    }


def _python() -> Path:
    """The interpreter itself: a virtual environment's is a link, and its packages are not for programs."""
    return Path(sys.executable).resolve()


def _uid(slot: int) -> int:
    return _FIRST_UID + (os.getpid() * 16 + slot) % _UIDS


def _is_readable_by_all(*paths: Path) -> bool:
    return all(
        all(parent.stat().st_mode & 0o001 for parent in path.parents) and path.stat().st_mode & 0o004 for path in paths
    )


# ---------------------------------------------------------------------------------------------------------- one program


@dataclass
class _Stop:
    """Set when nobody waits for outcomes any more."""

    is_asked: bool = False


@dataclass
class _Heard:
    """What came from a program so far: what it printed, what the runner reported, why it was ended."""

    output: bytearray = field(default_factory=bytearray)
    report: bytearray = field(default_factory=bytearray)
    ended_for: Literal["", "timeout", "too much output"] = ""


def _run(program: Program, limits: Limits, way: _Way, slot: int, stop: _Stop) -> Outcome:
    began = time.monotonic()
    word, mark = secrets.token_hex(16), secrets.token_hex(16)
    job: dict[str, Any] = {
        "code": program.code,
        "checks": program.checks,
        "word": word,
        "uid": way.uid(slot),
        "limits": way.limits(limits),
        "alarm": int(limits.wall_seconds) + 2,
    }
    reading, writing = os.pipe()
    try:
        with tempfile.TemporaryFile() as source, way.command(limits, slot) as (words, folder, environment):
            source.write(marshal.dumps(job))
            source.seek(0)
            process = subprocess.Popen(
                [*words, str(_python()), *_PYTHON_FLAGS, "-c", _RUNNER, str(writing)],
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**environment, "PAPERWORKS_PROGRAM": mark},
                pass_fds=(writing,),
                start_new_session=True,
            )
            os.close(writing)
            writing = -1
            heard = _Heard()
            try:
                _listen(process, reading, heard, limits, len(program.checks), began, stop)
            finally:
                way.end_all(process, slot, mark)
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
    seconds = time.monotonic() - began
    return _outcome(program, heard, word, process.returncode, limits, seconds)


def _listen(
    process: subprocess.Popen[bytes],
    reading: int,
    heard: _Heard,
    limits: Limits,
    checks: int,
    began: float,
    stop: _Stop,
) -> None:
    """Reads until the program has ended, or must be ended."""
    assert process.stdout is not None
    most = {"output": limits.output_kilobytes * 1024, "report": _REPORT_BYTES * (checks + 4)}
    with selectors.DefaultSelector() as selector:
        for descriptor, name in ((process.stdout.fileno(), "output"), (reading, "report")):
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ, name)
        while True:
            has_ended = process.poll() is not None
            left = limits.wall_seconds - (time.monotonic() - began)
            if stop.is_asked or (left <= 0 and not has_ended):
                heard.ended_for = "timeout"
                return
            ready = selector.select(0 if has_ended else min(left, 0.05)) if selector.get_map() else []
            if not ready and not selector.get_map() and not has_ended:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(left, 0.05))
            for key, _ in ready:
                with contextlib.suppress(BlockingIOError):
                    chunk = os.read(key.fd, 65536)
                    if not chunk:
                        selector.unregister(key.fd)
                    into: bytearray = getattr(heard, key.data)
                    into += chunk[: most[key.data] + 1 - len(into)]
                    if len(into) > most[key.data]:
                        heard.ended_for = "too much output"
                        return
            if has_ended and not ready:
                return


def _outcome(program: Program, heard: _Heard, word: str, code: int, limits: Limits, seconds: float) -> Outcome:
    said = {}
    for line in heard.report.decode("utf-8", "replace").splitlines():
        secret, _, rest = line.partition(" ")
        if secret == word:
            name, _, detail = rest.partition(" ")
            said[name] = detail
    results = [said.get(f"check{number}", "").partition(" ") for number in range(len(program.checks))]
    checks = tuple(kind == "ok" for kind, _, _ in results)
    output = heard.output[: limits.output_kilobytes * 1024].decode("utf-8", "replace")

    def ended(status: Status, detail: str) -> Outcome:
        return Outcome(status, checks, detail, output, seconds)

    if heard.ended_for == "timeout":
        return ended("timeout", f"still running after {limits.wall_seconds:g} s")
    if heard.ended_for == "too much output":
        return ended("too much output", f"printed more than {limits.output_kilobytes} kB")
    if "end" in said and all(checks):
        return ended("passed", "")
    problems = [said["code"].partition(" ")] if "code" in said else []
    for kind, _, detail in [*problems, *results]:
        if kind in ("failed", "memory"):
            return ended("memory" if kind == "memory" else "failed", detail)
    number = -code if code < 0 else code - 128 if code > 128 else 0  # bubblewrap adds 128 to a signal's number
    if number == signal.SIGXCPU or (number == signal.SIGKILL and seconds >= limits.cpu_seconds):
        return ended("timeout", f"used more than {limits.cpu_seconds} s of processor time")
    if number == signal.SIGKILL:
        return ended("memory", "killed by the system, which does so when memory runs out")
    if number:
        with contextlib.suppress(ValueError):
            return ended("crashed", f"ended by {signal.Signals(number).name}")
    return ended("crashed", f"ended before its tests (exit code {code})" if "begin" in said else "did not start")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _kill_marked(mark: bytes, uid: int) -> bool:
    """Kills processes of a program's own user, or with its mark in their environment; whether there were any."""
    found = False
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            is_its_own = entry.stat().st_uid == uid if uid else mark in (entry / "environ").read_bytes()
            if is_its_own and (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                os.kill(int(entry.name), signal.SIGKILL)
                found = True
    return found
