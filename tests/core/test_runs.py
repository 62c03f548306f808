"""The run store: several processes at once, every way a run can end, resuming, refusing to overwrite."""

import errno
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paperworks.core import runs
from paperworks.core.errors import OptionError, RunError, TrainingDiverged
from paperworks.core.files import read_json
from paperworks.core.options import load_yaml
from paperworks.core.runs import RunStore, default_folder, read_metrics


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "home")


def start(store, tmp_path, name="dpo", folder="run", **options):
    return store.start("train", name, tmp_path / folder, {"objective": name, "beta": 0.1}, seed=3, **options)


def test_a_run_writes_what_repeats_it_and_how_it_went(store, tmp_path):
    with start(store, tmp_path) as run:
        run.log(step=1, loss=0.5, note="ü")
        run.log(step=2, loss=float("nan"))
        run.finish({"accuracy": 0.75})
    assert load_yaml(run.folder / "run.yaml") == {"objective": "dpo", "beta": 0.1}
    info = store.get(run.id).info()
    assert (info["status"], info["seed"], info["id"]) == ("finished", 3, run.id)
    assert info["versions"].keys() >= {"python", "torch", "transformers"}
    assert info["hardware"]["cores"] >= 1
    assert info["peak_memory_bytes"] > 0
    assert info["wall_s"] >= 0
    assert info["ended"] >= info["started"]
    record = store.get(run.folder)
    assert record.results() == {"accuracy": 0.75}
    assert record.metrics() == [{"step": 1, "loss": 0.5, "note": "ü"}, {"step": 2, "loss": None}]
    assert len(run.id) == 8


def test_every_line_is_on_disk_as_soon_as_it_is_logged(store, tmp_path):
    with start(store, tmp_path) as run:
        run.log(step=1, loss=0.5)
        assert read_metrics(run.folder / "metrics.jsonl") == [{"step": 1, "loss": 0.5}]


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (OptionError("beta=0\nis out of range"), "failed", "beta=0 is out of range"),
        (ZeroDivisionError("division by zero"), "failed", "ZeroDivisionError: division by zero"),
        (TrainingDiverged("loss is NaN at step 7"), "diverged", "loss is NaN at step 7"),
        (KeyboardInterrupt(), "interrupted", None),
    ],
)
def test_a_run_that_ends_badly_says_how(store, tmp_path, raised, status, line):
    with pytest.raises(type(raised)), start(store, tmp_path) as run:
        raise raised
    record = store.get(run.id)
    assert (record.status, record.error) == (status, line)
    assert record.info()["error"] == line


