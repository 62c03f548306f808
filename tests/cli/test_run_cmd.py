"""`paperworks run`: what is computed, kept, shown, recorded and refused; killed or stopped, the same command goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paperworks import papers
from paperworks.catalog import Catalog, evidence
from paperworks.cli.main import main
from paperworks.core.options import load_yaml
from paperworks.core.runs import RunStore

TOYS = Path(__file__).parent / "toy_papers"
FOLDER = Path("runs/toy-paper-small")


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    """The toy paper among the papers, in a working folder and with a results folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(papers, "__path__", [*papers.__path__, str(TOYS)])
    monkeypatch.setattr(evidence, "results_folder", lambda: tmp_path / "results")


def run(*arguments: str) -> int:
    return main(["run", "toy-paper", "--workers", "1", *arguments])


def calls(folder: Path = FOLDER) -> list[str]:
    path = folder / "calls.txt"
    return sorted(path.read_text().splitlines()) if path.exists() else []


def cell_files(folder: Path = FOLDER) -> list[Path]:
    return sorted(folder.glob("cells/*/*/*/*.json"))


def scores(folder: Path = FOLDER) -> dict[str, float]:
    return {
        str(path.relative_to(folder)): json.loads(path.read_text())["metrics"]["score"] for path in cell_files(folder)
    }


def test_a_run_prints_tables_verdicts_the_report_and_what_to_do_next(capsys):
    assert run() == 0
    shown = capsys.readouterr().out
    (record,) = RunStore().list()
    assert "A. toy, easy" in shown and "bound (control)" in shown
    assert re.search(r"✓ holds +good has higher score than bad at easy +good − bad: \+1.000", shown)
    assert re.search(r"✗ reversed +bad has higher score than good at hard", shown)
    assert shown.endswith(
        f"report  {FOLDER}/report.html\n"
        f"next    paperworks report {record.id} --open\n"
        "        paperworks run toy-paper --seeds 10\n"
    )
    assert (record.verb, record.name, record.status) == ("run", "toy-paper", "finished")
    assert record.folder == FOLDER.absolute()
    assert "A toy paper" in (FOLDER / "report.html").read_text()
    assert (FOLDER / "figures" / "A-easy-score.svg").is_file()
    assert [claim["verdict"] for claim in record.results()["claims"]] == ["holds", "reversed"]


def test_the_same_command_computes_nothing_twice_and_more_seeds_only_the_new_ones():
    run()
    assert len(cell_files()) == 30 and len(calls()) == 35
    run()
    assert len(calls()) == 35
    run("--seeds", "7")
    assert len(cell_files()) == 42
    assert set(calls()[-2:]) == {"prepare 5", "prepare 6"}
    assert len(calls()) == 35 + 12 + 2
    assert len(RunStore().list()) == 1


def test_fresh_computes_everything_anew():
    run("--budget", "smoke")
    run("--budget", "smoke", "--fresh")
    computed = calls(Path("runs/toy-paper-smoke"))
    assert (computed.count("prepare 0"), computed.count("good easy 1")) == (2, 2)


def test_json_has_every_arm_seed_and_claim(capsys):
    assert run("--seeds", "6", "--json") == 0
    output = json.loads(capsys.readouterr().out)
    (good,) = (arm for arm in output["arms"] if (arm["arm"], arm["setting"]) == ("good", "hard"))
    assert good["metrics"]["score"]["values"] == {str(seed): 10.0 * seed + 1 for seed in range(6)}
    assert good["metrics"]["score"]["mean"] == 26.0
    assert output["claims"][0]["difference"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 6}
    assert output["claims"][1]["verdict"] == "reversed"
    assert Path(output["report"]).is_file()
    assert (output["cells"], output["failures"], output["record"]) == (36, [], None)


def test_its_run_yaml_repeats_a_run():
    run("--seeds", "3", "--arms", "good,bad")
    config = FOLDER / "run.yaml"
    assert load_yaml(config) == {
        "slug": "toy-paper", "budget": "small", "seeds": 3, "arms": ["good", "bad"], "parts": [],
    }  # fmt: skip
    assert main(["run", "--config", str(config), "--out", "again", "--workers", "1"]) == 0
    assert scores(Path("again")) == scores()
    assert main(["run", "--config", str(config), "--out", "more", "--seeds", "4", "--workers", "1"]) == 0
    assert len(cell_files(Path("more"))) == 16


