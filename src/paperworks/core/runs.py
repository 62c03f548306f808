"""What was run: a folder a run, and an index of all of them in SQLite that several processes may write at once.

The folder holds the truth (run.yaml, run.json, metrics.jsonl, results.json); the index only finds folders. Nothing here
knows what a run computes.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import secrets
import shutil
import socket
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

from paperworks.core import files
from paperworks.core.database import Database
from paperworks.core.errors import PaperworksError, RunError, TrainingDiverged
from paperworks.core.options import to_yaml
from paperworks.core.processes import process_identity, process_is_alive
from paperworks.core.surroundings import surroundings

Status = Literal["running", "finished", "failed", "interrupted", "diverged", "killed"]

_COLUMNS = "id, verb, name, folder, status, seed, started, ended, wall_s, pid, process, host, error"
_TABLE = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, verb TEXT NOT NULL, name TEXT NOT NULL, folder TEXT NOT NULL UNIQUE, status TEXT NOT NULL,
    seed INTEGER, started TEXT NOT NULL, ended TEXT, wall_s REAL, pid INTEGER, process TEXT, host TEXT, error TEXT
)"""


@dataclass(frozen=True)
class RunRecord:
    """A line of the index. Times are ISO 8601 with zone; `wall_s` is in seconds and adds up over resumed runs."""

    id: str
    verb: str
    name: str
    folder: Path
    status: Status
    seed: int | None
    started: str
    ended: str | None
    wall_s: float | None
    pid: int | None
    process: str | None  # tells the process from a later one of the same number
    host: str | None
    error: str | None

    def info(self) -> dict[str, Any]:
        """The content of run.json: versions, hardware, arguments, times."""
        return cast(dict[str, Any], files.read_json(self.folder / "run.json"))

    def results(self) -> dict[str, Any]:
        """The content of results.json, empty while there is none."""
        path = self.folder / "results.json"
        return cast(dict[str, Any], files.read_json(path)) if path.exists() else {}

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a line that a kill cut short is left out."""
        return read_metrics(self.folder / "metrics.jsonl")

    def to_json(self) -> dict[str, Any]:
        """The record as plain values."""
        return {**vars(self), "folder": str(self.folder)}


class Run:
    """A run in progress. As a context manager it writes down how the run ended, whatever ends it.

    `log` appends metrics, `finish` stores results. Made by `RunStore.start`.
    """

    def __init__(self, store: RunStore, record: RunRecord, wall_before_s: float) -> None:
        self._store, self.record, self._wall_before_s = store, record, wall_before_s
        self._began = time.monotonic()
        self._has_ended = False
        self._mend_last_line()
        self._metrics = (self.folder / "metrics.jsonl").open("a", encoding="utf-8")

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def folder(self) -> Path:
        return self.record.folder

    def log(self, *, step: int, **metrics: float | int | str | Sequence[float] | None) -> None:
        """Appends one line to metrics.jsonl and flushes it. Raises RunError when the disk is full."""
        line = json.dumps(files.json_value({"step": step, **metrics}), ensure_ascii=False, allow_nan=False)
        try:
            self._metrics.write(line + "\n")
            self._metrics.flush()
        except OSError as error:
            raise files.write_error(error, self.folder / "metrics.jsonl") from error

    def truncate_metrics(self, after_step: int) -> None:
        """Drops the lines whose step is above `after_step`: a resumed run writes them again."""
        path = self.folder / "metrics.jsonl"
        kept = [line for line in read_metrics(path) if line.get("step", 0) <= after_step]
        self._metrics.close()
        files.write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))
        self._metrics = path.open("a", encoding="utf-8")

    def finish(self, results: Mapping[str, Any]) -> None:
        """Writes results.json and ends the run as finished."""
        files.write_json_atomic(self.folder / "results.json", results)
        self.end("finished")

    def end(self, status: Status, error: str | None = None) -> None:
        """Ends the run with a status and, where it failed, the error's one line. A second call changes nothing."""
        if self._has_ended:
            return
        self._has_ended = True
        self._metrics.close()
        wall_s = self._wall_before_s + time.monotonic() - self._began
        self.record = self._store._end(self.record, status, wall_s, error)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.end("finished")
        elif isinstance(error, KeyboardInterrupt):
            self.end("interrupted")
        else:
            self.end("diverged" if isinstance(error, TrainingDiverged) else "failed", _one_line(error))

    def _mend_last_line(self) -> None:
        # A kill in the middle of a write leaves half a line; the next line must not be glued to it.
        path = self.folder / "metrics.jsonl"
        if path.exists() and path.read_bytes()[-1:] not in (b"", b"\n"):
            files.write_atomic(
                path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in read_metrics(path))
            )


