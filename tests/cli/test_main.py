"""The frame of the command line: verbs, help, and how each kind of failure reaches a user."""

import argparse
import os
import re
import subprocess
import sys
from types import ModuleType

import pytest

from paperworks import __version__
from paperworks.cli import main as command_line
from paperworks.cli.main import VERBS, Verb, main
from paperworks.core.errors import DataError, TrainingDiverged


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERWORKS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PAPERWORKS_DEBUG", raising=False)


@pytest.fixture
def verb(monkeypatch):
    """Adds the verb `fake`, whose `run` is the function given."""

    def add(run, **more):
        module = ModuleType("fake_cmd")
        module.HELP = "A verb for tests."
        module.add_arguments = lambda parser: parser.add_argument("--beta", type=float, default=0.1)
        module.run = run
        for name, value in more.items():
            setattr(module, name, value)
        monkeypatch.setitem(sys.modules, "fake_cmd", module)
        monkeypatch.setattr(command_line, "VERBS", {**VERBS, "fake": Verb("fake_cmd", "for tests")})

    return add


def raising(error):
    def run(args):
        raise error

    return run


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_help_names_every_verb(argv, capsys):
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if re.match(r"  [a-z]+  ", line)] == list(VERBS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"paperworks {__version__}\n"


def test_unknown_verb_names_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "paperworks: error: unknown verb 'trian' (did you mean 'train'?)\n"


def test_option_before_the_verb_is_explained(capsys):
    assert main(["--json", "list"]) == 2
    assert "options stand behind the verb: paperworks VERB --json" in capsys.readouterr().err


def test_verb_gets_its_options_and_gives_the_exit_code(verb, capsys):
    verb(lambda args: print(args.beta) or 7)
    assert main(["fake", "--beta", "0.5"]) == 7
    assert capsys.readouterr().out == "0.5\n"


def test_help_of_a_verb(verb, capsys):
    verb(lambda args: 0)
    assert main(["fake", "--help"]) == 0
    assert "A verb for tests." in capsys.readouterr().out


def test_unknown_option_of_a_verb_names_the_nearest(verb, capsys):
    verb(lambda args: 0)
    assert main(["fake", "--betta", "1"]) == 2
    assert "unknown option --betta (did you mean '--beta'?)" in capsys.readouterr().err


def test_verb_may_parse_its_own_arguments(verb, capsys):
    verb(lambda args: print(args.words) or 0, parse=lambda argv: argparse.Namespace(words=argv))
    assert main(["fake", "rdpo", "--flip-rate", "0.2"]) == 0
    assert capsys.readouterr().out == "['rdpo', '--flip-rate', '0.2']\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("is empty", file="a.jsonl", line=3, field="chosen"), 2, "a.jsonl:3: field 'chosen': is empty"),
        (TrainingDiverged("loss is NaN\nat step 3"), 3, "loss is NaN at step 3"),
        (PermissionError(13, "Permission denied", "/data/x"), 2, "/data/x: Permission denied"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
    ],
)
def test_mistakes_are_one_line_and_their_exit_code(verb, capsys, error, code, line):
    verb(raising(error))
    assert main(["fake"]) == code
    assert capsys.readouterr().err == f"paperworks: error: {line}\n"


def test_interruption_is_one_line_and_130(verb, capsys):
    verb(raising(KeyboardInterrupt()))
    assert main(["fake"]) == 130
    assert capsys.readouterr().err.strip() == "paperworks: interrupted"


def test_a_bug_is_owned_up_to_and_its_traceback_kept(verb, capsys, tmp_path):
    verb(raising(ZeroDivisionError("division\nby zero")))
    assert main(["fake"]) == 1
    line = capsys.readouterr().err
    (kept,) = (tmp_path / "home" / "bugs").iterdir()
    assert line == (
        "paperworks: this is a bug of ours, not a mistake of yours (ZeroDivisionError: division by zero); "
        f"the traceback is in {kept}\n"
    )
    assert "in run" in kept.read_text()


def test_a_bug_with_a_home_that_cannot_be_written(verb, capsys, tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "nowhere" / "at-all"))
    verb(raising(ZeroDivisionError()))
    assert main(["fake"]) == 1
    assert "PAPERWORKS_DEBUG=1" in capsys.readouterr().err


def test_a_bug_shows_its_traceback_when_asked(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERWORKS_DEBUG", "1")
    verb(raising(ZeroDivisionError("division by zero")))
    assert main(["fake"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert not (tmp_path / "home").exists()


def test_a_pipe_that_broke_elsewhere_is_not_hidden(verb, capsys):
    verb(raising(BrokenPipeError(32, "Broken pipe")))
    assert main(["fake"]) == 1
    assert "BrokenPipeError" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_met_with_silence():
    read_end, write_end = os.pipe()
    os.close(read_end)  # as `head` does when it has enough
    done = subprocess.run([sys.executable, "-m", "paperworks", "list"], stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


def test_terminal_that_cannot_show_a_letter_is_no_error():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-m", "paperworks", "show", "rdpo"], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u03b2" in done.stdout


@pytest.mark.parametrize("argv", [["--help"], ["list"], ["show", "rdpo"], ["search", "noise"], ["list", "--json"]])
def test_catalogue_and_help_import_nothing_heavy(argv):
    heavy = "{'torch', 'transformers', 'numpy', 'scipy', 'matplotlib', 'rich', 'yaml', 'importlib.metadata'}"
    program = (
        "import sys; from paperworks.cli.main import main\n"
        f"assert main({argv!r}) == 0\n"
        f"print(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == "[]\n"
