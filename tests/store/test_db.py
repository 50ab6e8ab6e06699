"""Where the loop meets SQLite: one function, one transaction, whoever is cancelled; and a WAL that stays short."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from shoestring.core.errors import DatabaseDamaged, DiskFull, StorageError
from shoestring.store.batch import Batch, apply
from shoestring.store.db import SqliteDb, classify, open_db
from shoestring.store.schema import connect, open_database
from shoestring.store.verify import verify
from tests.store.conftest import chunk, lane, ready

MIB = 1 << 20


@pytest.fixture
async def db(path: Path) -> AsyncIterator[SqliteDb]:
    opened = await open_db(path, checkpoint_pages=100, prefill_bytes=MIB, ballast_bytes=64 * 1024)
    yield opened
    await opened.close()


def small(task_id: int) -> Batch:
    return Batch(accepted_ready=[ready(task_id)], lanes={1: lane(accepted=task_id)})


def large(first: int, rows: int = 100) -> Batch:
    """More than is written on the loop."""
    return Batch(accepted_ready=[ready(n, body=f'"{"x" * 200}"') for n in range(first, first + rows)])


def count(conn: sqlite3.Connection, table: str = "ready") -> int:
    return int(conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


# -- one function, one transaction --------------------------------------------------------------------------------


async def test_the_private_part_of_aiosqlite_we_rely_on_is_there() -> None:
    """It runs functions on its thread by a private queue only: another release of it must fail here, not at a start."""
    connection = await aiosqlite.connect(":memory:")
    try:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        connection._tx.put_nowait((future, lambda: (threading.current_thread(), type(connection._conn))))
        thread, kind = await future
    finally:
        await connection.close()

    assert [connection._thread, sqlite3.Connection] == [thread, kind]


@pytest.mark.parametrize("batch", [small(1), large(1)], ids=["on the loop", "on the thread"])
async def test_what_is_written_is_there_for_every_other_connection(db: SqliteDb, path: Path, batch: Batch) -> None:
    """An answer after COMMIT promises just this: a crash of the process takes nothing back."""
    await db.write(apply, batch)

    with closing(connect(path, read_only=True)) as other:
        assert len(batch.accepted_ready) == count(other)
    assert len(batch.accepted_ready) == await db.read(count)
    assert len(batch.accepted_ready) == await db.view(count)


@pytest.mark.parametrize("batch", [small, large], ids=["on the loop", "on the thread"])
async def test_a_write_that_fails_leaves_nothing_and_the_next_goes_on(db: SqliteDb, batch: Any) -> None:
    """One bad batch must not leave its transaction open for the next to fall into."""
    await db.write(apply, batch(1))
    before = await db.read(count)

    with pytest.raises(StorageError, match="UNIQUE constraint failed"):
        await db.write(apply, batch(1))
    await db.write(apply, batch(1_000))

    assert 2 * before == await db.read(count)


async def test_two_writes_do_not_interleave(db: SqliteDb) -> None:
    """Statements of two coroutines on one connection: the ROLLBACK of one would take the rows of the other."""

    def insert_and_fail(conn: sqlite3.Connection, number: int) -> None:
        apply(conn, large(number))
        if number % 200 == 1:
            raise ValueError(number)

    done = await asyncio.gather(
        *(db.write(insert_and_fail, number) for number in range(1, 1_001, 100)), return_exceptions=True
    )

    assert [1, 201, 401, 601, 801] == [each.args[0] for each in done if isinstance(each, ValueError)]
    assert 500 == await db.read(count)


async def test_a_read_sees_every_write_that_was_begun_before_it(db: SqliteDb) -> None:
    """The engine takes what it reads for the present: a batch on its way must not be overtaken."""
    for first in range(1, 2_000, 100):
        writing = asyncio.ensure_future(db.write(apply, large(first)))
        await asyncio.sleep(0)
        assert first + 99 == await db.read(count)
        await writing


async def test_what_was_asked_first_is_answered_first(db: SqliteDb) -> None:
    """A commit that is heard of before the read it came after would bring an ended task back."""
    heard: list[str] = []

    async def ask(name: str, first: int, *, write: bool) -> None:
        await (db.write(apply, large(first) if first else small(9_999)) if write else db.read(count))
        heard.append(name)

    await asyncio.gather(
        ask("read", 0, write=False),
        ask("large", 1, write=True),
        ask("again", 0, write=False),
        ask("small", 0, write=True),
    )

    assert ["read", "large", "again", "small"] == heard


async def test_a_write_whose_caller_is_cancelled_is_committed_and_seen_through(db: SqliteDb) -> None:
    """A cancelled await still commits; whoever goes on before it has would act on a file that is about to change."""
    inside, gate = threading.Event(), threading.Event()

    def slow(conn: sqlite3.Connection) -> None:
        inside.set()
        assert gate.wait(30)
        apply(conn, small(1))

    writing = asyncio.ensure_future(db.write(slow))
    await asyncio.to_thread(inside.wait, 30)
    writing.cancel()
    await asyncio.sleep(0)
    assert not writing.done()
    gate.set()

    with pytest.raises(asyncio.CancelledError):
        await writing
    assert 1 == await db.read(count)
    assert 0 == db._hops


async def test_reads_for_people_do_not_hold_up_the_writer(db: SqliteDb) -> None:
    """A list of ten million tasks takes seconds; commits take none."""
    inside, gate = threading.Event(), threading.Event()

    def look(conn: sqlite3.Connection) -> list[int]:
        conn.execute("BEGIN")
        before = count(conn)
        inside.set()
        assert gate.wait(30)
        after = count(conn)
        conn.execute("COMMIT")
        return [before, after]

    looking = asyncio.ensure_future(db.view(look))
    await asyncio.to_thread(inside.wait, 30)
    await db.write(apply, large(1))
    gate.set()

    assert [0, 0] == await looking
    assert 100 == await db.view(count)


async def test_people_cannot_write(db: SqliteDb) -> None:
    """The connection their questions run on is read-only, whatever they come to ask."""
    with pytest.raises(StorageError, match="readonly"):
        await db.view(apply, small(1))


# -- the files ----------------------------------------------------------------------------------------------------


async def test_files_are_the_users_own(path: Path) -> None:
    """Arguments of tasks are private, whatever the umask; WAL and ballast hold them too."""
    before = os.umask(0)
    try:
        db = await open_db(path, checkpoint_pages=100, prefill_bytes=MIB, ballast_bytes=4_096)
        await db.write(apply, small(1))
        modes = {name.name: stat.S_IMODE(name.stat().st_mode) for name in path.parent.iterdir()}
        await db.close()
        assert os.umask(0) == 0, "it left the umask changed"
    finally:
        os.umask(before)

    assert dict.fromkeys(["q.db", "q.db-wal", "q.db-shm", "q.db-ballast"], 0o600) == modes


async def test_what_is_left_after_a_close_is_one_whole_file(path: Path) -> None:
    """A backup that copies the file of a stopped daemon has everything."""
    db = await open_db(path, checkpoint_pages=100, prefill_bytes=MIB, ballast_bytes=4_096)
    await db.write(apply, large(1))
    await db.close()

    assert ["q.db", "q.db-ballast"] == sorted(name.name for name in path.parent.iterdir())
    verify(path)


async def test_the_wal_is_filled_before_it_is_used_and_stays_so(db: SqliteDb, path: Path) -> None:
    """A sync of a WAL that grows costs three writes and two flushes, of one already there one and one."""
    assert MIB == db.file_bytes()[1]

    for first in range(1, 300, 100):
        await db.write(apply, large(first))
    await db.checkpoint()
    await db.write(apply, small(9_999))

    assert MIB == db.file_bytes()[1]


async def test_frames_are_counted_as_sqlite_counts_them(db: SqliteDb, path: Path) -> None:
    """When to checkpoint is decided by this number, read from a header SQLite does not promise to keep in its place."""
    for first in range(1, 500, 100):
        await db.write(apply, large(first))
        with closing(connect(path)) as other:
            _, frames, _ = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert frames == db.wal_frames() > 0


async def test_the_wal_starts_again_after_a_checkpoint(db: SqliteDb) -> None:
    """It is kept and used from its start, not cut off and grown again."""
    await db.write(apply, large(1))
    long = db.wal_frames()
    await db.checkpoint()

    await db.write(apply, small(9_999))

    assert db.wal_frames() < long


async def test_the_loop_does_not_wait_for_the_wal_to_begin_anew(db: SqliteDb) -> None:
    """SQLite syncs the new header in the middle of that write: 200 ms on a disk of 20 operations a second."""
    threads: list[threading.Thread] = []

    def write(conn: sqlite3.Connection, batch: Batch) -> None:
        threads.append(threading.current_thread())
        apply(conn, batch)

    await db.write(write, small(1))
    await db.checkpoint()
    for number in (2, 3):
        await db.write(write, small(number))
    checkpointing = asyncio.ensure_future(db.checkpoint())
    await asyncio.sleep(0)
    await db.write(write, small(4))
    await checkpointing
    await db.write(write, small(5))
    await db.write(write, small(6))

    on_the_loop = [thread is threading.current_thread() for thread in threads]
    assert [True, False, True, False, False, True] == on_the_loop


@pytest.mark.slow
async def test_the_wal_does_not_grow_however_long_commits_go_on(db: SqliteDb, path: Path) -> None:
    """Commits beside the checkpoints never let the WAL end; then the writer itself has to see to it."""
    longest = 0
    checkpointing: asyncio.Future[None] | None = None
    for number in range(1, 1_500):
        batch = Batch(accepted_chunks=[chunk(number)], ready={number: ready(number, body=f'"{"x" * 500}"')})
        await db.write(apply, batch)
        longest = max(longest, db.wal_frames())
        if db.wal_frames() >= 100 and (checkpointing is None or checkpointing.done()):
            checkpointing = asyncio.ensure_future(db.checkpoint())
    if checkpointing is not None:
        await checkpointing

    assert longest <= 1_000
    assert db.file_bytes()[1] <= 1_010 * (4_096 + 24)
    assert 1_499 == await db.read(count)


async def test_a_reader_that_stays_does_not_stop_checkpoints_for_ever(db: SqliteDb, path: Path) -> None:
    """Its snapshot keeps the WAL from its start while it lasts, and no longer."""
    with closing(connect(path, read_only=True)) as reader:
        await db.write(apply, large(1))
        reader.execute("BEGIN")
        assert 100 == count(reader)
        for first in range(101, 1_000, 100):
            await db.write(apply, large(first))
            await db.checkpoint()
        held = db.wal_frames()
        reader.execute("COMMIT")
    await db.checkpoint()
    await db.write(apply, small(9_999))

    assert db.wal_frames() < held


async def test_a_sync_that_fails_says_that_the_process_has_to_end(db: SqliteDb) -> None:
    """The kernel tells of a lost page once; a second sync would succeed and prove nothing."""
    good, db._keeper._wal_fd = db._keeper._wal_fd, 1 << 20  # no descriptor of ours
    try:
        with pytest.raises(StorageError, match=r"fdatasync of .*q.db-wal failed.*The daemon ends and recovers"):
            await db.sync()
    finally:
        db._keeper._wal_fd = good


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("SQLITE_FULL", DiskFull),
        ("SQLITE_CORRUPT", DatabaseDamaged),
        ("SQLITE_CORRUPT_INDEX", DatabaseDamaged),
        ("SQLITE_NOTADB", DatabaseDamaged),
        ("SQLITE_IOERR_FSYNC", StorageError),
        ("SQLITE_IOERR_WRITE", StorageError),
        ("SQLITE_READONLY", StorageError),
        ("SQLITE_BUSY", StorageError),
        ("", StorageError),
    ],
)
def test_an_error_is_named_by_what_it_means_for_the_data(path: Path, error: str, kind: type[StorageError]) -> None:
    """Only a full disk is waited out; everything else ends the process, and damage is called damage."""
    raised = sqlite3.OperationalError("as SQLite says it")
    if error:
        raised.sqlite_errorname = error

    found = classify(raised, path)

    assert kind is type(found)
    assert "as SQLite says it" in str(found)


# -- a disk without space -----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", place], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


async def fill(db: SqliteDb) -> None:
    for first in range(1, 100_000, 100):
        await db.write(apply, large(first))


@pytest.mark.root
async def test_a_full_disk_refuses_and_with_the_ballast_gone_deletes_go_on(small_disk: Path) -> None:
    """Deletes need room in the WAL, a checkpoint needs room in the file: without a reserve neither could begin."""
    path = small_disk / "q.db"
    db = await open_db(path, checkpoint_pages=100, prefill_bytes=256 * 1024, ballast_bytes=MIB)
    with pytest.raises(DiskFull, match=r"is full: .* Nothing stored is lost"):
        await fill(db)
    stored = await db.read(count)
    assert stored > 500
    assert stored % 100 == 0, "a part of a batch was kept"

    assert await db.release_ballast()
    assert not await db.release_ballast()
    await db.checkpoint()
    gone = [(1, row) for (row,) in await db.read(lambda conn: conn.execute("SELECT rank FROM ready").fetchall())]
    for start in range(0, len(gone), 100):
        await db.write(apply, Batch(ready_gone=gone[start : start + 100]))
        await db.checkpoint()
    await db.write(apply, large(1))

    assert 100 == await db.read(count)
    await db.close()
    verify(path)


@pytest.mark.root
async def test_no_room_for_wal_and_ballast_is_a_clear_error_that_leaves_the_room_there_was(small_disk: Path) -> None:
    """A start that fails must not take the last of the disk with it."""
    with closing(open_database(small_disk / "q.db")):
        pass
    free = os.statvfs(small_disk).f_bavail

    with pytest.raises(DiskFull, match=r"no room beside .*q.db for its WAL and ballast \(8 MiB\)"):
        await open_db(small_disk / "q.db", checkpoint_pages=100, prefill_bytes=MIB, ballast_bytes=7 * MIB)

    assert free == os.statvfs(small_disk).f_bavail
    verify(small_disk / "q.db")
