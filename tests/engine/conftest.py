"""A real queue in a folder of its own: the shipped service on asyncio's loop over a real SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from shoestring.app.declare import handler_spec, source_spec
from shoestring.config import Config, LimitsConfig, RunConfig, StoreConfig
from shoestring.core.model import Duplicate, Entry, JobSpec, Options, Progress, QueueConfig, SourceCall
from shoestring.engine.engine import Engine
from shoestring.engine.registry import Registry
from shoestring.service import Service

T = TypeVar("T")
Fn = TypeVar("Fn", bound=Callable[..., Any])

#: What no test should ever need; a queue that takes longer hangs.
PATIENCE_S = 30.0


class Rig:
    """A queue under test: what its app declares, its file, and one generation of the service after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "q.db"
        self.registry = Registry()
        self.queues: dict[str, QueueConfig] = {}
        self.run = RunConfig(abandon_after_s=0.05)
        self.store = StoreConfig(wal_prefill_mib=0, ballast_mib=0, reserve_mib=0, volatile_window_ms=20)
        self.limits = LimitsConfig()
        self._service: Service | None = None

    # -- what the app declares ------------------------------------------------------------------------------------

    def task(self, **options: Any) -> Callable[[Fn], Fn]:
        """Declare a handler under its function's name."""

        def declare(fn: Fn) -> Fn:
            self.registry.add_handler(handler_spec(fn, name=fn.__name__, **options))
            return fn

        return declare

    def source(self, **options: Any) -> Callable[[Fn], Fn]:
        """Declare a source under its function's name."""

        def declare(fn: Fn) -> Fn:
            self.registry.add_source(source_spec(fn, name=fn.__name__, **options))
            return fn

        return declare

    def forget(self, name: str) -> None:
        """Start the next generation without this handler, as after a deploy that dropped it."""
        del self.registry.handlers[name]

    # -- generations ----------------------------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        return Config(
            database=self.database,
            runtime_dir=self.folder,
            run=self.run,
            store=self.store,
            limits=self.limits,
            queues=self.queues,
        )

    @property
    def service(self) -> Service:
        assert self._service is not None, "not started"
        return self._service

    @property
    def engine(self) -> Engine:
        return self.service.engine

    async def start(self) -> Engine:
        service = Service(config=self.config, registry=self.registry)
        await service.start()
        self._service = service
        return service.engine

    async def stop(self, grace_s: float = PATIENCE_S) -> int:
        """Stop in good order; returns how many running tasks were released."""
        released = await self.service.stop(grace_s)
        self._service = None
        return released

    async def crash(self) -> None:
        """End as kill -9 does: nothing gathered is written any more, and the register of who ran stays."""
        service, self._service = self.service, None
        await service.close(clean=False)

    async def restart(self) -> Engine:
        await self.stop()
        return await self.start()

    async def finish(self) -> None:
        """End whatever a test left running; a part of the queue that died fails the test that it died in."""
        if self._service is None:
            return
        failed = self._service._failed
        died = failed.exception() if failed is not None and failed.done() else None
        if died is not None:
            await self.crash()
            raise died
        await self.stop(0)

    # -- using it -------------------------------------------------------------------------------------------------

    async def until(self, awaited: Awaitable[T]) -> T:
        """Wait for something; what kills the queue meanwhile is raised instead of waited out."""
        waiting = asyncio.ensure_future(awaited)
        failing = asyncio.ensure_future(self.service.wait_failed())
        await asyncio.wait([waiting, failing], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            waiting.cancel()
            failing.result()
        failing.cancel()
        await asyncio.gather(failing, return_exceptions=True)
        if not waiting.done():
            waiting.cancel()
            pytest.fail(f"nothing came of it within {PATIENCE_S:g} s; {self.engine.status()}")
        return waiting.result()

    async def idle(self) -> None:
        """Wait until nothing is pending."""
        await self.until(self.service.wait_idle())
        await self.until(self.engine.committer.flush())

    async def reach(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until `condition` holds; for states that nobody announces."""

        async def turn() -> None:
            while not condition():  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.001)

        await self.until(turn())

    async def submit(self, *entries: Entry) -> Sequence[object]:
        return await self.until(self.engine.submit(entries))

    async def enqueue(self, handler: str, body: Mapping[str, object] | None = None, **options: Any) -> int:
        """Enqueue one task and return its id; raises the error that refused it."""
        (answer,) = await self.submit(entry(handler, body, **options))
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, int), answer
        return answer

    async def fan_out(
        self, handler: str, items: Sequence[object], *, body: Mapping[str, object] | None = None, **spec: Any
    ) -> int:
        """Open a job, give it its items, seal it."""
        job_id = await self.open_job(handler, body=body, **spec)
        await self.until(self.engine.append_items(job_id, 0, raw(list(items))))
        await self.until(self.engine.seal_job(job_id))
        return job_id

    async def open_job(self, handler: str, *, body: Mapping[str, object] | None = None, **spec: Any) -> int:
        options = Options(**spec.pop("options", {}))
        return await self.until(
            self.engine.open_job(JobSpec(handler=handler, body=raw(body or {}), options=options, **spec))
        )

    async def fan_out_pages(self, handler: str, source: str, **spec: Any) -> int:
        """Open a job whose items a source yields."""
        return await self.open_job(handler, source=SourceCall(name=source, body=raw({})), **spec)

    async def job_end(self, job_id: int) -> Progress:
        """Wait for the end of a job."""

        async def wait() -> Progress:
            progress = await self.engine.progress(job_id)
            while not progress.finished:
                progress = await self.engine.wait_job(job_id, version=progress.version, timeout_s=PATIENCE_S)
            return progress

        return await self.until(wait())

    # -- looking at it --------------------------------------------------------------------------------------------

    def query(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        """Ask the file itself, beside the queue."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as conn:
            return conn.execute(sql, args).fetchall()

    def count(self, table: str) -> int:
        """Return how many rows of a table are committed."""
        return int(self.query(f"SELECT count(*) FROM {table}")[0][0])

    def counts(self) -> dict[str, int]:
        """Return the books, in items, without the zeros."""
        books = msgspec.structs.asdict(self.engine.status().ledger)
        return {name: count for name, count in books.items() if count}


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def entry(handler: str, body: Mapping[str, object] | None = None, **options: Any) -> Entry:
    return Entry(handler, raw(dict(body or {})), Options(**options) if options else None)


__all__ = ["Duplicate", "Rig", "entry", "raw"]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    yield made
    await made.finish()
