"""A producer in a process of its own: `python -m shoestring.bench.producer`, driven over its stdin and stdout.

It reads the order, connects, says `ready`, waits for a line, enqueues, and says what that took. So the start of Python
and the connecting are in nobody's figures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence

import msgspec
import uvloop

from shoestring.app import Call, Shoestring
from shoestring.core.errors import Refused
from shoestring.core.model import Durability

#: Calls handed to one `enqueue_many`.
BULK = 5_000


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What one producing process is to do: `producers` coroutines share `tasks`, each awaits its own."""

    kind: str  # one, bulk, stamps, job
    tasks: int
    producers: int = 1
    durability: Durability = Durability.RELAXED
    every_s: float = 0.0  # between two stamps
    wait: bool = False  # for the end of the job


class Produced(msgspec.Struct, frozen=True, kw_only=True):
    tasks: int
    cpu_s: float


async def enqueue(order: Order) -> None:
    """Enqueue what the order says, through the app's own handlers."""
    from shoestring.bench import handlers

    each = order.tasks // order.producers
    noop = handlers.noop  # relaxed; options cost a little, so a plain call has none
    if order.durability is not Durability.RELAXED:
        noop = noop.using(durability=order.durability)

    async def one_by_one() -> None:
        for n in range(each):
            await noop.enqueue(n)

    async def in_bulk() -> None:
        for first in range(0, each, BULK):
            await _enqueue_many(handlers.app, [noop.call(n) for n in range(first, min(first + BULK, each))])

    match order.kind:
        case "one":
            await asyncio.gather(*(one_by_one() for _ in range(order.producers)))
        case "bulk":
            await asyncio.gather(*(in_bulk() for _ in range(order.producers)))
        case "job":
            job = await handlers.noop.fan_out(range(order.tasks), chunk=50)
            if order.wait:
                await job.wait()
        case "stamps":
            for _ in range(order.tasks):
                await handlers.stamp.enqueue(time.monotonic_ns())
                await asyncio.sleep(order.every_s)
        case other:
            raise ValueError(other)


async def _enqueue_many(app: Shoestring, calls: Sequence[Call]) -> None:
    """Enqueue all, coming back when told to: a hundred times 5,000 are more than may wait for one commit."""
    while True:
        try:
            await app.enqueue_many(calls)
        except Refused as refused:
            await asyncio.sleep(refused.retry_after)
        else:
            return


async def _serve() -> None:
    from shoestring.bench import handlers

    order = msgspec.json.decode(sys.stdin.readline(), type=Order)
    await handlers.hold.enqueue()  # connects; harmless
    print("ready", flush=True)
    sys.stdin.readline()
    spent = time.process_time()
    await enqueue(order)
    produced = Produced(tasks=order.tasks // order.producers * order.producers, cpu_s=time.process_time() - spent)
    print(json.dumps(msgspec.to_builtins(produced)), flush=True)


class Producers:
    """Producing processes, as the process that measures sees them."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    @classmethod
    async def start(cls, orders: Sequence[Order]) -> Producers:
        """Start one process an order and wait until all are connected."""
        processes = []
        for order in orders:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "shoestring.bench.producer",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            line = await process.stdout.readline()
            if line != b"ready\n":
                raise RuntimeError(f"a producer ended with {await process.wait()} instead of connecting")
        return cls(processes)

    async def run(self) -> Produced:
        """Let all go at once; return what they did together when the last has ended."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        tasks, cpu_s = 0, 0.0
        for process in self._processes:
            assert process.stdout is not None
            line = await process.stdout.readline()
            if not line:
                raise RuntimeError(f"a producer ended with {await process.wait()} in the middle")
            produced = msgspec.json.decode(line, type=Produced)
            tasks += produced.tasks
            cpu_s += produced.cpu_s
        for process in self._processes:
            await process.wait()
        return Produced(tasks=tasks, cpu_s=cpu_s)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
