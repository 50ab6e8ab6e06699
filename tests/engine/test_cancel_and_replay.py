"""Cancelling work wherever it stands, and running again what was given up."""

from __future__ import annotations

import asyncio

import pytest

from shoestring.config import RunConfig
from shoestring.core.errors import ArgumentError, NotFound
from shoestring.core.model import JobState, TaskState
from shoestring.core.retry import RetryPolicy
from shoestring.core.signals import RateLimited
from tests.engine.conftest import Rig

ONCE = RetryPolicy(max_attempts=1)
HOUR_MS = 3_600_000


async def _hang() -> None:
    await asyncio.Event().wait()


async def test_a_running_task_is_stopped(rig: Rig) -> None:
    """Who cancels a call that hangs need not wait for its time limit."""
    inside = asyncio.Event()

    @rig.task()
    async def call() -> None:
        inside.set()
        await _hang()

    engine = await rig.start()
    task_id = await rig.enqueue("call")
    await rig.until(inside.wait())
    view = await rig.until(engine.cancel_task(task_id))
    assert TaskState.RUNNING is view.state
    await rig.idle()
    assert {"accepted": 1, "cancelled": 1} == rig.counts()
    with pytest.raises(NotFound):
        await engine.task(task_id)


async def test_a_waiting_task_never_runs_once_it_is_cancelled(rig: Rig) -> None:
    """The answer of a cancel is a promise."""
    inside, go_on = asyncio.Event(), asyncio.Event()
    ran: list[int] = []

    @rig.task(concurrency=1)
    async def call(number: int) -> None:
        inside.set()
        await go_on.wait()
        ran.append(number)

    engine = await rig.start()
    ids = [await rig.enqueue("call", {"number": number}) for number in range(3)]
    await rig.until(inside.wait())
    view = await rig.until(engine.cancel_task(ids[1]))
    assert TaskState.READY is view.state
    go_on.set()
    await rig.idle()
    assert [0, 2] == ran
    assert {"accepted": 3, "completed": 2, "cancelled": 1} == rig.counts()


async def test_a_delayed_task_is_cancelled_in_the_file(rig: Rig) -> None:
    """What is due next week is no more in memory than it has to be."""

    @rig.task()
    async def call() -> None: ...

    engine = await rig.start()
    task_id = await rig.enqueue("call", delay_ms=HOUR_MS, unique="once")
    view = await rig.until(engine.cancel_task(task_id))
    assert TaskState.DELAYED is view.state
    await rig.idle()
    assert 0 == rig.count("delayed") + rig.count("uniques")
    assert 0 == engine.status().delayed
    assert {"accepted": 1, "cancelled": 1} == rig.counts()


async def test_a_running_chunk_ends_with_the_item_that_runs(rig: Rig) -> None:
    """Of fifty items the rest is cancelled, and the job's books balance."""
    inside = asyncio.Event()
    ran: list[int] = []

    @rig.task()
    async def call(item: int) -> None:
        ran.append(item)
        if item == 2:
            inside.set()
            await _hang()

    engine = await rig.start()
    job_id = await rig.fan_out("call", [1, 2, 3], chunk=3)
    await rig.until(inside.wait())
    ((chunk_id,),) = rig.query("SELECT id FROM chunks")
    await rig.until(engine.cancel_task(chunk_id))
    progress = await rig.job_end(job_id)
    assert (JobState.DONE, 1, 2) == (progress.state, progress.done, progress.cancelled)
    assert [1, 2] == ran
    await rig.idle()
    assert 0 == rig.count("chunks") + rig.count("progress") + rig.count("ready")
    assert {"accepted": 3, "completed": 1, "cancelled": 2} == rig.counts()


async def test_a_task_that_ended_cannot_be_cancelled(rig: Rig) -> None:
    """A cancel that came too late says so."""

    @rig.task(retry=ONCE)
    async def call(fail: bool) -> None:
        if fail:
            raise ValueError("no")

    engine = await rig.start()
    done = await rig.enqueue("call", {"fail": False})
    failed = await rig.enqueue("call", {"fail": True})
    await rig.idle()
    for task_id in (done, failed, 1_000_000):
        with pytest.raises(NotFound):
            await rig.until(engine.cancel_task(task_id))
    assert {"accepted": 2, "completed": 1, "discarded": 1} == rig.counts()


