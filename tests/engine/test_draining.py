"""What may still happen between the word to stop and the end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from shoestring import Shoestring
from shoestring.core.model import Entry
from shoestring.service import Service
from tests.serving import small_config


async def test_a_handler_may_enqueue_while_the_daemon_drains(tmp_path: Path) -> None:
    """Otherwise every stop would fail the tasks whose last step is to enqueue the next one."""
    app = Shoestring()
    begun, go_on = asyncio.Event(), asyncio.Event()
    stored: list[object] = []

    @app.task(name="first")
    async def first() -> None:
        begun.set()
        await go_on.wait()
        stored.extend(await service.engine.submit([Entry("second", msgspec.Raw(b"{}"))]))

    @app.task(name="second")
    async def second() -> None: ...

    config = small_config(tmp_path)
    service = Service(config=config, registry=app.registry)
    await service.start()
    await service.engine.submit([Entry("first", msgspec.Raw(b"{}"))])
    await begun.wait()

    await service.stop(30.0, lambda phase: go_on.set() if phase == "drain" else None)
    after = Service(config=config, registry=app.registry)
    await after.start()
    ledger = after.engine.status().ledger
    await after.stop(0)

    assert len(stored) == 1
    assert isinstance(stored[0], int)
    assert (ledger.accepted, ledger.discarded) == (2, 0)
