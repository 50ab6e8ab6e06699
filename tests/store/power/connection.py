"""A connection through the recording VFS that the store's functions take for one of sqlite3's.

Only apsw can put a VFS under SQLite; its copy of SQLite writes the same files, and what is checked in the end is read
by the ordinary one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import apsw

from shoestring.store.rows import Value
from tests.store.power.disk import Recorder


class Answer:
    """What `execute` gives back: all rows, read already, so that no statement stays open."""

    def __init__(self, rows: list[tuple[Value, ...]], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def fetchone(self) -> tuple[Value, ...] | None:
        return self._rows.pop(0) if self._rows else None

    def fetchall(self) -> list[tuple[Value, ...]]:
        rows, self._rows = self._rows, []
        return rows


class RecordedConnection:
    """As much of `sqlite3.Connection` as the store uses."""

    def __init__(self, path: Path, recorder: Recorder, *, synchronous: str) -> None:
        self._conn = apsw.Connection(str(path), vfs=recorder.name)
        # What `schema.connect` sets; a test compares the two.
        self.execute("PRAGMA trusted_schema = OFF")
        self.execute("PRAGMA cell_size_check = ON")
        self.execute("PRAGMA busy_timeout = 5000")
        self.execute(f"PRAGMA synchronous = {synchronous}")
        self.execute("PRAGMA wal_autocheckpoint = 0")

    @property
    def in_transaction(self) -> bool:
        return self._conn.in_transaction

    def execute(self, statement: str, values: Sequence[Value] = ()) -> Answer:
        rows = list(self._conn.execute(statement, tuple(values)))
        return Answer(rows, self._conn.changes())

    def executescript(self, script: str) -> None:
        self._conn.execute(script)

    def kill(self) -> None:
        """Close as `kill -9` leaves it: the WAL stays as it is."""
        self._conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._conn.close()

    def close(self) -> None:
        self._conn.close()


def as_sqlite3(conn: RecordedConnection) -> sqlite3.Connection:
    """Hand the connection to functions that are written for sqlite3's."""
    return cast(sqlite3.Connection, conn)
