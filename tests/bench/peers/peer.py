"""What every peer's module is made of, and how its process is asked to produce.

A module is run as `python -m tests.bench.peers.<module> prepare|one|bulk N`: it makes its tables, or enqueues N no-op
tasks, one awaited after the other or in bulk, and prints what that took. `worker` is the command of its worker, with
the settings a user of that queue would choose on two cores.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec
import uvloop

T = TypeVar("T")

#: Where the broker listens: a redis URL, a PostgreSQL socket folder, or the folder a file queue keeps its file in.
WHERE = "PEERS_WHERE"

Broker = Literal["none", "redis", "postgres"]


class Took(msgspec.Struct, frozen=True, kw_only=True):
    """What a producer's process prints."""

    seconds: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One queue in one setting."""

    name: str
    settings: str
    module: str  # under tests.bench.peers
    needs: tuple[str, ...]  # packages
    broker: Broker
    worker: tuple[str, ...]  # arguments to the interpreter
    tasks: int  # so that a run takes seconds
    bulk: bool = True  # has a way to enqueue many at once
    environment: tuple[tuple[str, str], ...] = ()

    def missing(self) -> str | None:
        """Say what is not installed, or None."""
        absent = [package for package in self.needs if importlib.util.find_spec(package) is None]
        return f"pip install {' '.join(absent)}" if absent else None


def where() -> str:
    return os.environ[WHERE]


def produce(
    connect: Callable[[], AbstractAsyncContextManager[T]],
    one: Callable[[T, int], Awaitable[None]],
    bulk: Callable[[T, int], Awaitable[None]] | None = None,
    prepare: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Enqueue as the command line says; print the seconds and CPU seconds that took once connected.

    `prepare` makes tables and files, before anything is measured.
    """

    async def timed() -> None:
        kind, number = sys.argv[1], int(sys.argv[2])
        if kind == "prepare":
            if prepare is not None:
                await prepare()
            return
        enqueue = bulk if kind == "bulk" else one
        assert enqueue is not None, "this peer has no bulk enqueue"
        async with connect() as connected:
            began, spent = time.perf_counter(), time.process_time()
            await enqueue(connected, number)
            took = Took(seconds=time.perf_counter() - began, cpu_s=time.process_time() - spent)
        sys.stdout.write(msgspec.json.encode(took).decode() + "\n")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(timed())


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    """Connect where the library connects by itself."""
    yield
