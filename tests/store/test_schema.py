"""The tables refuse what must not be, and a file that is not whole, ours and of our time is left as it was."""

from __future__ import annotations

import gc
import os
import random
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shoestring.core.errors import DatabaseDamaged, DatabaseNewer, StorageError
from shoestring.store import schema
from shoestring.store.batch import Batch
from shoestring.store.schema import APPLICATION_ID, MIGRATIONS, VERSION, connect, open_database
from shoestring.store.verify import verify
from tests.store.conftest import NOW_MS, chunk, commit, delayed, job, lane, ready

# -- what the tables refuse ---------------------------------------------------------------------------------------

GOOD: dict[str, tuple[object, ...]] = {
    "meta": ("k", 1),
    "handlers": (9, "h"),
    "lanes": (9, "q", "u", 5, 1, 1, 1, 1, 1, 0),
    "parks": ("lane", "9", NOW_MS, "429"),
    "buckets": ("q", "u", 0.5, 10.0, 2.0, NOW_MS),
    "ready": (1, 2, 3, 0, NOW_MS, None, 1, 5, "{}", None),
    "delayed": (NOW_MS, 2, 1, 2, 3, 0, NOW_MS, None, 1, 5, "{}", None),
    "chunks": (9, 1, 5, "[1]"),
    "progress": (9, "[]"),
    "jobs": tuple(job(9, accepted=0)),
    "discarded": (9, 1, 2, 3, 1, NOW_MS, NOW_MS, None, "{}", None, "ValueError", "Traceback"),
    "uniques": ("k", 9),
}

#: Table, place of the column, and a value it must not take, with what a daemon that wrote it would have lost.
BAD: list[tuple[str, int, object]] = [
    ("lanes", 9, -1),  # a delayed task that was counted twice
    ("lanes", 3, 4),  # more ended than was accepted
    ("parks", 0, "task"),
    ("buckets", 2, -0.1),
    ("buckets", 3, 0.0),
    ("buckets", 4, -1.0),
    ("ready", 3, -1),
    ("ready", 6, 0),
    ("delayed", 5, -1),
    ("delayed", 8, 0),
    ("chunks", 1, 0),
    ("jobs", 2, "running"),
    ("jobs", 15, 2),
    ("jobs", 13, NOW_MS),  # an open job that has finished
    ("jobs", 9, 1),  # more done than accepted
]


def insert(conn: sqlite3.Connection, table: str, values: tuple[object, ...]) -> None:
    conn.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(values))})", values)


@pytest.mark.parametrize("table", GOOD)
def test_a_row_as_it_should_be_is_taken(conn: sqlite3.Connection, table: str) -> None:
    """Otherwise the refusals below would prove nothing."""
    insert(conn, table, GOOD[table])

    key = conn.execute(f"PRAGMA table_info({table})").fetchone()[1]
    assert GOOD[table] in conn.execute(f"SELECT * FROM {table} WHERE {key} = ?", GOOD[table][:1]).fetchall()


@pytest.mark.parametrize(("table", "place", "value"), BAD)
def test_a_row_that_must_not_be_is_refused(conn: sqlite3.Connection, table: str, place: int, value: object) -> None:
    """The last line of defence for the books: a bug above becomes an error, not a wrong count."""
    values = (*GOOD[table][:place], value, *GOOD[table][place + 1 :])

    with pytest.raises(sqlite3.IntegrityError, match="CHECK constraint failed"):
        insert(conn, table, values)


@pytest.mark.parametrize(
    ("table", "place"),
    [
        (table, place)
        for table, values in GOOD.items()
        for place, value in enumerate(values)
        if value is not None
        and (place or table not in ("handlers", "lanes", "chunks", "progress", "jobs", "discarded"))
    ],
)
def test_a_value_that_must_be_there_cannot_be_missing(conn: sqlite3.Connection, table: str, place: int) -> None:
    """A NULL nobody wrote is how half a row goes unnoticed."""
    values = (*GOOD[table][:place], None, *GOOD[table][place + 1 :])

    with pytest.raises(sqlite3.IntegrityError):
        insert(conn, table, values)


@pytest.mark.parametrize("table", GOOD)
def test_no_key_is_given_twice(conn: sqlite3.Connection, table: str) -> None:
    """Two rows of one task would run twice."""
    insert(conn, table, GOOD[table])

    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE constraint failed"):
        insert(conn, table, GOOD[table])


def test_a_finished_job_has_its_instant_and_no_other_has(conn: sqlite3.Connection) -> None:
    """What is pruned is decided by it."""
    for state in ("open", "sealed", "done", "cancelled"):
        row = job(9, state=state)
        insert(conn, "jobs", row)
        conn.execute("DELETE FROM jobs")
        with pytest.raises(sqlite3.IntegrityError):
            insert(conn, "jobs", (*row[:13], NOW_MS if row[13] is None else None, *row[14:]))


