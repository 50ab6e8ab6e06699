"""taskiq on a Redis stream (acknowledged): one worker process, 100 coroutines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taskiq_redis import RedisStreamBroker

from tests.bench.peers import tally
from tests.bench.peers.peer import produce, where

broker = RedisStreamBroker(url=where())


async def noop(n: int) -> None:
    tally.count()


task = broker.task("noop")(noop)


@asynccontextmanager
async def connect() -> AsyncIterator[None]:
    await broker.startup()  # makes the consumer group: what is enqueued from here on is seen by a later worker
    yield
    await broker.shutdown()


async def one(_: None, number: int) -> None:
    for n in range(number):
        await task.kiq(n)


if __name__ == "__main__":
    produce(connect, one)