def test_smoke_says_that_it_is_no_evidence(capsys):
    run("--budget", "smoke")
    shown = capsys.readouterr().out
    assert "note    the smoke budget only shows that everything runs; its verdicts are no evidence\n" in shown
    assert "        paperworks run toy-paper\n" in shown


def test_progress_goes_to_standard_error_unless_quiet(capsys):
    run("--budget", "smoke")
    assert "A · toy: 12/12 (100%)" in capsys.readouterr().err
    run("--budget", "smoke", "--fresh", "--quiet")
    assert capsys.readouterr().err == ""


def test_a_failed_cell_is_one_line_and_the_others_are_kept(capsys, monkeypatch):
    monkeypatch.setenv("TOY_FAIL", "good hard 1")
    assert run("--quiet") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(
        "paperworks: error: part A hard good seed 1 failed: prefs.jsonl:3: expected rows; see "
    )
    assert captured.err.count("\n") == 1
    assert "29 cells, 1 failed" in captured.out
    (record,) = RunStore().list()
    assert record.status == "failed" and "prefs.jsonl:3" in (record.error or "")
    assert "prefs.jsonl:3: expected rows" in (FOLDER / "report.html").read_text()
    monkeypatch.delenv("TOY_FAIL")
    assert run() == 0
    assert calls().count("good hard 1") == 2 and len(calls()) == 36
    assert RunStore().list()[0].status == "finished"


def test_when_every_cell_fails_there_is_still_one_line(capsys, monkeypatch):
    monkeypatch.setenv("TOY_FAIL", "*")
    assert run("--quiet") == 2
    assert re.fullmatch(r"paperworks: error: part A .* failed \(and 29 more\): .*\n", capsys.readouterr().err)


def test_control_c_says_how_to_go_on(capsys, monkeypatch):
    monkeypatch.setenv("TOY_INTERRUPT", "bad easy 1")
    assert run("--quiet") == 130
    line = capsys.readouterr().err
    kept = len(cell_files())
    assert f"stopped; {kept} of 30 cells are finished and kept in {FOLDER}; the same command goes on\n" in line
    assert 0 < kept < 30
    assert RunStore().list()[0].status == "interrupted"
    monkeypatch.delenv("TOY_INTERRUPT")
    before = calls()
    assert run() == 0
    assert len(calls()) - len(before) == 30 - kept


def test_control_c_of_a_fresh_run_goes_on_without_fresh(capsys, monkeypatch):
    monkeypatch.setenv("TOY_INTERRUPT", "bad easy 1")
    assert run("--quiet", "--fresh") == 130
    assert "the same command goes on when --fresh is left out" in capsys.readouterr().err


def test_a_whole_run_is_recorded(capsys, tmp_path):
    assert run("--record") == 0
    assert f"record  {tmp_path}/results/toy-paper.json\n" in capsys.readouterr().out
    recorded = evidence.read_recorded(tmp_path / "results" / "toy-paper.json")
    assert recorded is not None and not recorded.problem
    assert (recorded.budget, recorded.seeds) == ("small", 5)
    assert recorded.counts == {"holds": 1, "reversed": 1, "not shown": 0}


def test_without_a_checkout_the_record_goes_to_the_working_folder(monkeypatch):
    monkeypatch.setattr(evidence, "results_folder", lambda: evidence.PACKAGE / "_results")
    assert run("--record") == 0
    assert Path("results/toy-paper.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--budget", "smoke"], "the smoke budget is no evidence"),
        (["--arms", "good,bad"], "leave out --arms"),
        (["--parts", "A"], "leave out --parts"),
        (["--seeds", "4"], "the budget 'small' has 5 seeds, --seeds 4 is fewer; leave out --seeds or give at least 5"),
    ],
)
def test_what_is_no_evidence_is_refused_before_it_is_computed(capsys, arguments, line):
    assert run("--record", *arguments) == 2
    assert line in capsys.readouterr().err
    assert not Path("runs").exists() and not RunStore().list()


def test_a_run_with_failures_is_not_recorded(monkeypatch, tmp_path):
    monkeypatch.setenv("TOY_FAIL", "good hard 1")
    assert run("--record") == 2
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["toy-papers"], "no paper named 'toy-papers' (did you mean 'toy-paper'?)"),
        ([], "run: name a paper: paperworks run SLUG"),
        (["toy-paper", "--arms", "god"], "toy-paper: unknown arm 'god' (did you mean 'good'?)"),
        (["toy-paper", "--parts", "Z"], "toy-paper: unknown part 'Z'"),
        (["toy-paper", "--budget", "smal"], "'smal' is not one of the choices (did you mean 'small'?)"),
        (["toy-paper", "--seeds", "0"], "seeds=0 is out of range: it must be ≥ 1"),
        (["toy-paper", "--seeds", "1.5"], "--seeds: expected a whole number"),
        (["toy-paper", "--workers", "0"], "--workers: expected a whole number of at least 1, got 0"),
        (["toy-paper", "--sedes", "3"], "unknown option --sedes (did you mean '--seeds'?)"),
        (["--config", "none.yaml"], "none.yaml: no such file"),
    ],
)
def test_a_wrong_name_or_number_leaves_nothing_behind(capsys, arguments, line):
    assert main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1
    assert not Path("runs").exists() and not RunStore().list()


