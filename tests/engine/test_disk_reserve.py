"""Below the reserve nothing new is taken, and an idle queue notices by itself that there is room again."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from shoestring.core.errors import DiskFull
from tests.engine.conftest import Rig

_MIB = 1 << 20


class Disk:
    """What the operating system says of the disk."""

    def __init__(self) -> None:
        self.free_mib = 1_000
        self._ask = os.statvfs

    def statvfs(self, path: str | Path) -> os.statvfs_result:
        found = list(self._ask(path))
        found[1] = _MIB  # f_frsize
        found[4] = self.free_mib  # f_bavail
        return os.statvfs_result(found)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(os, "statvfs", made.statvfs)
    return made


async def test_below_the_reserve_new_tasks_are_refused_and_old_ones_run(rig: Rig, disk: Disk) -> None:
    """Work that was accepted needs the last megabytes more than work that was not; and it makes room."""
    ran: list[int] = []

    @rig.task()
    async def call(number: int) -> None:
        ran.append(number)

    rig.store = msgspec.structs.replace(rig.store, reserve_mib=64)
    engine = await rig.start()
    engine.runner.quiet = True  # until it was accepted
    await rig.enqueue("call", {"number": 1})
    await rig.stop()
    disk.free_mib = 10
    engine = await rig.start()
    assert not engine.status().accepting
    with pytest.raises(DiskFull, match="10 MiB are free"):
        await rig.enqueue("call", {"number": 2})
    await rig.idle()
    assert [1] == ran
    assert {"accepted": 1, "completed": 1} == rig.counts()


async def test_an_idle_queue_takes_tasks_again_when_there_is_room(rig: Rig, disk: Disk) -> None:
    """Nothing is committed while nothing is accepted: the next who asks must find out, without a restart."""

    @rig.task()
    async def call() -> None: ...

    rig.store = msgspec.structs.replace(rig.store, reserve_mib=64)
    disk.free_mib = 10
    engine = await rig.start()
    with pytest.raises(DiskFull):
        await rig.enqueue("call")
    disk.free_mib = 70
    engine._space_checked_at -= 2  # two seconds later
    with pytest.raises(DiskFull):  # not yet: it would be full again at once
        await rig.enqueue("call")
    disk.free_mib = 200
    engine._space_checked_at -= 2
    await rig.enqueue("call")
    assert engine.status().accepting
    await rig.idle()
    assert {"accepted": 1, "completed": 1} == rig.counts()
