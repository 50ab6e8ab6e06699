"""What a process used, read from /proc by whoever watches it.

Every reading is of the whole process, all threads. CPU time is read from the process's CPU clock, in nanoseconds
and with the threads that ended, instead of the 10 ms ticks of /proc/<pid>/stat, which an idle daemon never fills.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds of the process, and voluntary context switches of the threads that live at the reading."""

    cpu_s: float
    switches: int

    def __sub__(self, earlier: Usage) -> Usage:
        return Usage(self.cpu_s - earlier.cpu_s, self.switches - earlier.switches)


def usage(pid: int) -> Usage:
    """Read what `pid` has used. ProcessLookupError if it is gone."""
    switches = 0
    for thread in _threads(pid):
        try:
            switches += _field((thread / "status").read_text(), "voluntary_ctxt_switches:")
        except (FileNotFoundError, ProcessLookupError):  # ended between the listing and the reading
            continue
    return Usage(cpu_seconds(pid), switches)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of `pid`, user and system, all threads."""
    # What clock_getcpuclockid(3) answers for a process; Python has the call for threads only.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError as error:  # the kernel's answer for a process that is gone is EINVAL
        raise ProcessLookupError(f"no process {pid} to read the CPU time of") from error


def machine_cpu_seconds() -> float:
    """Return the CPU time the whole machine has spent since it booted, on anything; in ticks of 10 ms."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]  # guests are in user already
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_cpu_seconds() -> float:
    """Return the CPU time of this process and of all those under it that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def pss_kib(pid: int) -> int:
    """Return the memory that would come free if `pid` ended: shared pages count by their share."""
    return _field(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Pss:")


def rss_peak_kib(pid: int) -> int:
    """Return the most memory `pid` ever had mapped in RAM since `forget_peak`; the kernel keeps it exactly."""
    return _field(Path(f"/proc/{pid}/status").read_text(), "VmHWM:")


def forget_peak(pid: int) -> None:
    """Start the peak anew from what is mapped now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def descendants(pid: int) -> list[int]:
    """Return `pid` and every process under it."""
    found = [pid]
    for parent in found:
        for thread in _threads(parent):
            try:
                found.extend(int(child) for child in (thread / "children").read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def _threads(pid: int) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _field(text: str, name: str) -> int:
    at = text.find("\n" + name)  # none of the wanted fields is on a file's first line
    assert at >= 0, name
    return int(text[at + len(name) + 1 :].split(None, 1)[0])
