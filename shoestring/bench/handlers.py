"""The app that is measured: handlers that do nothing, under everything a careful user would set.

The daemon imports this module as any app; its configuration is the one `subject` writes.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Final

from shoestring.app import Shoestring
from shoestring.core.model import Timeout
from shoestring.core.retry import RetryPolicy

app = Shoestring(connect_timeout=30)

QUEUE: Final = "bench"
#: The environment variable that names a file; while that exists, `hold` does not end, and in a queue that runs one at
#: a time nothing else begins. (Not SHOESTRING_…: the configuration would take it for a key.)
HOLD: Final = "BENCH_HOLD"
#: Items a second when 2 million are done a day.
PACE: Final = 2_000_000 / 86_400

_RETRY: Final = RetryPolicy(max_attempts=10, base=2.0, cap=86_400)
_TIMEOUT: Final = Timeout(soft=25, hard=30)


class Countdown:
    """Lets the measuring coroutine wait until so many calls have ended, for a few nanoseconds a call."""

    def __init__(self) -> None:
        self.left = 0
        self.finished = asyncio.Event()

    def expect(self, calls: int) -> None:
        self.left = calls
        self.finished = asyncio.Event()


countdown = Countdown()
latencies_ns: list[int] = []


@app.task(name="noop", queue=QUEUE, retry=_RETRY, timeout=_TIMEOUT)
async def noop(n: int) -> None:  # noqa: ARG001 - an argument to check, store and decode
    countdown.left -= 1
    if countdown.left == 0:
        countdown.finished.set()


@app.task(name="hold", queue=QUEUE)
async def hold() -> None:
    """Keep the queue busy for as long as the file is there, so that what is enqueued stays where it is."""
    if Path(os.environ.get(HOLD, "/nonexistent")).exists():  # noqa: ASYNC240 - once, before the measurement
        await asyncio.Event().wait()  # ended by the daemon's stop, which releases the task


@app.task(name="paced", queue="day", retry=_RETRY, timeout=_TIMEOUT, concurrency=1)
async def paced(n: int) -> None:  # noqa: ARG001 - the item
    """Take as long as an item may when 2 million are done a day, one after the other."""
    await asyncio.sleep(1 / PACE)


@app.task(name="stamp", queue=QUEUE, retry=_RETRY, timeout=_TIMEOUT)
async def stamp(sent_ns: int) -> None:
    """Note how long ago another process enqueued this; Linux has one monotonic clock for all."""
    latencies_ns.append(time.monotonic_ns() - sent_ns)


@app.task(name="report", queue=QUEUE)
async def report(path: str) -> None:
    """Write down what `stamp` noted."""
    Path(path).write_text(json.dumps(latencies_ns))  # noqa: ASYNC240 - after the measurement
