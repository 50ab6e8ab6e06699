"""Look at a database file from outside: is it ours, do we know its version, does it read back whole."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from shoestring.core.errors import DatabaseDamaged, StorageError
from shoestring.store.schema import look


def verify(path: Path) -> int:
    """Return the schema version of the file at `path`, after SQLite's quick check; changes nothing.

    Raises the same errors as opening it to run would. For a process other than the daemon's only: closing the file
    drops the locks a process holds on it.
    """
    try:
        return look(path, whole=True)
    except sqlite3.OperationalError as error:
        raise StorageError(
            f"{path} cannot be read: {error}. Nothing was changed. Check that this user may read it and its folder."
        ) from error
    except sqlite3.DatabaseError as error:
        raise DatabaseDamaged(
            f"{path} is not a readable SQLite database: {error}. Nothing was changed. "
            "Restore a backup, or move the file away to start with an empty queue."
        ) from error
