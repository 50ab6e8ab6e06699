"""A file too large to be checked before the start is checked beside the work."""

from __future__ import annotations

import random
from contextlib import closing

import pytest

from shoestring.core.errors import DatabaseDamaged
from shoestring.store import checking, schema
from shoestring.store.checking import Check
from shoestring.store.schema import open_database
from tests.engine.conftest import Rig


@pytest.fixture
def large(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A file that counts as large, with tasks of another app in it."""
    monkeypatch.setattr(schema, "CHECKED_FIRST_BYTES", 8_192)
    monkeypatch.setattr(checking, "_STEPS", 100)

    @rig.task()
    async def hello() -> None: ...

    return rig


async def fill(rig: Rig) -> None:
    await rig.start()
    for n in range(10):
        await rig.enqueue("later", {"n": n, "text": "x" * 4_000})
    await rig.stop()


def spoil(rig: Rig) -> None:
    """Write garbage over a page in the middle, where the next start does not look at once."""
    pages = rig.database.stat().st_size // 4096
    assert pages > 20
    with rig.database.open("r+b") as file:
        file.seek((pages - 3) * 4096)
        file.write(random.Random(1).randbytes(4096))


async def test_a_large_file_that_is_whole_goes_on_as_any_other(large: Rig) -> None:
    """The check is beside the work, not before it."""
    await fill(large)
    await large.start()

    await large.enqueue("hello")
    await large.reach(lambda: large.counts() == {"accepted": 11, "completed": 1})

    assert large.engine.status().waiting_handlers == {"later": 10}


async def test_damage_in_a_large_file_ends_the_daemon_after_the_start(large: Rig) -> None:
    """It is found later than in a small one, and means the same: this file must not be worked on."""
    await fill(large)
    spoil(large)

    await large.start()

    with pytest.raises(DatabaseDamaged, match=r"is damaged|could not be checked|did not read back"):
        await large.until(large.service.wait_failed())
    await large.crash()


async def test_a_stop_does_not_wait_for_the_check(large: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 10 GB takes minutes; a deploy has seconds."""
    await fill(large)
    monkeypatch.setattr(checking, "_REST", 1e9)
    monkeypatch.setattr(checking, "_REST_S_MAX", 3_600.0)

    await large.start()
    await large.stop()

    with closing(open_database(large.database)):
        pass


def test_a_check_says_whether_it_came_to_its_end(rig: Rig) -> None:
    """A check that was stopped has proved nothing."""
    with closing(open_database(rig.database)):
        whole, stopped = Check(rig.database), Check(rig.database)
        stopped.stop()

        assert [True, False] == [whole.run(), stopped.run()]
