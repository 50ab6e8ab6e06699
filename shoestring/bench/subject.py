"""The queue that is measured, set up as its user would: a configuration file, the app, a daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shoestring.bench.handlers import HOLD, QUEUE
from shoestring.client import Client

APP: Final = "shoestring.bench.handlers:app"

#: Limits that are looked at for each task and never say no.
_CONFIG: Final = """
app = "{app}"
database = "{folder}/bench.db"

[run]
grace_s = 0.2

[log]
level = "warning"

[queues.{queue}]
limit = {{ capacity = 1e9, rate = 1e9 }}
{held}
[queues.day]
concurrency = 1
"""


def configure(folder: Path, *, held: bool = False, app: str = APP) -> None:
    """Write the configuration and point this process and its children to it.

    `held` makes a queue that runs one task at a time, and lets the task `hold` be it.
    """
    marker = folder / "held"
    if held:
        marker.touch()
    else:
        marker.unlink(missing_ok=True)
    path = folder / "shoestring.toml"
    path.write_text(_CONFIG.format(app=app, folder=folder, queue=QUEUE, held="concurrency = 1\n" if held else ""))
    os.environ["SHOESTRING_CONFIG"] = str(path)
    os.environ[HOLD] = str(marker)


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon in a process of its own, ready."""

    pid: int
    start_s: float  # from the start of its process until it answered
    client: Client


@contextlib.asynccontextmanager
async def daemon(folder: Path) -> AsyncIterator[Daemon]:
    """Start a daemon on the configuration in `folder`, wait until it answers, and stop it in the end."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shoestring", "run", stdin=asyncio.subprocess.DEVNULL
    )
    client = Client(folder / "bench.sock", connect_timeout=60)
    try:
        await _connected(client, started)
        yield Daemon(started.pid, loop.time() - began, client)
    finally:
        await client.aclose()
        if started.returncode is None:
            started.terminate()
        try:
            await asyncio.wait_for(started.wait(), 30)
        except TimeoutError:
            started.kill()
            await started.wait()
    if started.returncode != 0:
        raise RuntimeError(f"the daemon ended with {started.returncode}")


async def _connected(client: Client, started: asyncio.subprocess.Process) -> None:
    """Wait until the daemon answers, or has ended."""
    connecting = asyncio.ensure_future(client.connect())
    ending = asyncio.ensure_future(started.wait())
    await asyncio.wait((connecting, ending), return_when=asyncio.FIRST_COMPLETED)
    if not connecting.done():
        connecting.cancel()
        raise RuntimeError(f"the daemon ended with {started.returncode} before it answered")
    ending.cancel()
    await connecting
