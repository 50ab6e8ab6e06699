"""A whole queue in this process: database and engine put together, for the daemon and for embedding.

The owner of a service holds the lock of its database (`lock.py`); a service takes it for granted.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

from shoestring.config import Config
from shoestring.core.clock import SteadyWall
from shoestring.engine.engine import Engine
from shoestring.engine.register import Register, read_suspects
from shoestring.engine.registry import Registry
from shoestring.log import log
from shoestring.store.checking import Check
from shoestring.store.db import SqliteDb, open_db
from shoestring.store.opening import begin_generation
from shoestring.store.schema import is_large

_MIB: Final = 1 << 20


class SystemClock:
    """The machine's clocks; the wall clock's jumps are smoothed (`core.clock`) and logged."""

    def __init__(self) -> None:
        self._steady = SteadyWall(time.time_ns() // 1_000_000, _boot_s())

    def now_ms(self) -> int:
        now_ms = self._steady.read(time.time_ns() // 1_000_000, _boot_s())
        if stepped_ms := self._steady.stepped_ms():
            log.warning("clock_stepped", by_ms=stepped_ms)
        return now_ms

    def mono(self) -> float:
        return time.monotonic()


def _boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # goes on while the machine sleeps


class Service:
    """One generation of the queue. `start`, use `engine`, `stop`."""

    engine: Engine

    def __init__(self, *, config: Config, registry: Registry) -> None:
        self._config = config
        self._registry = registry
        self._db: SqliteDb | None = None
        self._register: Register | None = None
        self._roles: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[None] | None = None
        self._hurry = asyncio.Event()
        self._check: Check | None = None

    async def start(self) -> None:
        """Open the database, count the generation, find who was running at a crash, and start the roles.

        Raises:
            StorageError: and its kinds; nothing was changed but what the message says.
        """
        store, run = self._config.store, self._config.run
        database = self._config.database
        self._db = await open_db(
            database, checkpoint_pages=store.checkpoint_pages, prefill_bytes=store.wal_prefill_mib * _MIB,
            ballast_bytes=store.ballast_mib * _MIB,
        )  # fmt: skip
        register_path = self._register_path()
        suspects = read_suspects(register_path)
        found = await self._db.write(begin_generation, suspects.generation, suspects.keys)
        # From here on the register is this generation's: until the counts above are on disk, the old one must stay.
        await self._db.sync()
        self._register = Register(register_path, slots=2 * run.slots, generation=found.generation)
        self.engine = Engine(
            db=self._db, clock=SystemClock(), rng=SystemRandom(), config=self._config, registry=self._registry,
            register=self._register, database=database,
        )  # fmt: skip
        self.engine.suspects = found.crashed
        if found.crashed:
            log.warning("crash_recovered", generation=found.generation, suspects=found.crashed)
        self._failed = asyncio.get_running_loop().create_future()
        self.engine.open(found, failed=self._failed)
        for role in self.engine.roles():
            self._start_role(role)
        if is_large(database):
            self._check = Check(database)
            self._start_role(self._check_file)

    async def _check_file(self) -> None:
        """Check a file that is too large to be checked before the start; what is found ends the process as well."""
        assert self._check is not None
        begun = time.monotonic()
        checking = asyncio.ensure_future(asyncio.to_thread(self._check.run))
        try:
            if await asyncio.shield(checking):
                log.info("database_checked", duration_ms=round((time.monotonic() - begun) * 1_000))
        except asyncio.CancelledError:
            self._check.stop()
            await asyncio.wait([checking])  # it reads the file that is about to be closed
            raise
        await asyncio.get_running_loop().create_future()  # a role ends with the process

    def _start_role(self, role: Callable[[], Coroutine[Any, Any, None]]) -> None:
        name = getattr(role, "__qualname__", repr(role))
        started = asyncio.get_running_loop().create_task(role(), name=name)
        started.add_done_callback(self._role_ended)
        self._roles.append(started)

    def _role_ended(self, role: asyncio.Task[None]) -> None:
        assert self._failed is not None
        if role.cancelled() or self._failed.done():
            return
        self._failed.set_exception(role.exception() or AssertionError(f"{role.get_name()} ended by itself"))

    async def wait_failed(self) -> None:
        """Wait for ever; raises what killed a permanent coroutine. The process should end then, and recover."""
        assert self._failed is not None
        await asyncio.shield(self._failed)

    async def wait_idle(self) -> None:
        """Return when nothing is pending any more, save what waits for a handler the app does not declare."""
        await self.engine.wait_idle()

    def hurry(self) -> None:
        """Cut the drain of a stop short."""
        self._hurry.set()

    async def stop(self, grace_s: float, said: Callable[[str], None] = lambda _phase: None) -> int:
        """Quiet, drain (at most `grace_s`), release, flush, close; `said` is told each phase as it begins.

        Returns how many running tasks were released; they run again at the next start and burned no attempt.
        """
        if self._failed is None:  # it never started
            if self._db is not None:
                await self._db.close()
            return 0
        clean = False
        try:
            said("quiet")
            await self.engine.quiet()
            said("drain")
            released = await self._drain(grace_s)
            said("flush")
            await self._unless_failed(self.engine.flush())
            clean = True
        finally:
            said("close")
            await self.close(clean=clean)
        return released

    async def _drain(self, grace_s: float) -> int:
        draining = asyncio.ensure_future(self.engine.runner.wait_drained(grace_s))
        hurried = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait([draining, hurried], return_when=asyncio.FIRST_COMPLETED)
        for each in (draining, hurried):
            each.cancel()
        await asyncio.gather(draining, hurried, return_exceptions=True)
        return await self.engine.drain(0)

    async def _unless_failed(self, step: Coroutine[Any, Any, None]) -> None:
        # A committer that died would never flush: its error is the news then.
        assert self._failed is not None
        doing = asyncio.ensure_future(step)
        await asyncio.wait([doing, self._failed], return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)
            self._failed.result()
        doing.result()

    async def close(self, *, clean: bool) -> None:
        """End the roles and close the file; once. If not `clean`, the register stays for the next generation."""
        for role in self._roles:
            role.cancel()
        await asyncio.gather(*self._roles, return_exceptions=True)
        await self.engine.runner.close()
        if self._failed is not None and self._failed.done():
            self._failed.exception()  # seen, even if nobody waited for it
        register, self._register = self._register, None
        if clean and register is not None:
            register.close()
        db, self._db = self._db, None
        if db is not None:
            await db.close()

    def _register_path(self) -> Path:
        """Return a place on tmpfs that is this database's alone."""
        folder = self._config.runtime_dir or _runtime_dir()
        name = hashlib.sha256(str(self._config.database.absolute()).encode()).hexdigest()[:16]
        return folder / f"shoestring-{os.getuid()}-{name}.running"


def _runtime_dir() -> Path:
    if given := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(given.split(":")[0])
    shared = Path("/dev/shm")
    return shared if shared.is_dir() else Path("/tmp")
