"""`paperworks report`: the report that is there, or one made again from the cells that a run finished."""

import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from paperworks import papers
from paperworks.cli import report_cmd
from paperworks.cli.main import main
from paperworks.cli.report_cmd import stored_results
from paperworks.core.errors import RunError
from paperworks.core.runs import RunRecord, RunStore

TOYS = Path(__file__).parent / "toy_papers"
FOLDER = Path("runs/toy-paper-small")


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(papers, "__path__", [*papers.__path__, str(TOYS)])


@pytest.fixture
def record(capsys) -> RunRecord:
    """A finished run of the toy paper: 3 seeds of two arms."""
    arguments = ["--seeds", "3", "--arms", "good,bad", "--workers", "1", "--quiet"]
    assert main(["run", "toy-paper", *arguments]) == 0
    capsys.readouterr()
    return RunStore().get(FOLDER)


def report(capsys, *arguments: str) -> str:
    assert main(["report", *arguments]) == 0
    return capsys.readouterr().out


def test_the_report_that_is_there_is_left_as_it_is(capsys, record):
    (FOLDER / "report.html").write_text("mine")
    for word in (record.id, record.id[:5], str(FOLDER), "toy-paper"):
        assert report(capsys, word) == f"{FOLDER.absolute()}/report.html\n"
    assert (FOLDER / "report.html").read_text() == "mine"


def test_a_missing_report_is_made_again_from_the_cells(capsys, record):
    first = (FOLDER / "report.html").read_text()
    (FOLDER / "report.html").unlink()
    shutil.rmtree(FOLDER / "figures")
    output = json.loads(report(capsys, record.id, "--json"))
    assert output == {
        "id": record.id, "verb": "run", "name": "toy-paper", "status": "finished",
        "report": f"{FOLDER.absolute()}/report.html", "made_now": True,
    }  # fmt: skip
    again = (FOLDER / "report.html").read_text()
    assert again.count("<svg") == first.count("<svg") > 0
    assert "good − bad: +1.000" in again
    assert (FOLDER / "figures").is_dir()
    assert json.loads(report(capsys, record.id, "--json"))["made_now"] is False


def test_stored_results_are_what_the_run_returned(record):
    found = record.results()
    results = stored_results(record)
    assert (results.budget, len(results.cells), results.wall_s) == ("small", 12, found["wall_s"])
    for arm in found["arms"]:
        values = results.values(arm["part"], arm["arm"], "score", arm["setting"])
        assert {str(seed): value for seed, value in values.items()} == arm["metrics"]["score"]["values"]


def test_cells_that_the_command_did_not_ask_for_stay_out(record):
    main(["run", "toy-paper", "--seeds", "2", "--arms", "bad", "--workers", "1", "--quiet"])
    results = stored_results(record)
    assert {(cell.arm, cell.seed) for cell in results.cells} == {("bad", 0), ("bad", 1)}


def test_a_killed_run_reports_what_it_finished(capsys, record):
    for name in ("report.html", "results.json"):
        (FOLDER / name).unlink()
    (FOLDER / "cells" / "A" / "easy" / "good" / "2.json").unlink()
    (FOLDER / "cells" / "A" / "hard" / "good" / "1.json").write_text('{"part": "A", ')
    assert len(stored_results(record).cells) == 10
    report(capsys, record.id)
    assert "10 finished, 0 failed" in (FOLDER / "report.html").read_text()


def test_a_report_older_than_the_cells_is_made_again(capsys, record):
    os.utime(FOLDER / "report.html", (1, 1))
    assert json.loads(report(capsys, record.id, "--json"))["made_now"] is True


def test_failures_are_reported_until_their_cell_is_finished(monkeypatch, capsys):
    monkeypatch.setenv("TOY_FAIL", "good easy 1")
    main(["run", "toy-paper", "--workers", "1", "--quiet"])
    record = RunStore().get(FOLDER)
    (failure,) = stored_results(record).failures
    assert (failure.arm, failure.seed, failure.error) == ("good", 1, "prefs.jsonl:3: expected rows")
    assert main(["report", record.id]) == 0
    assert f"run {record.id} was not finished (failed)" in capsys.readouterr().err
    cells = FOLDER / "cells" / "A" / "easy" / "good"
    content = json.loads((cells / "0.json").read_text())
    (cells / "1.json").write_text(json.dumps({**content, "seed": 1}))
    assert stored_results(record).failures == ()


def test_a_run_without_finished_cells_says_how_to_get_them(capsys, record):
    (FOLDER / "report.html").unlink()
    shutil.rmtree(FOLDER / "cells")
    assert main(["report", record.id]) == 2
    assert "no cell is finished, there is nothing to report; `paperworks run --config" in capsys.readouterr().err


def test_open_shows_it_in_a_browser(capsys, record, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    path = report(capsys, record.id, "--open").strip()
    assert opened == [Path(path).as_uri()]


def test_an_unknown_run_is_one_line(capsys):
    assert main(["report", "nothing"]) == 2
    assert capsys.readouterr().err == (
        "paperworks: error: no run 'nothing'; see `paperworks runs` for the ids and folders\n"
    )


def test_a_folder_that_is_gone_is_one_line(capsys, record):
    shutil.rmtree(FOLDER)
    assert main(["report", record.id]) == 2
    assert f"its folder {FOLDER.absolute()} is gone" in capsys.readouterr().err


def test_other_verbs_have_writers_of_their_own(capsys, monkeypatch):
    module = ModuleType("fake_report")
    module.write_report = lambda folder: folder / "report.html"
    monkeypatch.setitem(sys.modules, "fake_report", module)
    monkeypatch.setattr(report_cmd, "WRITERS", {"train": "fake_report", "compare": "paperworks.no_such_module"})
    trained, compared, audited = (RunStore().start(verb, "dpo", verb, {}) for verb in ("train", "compare", "audit"))
    for each in (trained, compared, audited):
        each.finish({})
    assert report(capsys, trained.id) == f"{trained.folder}/report.html\n"
    for each in (compared, audited):
        assert main(["report", each.id]) == 2
        line = f"run {each.id}: this version makes no report of the verb {each.record.verb!r} after the run"
        assert line in capsys.readouterr().err


def test_a_writer_that_cannot_is_one_line(capsys, monkeypatch):
    def write_report(folder):
        raise RunError(f"{folder}/results.json: no such file")

    module = ModuleType("fake_report")
    module.write_report = write_report
    monkeypatch.setitem(sys.modules, "fake_report", module)
    monkeypatch.setattr(report_cmd, "WRITERS", {"train": "fake_report"})
    trained = RunStore().start("train", "dpo", "trained", {})
    trained.end("diverged", "the loss is NaN at step 3")
    assert main(["report", trained.id]) == 2
    assert f"run {trained.id} (diverged): its report cannot be made: " in capsys.readouterr().err


def test_the_writers_of_this_version_are_there():
    import importlib.util

    for name in report_cmd.WRITERS.values():
        assert importlib.util.find_spec(name) is not None
