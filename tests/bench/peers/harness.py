"""One round of one peer: enqueue, then drain what was enqueued, on a device that counts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from shoestring.bench import process
from shoestring.bench.device import Counters, Device
from shoestring.bench.rounds import environment
from tests.bench.peers import brokers, tally
from tests.bench.peers.peer import WHERE, Peer, Took

#: A worker that has not finished after this has lost tasks or stands still.
DRAIN_S_MAX = 300.0
POLL_S = 0.02
#: Memory is read every so many polls: a reading stops the process for about a millisecond.
POLLS_A_SAMPLE = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued:
    per_second: float
    producer_cpu_us: float
    disk: Counters | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    per_second: float
    cpu_us: float  # worker and broker, start of the worker included
    pss_peak_mb: float  # worker and broker
    disk: Counters | None
    runs: int  # more than were enqueued: some ran twice


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one peer came to, once."""

    tasks: int
    one: Enqueued
    bulk: Enqueued | None
    drained: Drained


def missing(peer: Peer) -> str | None:
    """Say what this peer cannot run without, or None."""
    return peer.missing() or brokers.missing(peer.broker)


def play(peer: Peer, device: Device, *, tasks: int) -> Round:
    """Enqueue `tasks` one by one and drain them; then, on a fresh broker, enqueue as many in bulk."""
    with _place(device, peer.name) as folder, brokers.running(peer.broker, folder) as broker:
        one = _enqueue(peer, broker, device, kind="one", tasks=tasks)
        drained = _drain(peer, broker, device, tasks=tasks)
    bulk = None
    if peer.bulk:
        with _place(device, peer.name) as folder, brokers.running(peer.broker, folder) as broker:
            bulk = _enqueue(peer, broker, device, kind="bulk", tasks=tasks)
    return Round(tasks=tasks, one=one, bulk=bulk, drained=drained)


def _enqueue(peer: Peer, broker: brokers.Running, device: Device, *, kind: str, tasks: int) -> Enqueued:
    _produce(peer, broker, "prepare", 0)
    device.settle()
    before = device.read()
    took = msgspec.json.decode(_produce(peer, broker, kind, tasks), type=Took)
    return Enqueued(
        per_second=tasks / took.seconds, producer_cpu_us=took.cpu_s / tasks * 1e6, disk=_written(device, before)
    )


def _produce(peer: Peer, broker: brokers.Running, kind: str, tasks: int) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.peers.{peer.module}", kind, str(tasks)],
        env=_environment(peer, broker), stdout=subprocess.PIPE, cwd=_root(), check=True,
    )  # fmt: skip
    return done.stdout


def _drain(peer: Peer, broker: brokers.Running, device: Device, *, tasks: int) -> Drained:
    device.settle()
    before = device.read()
    with tempfile.TemporaryDirectory(prefix="tally-", dir="/dev/shm") as counted:
        servers = process.descendants(broker.pid) if broker.pid is not None else []
        spent_before = _cpu(servers)
        worker = subprocess.Popen(
            [sys.executable, *peer.worker], env={**_environment(peer, broker), tally.FOLDER: counted}, cwd=_root(),
            process_group=0, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            pss_peak_kib = _wait(worker, broker, Path(counted), tasks)
            workers = process.descendants(worker.pid)
            # The broker may have started processes for the worker (PostgreSQL does): they are read now as well.
            servers = process.descendants(broker.pid) if broker.pid is not None else []
            spent = _cpu(workers) + _cpu(servers) - spent_before
        finally:
            _end(worker)
        found = tally.read(Path(counted))
    return Drained(
        per_second=tasks / found.seconds if found.seconds else 0.0,
        cpu_us=spent / tasks * 1e6,
        pss_peak_mb=pss_peak_kib / 1024,
        disk=_written(device, before),
        runs=found.runs,
    )


def _wait(worker: subprocess.Popen[bytes], broker: brokers.Running, counted: Path, tasks: int) -> int:
    """Wait until `tasks` have run; return the most memory, in KiB, worker and broker had together."""
    deadline, peak, polls = time.monotonic() + DRAIN_S_MAX, 0, 0
    while (found := tally.read(counted)).runs < tasks:
        if worker.poll() is not None:
            raise RuntimeError(f"the worker ended with {worker.returncode} after {found.runs} of {tasks} tasks")
        if time.monotonic() > deadline:
            raise RuntimeError(f"after {DRAIN_S_MAX:g} s {found.runs} of {tasks} tasks had run")
        polls += 1
        if polls % POLLS_A_SAMPLE == 1:
            peak = max(peak, _pss(worker.pid) + (_pss(broker.pid) if broker.pid is not None else 0))
        time.sleep(POLL_S)
    return peak


def _pss(root: int) -> int:
    total = 0
    for pid in process.descendants(root):
        with contextlib.suppress(OSError, AssertionError):  # it ended, or has no memory of its own any more
            total += process.pss_kib(pid)
    return total


def _cpu(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            total += process.cpu_seconds(pid)
    return total


def _written(device: Device, before: Counters | None) -> Counters | None:
    device.settle()
    after = device.read()
    return after - before if before is not None and after is not None else None


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.wait(timeout=10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


@contextlib.contextmanager
def _place(device: Device, name: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=device.folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        device.settle()


def _root() -> Path:
    return Path(__file__).parents[3]


def _environment(peer: Peer, broker: brokers.Running) -> dict[str, str]:
    return {**environment(), WHERE: broker.where, **dict(peer.environment)}
