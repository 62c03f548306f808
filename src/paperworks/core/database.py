"""The run store's file, `home`/runs.sqlite: one SQLite database that any number of processes may read and write at once.

Runs, the queue of jobs and subscriptions each keep tables of their own in it. Nothing here knows what they hold.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from paperworks.core import files
from paperworks.core.errors import RunError


class Database:
    """The file at `home`/runs.sqlite (default: `files.home()`), with the tables that `schema` makes where they are missing.

    `schema` is SQL of CREATE … IF NOT EXISTS statements.
    """

    def __init__(self, home: str | Path | None, schema: str) -> None:
        self.path = (files.home() if home is None else Path(home)) / "runs.sqlite"
        self._schema = schema

    @contextlib.contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction: opened and closed each time, so that forks and threads share none.

        Rolled back where the block raises. Raises RunError where the file cannot be used.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            try:
                connection.row_factory = sqlite3.Row
                self._prepare(connection)
                connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
                try:
                    yield connection
                except BaseException:
                    connection.rollback()
                    raise
                connection.execute("COMMIT")
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise RunError(
                f"{self.path}: the index of runs cannot be used ({error}); move it away to begin a new one"
            ) from error

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # Two processes that begin at once both want to switch to the write-ahead log; its own timeout does not cover that.
        for attempt in range(60):
            try:
                if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    connection.execute("PRAGMA journal_mode = WAL")
                for statement in filter(str.strip, self._schema.split(";")):
                    connection.execute(statement)
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or attempt == 59:
                    raise
                time.sleep(0.05)
