"""shoestring, measured as the others are: enqueued over its socket, drained by a daemon started afterwards.

Enqueueing needs its daemon, and a daemon runs what it has. So it is held meanwhile by a task that does not end, in a
queue that runs one at a time; the daemon that drains is another one, without that.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shoestring.app import Shoestring
from shoestring.bench.handlers import HOLD, QUEUE
from shoestring.bench.producer import BULK
from shoestring.bench.subject import configure, daemon
from shoestring.core.model import Timeout
from shoestring.core.retry import RetryPolicy
from tests.bench.peers import tally
from tests.bench.peers.peer import produce, where

app = Shoestring()


@app.task(name="noop", queue=QUEUE, retry=RetryPolicy(max_attempts=10), timeout=Timeout(soft=25, hard=30))
async def noop(n: int) -> None:
    tally.count()


@app.task(name="hold", queue=QUEUE)
async def hold() -> None:
    if Path(os.environ[HOLD]).exists():  # noqa: ASYNC240 - once, before the measurement
        await asyncio.Event().wait()


def settings(*, held: bool) -> None:
    configure(Path(where()), held=held, app="tests.bench.peers.shoestring_daemon:app")


async def prepare() -> None:
    settings(held=True)
    async with daemon(Path(where())):
        pass  # it has made its files


@asynccontextmanager
async def connect() -> AsyncIterator[None]:
    settings(held=True)
    async with daemon(Path(where())):
        await hold.enqueue()
        yield
        await app.aclose()


async def one(_: None, number: int) -> None:
    for n in range(number):
        await noop.enqueue(n)


async def bulk(_: None, number: int) -> None:
    for first in range(0, number, BULK):
        await app.enqueue_many(noop.call(n) for n in range(first, min(first + BULK, number)))


if __name__ == "__main__":
    if sys.argv[1] == "work":
        settings(held=False)
        os.execv(sys.executable, [sys.executable, "-m", "shoestring", "run"])
    else:
        produce(connect, one, bulk, prepare)
