"""Some lives of a daemon on a recorded disk, with the discipline of `store.db` and `engine.committer`.

One connection commits without syncing (`synchronous=NORMAL`); a descriptor of our own syncs the WAL, at once for a
durable batch and else every few commits; a second connection checkpoints, while the first goes on committing. A life
ends by a kill or by an orderly stop, and the next begins with what is in the files.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, TypeVar, TypeVarTuple

from shoestring.store import schema
from shoestring.store.batch import apply
from shoestring.store.db import _checkpoint, transact
from shoestring.store.opening import begin_generation
from shoestring.store.sweeping import prune_discarded, purge_job
from tests.store.power.connection import RecordedConnection, as_sqlite3
from tests.store.power.disk import Kind, Op, Recorder
from tests.store.power.work import Work

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

NAME: Final = "queue.db"
_PREFILL_BYTES: Final = 96 * 1024
_COMMITS_PER_LIFE: Final = 50
_COMMITS_PER_WINDOW: Final = 6
_COMMITS_PER_CHECKPOINT: Final = 7


@dataclass(frozen=True, slots=True)
class Discipline:
    """How the disk is treated. The defaults are ours; the tests take one away at a time, to see it missed."""

    synchronous: str = "NORMAL"
    syncs_before_ack: bool = True


OURS: Final = Discipline()


@dataclass(slots=True)
class Commit:
    """One transaction. Instants are numbers of operations asked of the disk until then."""

    begun_at: int
    digest: str  # of everything in the file once it is in
    is_durable: bool
    safe_at: int | None = None  # when its producer could be told that it survives a power cut


@dataclass(slots=True)
class Recording:
    ops: list[Op]
    commits: list[Commit]
    beside: int  # commits between two writes of a checkpoint

    @property
    def wal_begun(self) -> int:
        """How often the WAL was written from its start: first, and after each checkpoint that came to its end."""
        return sum(op.file == f"{NAME}-wal" and op.kind is Kind.WRITE and op.offset == 0 for op in self.ops)


def digest(conn: sqlite3.Connection) -> str:
    """Return one short text that differs if anything in the file differs."""
    tables: list[tuple[str]] = conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1").fetchall()
    found = hashlib.blake2b(digest_size=16)
    for (table,) in tables:
        found.update(repr(conn.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()).encode())
    return found.hexdigest()


@dataclass(slots=True)
class _Life:
    path: Path
    recorder: Recorder
    discipline: Discipline
    rng: Random
    work: Work
    commits: list[Commit] = field(default_factory=list)
    beside: int = 0

    def begin(self) -> tuple[RecordedConnection, RecordedConnection]:
        """Do what `schema.open_database` and `store.db.open_db` do."""
        synchronous = self.discipline.synchronous
        writer = RecordedConnection(self.path, self.recorder, synchronous=synchronous)
        conn = as_sqlite3(writer)
        schema.identify(conn, self.path)
        schema.check_whole(conn, self.path)
        writer.execute("PRAGMA journal_mode = WAL")
        schema._refuse_read_only(conn)
        begun_at = len(self.recorder.ops)
        schema.migrate(conn)
        if not self.commits:
            self.commits.append(Commit(begun_at, digest(conn), is_durable=False))
        keeper = RecordedConnection(self.path, self.recorder, synchronous=synchronous)
        wal = self.path.with_name(f"{NAME}-wal")
        if (size := wal.stat().st_size) < _PREFILL_BYTES:
            self.recorder.write(wal, size, bytes(_PREFILL_BYTES - size))
        self.sync()
        self.recorder.sync_folder()
        opening = self.commit(conn, begin_generation)
        self.work.opened(opening.next_id)
        return writer, keeper

    def commit(self, conn: sqlite3.Connection, f: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T:
        is_durable = self.rng.random() < 0.15
        begun_at = len(self.recorder.ops)
        result = transact(conn, f, args)
        self.commits.append(Commit(begun_at, digest(conn), is_durable))
        if is_durable and not self.discipline.syncs_before_ack:
            self.commits[-1].safe_at = len(self.recorder.ops)
        elif is_durable or len(self.commits) % _COMMITS_PER_WINDOW == 0:
            self.sync()
        return result

    def sync(self) -> None:
        self.recorder.sync(self.path.with_name(f"{NAME}-wal"))
        for commit in self.commits:
            if commit.safe_at is None:
                commit.safe_at = len(self.recorder.ops)

    def one_more(self, conn: sqlite3.Connection) -> None:
        """Commit what comes next: a batch, or what the sweeper does."""
        work = self.work
        job = work.to_purge()
        if job is not None and self.rng.random() < 0.5:
            self.commit(conn, purge_job, job.id, job.lane.id, -1, 10_000)
            self.commit(conn, apply, work.purged(job))
        if self.rng.random() < 0.05:
            self.commit(conn, partial(prune_discarded, before_ms=0, kept_max=20, limit=100))
        self.work.settle(self.commit(conn, apply, work.make_batch()))

    def checkpoint(self, writer: RecordedConnection, keeper: RecordedConnection) -> None:
        """Checkpoint on the second connection; now and then the first commits between two of its writes."""

        def go_on_beside(file: str) -> None:
            if file == NAME and self.rng.random() < 0.1:
                self.recorder.before_write = None
                self.one_more(as_sqlite3(writer))
                self.beside += 1
                self.recorder.before_write = go_on_beside

        # Not each time: a checkpoint that is overtaken does not end, and then the WAL is not used again.
        self.recorder.before_write = go_on_beside if self.rng.random() < 0.4 else None
        _checkpoint(as_sqlite3(keeper))
        self.recorder.before_write = None

    def live(self, commits: int) -> tuple[RecordedConnection, RecordedConnection]:
        writer, keeper = self.begin()
        end = len(self.commits) + commits
        next_checkpoint = len(self.commits) + _COMMITS_PER_CHECKPOINT
        while len(self.commits) < end:
            self.one_more(as_sqlite3(writer))
            if len(self.commits) >= next_checkpoint:
                self.checkpoint(writer, keeper)
                next_checkpoint = len(self.commits) + _COMMITS_PER_CHECKPOINT
        return writer, keeper


def record(folder: Path, seed: int, *, lives: int = 3, discipline: Discipline = OURS) -> Recording:
    """Run some lives, one after the other, on one file in `folder`, and return what they asked of the disk."""
    rng = Random(seed)
    recorder = Recorder(f"recorder {seed}")
    life = _Life(folder / NAME, recorder, discipline, rng, Work(rng))
    try:
        for number in range(lives):
            writer, keeper = life.live(_COMMITS_PER_LIFE)
            if number % 2:
                keeper.close()
                writer.close()
            else:
                keeper.kill()
                writer.kill()
    finally:
        recorder.unregister()
    return Recording(recorder.ops, life.commits, life.beside)


def record_recovery(folder: Path, seed: int, found: str) -> Recording:
    """Start on what a power cut left in `folder`, whose content has the digest `found`; checkpoint, and stop."""
    rng = Random(seed)
    recorder = Recorder(f"recovery {seed}")
    life = _Life(folder / NAME, recorder, OURS, rng, Work(rng), [Commit(0, found, is_durable=True, safe_at=0)])
    try:
        writer, keeper = life.begin()
        _checkpoint(as_sqlite3(keeper))
        keeper.close()
        writer.close()
    finally:
        recorder.unregister()
    return Recording(recorder.ops, life.commits, life.beside)
