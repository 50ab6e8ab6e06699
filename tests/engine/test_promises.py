"""What an answer to a producer promises: where the task is then, and what becomes of it."""

from __future__ import annotations

import asyncio

from shoestring.config import StoreConfig
from shoestring.core.model import Duplicate, Durability
from shoestring.core.retry import RetryPolicy
from tests.engine.conftest import Rig, entry

ONCE = RetryPolicy(max_attempts=1)
HOUR_MS = 3_600_000


async def test_relaxed_is_committed_when_it_is_answered(rig: Rig) -> None:
    """What was answered survives kill -9: another connection sees it."""
    go_on = asyncio.Event()

    @rig.task()
    async def call() -> None:
        await go_on.wait()

    await rig.start()
    task_id = await rig.enqueue("call")
    assert 1 == rig.count("ready")
    await rig.enqueue("call", delay_ms=HOUR_MS)
    assert 1 == rig.count("delayed")
    await rig.crash()
    go_on.set()
    engine = await rig.start()
    await rig.reach(lambda: engine.status().ledger.completed == 1)
    assert 1 == task_id


async def test_durable_is_synced_when_it_is_answered(rig: Rig) -> None:
    """What was answered survives a power cut: the WAL was flushed since its commit."""

    @rig.task(durability="durable")
    async def call() -> None: ...

    rig.store = StoreConfig(wal_prefill_mib=0, ballast_mib=0, reserve_mib=0, fsync_window_ms=60_000)
    engine = await rig.start()
    for _ in range(3):
        before = engine.syncer.syncs
        await rig.enqueue("call", delay_ms=HOUR_MS)
        assert before + 1 == engine.syncer.syncs
    assert 3 == rig.count("delayed")
    before = engine.syncer.syncs
    await rig.enqueue("call", durability=Durability.RELAXED, delay_ms=HOUR_MS)
    assert before == engine.syncer.syncs


async def test_a_volatile_task_that_ends_in_time_never_touches_the_disk(rig: Rig) -> None:
    """A cache refresh costs no write; its books are written with the next commit."""
    ran: list[int] = []
    seen: list[int] = []

    @rig.task(durability="volatile")
    async def call() -> None:
        seen.append(rig.count("ready"))
        ran.append(1)

    rig.store = StoreConfig(wal_prefill_mib=0, ballast_mib=0, reserve_mib=0, volatile_window_ms=10_000)
    engine = await rig.start()
    await rig.enqueue("call")
    await rig.reach(lambda: len(ran) == 1)
    answered = engine.submit([entry("call") for _ in range(10)])
    assert answered.done()
    await rig.reach(lambda: len(ran) == 11)
    assert 0 == rig.count("ready") + rig.count("lanes")
    await rig.until(engine.committer.flush())
    assert 0 == rig.count("ready")
    assert [(11, 11)] == rig.query("SELECT accepted, completed FROM lanes")
    assert {0} == set(seen)


async def test_a_volatile_task_that_takes_longer_is_stored(rig: Rig) -> None:
    """It may be lost within the window, not for as long as it happens to run."""
    inside = asyncio.Event()

    @rig.task(durability="volatile")
    async def call() -> None:
        inside.set()
        if rig.engine.books.generation == 1:
            await asyncio.Event().wait()

    await rig.start()
    await rig.enqueue("call")
    await rig.until(inside.wait())
    await rig.reach(lambda: rig.count("ready") == 1)
    await rig.crash()
    await rig.start()
    await rig.idle()
    assert {"accepted": 1, "completed": 1} == rig.counts()


# -- expires ----------------------------------------------------------------------------------------------------------


async def test_a_task_that_is_stale_when_its_turn_comes_is_not_run(rig: Rig) -> None:
    """A reminder for yesterday helps nobody; it is counted and not kept."""
    ran: list[str] = []
    go_on = asyncio.Event()

    @rig.task(concurrency=1)
    async def call(name: str) -> None:
        ran.append(name)
        await go_on.wait()

    engine = await rig.start()
    await rig.enqueue("call", {"name": "first"})
    await rig.enqueue("call", {"name": "stale"}, expires_in_ms=1, unique="key")
    await rig.enqueue("call", {"name": "fresh"}, expires_in_ms=HOUR_MS)
    stale_at_ms = engine._clock.now_ms() + 2
    await rig.reach(lambda: engine._clock.now_ms() >= stale_at_ms)
    go_on.set()
    await rig.idle()
    assert ["first", "fresh"] == ran
    assert {"accepted": 3, "completed": 2, "expired": 1} == rig.counts()
    assert 0 == rig.count("ready") + rig.count("uniques") + rig.count("discarded")


async def test_a_delayed_task_expires_too(rig: Rig) -> None:
    """Also one that went stale before it was due, and one whose retry comes too late."""
    calls: list[int] = []

    @rig.task(retry=RetryPolicy(schedule=("20ms",)))
    async def call() -> None:
        calls.append(1)
        raise OSError("down")

    await rig.start()
    await rig.enqueue("call", delay_ms=10, expires_in_ms=5)
    await rig.enqueue("call", delay_ms=10, expires_in_ms=20)
    await rig.idle()
    assert {"accepted": 2, "expired": 2} == rig.counts()
    assert 1 >= len(calls)


