"""Files that are whole or not there: every write goes to a temporary name beside its target and is then renamed.

Nothing here knows what is written. A full disk, a kill or a power cut leaves the previous file as it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import math
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from paperworks.core.errors import RunError
from paperworks.core.processes import process_is_alive

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def home() -> Path:
    """The folder of the run index and caches: $PAPERWORKS_HOME, else ~/.paperworks; made where it is missing."""
    path = Path(os.environ.get("PAPERWORKS_HOME") or "~/.paperworks").expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be made ({error.strerror}); set PAPERWORKS_HOME to a folder you can write"
        ) from None
    return path


def cache_dir(*parts: str) -> Path:
    """The folder home()/cache/PARTS, made where it is missing: for what can be computed or fetched again."""
    path = home().joinpath("cache", *parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Writes a file so that readers see the old content or the new, never a part.

    Raises RunError when the disk is full or the place cannot be written; the previous file is then whole.
    """
    target = Path(path).resolve()  # through a symbolic link: replace what it points to, not the link
    temporary = _temporary_name(target, "tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise write_error(error, path) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A new sibling folder to fill, which takes the name `path` when the block ends without an error.

    A folder of that name is replaced and then removed; on an error the new one is removed and the old one stays.
    Raises RunError when the disk is full.
    """
    target = Path(path).resolve()
    temporary = _temporary_name(target, "tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _tidy_after_kill(target)
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        _take_name(temporary, target)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_disk_full(error):
            raise _disk_full(path) from error
        raise
    _sync_folder(target.parent)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, Python's or a library's, says that the disk (or the user's share of it) is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error)  # safetensors and torch raise errors of their own


def write_error(error: OSError, path: str | Path) -> RunError:
    """The one-line error for a failed write to `path`."""
    if is_disk_full(error):
        return _disk_full(path)
    return RunError(f"{path}: cannot be written ({error.strerror or error})")


def write_json_atomic(path: str | Path, value: Any) -> None:
    """Writes indented JSON with `write_atomic`; NaN and infinities become null, numpy and tensor values plain ones."""
    write_atomic(path, json.dumps(json_value(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def json_value(value: Any) -> Any:
    """`value` as what strict JSON can hold (see `write_json_atomic`)."""
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_value(item) for item in value]
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # numpy scalars and arrays, tensors
        return json_value(value.tolist())
    return str(value)


def read_json(path: str | Path) -> Any:
    """The value in a JSON file. Raises RunError when it is missing or damaged."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise RunError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged, expected JSON ({error}); delete it and run again") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None


def sha256_of_files(paths: Iterable[str | Path]) -> str:
    """Hex digest over the names and contents of files, in the order given. Raises RunError where one is unreadable."""
    total = hashlib.sha256()
    for path in map(Path, paths):
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise RunError(f"{path}: cannot be read ({error.strerror})") from None
        total.update(f"{len(path.name)}:{path.name}:{digest.hexdigest()}\n".encode())
    return total.hexdigest()


@contextlib.contextmanager
def file_lock(path: str | Path, *, timeout_seconds: float | None = None) -> Iterator[None]:
    """Holds an exclusive lock on the file `path` (made where missing) against other processes and threads.

    Waits as long as it takes, or raises RunError after `timeout_seconds`. The lock ends with the process, however.
    """
    lock_path = Path(path)
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    with lock_path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if deadline is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline is not None and time.monotonic() >= deadline:
                    raise RunError(
                        f"{path}: held by another process for {timeout_seconds:g} s; wait for it to end"
                    ) from None
                time.sleep(0.02)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _disk_full(path: str | Path) -> RunError:
    return RunError(f"disk full while writing {path}; the previous file is whole; free some space and start again")


def _temporary_name(target: Path, ending: str) -> Path:
    # Host and process stand in the name, so that a later run can tell what a killed one left behind.
    return target.with_name(
        f".{target.name[:120]}.{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}.{ending}"
    )


def _tidy_after_kill(target: Path) -> None:
    """Removes what a killed process left beside `target`; puts back a folder that it had moved aside."""
    start = f".{target.name[:120]}.{socket.gethostname()[:40]}-"
    for leftover in target.parent.iterdir():
        if not leftover.name.startswith(start) or leftover.suffix not in (".tmp", ".old"):
            continue
        pid = leftover.name[len(start) :].split("-")[0]
        if not pid.isdigit() or process_is_alive(int(pid)):
            continue
        if leftover.suffix == ".old" and not target.exists():
            leftover.rename(target)
        elif leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _take_name(temporary: Path, target: Path) -> None:
    if not target.exists():
        temporary.rename(target)
        return
    if _exchange(temporary, target):
        aside = temporary
    else:
        aside = _temporary_name(target, "old")
        target.rename(aside)
        temporary.rename(target)
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swaps two names in one step of the kernel; False where it or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    with contextlib.suppress(
        OSError
    ):  # some network file systems refuse to sync a folder; the rename stands all the same
        _sync(path)
