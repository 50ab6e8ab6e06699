"""The only place where the event loop meets SQLite.

A unit of store work is one function: one hop to the thread, one transaction. Two traps of aiosqlite make that a rule:
statements of two coroutines interleave on one connection, so that one's ROLLBACK discards the other's rows; and a
cancelled await still commits, so that the caller believes what is not so. Here no statement is ever awaited between
BEGIN and COMMIT, and a cancelled caller is held until the thread is through with its function.

Threads, because each of these may wait for the disk and the loop must not: `writer` (transactions, and the reads the
engine acts on), `viewer` (reads for people), two of `keeper` (fdatasync, and checkpoints beside it).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, TypeVarTuple

import aiosqlite

from shoestring.core.errors import DatabaseDamaged, DiskFull, StorageError
from shoestring.store import schema
from shoestring.store.batch import Batch

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Offset of mxFrame, the number of valid frames in the WAL, in the header of the wal-index ("WAL-Index Header" in
#: SQLite's documentation of the file format).
_FRAMES_OFFSET = 16


class Db(Protocol):
    """What the engine asks of the disk. Two implementations: `SqliteDb`, and the simulator's, which runs inline."""

    async def write(self, f: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T: ...
    async def read(self, f: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T: ...
    async def view(self, f: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T: ...
    async def sync(self) -> None: ...
    async def checkpoint(self) -> None: ...
    def wal_frames(self) -> int: ...
    def free_bytes(self) -> int: ...
    def file_bytes(self) -> tuple[int, int]: ...
    async def release_ballast(self) -> bool: ...
    async def close(self) -> None: ...


def transact(conn: sqlite3.Connection, f: Callable[[sqlite3.Connection, *Ts], T], args: tuple[*Ts]) -> T:
    """Run `f(conn, *args)` as one transaction: all of it or nothing."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        result = f(conn, *args)
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    return result


def classify(error: sqlite3.Error, path: Path) -> StorageError:
    """Say what a database error means for the data and what to do. The one place that knows."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL") or (name == "SQLITE_IOERR_WRITE" and _free_bytes(path) < 1 << 20):
        return DiskFull(
            f"the disk under {path} is full: {error}. Nothing stored is lost; new tasks are refused until "
            "there is space. Free some space or enlarge the volume."
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return DatabaseDamaged(
            f"{path} did not read back as it was written: {error}. The file was not touched; the daemon ends. "
            "Look at the disk's health (dmesg), keep a copy of the file, then start again: the check then says more."
        )
    return StorageError(
        f"the database {path} could not be written: {error} ({name or type(error).__name__}). "
        "What was answered before is safe; the daemon ends and recovers at its next start."
    )


def _free_bytes(path: Path) -> int:
    found = os.statvfs(path.parent)
    return found.f_bavail * found.f_frsize


class SqliteDb:
    """The database of a running daemon. Made by `open_db`."""

    def __init__(self, path: Path, writer: aiosqlite.Connection, viewer: aiosqlite.Connection, keeper: _Keeper) -> None:
        self._path = path
        self._writer = writer
        self._viewer = viewer
        self._keeper = keeper
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="keeper")
        self._hops = 0
        self._checkpointing = False
        self._wal_restarts = False  # the next write may begin the WAL anew
        self._shm_fd = os.open(f"{path}-shm", os.O_RDONLY)

    async def write(self, f: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T:
        """Run `f(conn, *args)` as one transaction and return its result after COMMIT.

        A small batch is written right here on the loop if the thread has nothing to do: in the page cache that takes
        less time than the hand-over to the thread and back (one enqueue after the other: 7,800/s by the thread,
        12,300 to 15,500 here). What waits for the disk, syncs and checkpoints, is on other threads either way; so is
        the write after a checkpoint, for SQLite syncs the header with which it begins the WAL anew.

        Raises:
            DiskFull: nothing was written; try again when there is space.
            StorageError: the file cannot be trusted to take writes any more; end the process and recover.
        """
        is_free = self._hops == 0 and not self._wal_restarts
        if is_free and args and isinstance(batch := args[0], Batch) and batch.is_small:
            try:
                return transact(self._writer._conn, f, args)  # noqa: SLF001 - its thread sleeps
            except sqlite3.Error as error:
                raise classify(error, self._path) from error
        beside_checkpoint = self._checkpointing
        result = await self._run(self._writer, partial(transact, f=f, args=args))
        if not (beside_checkpoint or self._checkpointing):
            self._wal_restarts = False
        return result

    async def read(self, f: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T:
        """Run `f(conn, *args)` on the writer's thread: it sees every write that was begun before it."""
        return await self._run(self._writer, lambda conn: f(conn, *args))

    async def view(self, f: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T:
        """Run `f(conn, *args)` beside the writer, on a snapshot; may take long without holding anything up."""
        return await self._run(self._viewer, lambda conn: f(conn, *args))

    async def _run(self, on: aiosqlite.Connection, f: Callable[[sqlite3.Connection], T]) -> T:
        hop = _hop(on, f)
        if on is self._writer:
            self._hops += 1
        try:
            result: T = await asyncio.shield(hop)
        except asyncio.CancelledError:
            await asyncio.wait([hop])  # the thread goes on whatever we do: see it through, then obey
            raise
        except sqlite3.Error as error:
            raise classify(error, self._path) from error
        finally:
            # Not when the thread is through but when its answer is heard. A batch written on the loop in between
            # would be heard of first, and the engine takes what it hears for the order it was done in: a task that
            # a read saw and the batch deleted would run again.
            if on is self._writer:
                self._hops -= 1
        return result

    async def sync(self) -> None:
        """Make everything committed so far survive a power cut.

        Raises:
            StorageError: the kernel may have dropped the pages it could not write, and says so only once: this is
                never tried again, the process ends and recovery reads what is really there.
        """
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, self._keeper.sync)
        except OSError as error:
            raise StorageError(
                f"fdatasync of {self._path}-wal failed: {error}. Work answered as durable before is safe. "
                "The daemon ends and recovers at its next start; look at the disk's health (dmesg)."
            ) from error

    async def checkpoint(self) -> None:
        """Bring the WAL's pages into the database file, so that the WAL can be used again from its start.

        Most of it happens beside the writer. Where commits keep coming the WAL never quite ends, so if it has grown
        to several times its size the rest is done on the writer's thread, where nothing can be added meanwhile.
        """
        loop = asyncio.get_running_loop()
        self._checkpointing = self._wal_restarts = True  # until it is heard of, nobody here knows how far it is
        try:
            done = await loop.run_in_executor(self._pool, self._keeper.checkpoint)
            if not done and self.wal_frames() > self._keeper.frames_max:
                await self.read(_checkpoint)
        except sqlite3.Error as error:
            raise classify(error, self._path) from error
        finally:
            self._checkpointing = False

    def wal_frames(self) -> int:
        """Return how many pages the WAL holds."""
        header = os.pread(self._shm_fd, 4, _FRAMES_OFFSET)
        return int(struct.unpack("=I", header)[0]) if len(header) == 4 else 0

    def free_bytes(self) -> int:
        """Return what the file system has left for this user."""
        return _free_bytes(self._path)

    def file_bytes(self) -> tuple[int, int]:
        """Return the sizes of the database file and its WAL."""
        return os.stat(self._path).st_size, os.stat(f"{self._path}-wal").st_size

    async def release_ballast(self) -> bool:
        """Give up the ballast file, so that a full disk has room for the deletes and the checkpoint that free more."""
        ballast = self._keeper.ballast
        if not ballast.exists():
            return False
        ballast.unlink()
        return True

    async def close(self) -> None:
        """Sync, checkpoint and close. What is left is one database file."""
        await self._viewer.close()
        # A checkpoint or sync goes on when whoever awaited it was cancelled; closing its connection under it crashes
        # the process (seen: SIGSEGV at a daemon's stop).
        await asyncio.to_thread(self._pool.shutdown)
        self._keeper.close()
        await self._writer.close()
        os.close(self._shm_fd)


def _hop(to: aiosqlite.Connection, f: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
    """Have `f` run on a connection's thread; the future is done when it has.

    aiosqlite has no public way to run a function, and its private `_execute` costs an asyncio.Task more than its
    queue, a quarter of a commit's latency. A test guards this use of a private name.
    """
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    to._tx.put_nowait((future, _Errand(f, to._conn)))  # noqa: SLF001
    return future


class _Errand:
    """A function that is forgotten once called: the thread keeps what it ran last, and with it a whole batch."""

    __slots__ = ("_conn", "_f")

    def __init__(self, f: Callable[[sqlite3.Connection], object], conn: sqlite3.Connection) -> None:
        self._f: Callable[[sqlite3.Connection], object] | None = f
        self._conn = conn

    def __call__(self) -> object:
        f, self._f = self._f, None
        assert f is not None
        return f(self._conn)


def _checkpoint(conn: sqlite3.Connection) -> bool:
    busy, frames, moved = conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return bool(busy == 0 and frames == moved)


class _Keeper:
    """What the keeper's thread does. It has a connection and a descriptor of its own."""

    def __init__(self, path: Path, *, frames_max: int, ballast_bytes: int) -> None:
        self.frames_max = frames_max
        self.ballast = path.with_name(f"{path.name}-ballast")
        self._ballast_bytes = ballast_bytes
        self._conn = schema.connect(path, cache_kib=256)
        # The WAL, not the database file: closing any descriptor of the latter would drop SQLite's locks on it.
        self._wal_fd = os.open(f"{path}-wal", os.O_RDWR)

    def prefill(self, size: int) -> None:
        """Fill the WAL with zeros up to `size` and lay the ballast, so that later commits find their space allocated.

        A sync of a WAL that grows costs 3 writes and 2 flushes, of one already there 1 and 1. `fallocate` does not
        help: the blocks must have been written.
        """
        end = os.fstat(self._wal_fd).st_size
        zeros = bytes(1 << 20)
        while end < size:
            end += os.pwrite(self._wal_fd, zeros[: size - end], end)
        os.fdatasync(self._wal_fd)
        self._lay_ballast(zeros)
        folder = os.open(self.ballast.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new files' names: POSIX promises them only after this
        finally:
            os.close(folder)

    def _lay_ballast(self, zeros: bytes) -> None:
        have = self.ballast.stat().st_size if self.ballast.exists() else 0
        if have >= self._ballast_bytes:
            return
        fd = os.open(self.ballast, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            while have < self._ballast_bytes:
                have += os.pwrite(fd, zeros[: self._ballast_bytes - have], have)
        except OSError:
            self.ballast.unlink()  # half a ballast would be the last of the disk, and help nobody
            raise
        finally:
            os.close(fd)

    def sync(self) -> None:
        os.fdatasync(self._wal_fd)

    def checkpoint(self) -> bool:
        return _checkpoint(self._conn)

    def close(self) -> None:
        self._conn.close()
        os.close(self._wal_fd)


async def open_db(path: Path, *, checkpoint_pages: int, prefill_bytes: int, ballast_bytes: int) -> SqliteDb:
    """Open the database of a daemon: checked, migrated, its WAL laid out.

    Raises:
        StorageError: and its kinds, from `schema.open_database`; also if there is no room for WAL and ballast.
    """
    before = os.umask(0o077)
    try:
        writer = await _connected(lambda: schema.open_database(path))
        keeper = await _hop(
            writer, lambda _: _Keeper(path, frames_max=4 * checkpoint_pages, ballast_bytes=ballast_bytes)
        )
        try:
            await _hop(writer, lambda _: keeper.prefill(prefill_bytes))
        except OSError as error:
            keeper.close()
            await writer.close()
            raise DiskFull(
                f"no room beside {path} for its WAL and ballast ({prefill_bytes + ballast_bytes >> 20} MiB): {error}. "
                "Nothing stored is lost. Free some space, or set store.wal_prefill_mib and store.ballast_mib lower."
            ) from error
        viewer = await _connected(lambda: schema.connect(path, cache_kib=512, read_only=True))
    finally:
        os.umask(before)
    return SqliteDb(path, writer, viewer, keeper)


async def _connected(connect: Callable[[], sqlite3.Connection]) -> aiosqlite.Connection:
    """Return a connection with its thread. If `connect` fails, the thread has ended when its error is raised.

    aiosqlite only tells it to end: whoever closes the loop upon the error would see the thread's last answer fail,
    in a traceback on stderr that buries the message.
    """
    connection = aiosqlite.Connection(connect, 64)
    try:
        return await connection
    except BaseException:
        connection._thread.join()  # noqa: SLF001 - there is no public name for it
        raise
