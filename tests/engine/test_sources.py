"""Sources that misbehave: their job waits, fails or goes on, and the daemon does not notice."""

from __future__ import annotations

import asyncio

import pytest

from shoestring.config import LimitsConfig
from shoestring.core.model import Charge, JobState, Limit, Page, QueueConfig, Timeout
from shoestring.core.retry import RetryPolicy
from tests.engine.conftest import Rig

THREE_TIMES = RetryPolicy(max_attempts=3, base=0.0)


@pytest.fixture
def took(rig: Rig) -> list[object]:
    """What the handler was called with."""
    found: list[object] = []

    @rig.task()
    async def take(item: str) -> None:
        found.append(item)

    @rig.task(queue="paid")
    async def take_paid(item: str) -> None:
        found.append(item)

    return found


async def test_a_source_that_cancels_itself_has_failed(rig: Rig, took: list[object]) -> None:
    """Libraries do so when a connection breaks; started again at once and for ever, it would take all of the loop."""
    calls = 0

    @rig.source(retry=THREE_TIMES)
    async def pages(cursor: str | None) -> Page[str]:
        nonlocal calls
        calls += 1
        raise asyncio.CancelledError

    await rig.start()
    progress = await rig.job_end(await rig.fan_out_pages("take", "pages"))

    assert [3, 0] == [calls, progress.accepted]
    assert progress.error is not None
    assert "the source cancelled itself" in progress.error


async def test_a_page_that_can_never_be_stored_ends_the_job_with_the_reason(rig: Rig, took: list[object]) -> None:
    """Read again every few seconds it would be too large each time, and nobody would ever be told."""
    rig.limits = LimitsConfig(payload_bytes_max=200)

    @rig.source()
    async def pages(cursor: str | None) -> Page[str]:
        return Page(["small"], next="more") if cursor is None else Page(["x" * 300])

    await rig.start()
    progress = await rig.job_end(await rig.fan_out_pages("take", "pages"))

    assert [JobState.DONE, 1, 1] == [progress.state, progress.accepted, progress.done]
    assert progress.error is not None
    assert "a chunk of 1 items takes 304 bytes, at most 200 are allowed" in progress.error
    assert ["small"] == took


async def test_a_page_no_bucket_can_pay_for_ends_the_job_with_the_reason(rig: Rig, took: list[object]) -> None:
    """More items in a page than the user may ever have at once: no wait brings them."""
    rig.queues["paid"] = QueueConfig(limit=Limit(capacity=2, rate=1, charge=Charge.ENQUEUE))

    @rig.source()
    async def pages(cursor: str | None) -> Page[str]:
        return Page(["a", "b", "c"])

    await rig.start()
    progress = await rig.job_end(await rig.fan_out_pages("take_paid", "pages"))

    assert progress.accepted == 0
    assert progress.error is not None
    assert "3 tokens are wanted at once of a bucket that holds 2" in progress.error


async def test_a_page_the_user_cannot_pay_for_yet_is_read_again_when_they_can(rig: Rig, took: list[object]) -> None:
    """The limit says when; asking every few seconds would be too early, or too late."""
    rig.queues["paid"] = QueueConfig(limit=Limit(capacity=2, rate=50, charge=Charge.ENQUEUE))

    @rig.source()
    async def pages(cursor: str | None) -> Page[str]:
        return Page(["a", "b"], next="more") if cursor is None else Page(["c", "d"])

    await rig.start()
    progress = await rig.job_end(await rig.fan_out_pages("take_paid", "pages"))

    assert [4, None] == [progress.done, progress.error]
    assert ["a", "b", "c", "d"] == sorted(map(str, took))


async def test_a_source_past_its_time_limit_is_ended_and_read_again(rig: Rig, took: list[object]) -> None:
    """A page that never comes must not hold its job for ever."""
    calls = 0

    @rig.source(timeout=Timeout(hard=0.02), retry=THREE_TIMES)
    async def pages(cursor: str | None) -> Page[str]:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.Event().wait()
        return Page(["a"])

    await rig.start()
    progress = await rig.job_end(await rig.fan_out_pages("take", "pages"))

    assert [2, 1, None] == [calls, progress.done, progress.error]


async def test_a_stop_in_the_middle_of_a_page_loses_nothing_of_it(rig: Rig, took: list[object]) -> None:
    """Page and cursor are stored together: what was not stored is read again by the next generation."""
    inside, calls = asyncio.Event(), 0

    @rig.source()
    async def pages(cursor: str | None) -> Page[str]:
        nonlocal calls
        calls += 1
        if calls == 2:
            inside.set()
            await asyncio.Event().wait()
        return Page(["a"], next="more") if cursor is None else Page(["b"])

    await rig.start()
    job_id = await rig.fan_out_pages("take", "pages")
    await rig.until(inside.wait())
    await rig.restart()
    progress = await rig.job_end(job_id)

    assert [3, 2] == [calls, progress.done]
    assert ["a", "b"] == took
