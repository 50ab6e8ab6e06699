"""Scenarios with a daemon in a process of its own and producers in others, as in production."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

from shoestring.bench import process
from shoestring.bench.handlers import PACE, app, hold, noop, paced, report
from shoestring.bench.producer import BULK, Order, Producers
from shoestring.bench.record import Meter, Run
from shoestring.bench.setting import Setting
from shoestring.bench.subject import configure, daemon
from shoestring.core.model import Durability

#: The longest delay of a delayed task; the shortest is an hour.
DELAY_S_MAX = 30 * 86_400


def socket(
    kind: str, *, producers: int, processes: int, durability: Durability = Durability.RELAXED
) -> Callable[[Setting], Awaitable[Run]]:
    """Make the scenario in which so many producers, spread over so many processes, enqueue over the socket."""
    return partial(_socket, kind=kind, producers=producers, processes=processes, durability=durability)


async def _socket(setting: Setting, *, kind: str, producers: int, processes: int, durability: Durability) -> Run:
    configure(Path(setting.folder), held=True)
    order = Order(kind=kind, tasks=setting.tasks // processes, producers=producers // processes, durability=durability)
    async with daemon(Path(setting.folder)) as running:
        setting.watch(running.pid)
        await hold.enqueue()
        everybody = await Producers.start([order] * processes)
        meter = Meter(setting.device, running.pid)
        meter.start()
        produced = await everybody.run()
        meter.stop()
        await app.aclose()
    return meter.record(produced.tasks, producer_cpu_s=produced.cpu_s)


async def latency(setting: Setting) -> Run:
    """Enqueue now and then from another process into a daemon that has nothing to do; time until the handler runs."""
    folder = Path(setting.folder)
    configure(folder)
    async with daemon(folder) as running:
        setting.watch(running.pid)
        producer = await Producers.start([Order(kind="stamps", tasks=setting.tasks, every_s=0.02)])
        meter = Meter(setting.device, running.pid)
        meter.start()
        produced = await producer.run()
        meter.stop()
        noted = folder / "latencies.json"
        await (await report.fan_out([str(noted)])).wait()
        await app.aclose()
    times_ms = sorted(value / 1e6 for value in json.loads(noted.read_text()))
    return meter.record(
        setting.tasks,
        producer_cpu_s=produced.cpu_s,
        p50_ms=statistics.median(times_ms),
        p99_ms=times_ms[int(len(times_ms) * 0.99)],
        max_ms=times_ms[-1],
        missing=float(setting.tasks - len(times_ms)),
    )


async def idle(setting: Setting) -> Run:
    """Leave a daemon alone for a while."""
    configure(Path(setting.folder))
    async with daemon(Path(setting.folder)) as running:
        setting.watch(running.pid)
        await asyncio.sleep(setting.settle_s)
        meter = Meter(setting.device, running.pid)
        meter.start()
        before = process.usage(running.pid)
        await asyncio.sleep(setting.window_s)
        used = process.usage(running.pid) - before
        meter.stop()
        # Read before the daemon ends: its end writes, and is not idling.
        return meter.record(
            setting.tasks,
            cpu_ms_per_s=used.cpu_s * 1000 / setting.window_s,
            switches_per_s=used.switches / setting.window_s,
            pss_mb=process.pss_kib(running.pid) / 1024,
        )


async def day(setting: Setting) -> Run:
    """Run a job at the pace of 2 million items a day, one item after the other in chunks of 50, for a while."""
    configure(Path(setting.folder))
    async with daemon(Path(setting.folder)) as running:
        setting.watch(running.pid)
        job = await paced.fan_out(range(int(PACE * (setting.window_s + setting.settle_s)) + 100), chunk=50)
        await asyncio.sleep(setting.settle_s)
        before = (await job.progress()).done
        meter = Meter(setting.device, running.pid)
        meter.start()
        await asyncio.sleep(setting.window_s)
        meter.stop()
        done = (await job.progress()).done - before
        found = meter.record(max(1, done), items_per_s=done / meter.seconds)
        await app.aclose()
    return found


async def delayed(setting: Setting) -> Run:
    """Store tasks due in an hour to a month; then start a daemon on them."""
    folder = Path(setting.folder)
    configure(folder)
    step = DELAY_S_MAX / setting.tasks
    async with daemon(folder) as running:
        setting.watch(running.pid)
        await hold.enqueue()
        await asyncio.sleep(setting.settle_s)
        before = process.pss_kib(running.pid)
        meter = Meter(setting.device, running.pid)
        meter.start()
        for first in range(0, setting.tasks, BULK):
            numbers = range(first, min(first + BULK, setting.tasks))
            # Spread over the month and far from in order, as they come in life: 7,919 is prime.
            await app.enqueue_many(
                noop.using(run_after=timedelta(seconds=3_600 + int(n * 7_919 % setting.tasks * step))).call(n)
                for n in numbers
            )
        meter.stop()
        await asyncio.sleep(setting.settle_s)
        after = process.pss_kib(running.pid)
        await app.aclose()
    async with daemon(folder) as again:
        start_s, pss_start = again.start_s, process.pss_kib(again.pid)
        stored = (await again.client.status()).delayed
    if stored != setting.tasks:
        raise RuntimeError(f"{stored} of {setting.tasks} delayed tasks were there at the next start")
    database = sum((folder / name).stat().st_size for name in os.listdir(folder) if name.startswith("bench.db"))
    return meter.record(
        setting.tasks,
        pss_growth_mb=(after - before) / 1024,
        pss_restarted_mb=pss_start / 1024,
        start_s=start_s,
        bytes_per_task=database / setting.tasks,
    )


async def job(setting: Setting) -> Run:
    """Stream a job's items from another process while the daemon runs them; what grows is the daemon's memory."""
    configure(Path(setting.folder))
    async with daemon(Path(setting.folder)) as running:
        setting.watch(running.pid)
        producer = await Producers.start([Order(kind="job", tasks=setting.tasks, wait=True)])
        await asyncio.sleep(setting.settle_s)
        before = process.pss_kib(running.pid)
        meter = Meter(setting.device, running.pid)
        meter.start()
        produced = await producer.run()  # it waits for the job's end
        meter.stop()
        grown = process.pss_kib(running.pid) - before
    return meter.record(setting.tasks, producer_cpu_s=produced.cpu_s, pss_growth_mb=grown / 1024)
