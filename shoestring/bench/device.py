"""What reached the disk: the block device's own counters, on a file system nobody else writes to where possible.

Counting system calls would tell what was asked for; what a small VM is billed and throttled for is what its device
was given, after the page cache merged writes and the journal added its own. The kernel keeps that in
/sys/dev/block/<major>:<minor>/stat.

A flush without data is counted there as one write of no sectors as well (measured: 100 times pwrite of 4 KB +
fdatasync = 200 writes, 100 flushes, 800 sectors), so the writes that carry data are writes minus flushes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shoestring.core.errors import ConfigError

SECTOR_BYTES = 512
#: Sparse: a bench takes what it writes, not this. Room for 10 million delayed tasks.
IMAGE_BYTES = 8 << 30


@dataclass(frozen=True, slots=True)
class Counters:
    """What a device has been given since it exists, or between two readings."""

    writes: int
    flushes: int
    sectors: int

    @property
    def data_writes(self) -> int:
        return max(0, self.writes - self.flushes)

    @property
    def megabytes(self) -> float:
        return self.sectors * SECTOR_BYTES / 1e6

    def __sub__(self, earlier: Counters) -> Counters:
        return Counters(self.writes - earlier.writes, self.flushes - earlier.flushes, self.sectors - earlier.sectors)


@dataclass(frozen=True, slots=True)
class Device:
    """A folder to measure in and the counters of what lies under it."""

    folder: Path
    number: str | None  # major:minor; None: what lies under the folder has no counters (tmpfs, network)
    dedicated: bool  # nobody else writes there

    def read(self) -> Counters | None:
        if self.number is None:
            return None
        return parse_stat(Path(f"/sys/dev/block/{self.number}/stat").read_text())

    def settle(self) -> None:
        """Write out what the page cache still holds for this file system, so that it is counted and done."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(handle) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), str(self.folder))
        finally:
            os.close(handle)

    def describe(self) -> str:
        if self.number is None:
            return f"{self.folder}: its file system has no block device to count on"
        name = Path(f"/sys/dev/block/{self.number}").resolve().name
        others = "a file system of our own" if self.dedicated else "others write there too, and are counted"
        return f"{name} ({self.number}), {others}"


def parse_stat(text: str) -> Counters:
    """Read the fields of /sys/block/*/stat; see Documentation/block/stat.rst. Flushes are there since Linux 5.5."""
    fields = [int(field) for field in text.split()]
    return Counters(writes=fields[4], sectors=fields[6], flushes=fields[15] if len(fields) > 15 else 0)


def under(folder: Path) -> Device:
    """Return the device under `folder`, which others use too."""
    number = os.stat(folder).st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    if os.major(number) == 0:  # btrfs, overlay: the mount table names the device the files really lie on
        name = _mounted_device(folder) or ""
    return Device(folder, name if name and Path(f"/sys/dev/block/{name}/stat").exists() else None, dedicated=False)


def _mounted_device(folder: Path) -> str | None:
    best, source = "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        if len(point) >= len(best) and folder.resolve().is_relative_to(point):
            best, source = point, right.split()[1]
    if not source.startswith("/dev/"):
        return None
    number = os.stat(source).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


@contextlib.contextmanager
def open_device(folder: Path | None) -> Iterator[Device]:
    """Make a folder to measure in and remove it afterwards, on a loop-mounted ext4 where this process may make one.

    `folder` is where the folder, or the image of the loop device, is put: the disk that is measured on.
    """
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; nothing was measured. Make it, or name another with --folder.")
    place = Path(tempfile.mkdtemp(prefix="shoestring-bench-", dir=folder))
    with _removed_afterwards(place):
        device = _loop(place) if os.geteuid() == 0 else None
        if device is None:
            data = place / "data"
            data.mkdir()
            device = under(data)
        yield device


#: Runs in a session of its own and acts when its stdin closes: however this process ends, kill -9 included, nothing
#: stays mounted. `--one-file-system` keeps rm off a mount that could not be undone.
_JANITOR = """
cat >/dev/null
umount -l "$1/data" 2>/dev/null
losetup -n -O NAME -j "$1/image" 2>/dev/null | while read -r loop; do losetup -d "$loop"; done
rm -rf --one-file-system "$1"
"""


@contextlib.contextmanager
def _removed_afterwards(place: Path) -> Iterator[None]:
    janitor = subprocess.Popen(
        ["/bin/sh", "-c", _JANITOR, "janitor", str(place)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        assert janitor.stdin is not None
        janitor.stdin.close()
        janitor.wait(timeout=60)


def _loop(place: Path) -> Device | None:
    """Mount an ext4 of our own at place/data; None where a tool, a loop device or the right to mount is missing."""
    if any(shutil.which(tool) is None for tool in ("losetup", "mkfs.ext4", "mount")):
        return None
    image, data = place / "image", place / "data"
    data.mkdir()
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    # Everything is written when the file system is made: lazy initialisation would write behind the figures' back.
    eager = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    commands = [["mkfs.ext4", "-q", "-F", "-m", "0", "-N", "2048", "-E", eager, str(image)]]
    if not all(_run(command) is not None for command in commands):
        return None
    # Direct I/O: no second page cache below ours, so that a flush there is a flush of the image.
    loop = _run(["losetup", "--find", "--show", "--direct-io=on", str(image)]) or _run(
        ["losetup", "--find", "--show", str(image)]
    )
    if loop is None or _run(["mount", "-o", "noatime", loop, str(data)]) is None:
        data.rmdir()  # the folder beside it is used instead; the janitor gives the loop device back
        return None
    number = os.stat(loop).st_rdev
    return Device(data, f"{os.major(number)}:{os.minor(number)}", dedicated=True)


def _run(command: list[str]) -> str | None:
    """Return what the command printed; None if it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