async def test_a_cancelled_job_ends_at_once_and_its_rows_go(rig: Rig) -> None:
    """A million pending items are one write to cancel; what runs is stopped."""
    inside = asyncio.Event()

    @rig.task()
    async def call(item: int) -> None:
        inside.set()
        await _hang()

    rig.run = RunConfig(slots=3, abandon_after_s=0.05)
    engine = await rig.start()
    job_id = await rig.fan_out("call", list(range(50)), chunk=2)
    await rig.until(inside.wait())
    progress = await rig.until(engine.cancel_job(job_id))
    assert (JobState.CANCELLED, 50, 0) == (progress.state, progress.cancelled, progress.pending)
    await rig.reach(lambda: rig.count("ready") == 0)
    await rig.idle()
    assert 0 == rig.count("chunks") + rig.count("progress")
    assert {"accepted": 50, "cancelled": 50} == rig.counts()
    assert 0 == engine.status().abandoned
    again = await rig.until(engine.cancel_job(job_id))
    assert JobState.CANCELLED is again.state


async def test_a_cancelled_job_stays_cancelled_after_a_crash(rig: Rig) -> None:
    """Rows that were not deleted yet are deleted by the next generation, not run by it."""
    ran: list[int] = []

    @rig.task()
    async def call(item: int) -> None:
        if rig.engine.books.generation == 1:
            raise RateLimited(0.001)
        ran.append(item)

    engine = await rig.start()
    job_id = await rig.fan_out("call", list(range(50)), chunk=2)
    await rig.until(engine.cancel_job(job_id))
    await rig.crash()
    engine = await rig.start()
    await rig.reach(lambda: rig.count("ready") + rig.count("chunks") == 0)
    assert [] == ran
    assert {"accepted": 50, "cancelled": 50} == rig.counts()
    assert JobState.CANCELLED is (await engine.progress(job_id)).state


# -- replay -----------------------------------------------------------------------------------------------------------


async def test_a_discarded_task_is_replayed_as_a_new_one(rig: Rig) -> None:
    """After the bug is fixed what it cost is made good with one command."""
    broken = True
    ran: list[tuple[str, int]] = []

    @rig.task(retry=ONCE)
    async def call(name: str) -> None:
        if broken:
            raise ValueError("bug")
        ran.append((name, 1))

    engine = await rig.start()
    first = await rig.enqueue("call", {"name": "a"}, user="u", priority=7)
    await rig.enqueue("call", {"name": "b"})
    await rig.idle()
    broken = False
    assert 1 == await rig.until(engine.replay(task_ids=[first]))
    await rig.idle()
    assert [("a", 1)] == ran
    (left,) = await engine.discarded()
    assert '{"name":"b"}' == left.body
    assert 1 == await rig.until(engine.replay(all=True))
    await rig.idle()
    assert [] == await engine.discarded()
    assert 0 == engine.status().discarded_kept
    assert {"accepted": 4, "completed": 2, "discarded": 2} == rig.counts()


async def test_a_discarded_item_is_replayed_by_itself(rig: Rig) -> None:
    """The one failed item of a job runs with the arguments its neighbours had, in a batch handler as a batch of one."""
    broken = True
    ran: list[object] = []

    @rig.task(retry=ONCE)
    async def single(item: int, *, account: str) -> None:
        if broken and item == 2:
            raise ValueError("bug")
        ran.append((item, account))

    @rig.task(retry=ONCE, batch=True)
    async def batch(items: list[int]) -> None:
        if broken:
            raise ValueError("bug")
        ran.append(items)

    engine = await rig.start()
    progress = await rig.job_end(await rig.fan_out("single", [1, 2, 3], body={"account": "x"}))
    assert (2, 1) == (progress.done, progress.failed)
    await rig.job_end(await rig.fan_out("batch", [8, 9]))
    broken = False
    ran.clear()
    assert 1 == await rig.until(engine.replay(handler="single"))
    assert 2 == await rig.until(engine.replay(queue="default"))
    await rig.idle()
    assert [(2, "x"), [8], [9]] == sorted(ran, key=str)
    assert [] == await engine.discarded()


async def test_replaying_what_is_not_there_says_so(rig: Rig) -> None:
    """A typo in a number is not a success."""
    engine = await rig.start()
    with pytest.raises(NotFound):
        await rig.until(engine.replay(task_ids=[4711]))
    assert 0 == await rig.until(engine.replay(all=True))
    assert 0 == await rig.until(engine.replay())


async def test_replaying_what_no_longer_fits_says_why_and_keeps_it(rig: Rig) -> None:
    """The handler has changed since: the task is not lost, and the person learns what is wrong with it."""

    @rig.task(retry=ONCE)
    async def call(name: str) -> None:
        raise ValueError("bug")

    await rig.start()
    task_id = await rig.enqueue("call", {"name": "a"})
    await rig.idle()
    await rig.stop()
    rig.forget("call")

    async def changed(name: str, account: str) -> None: ...

    changed.__name__ = "call"
    rig.task()(changed)
    engine = await rig.start()
    with pytest.raises(ArgumentError, match="account"):
        await rig.until(engine.replay(task_ids=[task_id]))
    (view,) = await engine.discarded()
    assert task_id == view.task_id