class RunStore:
    """The index of runs at `home`/runs.sqlite (default: `files.home()`), for any number of processes at once."""

    def __init__(self, home: str | Path | None = None) -> None:
        self._database = Database(home, _TABLE)
        self.path = self._database.path

    def start(
        self,
        verb: str,
        name: str,
        folder: str | Path | None,
        config: Mapping[str, Any],
        seed: int | None = None,
        resume: bool = False,
        *,
        overwrite: bool = False,
    ) -> Run:
        """A new run in `folder` (default ./runs/VERB-NAME-TIME), or with `resume` the one that is there going on.

        Writes run.yaml (the `config` that repeats the run) and run.json. Raises RunError when the folder has something
        in it and neither `resume` nor `overwrite` is set, or when another process is running there.
        """
        target = (default_folder(verb, name) if folder is None else Path(folder)).absolute()
        earlier = self._earlier(target)
        # A run on another machine may be one whose machine is gone: --resume takes it over.
        is_here = earlier is not None and earlier.host == socket.gethostname()
        if (
            earlier is not None
            and earlier.status == "running"
            and earlier.pid != os.getpid()
            and (is_here or not resume)
        ):
            raise RunError(
                f"{target}: run {earlier.id} is still going on there (process {earlier.pid}); wait or stop it"
            )
        check_folder(target, resume=resume, overwrite=overwrite)
        if target.is_dir() and any(target.iterdir()) and not resume:
            self._clear(target, earlier)
            earlier = None
        return self._open(verb, name, target, config, seed, earlier if resume else None)

    def list(
        self,
        verb: str | None = None,
        name: str | None = None,
        status: Status | None = None,
        limit: int | None = None,
    ) -> list[RunRecord]:
        """The runs, newest first, filtered by exact verb, name and status."""
        with self._database.transaction() as database:
            rows = database.execute(
                f"SELECT {_COLUMNS} FROM runs WHERE (:verb IS NULL OR verb = :verb) AND (:name IS NULL OR name = :name)"
                " ORDER BY started DESC, rowid DESC",
                {"verb": verb, "name": name},
            ).fetchall()
        records = [record for record in map(_record, rows) if status is None or record.status == status]
        return records[:limit]

    def counts(self, since: str) -> dict[tuple[str, str], int]:
        """How many runs of each (verb, name) began since a moment (ISO 8601)."""
        with self._database.transaction() as database:
            rows = database.execute(
                "SELECT verb, name, count(*) AS n FROM runs WHERE datetime(started) >= datetime(?) GROUP BY verb, name",
                (since,),
            ).fetchall()
        return {(row["verb"], row["name"]): row["n"] for row in rows}

    def get(self, id_or_folder: str | Path) -> RunRecord:
        """The run with that id, beginning of an id, or folder. Raises RunError for none or several."""
        word = str(id_or_folder)
        with self._database.transaction() as database:
            row = (
                database.execute(
                    f"SELECT {_COLUMNS} FROM runs WHERE id = ? OR folder = ?", (word, str(Path(word).resolve()))
                ).fetchone()
                or database.execute(
                    f"SELECT {_COLUMNS} FROM runs WHERE folder = ?", (str(Path(word).absolute()),)
                ).fetchone()
            )
            if row:
                return _record(row)
            rows = []
            if re.fullmatch(r"[0-9a-f]+", word):
                rows = database.execute(f"SELECT {_COLUMNS} FROM runs WHERE id LIKE ?", (word + "%",)).fetchall()
        if len(rows) == 1:
            return _record(rows[0])
        if rows:
            raise RunError(
                f"run {word!r} is the beginning of {len(rows)} ids: {', '.join(row['id'] for row in rows[:5])}"
            )
        if (Path(word) / "run.json").is_file():
            return self.add_existing(word)
        raise RunError(f"no run {word!r}; see `paperworks runs` for the ids and folders")

    def delete(self, record: RunRecord, files: bool = True) -> None:
        """Takes a run out of the index and, with `files`, removes its folder. Raises RunError while it is running."""
        if record.status == "running":
            raise RunError(f"run {record.id} is still going on (process {record.pid}); stop it first")
        if files and (record.folder / "run.json").is_file():  # never remove a folder that is not a run's
            shutil.rmtree(record.folder)
        with self._database.transaction(writes=True) as database:
            database.execute("DELETE FROM runs WHERE id = ?", (record.id,))

    def add_existing(self, folder: str | Path) -> RunRecord:
        """Indexes a run folder made elsewhere or moved. Raises RunError when it is not one."""
        target = Path(folder).absolute()
        info = files.read_json(target / "run.json")
        try:
            values = {name: info.get(name) for name in _COLUMNS.split(", ")} | {"folder": target}
            record = RunRecord(
                **{**values, "id": str(info["id"]), "verb": str(info["verb"]), "name": str(info["name"])}
            )
        except (KeyError, AttributeError, TypeError) as error:
            raise RunError(f"{target / 'run.json'}: not the record of a run ({error})") from None
        self._save(record)
        return self.get(record.id)

    def _open(
        self, verb: str, name: str, target: Path, config: Mapping[str, Any], seed: int | None, earlier: RunRecord | None
    ) -> Run:
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise files.write_error(error, target) from None
        record = RunRecord(
            id=earlier.id if earlier else secrets.token_hex(4),
            verb=verb,
            name=name,
            folder=target,
            status="running",
            seed=seed,
            started=earlier.started if earlier else now(),
            ended=None,
            wall_s=None,
            pid=os.getpid(),
            process=process_identity(),
            host=socket.gethostname(),
            error=None,
        )
        files.write_atomic(target / "run.yaml", f"# repeat: paperworks {verb} --config run.yaml\n{to_yaml(config)}")
        files.write_json_atomic(target / "run.json", {**record.to_json(), **surroundings()})
        self._save(record)
        return Run(self, record, wall_before_s=(earlier.wall_s or 0.0) if earlier else 0.0)

    def _end(self, record: RunRecord, status: Status, wall_s: float, error: str | None) -> RunRecord:
        from paperworks.core.devices import peak_memory_bytes

        ended = RunRecord(**{**vars(record), "status": status, "ended": now(), "wall_s": wall_s, "error": error})
        with contextlib.suppress(RunError):  # a full disk must not hide the error that ended the run
            info = files.read_json(record.folder / "run.json")
            memory = {"peak_memory_bytes": peak_memory_bytes()}
            if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
                memory["peak_gpu_memory_bytes"] = peak_memory_bytes("cuda")
            files.write_json_atomic(record.folder / "run.json", {**info, **ended.to_json(), **memory})
        self._save(ended)
        return ended

    def _earlier(self, target: Path) -> RunRecord | None:
        with self._database.transaction() as database:
            row = database.execute(f"SELECT {_COLUMNS} FROM runs WHERE folder = ?", (str(target),)).fetchone()
        if row:
            return _record(row)
        return self.add_existing(target) if (target / "run.json").is_file() else None

    def _clear(self, target: Path, earlier: RunRecord | None) -> None:
        # --overwrite is for run folders; a folder of someone's own files is not ours to remove.
        if earlier is None and not (target / "run.json").is_file():
            raise RunError(
                f"{target}: not a run's folder, so --overwrite leaves it alone; empty it or use another --out"
            )
        shutil.rmtree(target)
        with self._database.transaction(writes=True) as database:
            database.execute("DELETE FROM runs WHERE folder = ?", (str(target),))

    def _save(self, record: RunRecord) -> None:
        values = {**vars(record), "folder": str(record.folder)}
        places = ", ".join(f":{name}" for name in _COLUMNS.split(", "))
        with self._database.transaction(writes=True) as database:
            database.execute("DELETE FROM runs WHERE folder = ? AND id != ?", (str(record.folder), record.id))
            database.execute(f"INSERT OR REPLACE INTO runs ({_COLUMNS}) VALUES ({places})", values)


