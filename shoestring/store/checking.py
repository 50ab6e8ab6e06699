"""Check a large file beside the work, where doing it before the start would keep everybody waiting for minutes.

It takes a fifth of the time it could, so that it takes no more than a fifth of the disk: a file of 10 GB, 10 minutes
on a disk that reads 80 MB a second. Table by table, so that the WAL is not kept from its start for all of that time.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from shoestring.core.errors import DatabaseDamaged
from shoestring.store import schema

#: Steps of SQLite's machine between two rests: about a thirtieth of a second on a disk of that kind.
_STEPS: Final = 100_000
_REST: Final = 4  # times as long as it worked
_REST_S_MAX: Final = 1.0


class Check:
    """One check of a whole file, in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stopped = threading.Event()
        self._worked_since_s = 0.0

    def run(self) -> bool:
        """Return True if the file is whole, False if the check was stopped before it knew; raise DatabaseDamaged."""
        with closing(schema.connect(self._path, cache_kib=512, read_only=True)) as conn:
            tables: list[str] = [row[0] for row in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            self._worked_since_s = time.monotonic()
            conn.set_progress_handler(self._rest, _STEPS)
            try:
                for table in tables:
                    schema.check_whole(conn, self._path, table)
            except sqlite3.DatabaseError as error:
                if self._stopped.is_set():
                    return False
                raise DatabaseDamaged(
                    f"{self._path} could not be checked to its end: {error}. The file was not touched; the daemon "
                    "ends. Look at the disk's health (dmesg), keep a copy of the file, then start again."
                ) from error
        return not self._stopped.is_set()

    def _rest(self) -> bool:
        """Sleep off the work since the last rest; True ends the check."""
        worked_s = time.monotonic() - self._worked_since_s
        self._stopped.wait(min(_REST * worked_s, _REST_S_MAX))
        self._worked_since_s = time.monotonic()
        return self._stopped.is_set()

    def stop(self) -> None:
        self._stopped.set()
