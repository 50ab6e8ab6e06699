"""The queue inside a program: what the daemon composes, without sockets, signals and a process of its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from shoestring.config import Config
from shoestring.engine.registry import Registry

if TYPE_CHECKING:
    from shoestring.service import Service


@asynccontextmanager
async def embedded(config: Config, registry: Registry) -> AsyncIterator[Service]:
    """Own the database and run its queue in this event loop, while in this context.

    If a permanent part of the queue dies, the body is cancelled and that error is raised: a queue that accepts work
    and runs none is worse than an error.
    """
    # Imported here: a producer that never embeds does not load the store.
    from shoestring.lock import Holder, OwnerLock
    from shoestring.service import Service

    started_at_ms = time.time_ns() // 1_000_000
    holder = Holder(pid=os.getpid(), started_at_ms=started_at_ms, socket="no socket (it is embedded in a program)")
    lock = OwnerLock.acquire(config.database, holder)
    try:
        service = Service(config=config, registry=registry)
        await service.start()
        lock.describe(generation=service.engine.status().generation)
        try:
            async with _failing_with(service):
                yield service
        finally:
            await _stopped(service, config.run.grace_s)
    finally:
        lock.release()


async def _stopped(service: Service, grace_s: float) -> None:
    try:
        await service.stop(grace_s)
    except BaseException:
        # What died cannot be drained or flushed; the file is still closed, and its threads with it.
        await service.close(clean=False)
        raise


@asynccontextmanager
async def _failing_with(service: Service) -> AsyncIterator[None]:
    body = asyncio.current_task()
    assert body is not None
    watching = asyncio.ensure_future(service.wait_failed())
    died = False

    def end_body(watched: asyncio.Future[None]) -> None:
        nonlocal died
        if not watched.cancelled():
            died = True
            body.cancel()

    watching.add_done_callback(end_body)
    try:
        yield
    except asyncio.CancelledError:
        if died and body.uncancel() == 0:
            watching.result()
        raise
    finally:
        watching.remove_done_callback(end_body)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
