"""Files are whole or not there: after a full disk, an error in the block, a killed process."""

import errno
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from paperworks.core import files
from paperworks.core.errors import RunError
from paperworks.core.files import (
    atomic_folder,
    cache_dir,
    file_lock,
    home,
    read_json,
    sha256_of_files,
    write_atomic,
    write_json_atomic,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_home_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERWORKS_HOME", str(tmp_path / "deep" / "home"))
    assert home() == tmp_path / "deep" / "home"
    assert cache_dir("models", "tiny").is_dir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PAPERWORKS_HOME", str(tmp_path / "file" / "x"))
    with pytest.raises(RunError, match="set PAPERWORKS_HOME"):
        home()


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    write_atomic(tmp_path / "a.txt", "old")
    write_atomic(tmp_path / "a.txt", "new ü")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new ü"
    assert names(tmp_path) == ["a.txt"]


def test_write_goes_through_a_symbolic_link(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    write_atomic(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    target = tmp_path / "model.bin"
    write_atomic(target, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RunError, match=r"disk full while writing .*model.bin; the previous file is whole"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["model.bin"]


def test_write_into_a_missing_folder_says_so(tmp_path):
    with pytest.raises(RunError, match=r"x/a.txt: cannot be written \(No such file or directory\)"):
        write_atomic(tmp_path / "x" / "a.txt", "")


def test_folder_appears_whole_and_replaces_the_old_one(tmp_path):
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "checkpoint") as folder:
            (folder / f"{content}.txt").write_text(content)
            assert not (tmp_path / "checkpoint" / "new.txt").exists()
    assert names(tmp_path) == ["checkpoint"]
    assert names(tmp_path / "checkpoint") == ["new.txt"]


def test_folder_is_replaced_where_the_kernel_cannot_swap_names(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    test_folder_appears_whole_and_replaces_the_old_one(tmp_path)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("mine"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, "full"), RunError),
        (RuntimeError("I/O error: No space left on device (os error 28)"), RunError),
        (FileNotFoundError("of the caller"), FileNotFoundError),
    ],
)
def test_failed_block_keeps_the_old_folder(tmp_path, raised, expected):
    with atomic_folder(tmp_path / "checkpoint") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(expected), atomic_folder(tmp_path / "checkpoint") as folder:
        (folder / "a").write_text("new")
        raise raised
    assert names(tmp_path) == ["checkpoint"]
    assert (tmp_path / "checkpoint" / "a").read_text() == "old"


def test_leftovers_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path, dead_pid):
    host = socket.gethostname()[:40]
    dead, alive = f".checkpoint.{host}-{dead_pid}-aa.tmp", f".checkpoint.{host}-{os.getpid()}-bb.tmp"
    (tmp_path / dead).mkdir()
    (tmp_path / alive).mkdir()
    with atomic_folder(tmp_path / "checkpoint"):
        pass
    assert names(tmp_path) == [alive, "checkpoint"]


def test_folder_moved_aside_by_a_killed_process_comes_back(tmp_path, dead_pid):
    aside = tmp_path / f".checkpoint.{socket.gethostname()[:40]}-{dead_pid}-aa.old"
    aside.mkdir()
    (aside / "a").write_text("old")
    with pytest.raises(ValueError, match="stop"), atomic_folder(tmp_path / "checkpoint"):
        raise ValueError("stop")
    assert (tmp_path / "checkpoint" / "a").read_text() == "old"


def test_kill_in_the_middle_of_a_folder_leaves_the_old_one(tmp_path):
    with atomic_folder(tmp_path / "checkpoint") as folder:
        (folder / "a").write_text("old")
    program = (
        "import os, signal; from paperworks.core.files import atomic_folder\n"
        f"with atomic_folder({str(tmp_path / 'checkpoint')!r}) as folder:\n"
        "    (folder / 'a').write_text('new'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    assert (tmp_path / "checkpoint" / "a").read_text() == "old"
    assert len(names(tmp_path)) == 2
    with atomic_folder(tmp_path / "checkpoint"):
        pass
    assert names(tmp_path) == ["checkpoint"]


def test_json_goes_and_comes_and_non_numbers_are_null(tmp_path):
    value = {"loss": float("nan"), "n": np.int64(3), "curve": np.array([1.0, np.inf]), "name": "ü", "path": tmp_path}
    write_json_atomic(tmp_path / "a.json", value)
    expected = {"loss": None, "n": 3, "curve": [1.0, None], "name": "ü", "path": str(tmp_path)}
    assert read_json(tmp_path / "a.json") == expected


@pytest.mark.parametrize("content", [b'{"a": 1', b"", b"\xff\xfe", b"[" * 100_000])
def test_damaged_json_is_a_run_error(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=r"run.json: damaged, expected JSON"):
        read_json(tmp_path / "run.json")


def test_digest_depends_on_names_contents_and_order(tmp_path):
    first, second, third = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    first.write_text("x")
    second.write_text("y")
    third.write_text("x")
    digests = {
        sha256_of_files(paths) for paths in ([first, second], [second, first], [first], [third], [first, second, third])
    }
    assert len(digests) == 5
    assert sha256_of_files([first]) == sha256_of_files([str(first)])
    with pytest.raises(RunError, match="cannot be read"):
        sha256_of_files([tmp_path / "none"])


def _count_up(folder: Path) -> None:
    for _ in range(25):
        with file_lock(folder / "lock"):
            value = int((folder / "count").read_text())
            time.sleep(0.0005)
            (folder / "count").write_text(str(value + 1))


def test_lock_excludes_other_processes(tmp_path):
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_count_up, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "count").read_text() == "75"


def test_lock_gives_up_after_its_time(tmp_path):
    with (
        file_lock(tmp_path / "lock"),
        pytest.raises(RunError, match="held by another process"),
        file_lock(tmp_path / "lock", timeout_seconds=0.05),
    ):
        pass
    with file_lock(tmp_path / "lock", timeout_seconds=0.05):
        pass