async def test_what_was_not_run_of_a_job_in_time_counts_against_it(rig: Rig) -> None:
    """The job still comes to its end."""

    @rig.task()
    async def call(item: int) -> None: ...

    await rig.start()
    progress = await rig.job_end(await rig.fan_out("call", [1, 2], options={"expires_at_ms": 1}))
    await rig.idle()
    assert (0, 2, 0) == (progress.done, progress.failed, progress.pending)
    assert {"accepted": 2, "expired": 2} == rig.counts()


# -- unique -----------------------------------------------------------------------------------------------------------


async def test_a_key_is_held_while_its_task_is_pending(rig: Rig) -> None:
    """The welcome mail is sent once, however often the form is submitted."""
    ran: list[int] = []
    go_on = asyncio.Event()

    @rig.task()
    async def call() -> None:
        ran.append(1)
        await go_on.wait()

    await rig.start()
    first = await rig.enqueue("call", unique="welcome")
    again = await rig.submit(entry("call", unique="welcome"), entry("call", unique="welcome", delay_ms=HOUR_MS))
    assert [Duplicate(first), Duplicate(first)] == again
    go_on.set()
    await rig.idle()
    assert [1] == ran
    assert {"accepted": 1, "completed": 1} == rig.counts()


async def test_a_key_is_free_again_when_its_task_came_to_an_end(rig: Rig) -> None:
    """Whatever the end was: completed, discarded or cancelled."""

    @rig.task(retry=ONCE)
    async def call(fail: bool) -> None:
        if fail:
            raise ValueError("no")

    engine = await rig.start()
    for fail in (False, True, False):
        await rig.enqueue("call", {"fail": fail}, unique="key")
        await rig.idle()
    waiting = await rig.enqueue("call", {"fail": False}, unique="key", delay_ms=HOUR_MS)
    await rig.until(engine.cancel_task(waiting))
    await rig.enqueue("call", {"fail": False}, unique="key")
    await rig.idle()
    assert 0 == rig.count("uniques")
    assert {"accepted": 5, "completed": 3, "discarded": 1, "cancelled": 1} == rig.counts()


async def test_a_key_is_held_between_two_attempts(rig: Rig) -> None:
    """A task that will be tried again is pending."""

    @rig.task(retry=RetryPolicy(base=3_600.0, jitter=False))
    async def call() -> None:
        raise OSError("down")

    engine = await rig.start()
    first = await rig.enqueue("call", unique="key")
    await rig.reach(lambda: engine.status().delayed == 1)
    await rig.until(engine.committer.flush())
    assert [Duplicate(first)] == await rig.submit(entry("call", unique="key"))


async def test_of_two_in_one_frame_the_first_holds_the_key(rig: Rig) -> None:
    """Also if a third, stored before, holds it already: then both hear of that one."""

    @rig.task()
    async def call() -> None: ...

    await rig.start()
    first, second, other = await rig.submit(
        entry("call", unique="key", delay_ms=HOUR_MS), entry("call", unique="key"), entry("call")
    )
    assert isinstance(first, int) and isinstance(other, int)
    assert Duplicate(first) == second
    assert [Duplicate(first)] * 2 == await rig.submit(entry("call", unique="key"), entry("call", unique="key"))
    await rig.reach(lambda: rig.engine.status().ledger.completed == 1)
    assert {"accepted": 2, "completed": 1} == rig.counts()


async def test_a_volatile_task_with_a_key_is_stored_before_it_is_answered(rig: Rig) -> None:
    """Who relies on the key must be able to."""
    inside = asyncio.Event()

    @rig.task(durability="volatile")
    async def call() -> None:
        inside.set()
        await asyncio.Event().wait()

    await rig.start()
    first = await rig.enqueue("call", unique="key")
    assert 1 == rig.count("uniques")
    await rig.until(inside.wait())
    await rig.crash()
    await rig.start()
    assert [Duplicate(first)] == await rig.submit(entry("call", unique="key"))


# -- idle -------------------------------------------------------------------------------------------------------------


async def test_idle_means_that_nothing_is_pending(rig: Rig) -> None:
    """`run --burst` ends when the last retry, item and `then` came to its end, and not before."""
    calls: list[str] = []

    @rig.task(retry=RetryPolicy(schedule=("5ms",)))
    async def flaky() -> None:
        calls.append("flaky")
        if calls.count("flaky") == 1:
            raise OSError("down")

    @rig.task()
    async def item(number: int) -> None:
        calls.append("item")

    @rig.task()
    async def then() -> None:
        calls.append("then")

    await rig.start()
    await rig.until(rig.service.wait_idle())
    await rig.enqueue("flaky")
    await rig.enqueue("flaky", delay_ms=10)
    await rig.fan_out("item", [1, 2], then=entry("then"))
    await rig.until(rig.service.wait_idle())
    assert ["flaky"] * 3 + ["item"] * 2 + ["then"] == sorted(calls)