def test_a_folder_with_something_in_it_is_refused(store, tmp_path):
    start(store, tmp_path).finish({})
    with pytest.raises(RunError, match="use --resume, --overwrite or another --out"):
        start(store, tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(RunError, match="not a run's folder, so --overwrite leaves it alone"):
        start(store, tmp_path, folder="mine", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        start(store, tmp_path, folder="file")
    (tmp_path / "empty").mkdir()
    start(store, tmp_path, folder="empty").finish({})


def test_overwrite_begins_anew(store, tmp_path):
    first = start(store, tmp_path)
    first.log(step=1, loss=1.0)
    first.finish({"accuracy": 1})
    second = start(store, tmp_path, overwrite=True)
    second.end("finished")
    assert second.id != first.id
    assert [record.id for record in store.list()] == [second.id]
    assert store.get(second.id).metrics() == []
    assert store.get(second.id).results() == {}


def test_resume_keeps_the_id_drops_later_lines_and_adds_up_the_time(store, tmp_path):
    first = start(store, tmp_path)
    for step in (1, 2, 3):
        first.log(step=step, loss=float(step))
    first._wall_before_s = 100.0
    first.end("interrupted")
    with (first.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # cut short by a kill
    second = start(store, tmp_path, resume=True)
    second.truncate_metrics(after_step=2)
    second.log(step=3, loss=33.0)
    second.finish({})
    record = store.get(first.id)
    assert [line["loss"] for line in record.metrics()] == [1.0, 2.0, 33.0]
    assert record.status == "finished"
    assert record.wall_s is not None
    assert 100 <= record.wall_s < 150
    assert len(store.list()) == 1


def test_a_line_cut_short_is_not_glued_to_the_next(store, tmp_path):
    start(store, tmp_path).end("interrupted")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    with start(store, tmp_path, resume=True) as run:
        run.log(step=2, loss=1.0)
    assert run.record.metrics() == [{"step": 1}, {"step": 2, "loss": 1.0}]


def test_resume_in_an_empty_place_is_a_first_start(store, tmp_path):
    with start(store, tmp_path, resume=True) as run:
        pass
    assert store.get(run.id).status == "finished"


def test_a_killed_run_is_shown_as_killed_and_can_be_resumed(store, tmp_path):
    program = (
        "import os, signal, sys; from paperworks.core.runs import RunStore\n"
        f"run = RunStore({str(tmp_path / 'home')!r}).start('train', 'dpo', {str(tmp_path / 'run')!r}, {{}})\n"
        "run.log(step=1, loss=1.0); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    (record,) = store.list()
    assert record.status == "killed"
    assert store.list(status="killed") == [record]
    assert store.list(status="running") == []
    with start(store, tmp_path, resume=True) as run:
        assert run.id == record.id
    assert store.get(record.id).status == "finished"


def test_a_folder_where_another_process_runs_is_refused(store, tmp_path):
    program = (
        "import sys; from paperworks.core.runs import RunStore\n"
        f"run = RunStore({str(tmp_path / 'home')!r}).start('train', 'dpo', {str(tmp_path / 'run')!r}, {{}})\n"
        "print('started', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        with pytest.raises(RunError, match="still going on there"):
            start(store, tmp_path, resume=True)
        with pytest.raises(RunError, match="stop it first"):
            store.delete(store.list()[0])
    finally:
        process.kill()
        process.communicate()


def _make_runs(home: Path, folder: Path, worker: int) -> None:
    for index in range(6):
        with RunStore(home).start("train", f"w{worker}", folder / f"{worker}-{index}", {}) as run:
            run.log(step=1, loss=0.0)


def test_several_processes_write_at_once_from_an_empty_home(tmp_path):
    context = multiprocessing.get_context("fork")
    arguments = [(tmp_path / "home", tmp_path, worker) for worker in range(4)]
    processes = [context.Process(target=_make_runs, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    records = RunStore(tmp_path / "home").list()
    assert len(records) == len({record.id for record in records}) == 24
    assert {record.status for record in records} == {"finished"}


def test_list_filters_and_orders_newest_first(store, tmp_path):
    for name in ("a", "b", "a"):
        start(store, tmp_path, name=name, folder=f"{name}{len(store.list())}").end("finished")
    assert [record.name for record in store.list()] == ["a", "b", "a"]
    assert store.list()[0].folder.name == "a2"
    assert [record.folder.name for record in store.list(name="a")] == ["a2", "a0"]
    assert len(store.list(limit=1)) == 1
    assert store.list(verb="compare") == []


def test_get_takes_an_id_its_beginning_or_a_folder(store, tmp_path, monkeypatch):
    counter = itertools.count()
    monkeypatch.setattr(runs.secrets, "token_hex", lambda size: f"abcd{next(counter):04x}")
    first, second = start(store, tmp_path, folder="a"), start(store, tmp_path, folder="b")
    first.end("finished")
    second.end("finished")
    assert store.get(first.id).folder.name == "a"
    monkeypatch.chdir(tmp_path)
    assert store.get("b").id == second.id
    with pytest.raises(RunError, match="beginning of 2 ids"):
        store.get("abcd")
    with pytest.raises(RunError, match=r"no run 'zzz'; see `paperworks runs`"):
        store.get("zzz")
    with pytest.raises(RunError, match="no run '%'"):
        store.get("%")


def test_a_folder_from_elsewhere_is_taken_in(store, tmp_path):
    start(store, tmp_path).finish({})
    other = RunStore(tmp_path / "other home")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert other.get(tmp_path / "moved").name == "dpo"
    assert [record.folder.name for record in other.list()] == ["moved"]
    (tmp_path / "moved" / "run.json").write_text("[]")
    with pytest.raises(RunError, match="not the record of a run"):
        other.add_existing(tmp_path / "moved")


def test_delete_takes_the_folder_or_leaves_it(store, tmp_path):
    for folder, with_files in (("a", True), ("b", False)):
        start(store, tmp_path, folder=folder).end("finished")
        store.delete(store.get(tmp_path / folder), files=with_files)
    assert store.list() == []
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "b" / "run.json").exists()


def test_full_disk_while_logging_is_said_and_the_run_is_marked_failed(store, tmp_path):
    class Full:
        def write(self, text: str) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self) -> None:
            pass

    with pytest.raises(RunError, match="disk full while writing"), start(store, tmp_path) as run:
        run._metrics.close()
        run._metrics = Full()
        run.log(step=1, loss=0.0)
    assert store.get(run.id).status == "failed"


def test_a_damaged_index_is_one_line(tmp_path):
    (tmp_path / "runs.sqlite").write_bytes(b"not a database, and long enough to look at " * 50)
    with pytest.raises(RunError, match="the index of runs cannot be used"):
        RunStore(tmp_path).list()


def test_default_folder_is_named_by_verb_name_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = default_folder("compare", "dpo/../rdpo x")
    assert folder.parent == Path("runs")
    assert folder.name.startswith("compare-dpo-..-rdpo-x-20")
    folder.mkdir(parents=True)
    assert default_folder("compare", "dpo/../rdpo x") != folder


def test_run_json_is_strict_json(store, tmp_path):
    with start(store, tmp_path) as run:
        run.finish({"loss": float("inf")})
    json.loads((run.folder / "results.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read_json(run.folder / "results.json") == {"loss": None}
