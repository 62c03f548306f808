"""`paperworks runs`: what a person and a program read of the runs here, and that nothing is deleted by mistake."""

import io
import json
import shutil
from pathlib import Path

import pytest

from paperworks.cli import report_cmd, runs_cmd
from paperworks.cli.main import main
from paperworks.core.errors import DataError
from paperworks.core.runs import RunStore

CLAIMS = [
    {"verdict": verdict, "text": f"claim {number}", "evidence": "+0.2 [0.1, 0.3]"}
    for number, verdict in enumerate(["holds", "holds", "reversed", "not shown"])
]


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> RunStore:
    monkeypatch.chdir(tmp_path)
    return RunStore()


@pytest.fixture
def ids(store) -> dict[str, str]:
    """Three runs, oldest first: an experiment, a training that failed, a comparison."""
    experiment = store.start("run", "rdpo", "runs/rdpo-small", {"slug": "rdpo", "budget": "small", "seeds": None})
    experiment.finish({"budget": "small", "claims": CLAIMS})
    with pytest.raises(DataError), store.start("train", "dpo", "runs/train-dpo", {"objective": "dpo"}) as training:
        raise DataError("is empty", file="prefs.jsonl", line=3)
    compared = store.start("compare", "dpo-rdpo", "elsewhere/compared", {})
    compared.finish({})
    return {"run": experiment.id, "train": training.id, "compare": compared.id}


