"""The simulator's `Db`: real SQLite on a real WAL file, run inline, with seeded latencies and faults.

It keeps what production promises and nothing more. Each of its "threads" does one thing after the other and answers
in that order; between two threads nothing is ordered: a view asked for after a write may be answered before it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol, TypeVar, TypeVarTuple

from shoestring.core.errors import StorageError
from shoestring.store import schema
from shoestring.store.batch import Batch
from shoestring.store.db import classify, transact
from tests.sim.loop import Killed
from tests.sim.power import Image

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LOTS = 1 << 40


@dataclass(slots=True)
class Faults:
    """What goes wrong with the disk in one generation. Writes and syncs count from 1; periods are virtual seconds."""

    kill_before_commit: int | None = None
    kill_after_commit: int | None = None
    busy_at_write: int | None = None
    fail_at_sync: int | None = None
    full: list[tuple[float, float]] = field(default_factory=list)
    low: list[tuple[float, float]] = field(default_factory=list)  # less free than the reserve
    ballast: bool = False  # giving it up makes room for one write more


class Observer(Protocol):
    """Who looks at the file. `mark` is asked for when a write is handed over, and given back with its commit."""

    def mark(self) -> int: ...
    def committed(self, conn: sqlite3.Connection, mark: int, f: Callable[..., object]) -> None: ...
    def settled(self) -> None: ...


class _Thread:
    """Does what it is given in order, each after a latency of its own, and answers in that order."""

    def __init__(self, latency_s: Callable[[], float], hop_s: Callable[[], float]) -> None:
        self._latency_s = latency_s
        self._hop_s = hop_s
        self._queue: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._answers: deque[tuple[asyncio.Future[Any], Any, Exception | None]] = deque()
        self._busy = False

    def call(self, f: Callable[[], Any]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((f, future))
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_later(self._latency_s(), self._work)
        return future

    def _work(self) -> None:
        loop = asyncio.get_running_loop()
        f, future = self._queue.popleft()
        result, failure = None, None
        try:
            result = f()
        except Exception as error:  # noqa: BLE001 - it is the caller's
            failure = error
        self._answers.append((future, result, failure))
        loop.call_later(self._hop_s(), self._answer)
        if self._queue:
            loop.call_later(self._latency_s(), self._work)
        else:
            self._busy = False

    def _answer(self) -> None:
        # Whatever timer this is, the first answer goes first.
        future, result, failure = self._answers.popleft()
        if future.done():
            return
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(result)


class SimDb:
    """One generation's view of the disk. A crash leaves it open, as a killed process leaves the file and its WAL."""

    def __init__(
        self, path: Path, *, rng: Random, slowness: float, small_at_once: bool, faults: Faults, observer: Observer
    ) -> None:
        self._path = path
        self._rng = rng
        self._slowness = slowness
        self._small_at_once = small_at_once
        self._hops = 0  # asked of the writer's thread and not heard of
        self._observer = observer
        self.faults = faults
        #: Makes an image of what is committed; asked when a sync is, and kept in `image` when that is through.
        self.take_image: Callable[[], Image] | None = None
        self.image: Image | None = None
        self.injected = False  # a fault that ends the daemon was injected
        self._writer_conn = schema.open_database(path)
        self._viewer_conn = schema.connect(path, cache_kib=64, read_only=True)
        self._keeper_conn = schema.connect(path, cache_kib=64)
        self._writer = _Thread(lambda: self._draw(0.002), lambda: self._draw(0.0005))
        self._viewer = _Thread(lambda: self._draw(0.003), lambda: self._draw(0.001))
        self._sync = _Thread(lambda: self._draw(0.02), lambda: self._draw(0.0005))
        self._checkpoints = _Thread(lambda: self._draw(0.05), lambda: self._draw(0.0005))
        self._writes = 0
        self._syncs = 0
        self._frames = 0

    def _draw(self, typical_s: float) -> float:
        # Mostly quick, now and then a disk that has other things to do.
        typical_s *= self._slowness
        return self._rng.expovariate(1 / typical_s) if self._rng.random() < 0.9 else typical_s * 10

    # -- what the engine asks for ---------------------------------------------------------------------------------

    async def write(self, f: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T:
        mark = self._observer.mark()
        if self._small_at_once and self._hops == 0 and args and isinstance(batch := args[0], Batch) and batch.is_small:
            try:
                result = self._transaction(f, args, mark)
            except sqlite3.Error as error:
                raise classify(error, self._path) from error
        else:
            result = await self._run(self._writer, lambda: self._transaction(f, args, mark))
        if args and isinstance(args[0], Batch):
            asyncio.get_running_loop().call_soon(self._observer.settled)  # after the caller took note of it
        return result

    async def read(self, f: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T:
        result: T = await self._run(self._writer, lambda: f(self._writer_conn, *args))
        return result

    async def view(self, f: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts) -> T:
        result: T = await self._run(self._viewer, lambda: f(self._viewer_conn, *args))
        return result

    async def _run(self, thread: _Thread, f: Callable[[], Any]) -> Any:
        hop = thread.call(f)
        self._hops += thread is self._writer
        try:
            return await asyncio.shield(hop)
        except asyncio.CancelledError:
            await asyncio.wait([hop])
            raise
        except sqlite3.Error as error:
            raise classify(error, self._path) from error
        finally:
            self._hops -= thread is self._writer

    def _transaction(self, f: Callable[[sqlite3.Connection, *Ts], T], args: tuple[*Ts], mark: int) -> T:
        self._writes += 1
        result = transact(self._writer_conn, lambda conn: self._spoil(f(conn, *args)), ())
        self._frames += 3
        self._observer.committed(self._writer_conn, mark, f)
        if self._writes == self.faults.kill_after_commit:
            raise Killed
        return result

    def _spoil(self, result: T) -> T:
        """Let a transaction fail that did everything but commit."""
        faults = self.faults
        if self._writes == faults.kill_before_commit:
            raise Killed
        if self._writes == faults.busy_at_write:
            self.injected = True
            raise _error("SQLITE_BUSY", "database is locked")
        if self._is(faults.full):
            raise _error("SQLITE_FULL", "database or disk is full")
        return result

    def _is(self, periods: list[tuple[float, float]]) -> bool:
        now_s = asyncio.get_running_loop().time()
        return any(begin <= now_s < end for begin, end in periods)

    async def sync(self) -> None:
        image = self.take_image() if self.take_image is not None else None
        await self._sync.call(self._fdatasync)
        self.image = image or self.image

    def _fdatasync(self) -> None:
        self._syncs += 1
        if self._syncs == self.faults.fail_at_sync:
            self.injected = True
            raise StorageError("fdatasync failed")

    async def checkpoint(self) -> None:
        await self._run(self._checkpoints, self._checkpoint)

    def _checkpoint(self) -> None:
        self._keeper_conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._frames = 0

    def wal_frames(self) -> int:
        return self._frames

    def free_bytes(self) -> int:
        return 0 if self._is(self.faults.low) else _LOTS

    def file_bytes(self) -> tuple[int, int]:
        return self._path.stat().st_size, 0

    async def release_ballast(self) -> bool:
        given, self.faults.ballast = self.faults.ballast, False
        if given:
            self.faults.full = []
        return given

    async def close(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptors of a dead generation. Called at the end of a run: closing would checkpoint the WAL."""
        for conn in (self._viewer_conn, self._keeper_conn, self._writer_conn):
            conn.close()


def _error(name: str, text: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = name
    return error
