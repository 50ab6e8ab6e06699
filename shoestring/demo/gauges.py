"""Disk writes, memory and CPU of the daemon, from the kernel's own counters.

The device under the folder counts what was really written, after the page cache and the file system's journal had
their say; but it counts everybody's writes. Where the folder has no block device to count on (tmpfs, a container's
overlay), the bytes the daemon had written are what there is. `Disk.source` says which of the two it is.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path


class Disk:
    """What was written, as a counter that only rises over all lives of the daemon."""

    def __init__(self, folder: Path) -> None:
        number = os.stat(folder).st_dev
        self._stat = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat")
        self._ended = 0  # what the daemon's earlier lives had written, where that is what is counted
        self._pid, self._latest = 0, 0
        self.of_device = self._stat.exists()
        #: What one unit of `read` is, and whose it is.
        self.unit, self.name, self.source = "writes", "", ""
        if self.of_device:
            self.name = self._stat.resolve().parent.name
            self.source = f"on {self.name}, the device under {folder.parent}, whoever made them"
        else:
            self.unit, self.name = "kB", "the daemon's account"
            self.source = f"by the daemon's account, as {folder.parent} has no block device to count on"

    def read(self, process: Process) -> int:
        """Return the count; `process` is the daemon as it runs now."""
        if self.of_device:
            return int(self._stat.read_text().split()[4])
        if process.pid != self._pid:
            self._ended, self._pid, self._latest = self._ended + self._latest, process.pid, 0
        # 0 if it just died: what was last read stands.
        self._latest = max(self._latest, process.written_bytes() // 1000)
        return self._ended + self._latest


@dataclass(frozen=True, slots=True)
class Process:
    """A process as the kernel accounts for it. Everything is 0 once it is gone."""

    pid: int

    def rss_bytes(self) -> int:
        """Return its resident memory."""
        return self._status_kib("VmRSS") * 1024

    def rss_bytes_max(self) -> int:
        """Return the most it ever had resident."""
        return self._status_kib("VmHWM") * 1024

    def written_bytes(self) -> int:
        """Return what it had written to files on disks, once for each time a page was changed."""
        try:
            lines = Path(f"/proc/{self.pid}/io").read_text().splitlines()
        except OSError:
            return 0
        return int(dict(line.split(": ") for line in lines)["write_bytes"])

    def cpu_s(self) -> float:
        """Return the CPU time it has used, of all its threads."""
        try:
            # The second field is the name in parentheses, which may hold spaces.
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status_kib(self, name: str) -> int:
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return 0
        fields = dict(line.split(":", 1) for line in lines)
        return int(fields.get(name, "0 kB").split()[0])


class Pace:
    """The rate of a rising counter over the last few seconds.

    >>> pace = Pace(over_s=2.0)
    >>> [pace.add(now_s, count) for now_s, count in ((0, 0), (1, 10), (2, 30), (3, 30))]
    [0.0, 10.0, 15.0, 10.0]
    """

    def __init__(self, over_s: float) -> None:
        self._over_s = over_s
        self._readings: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, count: int) -> float:
        """Take a reading and return the rate per second since the reading `over_s` ago."""
        self._readings.append((now_s, count))
        while self._readings[0][0] < now_s - self._over_s:
            self._readings.popleft()
        then_s, before = self._readings[0]
        return (count - before) / (now_s - then_s) if now_s > then_s else 0.0