def test_the_hot_tables_have_no_other_index(conn: sqlite3.Connection) -> None:
    """A second index with a random key cost ten times the page writes."""
    indexes = conn.execute(
        "SELECT tbl_name, name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    without_rowid = [row[1] for row in conn.execute("PRAGMA table_list") if row[4]]

    assert [] == indexes
    assert {"ready", "delayed"} <= set(without_rowid)


# -- opening ------------------------------------------------------------------------------------------------------


def test_a_new_file_gets_the_present_version(path: Path) -> None:
    """From nothing to a queue in one step, with the settings crash experiments were made with."""
    with closing(open_database(path)) as conn:
        said = {name: conn.execute(f"PRAGMA {name}").fetchone()[0] for name in
                ("user_version", "application_id", "journal_mode", "synchronous", "wal_autocheckpoint",
                 "cell_size_check", "trusted_schema")}  # fmt: skip
        meta = dict(conn.execute("SELECT key, value FROM meta").fetchall())

    assert {
        "user_version": VERSION, "application_id": APPLICATION_ID, "journal_mode": "wal", "synchronous": 1,
        "wal_autocheckpoint": 0, "cell_size_check": 1, "trusted_schema": 0,
    } == said  # fmt: skip
    assert {"generation": 0, "next_id": 1} == meta
    assert VERSION == verify(path)


def test_each_migration_is_all_or_nothing_and_taken_up_where_it_stopped(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut, or a mistake, in the middle of an upgrade must not leave half of one."""
    with closing(open_database(path)) as conn:
        commit(conn, Batch(accepted_ready=[ready(1)]))
    good = "CREATE TABLE added (x INTEGER); UPDATE ready SET attempt = 3;"
    monkeypatch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, good, "CREATE TABLE more (x INTEGER); SELECT nonsense();"))
    monkeypatch.setattr(schema, "VERSION", VERSION + 2)

    with pytest.raises(StorageError, match="nonsense"):
        open_database(path)

    with closing(connect(path)) as conn:
        assert VERSION + 1 == conn.execute("PRAGMA user_version").fetchone()[0]
        assert [("added",)] == conn.execute("SELECT name FROM sqlite_schema WHERE name IN ('added', 'more')").fetchall()
        assert [(3,)] == conn.execute("SELECT attempt FROM ready").fetchall()
    monkeypatch.setattr(schema, "MIGRATIONS", (*MIGRATIONS, good, "CREATE TABLE more (x INTEGER);"))
    with closing(open_database(path)) as conn:
        assert VERSION + 2 == conn.execute("PRAGMA user_version").fetchone()[0]
        assert [(3,)] == conn.execute("SELECT attempt FROM ready").fetchall()


# -- files that are not ours to touch -----------------------------------------------------------------------------


def newer(path: Path) -> None:
    with closing(connect(path)) as conn:
        conn.execute(f"PRAGMA user_version = {VERSION + 1}")


def another_programs(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as conn:
        conn.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1);")


def no_database(path: Path) -> None:
    path.write_text("Dear diary, " * 500)


def header_gone(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(100))


def page_of_garbage(path: Path) -> None:
    rng = random.Random(7)
    with path.open("r+b") as file:
        file.seek(4096 * (path.stat().st_size // 4096 // 2))
        file.write(rng.randbytes(4096))


def page_of_zeros(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096 * (path.stat().st_size // 4096 // 2))
        file.write(bytes(4096))


def cut_short(path: Path) -> None:
    os.truncate(path, 4096 * (path.stat().st_size // 4096 * 2 // 3))


def cut_in_a_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1_000)


def with_a_wal(path: Path, spoil: Callable[[Path], None]) -> None:
    """Leave a file as kill -9 does: with commits that are only in its WAL."""
    with closing(open_database(path)) as conn:
        commit(conn, Batch(accepted_ready=[ready(n) for n in range(5_000, 5_100)]))
        left = {name: Path(f"{path}{name}").read_bytes() for name in ("", "-wal")}
    for name, content in left.items():
        Path(f"{path}{name}").write_bytes(content)
    spoil(path)


def newer_with_a_wal(path: Path) -> None:
    with closing(connect(path)) as conn:
        conn.execute(f"PRAGMA user_version = {VERSION + 1}")
        left = {name: Path(f"{path}{name}").read_bytes() for name in ("", "-wal")}
    for name, content in left.items():
        Path(f"{path}{name}").write_bytes(content)


def damaged_with_a_wal(path: Path) -> None:
    with_a_wal(path, page_of_garbage)


@pytest.fixture
def full(path: Path) -> Path:
    """A database of some pages, closed in good order."""
    with closing(open_database(path)) as conn:
        commit(
            conn,
            Batch(
                lanes={1: lane(accepted=900)},
                accepted_ready=[ready(n, body=f'"{"x" * 300}"') for n in range(1, 300)],
                accepted_delayed=[delayed(n, n, body=f'"{"x" * 300}"') for n in range(300, 600)],
                accepted_chunks=[chunk(n) for n in range(1, 300)],
            ),
        )
    return path


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (newer, DatabaseNewer, f"has schema version {VERSION + 1}, this shoestring knows up to {VERSION}"),
        (another_programs, StorageError, "is a database of another program"),
        (no_database, DatabaseDamaged, "is not a readable SQLite database: file is not a database"),
        (header_gone, DatabaseDamaged, "is not a readable SQLite database"),
        (page_of_garbage, DatabaseDamaged, "is damaged|malformed"),
        (page_of_zeros, DatabaseDamaged, "is damaged|malformed"),
        (cut_short, DatabaseDamaged, "is damaged|malformed"),
        (cut_in_a_page, DatabaseDamaged, "is damaged|malformed"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_left_as_it_was(
    full: Path, spoil: Callable[[Path], None], error: type[StorageError], says: str
) -> None:
    """Whoever looks into it later must find what was there, not what a start made of it."""
    spoil(full)
    before = full.read_bytes()

    for look in (open_database, verify):
        with pytest.raises(StorageError, match=says) as refused:
            look(full)
        assert type(refused.value) is error
        assert "Nothing was changed" in str(refused.value)
        assert str(full) in str(refused.value)

    assert before == full.read_bytes()


@pytest.mark.parametrize("spoil", [newer_with_a_wal, damaged_with_a_wal])
def test_what_a_crash_left_in_the_wal_of_a_refused_file_stays_there(full: Path, spoil: Callable[[Path], None]) -> None:
    """The last close of a connection that may write brings the WAL into the file: into a damaged one as well."""
    spoil(full)
    wal = Path(f"{full}-wal")
    before = [full.read_bytes(), wal.read_bytes()]

    with pytest.raises((DatabaseNewer, DatabaseDamaged)):
        open_database(full)

    gc.collect()
    assert before == [full.read_bytes(), wal.read_bytes()]
    assert before[1]


def test_a_start_that_was_cut_short_at_the_very_first_is_taken_up(path: Path) -> None:
    """Power goes while the first file is made: what is left is a journal and nothing in it."""
    with closing(open_database(path)) as conn:
        conn.execute("PRAGMA journal_mode = DELETE")
        conn.execute("BEGIN IMMEDIATE")
        conn.execute("DELETE FROM meta")
        conn.execute("PRAGMA cache_size = 0")
        conn.execute("PRAGMA cache_spill = 1")
        insert(conn, "chunks", (1, 1, 1, "x" * 100_000))
        left = {name: Path(f"{path}{name}").read_bytes() for name in ("", "-journal")}
    for name, content in left.items():
        Path(f"{path}{name}").write_bytes(content)

    with closing(open_database(path)) as conn:
        assert [(0,), (1,)] == conn.execute("SELECT value FROM meta ORDER BY value").fetchall()


def test_damage_is_found_wherever_it_is(full: Path, tmp_path: Path) -> None:
    """Any page but a free one that is overwritten must keep the daemon from starting on it."""
    whole, copy = full.read_bytes(), tmp_path / "copy.db"
    rng = random.Random(3)
    unnoticed = []
    for page in range(len(whole) // 4096):
        copy.write_bytes(whole[: page * 4096] + rng.randbytes(4096) + whole[(page + 1) * 4096 :])
        try:
            with closing(open_database(copy)):
                unnoticed.append(page)
        except DatabaseDamaged:
            pass

    assert [] == unnoticed


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    """A typo in `database` is the first mistake people make."""
    with pytest.raises(StorageError, match="cannot be opened for writing: unable to open database file"):
        open_database(tmp_path / "nowhere" / "q.db")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that is mounted read-only while the test holds it; root obeys nothing less."""
    place = tmp_path / "mounted"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", place], check=True)


@pytest.mark.root
def test_a_read_only_disk_is_a_clear_error(read_only: Path) -> None:
    """A disk that failed is mounted read-only by the kernel; the daemon says so at its start, not at its first task."""
    remount(read_only, "ro")
    with pytest.raises(StorageError, match="cannot be opened for writing"):
        open_database(read_only / "q.db")
    remount(read_only, "rw")
    with closing(open_database(read_only / "q.db")) as conn:
        commit(conn, Batch(accepted_ready=[ready(1)]))
    before = (read_only / "q.db").read_bytes()
    remount(read_only, "ro")

    with pytest.raises(StorageError, match="cannot be opened for writing") as refused:
        open_database(read_only / "q.db")

    assert type(refused.value) is StorageError
    assert before == (read_only / "q.db").read_bytes()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to everything")
@pytest.mark.parametrize("what", ["the folder", "the file"])
def test_what_this_user_may_not_write_is_a_clear_error(full: Path, what: str) -> None:
    """A file made by `sudo shoestring run` is the second mistake people make."""
    before = full.read_bytes()
    (full.parent if what == "the folder" else full).chmod(0o500 if what == "the folder" else 0o400)
    try:
        with pytest.raises(StorageError, match="cannot be opened for writing"):
            open_database(full)
    finally:
        full.parent.chmod(0o700)

    assert before == full.read_bytes()
