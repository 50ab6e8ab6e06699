"""The disk figures are only as good as these readings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoestring.bench.device import Counters, Device, open_device, parse_stat, under
from shoestring.bench.rounds import environment

root = pytest.mark.skipif(os.geteuid() != 0, reason="a loop device needs root")

STAT = "  11 0 88 5  200 3 800 70 0 60 75  0 0 0 0  100 40\n"


def test_the_kernels_fields_are_read_by_their_place() -> None:
    """Writes, sectors and flushes stand in fields 5, 7 and 16; a shift by one would be believed."""
    assert Counters(writes=200, flushes=100, sectors=800) == parse_stat(STAT)


def test_an_old_kernel_without_flush_counters_is_read_too() -> None:
    """Linux before 5.5 ends the line after eleven fields."""
    assert Counters(writes=200, flushes=0, sectors=800) == parse_stat(" ".join(STAT.split()[:11]))


def test_a_flush_without_data_is_no_data_write() -> None:
    """The block layer counts an empty flush as a write; the budget is in writes that carry data."""
    assert Counters(writes=200, flushes=100, sectors=800).data_writes == 100


def test_what_happened_between_two_readings_adds_up() -> None:
    """A phase is the difference of two readings, and phases add up to the whole."""
    first, second, third = Counters(10, 2, 80), Counters(25, 7, 300), Counters(26, 7, 308)

    whole, parts = third - first, (second - first, third - second)

    assert whole == Counters(
        sum(part.writes for part in parts), sum(part.flushes for part in parts), sum(part.sectors for part in parts)
    )


def test_a_folder_without_a_block_device_has_no_counters() -> None:
    """Nothing is counted on tmpfs; a figure of 0 there would be a lie."""
    assert Device(Path("/nowhere"), None, dedicated=False).read() is None


def test_the_device_of_a_folder_is_said_to_be_shared(tmp_path: Path) -> None:
    """Whoever reads the figures must know that others' writes are in them."""
    assert under(tmp_path).dedicated is False


@root
@pytest.mark.root
def test_every_synced_page_is_counted_on_a_device_of_our_own() -> None:
    """Ten pages synced one by one are ten data writes, ten flushes and 80 sectors, and nobody else's."""
    with open_device(None) as device:
        if not device.dedicated:
            pytest.skip("no loop device can be mounted here")
        page = os.open(device.folder / "page", os.O_CREAT | os.O_RDWR)
        try:
            os.pwrite(page, b"0" * 4096, 0)
            os.fsync(page)
            device.settle()
            before = device.read()
            for _ in range(10):
                os.pwrite(page, b"1" * 4096, 0)
                os.fdatasync(page)
            after = device.read()
        finally:
            os.close(page)

    assert before is not None
    assert after is not None
    assert after - before == Counters(writes=20, flushes=10, sectors=80)


def test_nothing_stays_mounted_after_an_error() -> None:
    """A bench that fails must not leave a mount, a loop device or a folder behind."""
    places: list[Path] = []

    def fail() -> None:
        with open_device(None) as device:
            places.append(device.folder.parent)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()

    assert not places[0].exists()
    assert str(places[0]) not in Path("/proc/self/mountinfo").read_text()


def test_nothing_stays_mounted_after_kill_9() -> None:
    """The one end no `finally` sees: a process of its own gives the device back."""
    script = (
        "import os; from shoestring.bench.device import open_device\n"
        "with open_device(None) as device:\n"
        "    print(device.folder.parent, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    # The janitor holds the pipe as well: reading to its end is waiting for the janitor.
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False, env=environment())
    place = done.stdout.decode().strip()

    assert done.returncode == -9
    assert place
    assert not Path(place).exists()
    assert place not in Path("/proc/self/mountinfo").read_text()
