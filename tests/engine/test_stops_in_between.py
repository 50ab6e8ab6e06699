"""A stop that comes while a slot is between two calls hits neither of them, nor whatever the slot runs next."""

from __future__ import annotations

import asyncio

import pytest

from shoestring.config import RunConfig
from shoestring.core.model import Progress, Timeout
from shoestring.core.retry import RetryPolicy
from shoestring.core.signals import ItemsFailed
from tests.engine.conftest import Rig, raw


@pytest.mark.parametrize("chunk", [1, 50, 1_000])
async def test_a_job_of_instant_items_can_be_cancelled_while_it_runs(rig: Rig, chunk: int) -> None:
    """The loop gets a turn only between such items: a cancel always arrives there, and must not take the slot along."""
    cancelling: list[asyncio.Task[Progress]] = []

    @rig.task()
    async def call(item: int) -> None:
        if item == 0:
            cancelling.append(asyncio.ensure_future(engine.cancel_job(job_id)))

    rig.run = RunConfig(slots=1, abandon_after_s=0.05)
    engine = await rig.start()
    job_id = await rig.open_job("call", chunk=chunk)
    await rig.until(engine.append_items(job_id, 0, raw(list(range(6_000)))))
    await rig.reach(lambda: bool(cancelling))
    progress = await rig.until(cancelling[0])
    assert 0 < progress.done < 6_000
    assert 6_000 == progress.done + progress.cancelled
    await rig.idle()
    loop = asyncio.get_running_loop()
    patience = loop.create_future()
    loop.call_later(0.06, patience.set_result, None)
    await rig.until(patience)  # whoever was taken for hanging would be abandoned by now
    await rig.job_end(await rig.fan_out("call", [1, 2, 3]))
    assert [0] == list(engine.runner.slots)
    assert 0 == engine.status().abandoned


async def test_cancelling_a_batch_leaves_the_next_task_of_its_slot_alone(rig: Rig) -> None:
    """The next task that fails there is retried and kept, not counted as cancelled."""
    inside = asyncio.Event()

    @rig.task(batch=True)
    async def batch(items: list[int]) -> None:
        inside.set()
        await asyncio.Event().wait()

    @rig.task(retry=RetryPolicy(max_attempts=1))
    async def fails() -> None:
        raise ValueError("no")

    rig.run = RunConfig(slots=1)
    engine = await rig.start()
    job_id = await rig.fan_out("batch", [1, 2])
    await rig.until(inside.wait())
    await rig.until(engine.cancel_job(job_id))
    await rig.enqueue("fails")
    await rig.idle()
    assert {"accepted": 3, "cancelled": 2, "discarded": 1} == rig.counts()


async def test_a_batch_that_swallows_its_stop_leaves_the_next_task_alone(rig: Rig) -> None:
    """What a handler did with its cancellation is over when it returns."""
    inside = asyncio.Event()

    @rig.task(batch=True)
    async def batch(items: list[int]) -> None:
        inside.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ItemsFailed({}) from None

    @rig.task(retry=RetryPolicy(max_attempts=1))
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    rig.run = RunConfig(slots=1)
    engine = await rig.start()
    job_id = await rig.fan_out("batch", [1, 2])
    await rig.until(inside.wait())
    await rig.until(engine.cancel_job(job_id))
    await rig.enqueue("fails")
    await rig.idle()
    assert {"accepted": 3, "cancelled": 2, "discarded": 1} == rig.counts()


async def test_a_stop_burns_no_attempt_of_any_item_of_a_batch(rig: Rig) -> None:
    """A restart is not a failure, for the second item of a batch as little as for the first."""
    inside = asyncio.Event()

    @rig.task(batch=True, retry=RetryPolicy(max_attempts=1))
    async def batch(items: list[int]) -> None:
        inside.set()
        if rig.engine.books.generation == 1:
            await asyncio.Event().wait()

    await rig.start()
    job_id = await rig.fan_out("batch", [1, 2, 3])
    await rig.until(inside.wait())
    assert 1 == await rig.stop(0)
    assert 0 == rig.count("discarded")
    await rig.start()
    progress = await rig.job_end(job_id)
    assert (3, 0) == (progress.done, progress.failed)


async def test_the_hard_limit_is_the_error_of_every_item_of_a_batch(rig: Rig) -> None:
    """Who looks at a discarded item reads what happened to it."""

    @rig.task(batch=True, retry=RetryPolicy(max_attempts=1), timeout=Timeout(hard=0.01))
    async def batch(items: list[int]) -> None:
        await asyncio.Event().wait()

    engine = await rig.start()
    await rig.job_end(await rig.fan_out("batch", [1, 2, 3]))
    await engine.committer.flush()
    views = await engine.discarded()
    assert ["TimeoutError: the hard time limit of 0.01 s has passed"] * 3 == [view.error for view in views]
