"""Scenarios in which the queue runs inside the measured process, with `app.running()`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from shoestring.bench.handlers import app, countdown, hold
from shoestring.bench.producer import Order, enqueue
from shoestring.bench.record import Meter, Run
from shoestring.bench.setting import Setting
from shoestring.bench.subject import configure
from shoestring.core.model import Durability


async def one_relaxed(setting: Setting) -> Run:
    """Enqueue and await, one after the other: each answer follows its commit."""
    return await _enqueue(setting, Order(kind="one", tasks=setting.tasks))


async def one_volatile(setting: Setting) -> Run:
    """The same, answered at once."""
    return await _enqueue(setting, Order(kind="one", tasks=setting.tasks, durability=Durability.VOLATILE))


async def one_durable(setting: Setting) -> Run:
    """The same, answered after fdatasync."""
    return await _enqueue(setting, Order(kind="one", tasks=setting.tasks, durability=Durability.DURABLE))


async def bulk(setting: Setting) -> Run:
    """Enqueue 5,000 at a call."""
    return await _enqueue(setting, Order(kind="bulk", tasks=setting.tasks))


async def _enqueue(setting: Setting, order: Order) -> Run:
    """Only enqueue: a task that does not end holds the queue, so that nothing runs meanwhile."""
    configure(Path(setting.folder), held=True)
    meter = Meter(setting.device, os.getpid())
    async with app.running():
        await hold.enqueue()
        meter.start()
        await enqueue(order)
        meter.stop()
    return meter.record(order.tasks)


async def drain(setting: Setting) -> Run:
    """Run what another process has stored, every task in a row of its own."""
    return await _drain(setting, kind="bulk")


async def drain_chunks(setting: Setting) -> Run:
    """Run the items of a job, 50 to a row."""
    return await _drain(setting, kind="job")


async def _drain(setting: Setting, *, kind: str) -> Run:
    folder = Path(setting.folder)
    configure(folder, held=True)
    stage = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shoestring.bench.stage", kind, str(setting.tasks)
    )
    if await stage.wait() != 0:
        raise RuntimeError(f"storing what is to be drained ended with {stage.returncode}")
    configure(folder)
    countdown.expect(setting.tasks)
    meter = Meter(setting.device, os.getpid())
    meter.start()
    async with app.running() as service:
        await countdown.finished.wait()
        await service.wait_idle()
        meter.stop()
        pending = service.engine.status().ledger.pending
    if pending:
        raise RuntimeError(f"{pending} of {setting.tasks} were still pending when nothing was left to do")
    return meter.record(setting.tasks)
