"""The tables, how a database file is opened, and the numbered migrations between versions.

Layout, and what it costs (measured in `tests/bench`, see README "How it works"):

* `ready` and `delayed` are clustered in the order they are read, (lane, rank) and (due, id), and have no other index:
  a second index with a random key cost ten times the page writes.
* A claim is not written. A task's row stays where it is until its outcome, which deletes or moves it.
* What can be large or changes often stands apart: `chunks` holds the items of a chunk and never changes,
  `progress` the few bytes that say which of them are done.
* The books (`lanes`) and the jobs are small rows that hold absolute figures; the process that owns the file is
  their master, a commit writes what changed.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from shoestring.core.errors import DatabaseDamaged, DatabaseNewer, StorageError

APPLICATION_ID: Final = 0x73686F65  # "shoe"

_TASK_COLUMNS: Final = """
    handler INTEGER NOT NULL,
    attempt INTEGER NOT NULL CHECK (attempt >= 0),
    enqueued_at_ms INTEGER NOT NULL,
    job INTEGER,
    items INTEGER NOT NULL CHECK (items >= 1),
    crc INTEGER NOT NULL,
    body TEXT NOT NULL,
    extra TEXT
"""

_V1: Final = f"""
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE handlers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE lanes (
    id INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    user TEXT NOT NULL,
    accepted INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    discarded INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    expired INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    delayed INTEGER NOT NULL CHECK (delayed >= 0),
    UNIQUE (queue, user),
    CHECK (accepted >= completed + discarded + cancelled + expired + dropped)
);
CREATE TABLE parks (
    scope TEXT NOT NULL CHECK (scope IN ('lane', 'queue', 'user')),
    name TEXT NOT NULL,
    until_ms INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (scope, name)
) WITHOUT ROWID;
CREATE TABLE buckets (
    queue TEXT NOT NULL,
    user TEXT NOT NULL,
    tokens REAL NOT NULL CHECK (tokens >= 0),
    capacity REAL NOT NULL CHECK (capacity > 0),
    rate REAL NOT NULL CHECK (rate >= 0),
    updated_at_ms INTEGER NOT NULL,
    PRIMARY KEY (queue, user)
) WITHOUT ROWID;
CREATE TABLE ready (
    lane INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    {_TASK_COLUMNS},
    PRIMARY KEY (lane, rank)
) WITHOUT ROWID;
CREATE TABLE delayed (
    due_at_ms INTEGER NOT NULL,
    id INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    {_TASK_COLUMNS},
    PRIMARY KEY (due_at_ms, id)
) WITHOUT ROWID;
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    size INTEGER NOT NULL CHECK (size >= 1),
    crc INTEGER NOT NULL,
    items TEXT NOT NULL
);
CREATE TABLE progress (
    id INTEGER PRIMARY KEY,
    state TEXT NOT NULL
);
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    lane INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'sealed', 'done', 'cancelled')),
    spec TEXT NOT NULL,
    cursor TEXT,
    seq INTEGER NOT NULL,
    next_pull_at_ms INTEGER NOT NULL,
    pulls_failed INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    done INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    finished_at_ms INTEGER,
    error TEXT,
    purge INTEGER NOT NULL CHECK (purge IN (0, 1)),
    CHECK (accepted >= done + failed + cancelled),
    CHECK ((finished_at_ms IS NULL) = (state IN ('open', 'sealed')))
);
CREATE TABLE discarded (
    id INTEGER PRIMARY KEY,
    lane INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    handler INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    enqueued_at_ms INTEGER NOT NULL,
    discarded_at_ms INTEGER NOT NULL,
    job INTEGER,
    body TEXT NOT NULL,
    item TEXT,
    error TEXT NOT NULL,
    traceback TEXT NOT NULL
);
CREATE TABLE uniques (
    key TEXT PRIMARY KEY,
    id INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO meta VALUES ('generation', 0), ('next_id', 1);
"""

#: A file up to this size is checked whole before anything else: a fifth of a second at the 300 MB a second that were
#: measured. A larger one is checked beside the work (`checking.Check`).
CHECKED_FIRST_BYTES: Final = 64 << 20

#: Migration n brings a file from version n to n + 1. Never change one that was released; add the next.
MIGRATIONS: Final[tuple[str, ...]] = (_V1,)
VERSION: Final = len(MIGRATIONS)


def connect(path: Path, *, cache_kib: int = 4096, read_only: bool = False) -> sqlite3.Connection:
    """Open one connection with the settings every connection of the daemon has.

    `synchronous=NORMAL`, never OFF: two thirds of simulated power cuts corrupted a file written with OFF, none of
    5,000 one written with NORMAL. Checkpoints are ours to make, on a thread of their own: an automatic one would
    stall whichever commit happens to trigger it.
    """
    uri = f"{path.absolute().as_uri()}{'?mode=ro' if read_only else ''}"
    conn = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=256)
    conn.execute("PRAGMA trusted_schema = OFF")
    conn.execute("PRAGMA cell_size_check = ON")
    conn.execute(f"PRAGMA cache_size = -{cache_kib}")
    conn.execute("PRAGMA busy_timeout = 5000")  # a checkpoint beside the writer, or a person's sqlite3
    if not read_only:
        conn.execute("PRAGMA synchronous = NORMAL")
        conn.execute("PRAGMA wal_autocheckpoint = 0")
    return conn


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file for writing, creating or migrating it, and check that it reads back whole.

    Raises:
        DatabaseNewer: a later version of shoestring wrote the file; nothing was changed.
        DatabaseDamaged: the file fails SQLite's check; nothing was changed, nothing is repaired by itself.
        StorageError: the file cannot be opened or is some other program's.
    """
    try:
        _look_first(path)
        conn = connect(path)
        try:
            identify(conn, path)
            conn.execute("PRAGMA journal_mode = WAL")
            _refuse_read_only(conn)
            migrate(conn)
        except BaseException:
            conn.close()
            raise
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise StorageError(
                f"{path} cannot be opened for writing: {error}. Nothing was changed. "
                "Check that the folder exists, belongs to this user and is not read-only."
            ) from error
        raise DatabaseDamaged(
            f"{path} is not a readable SQLite database: {error}. Nothing was changed. "
            "Restore a backup, or move the file away to start with an empty queue."
        ) from error
    return conn


def _look_first(path: Path) -> None:
    """Refuse a file that cannot be used, without touching it.

    Read-only, because closing a connection that may write brings what is in the WAL into the file: of a damaged one
    nothing would be left as it was.
    """
    if path.exists() and not Path(f"{path}-journal").exists():  # with a journal a start was cut short: nothing is in it
        look(path, whole=not is_large(path))


def is_large(path: Path) -> bool:
    """Tell whether the file is checked beside the work instead of before it."""
    return path.stat().st_size > CHECKED_FIRST_BYTES


def look(path: Path, *, whole: bool) -> int:
    """Return the schema version of a file, after looking whether it can be used; changes nothing."""
    with closing(connect(path, read_only=True)) as conn:
        identify(conn, path)
        if whole:
            check_whole(conn, path)
        version: int = conn.execute("PRAGMA user_version").fetchone()[0]
        return version


def _refuse_read_only(conn: sqlite3.Connection) -> None:
    """Raise if the file cannot be written: SQLite opens it all the same, and tells at the first write, not at BEGIN."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")


def identify(conn: sqlite3.Connection, path: Path) -> None:
    """Raise unless the file is ours, or empty, and of a version known here."""
    version: int = conn.execute("PRAGMA user_version").fetchone()[0]
    owner: int = conn.execute("PRAGMA application_id").fetchone()[0]
    tables: int = conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables and owner != APPLICATION_ID:
        raise StorageError(f"{path} is a database of another program. Nothing was changed. Set another `database`.")
    if version > VERSION:
        raise DatabaseNewer(
            f"{path} has schema version {version}, this shoestring knows up to {VERSION}. Nothing was changed. "
            "Install the version that wrote it, or a later one."
        )


def check_whole(conn: sqlite3.Connection, path: Path, table: str | None = None) -> None:
    """Raise DatabaseDamaged unless SQLite's quick check finds every page, or all of one table, in its place."""
    found: list[tuple[str]] = conn.execute(f"PRAGMA quick_check({table or 5})").fetchall()
    if found != [("ok",)]:
        raise DatabaseDamaged(
            f"{path} is damaged: {'; '.join(row[0] for row in found)}. Nothing was changed. Keep a copy, then restore "
            "a backup or salvage what reads with `sqlite3 FILE .recover`."
        )


def migrate(conn: sqlite3.Connection) -> None:
    """Bring the schema to the present version, each step in a transaction of its own."""
    version: int = conn.execute("PRAGMA user_version").fetchone()[0]
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        conn.executescript(
            f"BEGIN IMMEDIATE; {script} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number};"
            "COMMIT;"
        )
