"""What bounds a queue from above on this box: the bare parts, doing the same work without the queue."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import cast

from shoestring.bench.record import Meter, Run
from shoestring.bench.setting import Setting

#: As many at once as the daemon has slots by default.
SLOTS = 100
#: Rows a transaction, about what a commit window gathers under load.
ROWS = 5_000
FRAME = b'{"jsonrpc":"2.0","method":"enqueue","params":{"tasks":[["noop","{\\"n\\":1}"]]},"id":1}\n'


async def noop(n: int) -> None:
    """Do nothing: what is measured is everything around it."""


async def bare_loop(setting: Setting) -> Run:
    """Run the coroutine in a task of its own each, `SLOTS` at once, and count each down: no store, no limits."""
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    left = setting.tasks

    def count(_: asyncio.Task[None]) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            finished.set_result(None)

    meter = Meter(setting.device, os.getpid())
    meter.start()
    for first in range(0, setting.tasks, SLOTS):
        for n in range(first, min(first + SLOTS, setting.tasks)):
            loop.create_task(noop(n)).add_done_callback(count)
        await asyncio.sleep(0)
    await finished
    meter.stop()
    return meter.record(setting.tasks)


async def plain_rows(setting: Setting) -> Run:
    """Insert the same rows with `executemany`, WAL and synchronous=NORMAL, one transaction for every `ROWS`."""
    connection = sqlite3.connect(Path(setting.folder, "rows.db"), isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(
        "CREATE TABLE ready (lane INTEGER, rank INTEGER, handler INTEGER, enqueued_at_ms INTEGER, crc INTEGER,"
        " body BLOB, PRIMARY KEY (lane, rank)) WITHOUT ROWID"
    )
    meter = Meter(setting.device, os.getpid())
    meter.start()
    for first in range(0, setting.tasks, ROWS):
        rows = [
            (1, n, 1, 1_700_000_000_000, 0, b'{"n":%d}' % n) for n in range(first, min(first + ROWS, setting.tasks))
        ]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO ready VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
    meter.stop()
    connection.close()
    return meter.record(setting.tasks)


async def echo_one(setting: Setting) -> Run:
    """Send one frame over a Unix socket to another process, await it back, send the next."""
    return await _echo(setting, connections=1)


async def echo_hundred(setting: Setting) -> Run:
    """The same from 100 connections at once."""
    return await _echo(setting, connections=100)


class _Pinger(asyncio.Protocol):
    """Sends a frame whenever the one before has come back."""

    def __init__(self, trips: int, finished: asyncio.Future[None]) -> None:
        self._left = trips
        self._finished = finished

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def start(self) -> None:
        self._transport.write(FRAME)

    def data_received(self, _data: bytes) -> None:
        self._left -= 1  # a frame is far below the socket's buffer: it comes back in one piece
        if self._left > 0:
            self._transport.write(FRAME)
        elif not self._finished.done():
            self._finished.set_result(None)


async def _echo(setting: Setting, *, connections: int) -> Run:
    loop = asyncio.get_running_loop()
    path = str(Path(setting.folder, "echo.sock"))
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shoestring.bench.echo", path, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        await server.stdout.readline()  # it listens
        each = max(1, setting.tasks // connections)
        pingers = []
        for _ in range(connections):
            finished: asyncio.Future[None] = loop.create_future()
            pinger = _Pinger(each, finished)
            await loop.create_unix_connection(lambda made=pinger: made, path)  # type: ignore[misc]
            pingers.append((pinger, finished))
        meter = Meter(setting.device, server.pid)
        meter.start()
        spent = time.process_time()
        for pinger, _ in pingers:
            pinger.start()
        await asyncio.gather(*(finished for _, finished in pingers))
        spent = time.process_time() - spent
        meter.stop()
    finally:
        server.terminate()
        await server.wait()
    return meter.record(each * connections, producer_cpu_s=spent)
