"""Programs that mean no good are ended and counted: in bubblewrap where it works, and under limits alone."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from paperworks.core import sandbox as module
from paperworks.core.errors import OptionError
from paperworks.core.sandbox import Limits, Outcome, Program, Sandbox, Status, counted, sandbox_problem

LIMITS = Limits(cpu_seconds=1, memory_megabytes=256, file_megabytes=1, scratch_megabytes=2)
HURRY = dataclasses.replace(LIMITS, wall_seconds=2)  # for programs that do not end of themselves

NOWHERE: dict[str, tuple[str, Status, str]] = {  # name: (program, what becomes of it, what is said)
    "loops": ("while True: pass", "timeout", " s"),
    "sleeps": ("import time\ntime.sleep(60)", "timeout", "still running after 2 s"),
    "closes everything and sleeps": (
        "import os, time\nos.closerange(0, 64)\ntime.sleep(60)",
        "timeout",
        "still running",
    ),
    "eats memory": ("x = 'a' * 10**10", "memory", "out of memory"),
    "prints without end": ("while True: print('x' * 10**5)", "too much output", "printed more than 64 kB"),
    "writes a large file": ("open('large', 'wb').write(b'x' * 10**7)", "failed", "File too large"),
    "is no Python": ("def f(:", "failed", "SyntaxError"),
    "raises": ("\nraise ValueError('two\\nlines')", "failed", "ValueError: two lines (line 2)"),
    "leaves early": ("import sys\nsys.exit(0)", "failed", "SystemExit: 0"),
    "leaves without a word": ("import os\nos._exit(0)", "crashed", "ended before its tests (exit code 0)"),
    "breaks the interpreter": ("import os\nos.kill(os.getpid(), 11)", "crashed", "SIGSEGV"),
    "raises what cannot be shown": (
        "class E(Exception):\n  def __str__(self): raise self\nraise E",
        "failed",
        "E (line 3)",
    ),
    "is not encodable": ("x = '\ud800'", "failed", "UnicodeEncodeError"),
}


@pytest.fixture(scope="module", params=["bubblewrap", "limits alone"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    made = Sandbox(LIMITS, workers=2, allow_unsandboxed=True)
    if request.param == "bubblewrap":
        if sandbox_problem():
            pytest.skip(f"no sandbox here: {sandbox_problem()}")
    else:
        made._way = module._LimitsAlone()
    return made


@pytest.fixture
def contained() -> Sandbox:
    if sandbox_problem():
        pytest.skip(f"no sandbox here: {sandbox_problem()}")
    return Sandbox(LIMITS)


def run(sandbox: Sandbox, code: str, *checks: str) -> Outcome:
    return sandbox.run([Program(code, checks)])[0]


@pytest.fixture
def hurried(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setattr(sandbox, "limits", HURRY)
    return sandbox


def test_every_mischief_is_ended_told_and_counted(hurried: Sandbox) -> None:
    outcomes = hurried.run([Program(code, ("assert True",)) for code, _, _ in NOWHERE.values()])
    for (name, (_, status, said)), outcome in zip(NOWHERE.items(), outcomes, strict=True):
        assert (outcome.status, outcome.checks) == (status, (False,)), (name, outcome)
        assert said in outcome.detail and "\n" not in outcome.detail, (name, outcome.detail)
    assert sum(counted(outcomes).values()) == len(NOWHERE) and counted(outcomes)["timeout"] == 3


def test_checks_are_told_one_by_one(sandbox: Sandbox) -> None:
    outcome = run(sandbox, "def f(x): return x + 1", "assert f(1) == 2", "assert f(1) == 3", "f('a')", "assert f(0)")
    assert outcome.checks == (True, False, False, True) and outcome.share == 0.5
    assert outcome.status == "failed" and outcome.detail == "AssertionError (line 1)"
    assert run(sandbox, "print('shown')", "pass") == Outcome("passed", (True,), "", "shown\n", pytest.approx(0, abs=9))


def test_checks_before_one_that_hangs_keep_their_results(hurried: Sandbox) -> None:
    outcome = run(hurried, "n = 0", "n += 1", "while True: pass", "assert n == 1")
    assert (outcome.status, outcome.checks) == ("timeout", (True, False, False))


def test_a_program_cannot_say_that_it_passed(sandbox: Sandbox) -> None:
    lies = "import os\nfor fd in range(3, 20):\n  try: os.write(fd, b'code ok\\ncheck0 ok\\nend\\n')\n  except OSError: pass\n"
    assert run(sandbox, lies + "os._exit(0)", "assert False").status == "crashed"
    fork = "import os\nif os.fork() == 0: answer = 42\nelse: answer = 0; os.wait()"
    outcome = run(sandbox, fork, "assert answer == 42")
    assert outcome.status == "failed" and outcome.checks == (False,)


def test_nothing_that_a_program_started_lives_on(sandbox: Sandbox) -> None:
    word = f"marked{os.getpid()}{time.monotonic_ns()}"
    code = f"""