def check_folder(folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Raises RunError for a folder that a run would not be written into: a file, or one with something in it."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: is a file; give --out a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (resume or overwrite):
        raise RunError(f"{folder}: the folder has something in it; use --resume, --overwrite or another --out")


def default_folder(verb: str, name: str, within: Path = Path("runs")) -> Path:
    """WITHIN/VERB-NAME-YYYYMMDD-HHMMSS, with a number behind it where that is taken."""
    time_text = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    plain_name = re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "run"
    folder = first = within / f"{verb}-{plain_name[:80]}-{time_text}"
    number = 2
    while folder.exists():
        folder, number = first.with_name(f"{first.name}-{number}"), number + 1
    return folder


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a line that a kill cut short is left out. Empty where there is no file."""
    lines = []
    with contextlib.suppress(FileNotFoundError):
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict):
                    lines.append(line)
    return lines


def _record(row: sqlite3.Row) -> RunRecord:
    record = RunRecord(**{**dict(row), "folder": Path(row["folder"])})
    if record.status != "running" or record.host != socket.gethostname() or record.pid is None:
        return record
    is_alive = process_is_alive(record.pid, record.process or "")
    return record if is_alive else RunRecord(**{**vars(record), "status": "killed"})


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, PaperworksError) else f"{type(error).__name__}: {text}"


def now() -> str:
    """This moment as the run store writes it: ISO 8601 with the zone, to milliseconds."""
    return datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
