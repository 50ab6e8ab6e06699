"""How often the no-op handler ran, over all processes of a worker, for 0.5 us a call.

Each process writes its own 24 bytes of a file on tmpfs; whoever waits adds them up. Asking the peers' own
counters would cost them differently, and some have none.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

FOLDER = "PEERS_TALLY"
SLOT = struct.Struct("qqq")  # runs, monotonic ns of the first, of the last


@dataclass(frozen=True, slots=True)
class Tally:
    """The sum: how many ran, and the seconds from the first to the last."""

    runs: int
    seconds: float


class Slot:
    """The count of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._map: mmap.mmap | None = None
        self._runs = self._first = 0

    def count(self) -> None:
        with self._lock:
            now = time.monotonic_ns()
            if self._map is None:
                self._map = self._open()
                self._first = now
            self._runs += 1
            SLOT.pack_into(self._map, 0, self._runs, self._first, now)

    def _open(self) -> mmap.mmap:
        # Opened at the first run and so in the process that runs, whatever forked from what.
        handle = os.open(Path(os.environ[FOLDER], str(os.getpid())), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            os.ftruncate(handle, SLOT.size)
            return mmap.mmap(handle, SLOT.size)
        finally:
            os.close(handle)


_slot = Slot()


def count() -> None:
    """Count one run of the handler in this process."""
    _slot.count()


def read(folder: Path) -> Tally:
    """Add up what the processes have written so far."""
    slots = [SLOT.unpack(data) for path in folder.iterdir() if len(data := path.read_bytes()) == SLOT.size]
    started = [slot for slot in slots if slot[0]]
    if not started:
        return Tally(0, 0.0)
    first, last = min(slot[1] for slot in started), max(slot[2] for slot in started)
    return Tally(sum(slot[0] for slot in started), (last - first) / 1e9)
