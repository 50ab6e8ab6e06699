"""What one run of one scenario came to, and the stopwatch that takes it.

A child process sends its record to the process that started it as one line of JSON.
"""

from __future__ import annotations

import time

import msgspec

from shoestring.bench import process
from shoestring.bench.device import Counters, Device


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """What the device was given: until the work was done, and with what the page cache still held then."""

    during: Counters
    settled: Counters


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `figures` holds what only this scenario has, by name with its unit last."""

    tasks: int  # units of work: tasks, items, rows or round trips
    seconds: float
    cpu_s: float  # of the process with the engine
    producer_cpu_s: float = 0.0  # of the processes that enqueue, if they are others
    rss_peak_kib: int = 0
    pss_peak_kib: int = 0  # sampled; filled in by the watching process, as is the next
    others_cores: float = 0.0  # cores that something else kept busy meanwhile: what the figures suffered from
    disk: Disk | None = None
    figures: dict[str, float] = {}

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.tasks / self.seconds if self.seconds else 0.0

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU a unit, in the process with the engine."""
        return self.cpu_s / self.tasks * 1e6 if self.tasks else 0.0


class Meter:
    """Measures what happens between `start` and `stop`: time, CPU and memory of one process, and the disk.

    `record` comes after whatever holds data back (an engine, a broker) has closed, so that nothing is left out.
    """

    def __init__(self, device: Device, pid: int) -> None:
        self._device = device
        self._pid = pid

    def start(self) -> None:
        self._device.settle()  # what went before is not ours
        process.forget_peak(self._pid)
        self._disk_before = self._device.read()
        self._used_before = process.usage(self._pid)
        self._began = time.perf_counter()

    def stop(self) -> None:
        self.seconds = time.perf_counter() - self._began
        self._used = process.usage(self._pid) - self._used_before
        self._disk_during = self._device.read()
        self._rss_peak = process.rss_peak_kib(self._pid)

    def record(self, tasks: int, *, producer_cpu_s: float = 0.0, **figures: float) -> Run:
        """Write out what the page cache still holds, count it too, and return what `tasks` units cost."""
        self._device.settle()
        after = self._device.read()
        disk = None
        if self._disk_before is not None and self._disk_during is not None and after is not None:
            disk = Disk(during=self._disk_during - self._disk_before, settled=after - self._disk_before)
        return Run(
            tasks=tasks,
            seconds=self.seconds,
            cpu_s=self._used.cpu_s,
            producer_cpu_s=producer_cpu_s,
            rss_peak_kib=self._rss_peak,
            disk=disk,
            figures={"switches": float(self._used.switches), **figures},
        )