def test_an_unknown_name_in_a_configuration_is_refused(capsys):
    Path("run.yaml").write_text("slug: toy-paper\nsedes: 3\n")
    assert main(["run", "--config", "run.yaml"]) == 2
    assert "run: unknown option 'sedes' (did you mean 'seeds'?)" in capsys.readouterr().err


def test_a_folder_of_other_things_is_left_alone(capsys):
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("all of it")
    assert run("--out", "mine") == 2
    assert "mine: has something in it that is no run of an experiment" in capsys.readouterr().err
    RunStore().start("train", "rdpo", "trained", {}).finish({})
    assert run("--out", "trained") == 2
    assert "trained: holds another run (train rdpo); give --out another folder" in capsys.readouterr().err
    run("--budget", "smoke")
    capsys.readouterr()
    assert run("--out", "runs/toy-paper-smoke") == 2
    assert "holds a run of the budget 'smoke'" in capsys.readouterr().err
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.tex"]


def test_cells_computed_from_python_are_found(tmp_path):
    from paperworks.experiment import run_experiment

    run_experiment(papers.experiment_of("toy-paper"), workers=1)
    before = calls()
    assert run() == 0
    assert calls() == before


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(TOYS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **more}


def start(*arguments: str, **more: str) -> subprocess.Popen[str]:
    """`paperworks run toy-paper` in two processes, in a session of its own as a terminal gives it."""
    command = [sys.executable, "-m", "paperworks", "run", "toy-paper", "--workers", "2", *arguments]
    return subprocess.Popen(
        command,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_cells(process: subprocess.Popen[str], count: int) -> None:
    while len(cell_files()) < count:
        assert process.poll() is None
        time.sleep(0.01)


def test_killed_at_any_moment_the_same_command_computes_the_missing_cells_only():
    process = start(TOY_SLEEP="0.1")
    wait_for_cells(process, 3)
    process.kill()
    process.communicate()
    assert RunStore().list()[0].status == "killed"
    kept = {path: path.stat().st_mtime_ns for path in cell_files()}
    assert 3 <= len(kept) < 30
    again = start()
    output, errors = again.communicate()
    assert again.returncode == 0, errors
    assert f"{len(kept)} of 30 cells are finished already" in errors
    assert "30 cells" in output
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    (record,) = RunStore().list()
    assert record.status == "finished"
    run("--out", "whole")
    assert scores() == scores(Path("whole"))
    assert record.results()["claims"] == RunStore().get("whole").results()["claims"]


def test_control_c_on_a_terminal_stops_the_workers_and_exits_130():
    process = start(TOY_SLEEP="0.2")
    wait_for_cells(process, 1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert re.search(
        r"paperworks: stopped; \d+ of 30 cells are finished and kept in .*; the same command goes on", errors
    )
    assert "Traceback" not in errors
    assert RunStore().list()[0].status == "interrupted"


def test_a_paper_of_this_version_runs(capsys):
    assert main(["run", "rdpo", "--budget", "smoke", "--parts", "A", "--arms", "rdpo,dpo", "--workers", "1"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"rDPO has lower value below the optimal policy than DPO at flip=0.3", shown)
    assert "paperworks train rdpo --model smollm2-135m --data FILE.jsonl --out my-model" in shown


def without_experiment() -> str:
    """A paper of the catalogue that cannot be run yet; its name stands for none when all can."""
    return next(
        (card.slug for card in Catalog.open().cards() if card.slug not in papers.papers_here()), "no-such-paper"
    )


@pytest.mark.parametrize("argv", [["run", "--help"], ["run", without_experiment()], ["runs"], ["report", "rdpo"]])
def test_nothing_heavy_is_imported_without_need(argv):
    heavy = "{'torch', 'transformers', 'scipy', 'matplotlib', 'rich'}"
    program = (
        f"import sys; from paperworks.cli.main import main\nmain({argv!r})\nprint(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