def output_of(capsys, *arguments: str) -> str:
    assert main(["runs", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def error_of(capsys, *arguments: str) -> str:
    assert main(["runs", *arguments]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def listed(capsys, *arguments: str) -> list[str]:
    return [entry["verb"] for entry in json.loads(output_of(capsys, "--json", *arguments))]


def test_the_list_is_newest_first_with_what_came_out(capsys, ids):
    _, _, *lines = output_of(capsys).splitlines()
    assert [line.split()[:4] for line in lines] == [
        [ids["compare"], "compare", "dpo-rdpo", "finished"],
        [ids["train"], "train", "dpo", "failed"],
        [ids["run"], "run", "rdpo", "finished"],
    ]
    assert "prefs.jsonl:3: is empty" in lines[1]
    assert "2/4 claims hold" in lines[2] and lines[2].endswith("  runs/rdpo-small")


def test_a_list_of_nothing_says_what_to_do(capsys, store):
    assert output_of(capsys) == "nothing was run yet; try: paperworks run rdpo\n"
    assert json.loads(output_of(capsys, "--json")) == []


def test_runs_are_filtered(capsys, ids):
    assert listed(capsys) == ["compare", "train", "run"]
    assert listed(capsys, "--verb", "train") == ["train"]
    assert listed(capsys, "--name", "rdpo") == ["run"]
    assert listed(capsys, "--status", "finished") == ["compare", "run"]
    assert listed(capsys, "--limit", "2") == ["compare", "train"]
    assert output_of(capsys, "--verb", "audit") == "no such run; `paperworks runs` lists all\n"


def test_a_long_list_says_how_many_are_left_out(capsys, ids):
    assert output_of(capsys, "--limit", "1").splitlines()[-1] == "2 older ones: --limit 3"
    assert "--limit: expected a whole number of at least 1, got 0" in error_of(capsys, "--limit", "0")


def test_smoke_runs_are_no_evidence_in_the_list(capsys, store):
    store.start("run", "rdpo", "smoke", {}).finish({"budget": "smoke", "claims": CLAIMS})
    assert json.loads(output_of(capsys, "--json"))[0]["result"] == "smoke: no evidence"


@pytest.mark.parametrize("content", ["{", "[]", '{"claims": 3}', '{"claims": [{}]}'])
def test_damaged_results_do_not_hide_the_run(capsys, ids, content):
    Path("runs/rdpo-small/results.json").write_text(content)
    assert ids["run"] in output_of(capsys)
    assert ids["run"] in output_of(capsys, "show", ids["run"])


def test_show_has_the_circumstances_and_the_claims(capsys, ids):
    shown = output_of(capsys, "show", ids["run"])
    assert f"run          {ids['run']} (run rdpo)" in shown
    assert "settings     slug=rdpo, budget=small\n" in shown
    assert "versions     python 3" in shown
    assert "holds      claim 0  +0.2 [0.1, 0.3]" in shown
    assert "status       failed: prefs.jsonl:3: is empty" in output_of(capsys, "show", ids["train"][:6])


def test_show_as_json_has_configuration_and_results(capsys, ids):
    for arguments in (["show", ids["run"], "--json"], ["--json", "show", ids["run"]]):
        whole = json.loads(output_of(capsys, *arguments))
        assert whole["config"] == {"slug": "rdpo", "budget": "small", "seeds": None}
        assert whole["results"]["claims"] == CLAIMS
        assert (whole["status"], whole["problem"]) == ("finished", None)


def test_show_knows_a_killed_run(capsys, store, monkeypatch):
    started = store.start("train", "dpo", "killed", {})
    monkeypatch.setattr("paperworks.core.runs.process_is_alive", lambda *_: False)
    whole = json.loads(output_of(capsys, "show", started.id, "--json"))
    assert whole["status"] == "killed"


def test_show_of_a_run_whose_folder_is_gone(capsys, ids):
    shutil.rmtree("elsewhere")
    shown = output_of(capsys, "show", ids["compare"])
    assert f"problem  the folder is gone; `paperworks runs delete {ids['compare']}` forgets the run" in shown


def test_a_run_is_found_by_id_beginning_folder_and_name(capsys, ids):
    for word in (ids["run"], ids["run"][:6], "runs/rdpo-small", "rdpo"):
        assert output_of(capsys, "open", word) == f"{Path('runs/rdpo-small').absolute()}\n"
    assert "no run 'rdop'; see `paperworks runs`" in error_of(capsys, "show", "rdop")


def test_open_on_a_terminal_shows_the_report(capsys, ids, monkeypatch):
    Path("runs/rdpo-small/report.html").write_text("<p>")
    opened = []
    monkeypatch.setattr(runs_cmd, "on_terminal", lambda: True)
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    output_of(capsys, "open", ids["run"])
    assert opened == [Path("runs/rdpo-small/report.html").absolute().as_uri()]


def test_without_a_browser_the_path_is_said(capsys, monkeypatch):
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    assert not report_cmd.open_in_browser(Path("report.html"))
    assert capsys.readouterr().err == "paperworks: no browser can be opened here; the report is report.html\n"


def test_delete_removes_folder_and_entry(capsys, ids, store):
    assert output_of(capsys, "delete", ids["run"], ids["train"], "--yes") == (
        f"deleted {ids['run']} runs/rdpo-small\ndeleted {ids['train']} runs/train-dpo\n"
    )
    assert list(Path("runs").iterdir()) == []
    assert [record.id for record in store.list()] == [ids["compare"]]


def test_delete_may_keep_the_files(capsys, ids, store):
    output_of(capsys, "delete", ids["run"], "--yes", "--keep-files")
    assert Path("runs/rdpo-small/results.json").is_file()
    assert ids["run"] not in [record.id for record in store.list()]


def test_delete_without_a_terminal_needs_yes(capsys, ids, store):
    assert "without a terminal to ask on it needs --yes" in error_of(capsys, "delete", ids["run"])
    assert len(store.list()) == 3 and Path("runs/rdpo-small").is_dir()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "left"), [("y\n", 2), ("yes\n", 2), ("n\n", 3), ("\n", 3), ("", 3)])
def test_delete_on_a_terminal_asks_and_takes_silence_for_no(capsys, ids, store, monkeypatch, answer, left):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert main(["runs", "delete", ids["run"]]) == 0
    assert "Delete this run and all files in the folder? [y/N]" in capsys.readouterr().err
    assert len(store.list()) == left
    assert Path("runs/rdpo-small").is_dir() == (left == 3)


def test_delete_deletes_all_or_nothing(capsys, ids, store):
    assert "no run 'nothing'" in error_of(capsys, "delete", ids["run"], "nothing", "--yes")
    assert "no run 'rdpo'" in error_of(capsys, "delete", "rdpo", "--yes")  # a name may mean several runs
    going_on = store.start("train", "kto", "now", {})
    assert f"run {going_on.id} is still going on" in error_of(capsys, "delete", ids["run"], going_on.id, "--yes")
    assert len(store.list()) == 4 and Path("runs/rdpo-small").is_dir()
    going_on.finish({})


def test_delete_leaves_a_folder_that_is_no_longer_a_runs(capsys, ids, store):
    Path("elsewhere/compared/run.json").unlink()
    Path("elsewhere/compared/mine.txt").write_text("keep")
    assert "its folder stays" in output_of(capsys, "delete", ids["compare"], "--yes")
    assert Path("elsewhere/compared/mine.txt").is_file()
    assert len(store.list()) == 2


def test_an_unknown_action_names_the_nearest(capsys):
    assert "'shwo' is not one of the choices (did you mean 'show'?)" in error_of(capsys, "shwo", "12")
    assert "'finishd' is not one of the choices (did you mean 'finished'?)" in error_of(capsys, "--status", "finishd")
