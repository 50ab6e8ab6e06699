"""saq on Redis: one process, 100 coroutines, no results kept."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from saq import Worker
from saq.queue.redis import RedisQueue

from tests.bench.peers import tally
from tests.bench.peers.peer import produce, where


async def noop(_context: object, *, n: int) -> None:
    tally.count()


def queue() -> RedisQueue:
    return RedisQueue(Redis.from_url(where()), name="bench")


@asynccontextmanager
async def connect() -> AsyncIterator[RedisQueue]:
    made = queue()
    await made.connect()
    yield made
    await made.disconnect()


async def one(connected: RedisQueue, number: int) -> None:
    for n in range(number):
        await connected.enqueue("noop", n=n, ttl=-1)


async def work() -> None:
    await Worker(queue(), functions=[("noop", noop)], concurrency=100).start()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        asyncio.run(work())
    else:
        produce(connect, one)
