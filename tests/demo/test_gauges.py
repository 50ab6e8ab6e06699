"""Counters of the kernel: which are read, and that they only rise over the daemon's lives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shoestring.demo.gauges import Disk, Pace, Process


def test_where_there_is_no_device_the_bytes_of_the_process_are_counted(tmp_path: Path) -> None:
    """A gauge that silently showed 0 writes on tmpfs would be a lie."""
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or os.major(shared_memory.stat().st_dev) != 0:
        pytest.skip("no tmpfs here")

    disk = Disk(shared_memory)

    assert not disk.of_device
    assert disk.unit == "kB"
    assert "no block device" in disk.source
    assert disk.read(Process(os.getpid())) >= 0


def test_the_count_of_a_daemon_that_was_killed_is_kept() -> None:
    """A rate computed over a kill would come out negative."""
    disk = Disk(Path("/proc"))
    disk._pid, disk._latest = 1, 500  # what its first life had written when last read

    assert disk.read(Process(-1)) == 500
    assert disk.read(Process(-1)) == 500


def test_the_device_under_the_folder_is_read_and_named(tmp_path: Path) -> None:
    """People compare the figure with iostat; it must say which device it means."""
    disk = Disk(tmp_path)
    if not disk.of_device:
        pytest.skip("no block device under the temporary folder")

    assert str(tmp_path.parent) in disk.source
    assert disk.unit == "writes"
    assert disk.read(Process(os.getpid())) > 0


def test_a_process_that_is_gone_has_and_uses_nothing() -> None:
    """The daemon may die between two readings."""
    alive, gone = Process(os.getpid()), Process(-1)

    assert min(alive.rss_bytes(), alive.rss_bytes_max()) > 1_000_000
    assert alive.cpu_s() > 0
    assert (gone.rss_bytes(), gone.rss_bytes_max(), gone.cpu_s()) == (0, 0, 0.0)


def test_a_pace_forgets_what_is_older_than_its_window() -> None:
    """The rate shown must be the present one, not the mean since the start."""
    pace = Pace(over_s=2.0)

    rates = [pace.add(now_s, count) for now_s, count in ((0.0, 0), (1.0, 100), (2.0, 100), (3.0, 100), (4.0, 100))]

    assert rates == [0.0, 100.0, 50.0, 0.0, 0.0]
