"""Store what another process is to drain: `python -m shoestring.bench.stage bulk|job N`.

A process of its own, so that what enqueueing left in memory is not in the figures of the drain.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

from shoestring.bench.handlers import app, hold
from shoestring.bench.producer import Order, enqueue


async def store(order: Order) -> None:
    async with app.running():
        await hold.enqueue()
        await enqueue(order)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(store(Order(kind=sys.argv[1], tasks=int(sys.argv[2]))))