import os, sys, time
try:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv({str(module._python())!r}, ["python", "-c", "import time; time.sleep(60)", {word!r}])
        os._exit(0)
except OSError:
    pass  # without a sandbox a program of an ordinary user may start nothing
time.sleep(0.2)
"""
    run(sandbox, code)
    alive = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            alive.append(command.read_bytes())
    assert alive and not any(word.encode() in command for command in alive)


def test_a_program_has_an_environment_and_a_folder_of_its_own(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    look = "import os, sys\nopen('a', 'w').write('x')\nprint(os.listdir('.'), os.getcwd())"
    check = "assert 'SECRET_KEY' not in os.environ and sys.stdin.read() == '' and __name__ == '__main__'"
    first, second = sandbox.run([Program(look, (check,))] * 2)
    assert first.status == second.status == "passed"
    assert first.output.startswith("['a'] ") and second.output.startswith("['a'] ")
    folder = first.output.split()[1]
    assert folder == "/tmp" or not Path(folder).exists()


def test_a_program_does_the_same_each_time(sandbox: Sandbox) -> None:
    outcomes = sandbox.run([Program("print(hash('a'), list({'x', 'y', 'z', 'w'}))")] * 3)
    assert len({outcome.output for outcome in outcomes}) == 1


def test_programs_run_at_the_same_time_and_keep_their_order(sandbox: Sandbox) -> None:
    done: list[int] = []
    outcomes = sandbox.run([Program(f"print({number})") for number in range(5)], on_done=done.append)
    assert [outcome.output for outcome in outcomes] == [f"{number}\n" for number in range(5)] and done == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert sandbox.run([]) == []


def test_in_the_sandbox_there_is_no_network(contained: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 1)"
        outcome = run(contained, connect)
    assert outcome.status == "failed" and "refused" in outcome.detail


def test_in_the_sandbox_files_are_not_the_users(contained: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    assert "FileNotFoundError" in run(contained, f"open({str(secret)!r})").detail
    for place in ("/usr/x", "/x", "/dev/shm/x", "/dev/x", "/etc/x"):
        assert run(contained, f"open({place!r}, 'w')").detail.startswith(("OSError: [Errno 30]", "PermissionError"))
    assert not Path("/usr/x").exists()
    outcome = run(contained, "for n in range(99): open(str(n), 'wb').write(b'x' * 10**6)")
    assert "No space left" in outcome.detail or module._knows_size("bwrap") is False


def test_in_the_sandbox_forks_run_out(contained: Sandbox) -> None:
    bomb = "import os, time\nn = 0\nwhile True:\n  if os.fork() == 0: time.sleep(60)\n  n += 1\n  print(n, flush=True)"
    outcome = run(contained, bomb)
    assert outcome.status == "failed" and "unavailable" in outcome.detail
    assert len(outcome.output.split()) <= LIMITS.processes


def test_in_the_sandbox_a_program_is_nobody_and_alone(contained: Sandbox) -> None:
    code = "import os, socket\nassert os.getuid() != 0 and os.getpid() < 9 and socket.gethostname() == 'sandbox'"
    assert run(contained, code).status == "passed"
    assert run(contained, "import os\nos.setuid(0)").status == "failed"


def test_without_bubblewrap_nothing_runs_unless_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    sandbox_problem.cache_clear()
    try:
        with pytest.raises(OptionError, match=r"not installed; install bubblewrap, or accept .*--allow-unsandboxed"):
            Sandbox()
        accepted = Sandbox(LIMITS, allow_unsandboxed=True)
        assert not accepted.is_contained and "NO SANDBOX" in accepted.description
        assert run(accepted, "x = 1", "assert x").status == "passed"
    finally:
        sandbox_problem.cache_clear()


def test_a_bubblewrap_that_does_not_work_is_refused_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    sandbox_problem.cache_clear()
    try:
        with pytest.raises(OptionError, match=r"does not work on this machine .*uid map: Permission denied"):
            Sandbox()
    finally:
        sandbox_problem.cache_clear()


def test_an_interrupt_ends_what_runs(sandbox: Sandbox) -> None:
    patient = Sandbox(Limits(wall_seconds=60), workers=2, allow_unsandboxed=True)
    patient._way = sandbox._way

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        patient.run([Program("x = 1"), *[Program("import time\ntime.sleep(60)")] * 5], on_done=stop)
    assert threading.active_count() == threads


def test_limits_out_of_range_are_refused() -> None:
    with pytest.raises(OptionError, match="wall_seconds=0"):
        Limits(wall_seconds=0)
    with pytest.raises(OptionError, match="workers 0"):
        Sandbox(workers=0, allow_unsandboxed=True)


def test_what_runs_inside_imports_only_what_starts_fast() -> None:
    code = f"import sys; exec({module._RUNNER.split('def main')[0]!r}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"typing", "re", "json", "inspect"} & set(loaded.split())
