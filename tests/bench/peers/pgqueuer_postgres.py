"""pgqueuer on PostgreSQL: batches of 50, 100 at once."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from tests.bench.peers import tally
from tests.bench.peers.peer import produce, where

#: Entries in one call of enqueue: one statement, one commit.
BATCH = 5_000


async def connect() -> asyncpg.Connection:
    return await asyncpg.connect(host=where(), user="postgres", database="postgres")


@asynccontextmanager
async def queries() -> AsyncIterator[Queries]:
    connection = await connect()
    yield Queries.from_asyncpg_connection(connection)
    await connection.close()


async def prepare() -> None:
    async with queries() as connected:
        await connected.install()


async def one(connected: Queries, number: int) -> None:
    for _ in range(number):
        await connected.enqueue("noop", b'{"n":1}', 0)


async def bulk(connected: Queries, number: int) -> None:
    for first in range(0, number, BATCH):
        size = min(BATCH, number - first)
        await connected.enqueue(["noop"] * size, [b'{"n":1}'] * size, [0] * size)


async def noop(_job: Job) -> None:
    tally.count()


async def work() -> None:
    pgq = PgQueuer.from_asyncpg_connection(await connect())
    pgq.entrypoint("noop")(noop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, pgq.shutdown.set)
    await pgq.run(batch_size=50, max_concurrent_tasks=100)


if __name__ == "__main__":
    if sys.argv[1] == "work":
        asyncio.run(work())
    else:
        produce(queries, one, bulk, prepare)
