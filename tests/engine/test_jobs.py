"""Fan-outs: their sources, their end, and who watches them."""

from __future__ import annotations

import asyncio

import pytest

from shoestring.core.model import JobState, Page, QueueConfig
from shoestring.core.retry import RetryPolicy
from shoestring.core.signals import RateLimited
from shoestring.engine.committer import Haste
from tests.engine.conftest import Rig, entry, raw

ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture
async def block(rig: Rig) -> list[int]:
    """A handler that notes its items."""
    seen: list[int] = []

    @rig.task()
    async def block(item: int) -> None:
        seen.append(item)

    return seen


async def test_then_runs_once_when_every_item_came_to_an_end(rig: Rig) -> None:
    """`Tell alice` comes after the last item, also if that one failed, and once."""
    seen: list[str] = []

    @rig.task(retry=ONCE)
    async def call(item: int) -> None:
        await asyncio.sleep(0)
        seen.append(f"{item}")
        if item == 2:
            raise ValueError("no")

    @rig.task()
    async def tell(who: str) -> None:
        seen.append(who)

    await rig.start()
    job_id = await rig.fan_out("call", [1, 2, 3], chunk=1, then=entry("tell", {"who": "alice"}))
    progress = await rig.job_end(job_id)
    await rig.idle()
    assert (2, 1) == (progress.done, progress.failed)
    assert "alice" == seen[-1] and 4 == len(seen)
    await rig.restart()
    await rig.idle()
    assert 4 == len(seen)


async def test_then_of_an_empty_job_runs(rig: Rig) -> None:
    """Nobody to block is a result, too."""
    told = asyncio.Event()

    @rig.task()
    async def call(item: int) -> None: ...

    @rig.task()
    async def tell() -> None:
        told.set()

    await rig.start()
    progress = await rig.job_end(await rig.fan_out("call", [], then=entry("tell")))
    assert (JobState.DONE, 0) == (progress.state, progress.total)
    await rig.until(told.wait())


async def test_then_does_not_run_when_items_are_missing(rig: Rig) -> None:
    """`All followers are blocked` must not be said when a page could not be read."""
    told: list[int] = []

    @rig.task()
    async def call(item: int) -> None: ...

    @rig.task()
    async def tell() -> None:
        told.append(1)

    engine = await rig.start()
    job_id = await rig.open_job("call", then=entry("tell"))
    await rig.until(engine.append_items(job_id, 0, raw([1, 2])))
    await rig.until(engine.seal_job(job_id, "the file ended in the middle"))
    progress = await rig.job_end(job_id)
    await rig.idle()
    assert (JobState.DONE, 2, "the file ended in the middle") == (progress.state, progress.done, progress.error)
    assert [] == told


async def test_then_does_not_run_when_the_job_is_cancelled(rig: Rig) -> None:
    """Who stops a job does not want what comes after it."""
    told: list[int] = []

    @rig.task()
    async def call(item: int) -> None: ...

    @rig.task()
    async def tell() -> None:
        told.append(1)

    engine = await rig.start()
    job_id = await rig.open_job("call", then=entry("tell"))
    await rig.until(engine.append_items(job_id, 0, raw([1, 2])))
    await rig.until(engine.cancel_job(job_id))
    await rig.idle()
    assert [] == told


async def test_a_source_is_read_to_its_end(rig: Rig, block: list[int]) -> None:
    """Page by page, each cursor once, empty pages in between included."""
    cursors: list[str | None] = []

    @rig.source()
    async def pages(cursor: str | None) -> Page[int]:
        cursors.append(cursor)
        return {
            None: Page([1, 2], next="a"), "a": Page(list[int](), next="b"), "b": Page([3]),
        }[cursor]  # fmt: skip

    await rig.start()
    progress = await rig.job_end(await rig.fan_out_pages("block", "pages", chunk=2))
    assert (JobState.DONE, 3, 3) == (progress.state, progress.total, progress.done)
    assert [None, "a", "b"] == cursors
    assert [1, 2, 3] == sorted(block)


async def test_a_page_that_fails_is_read_again(rig: Rig, block: list[int]) -> None:
    """A hiccup on page 400 does not cost the 399 before it."""
    cursors: list[str | None] = []

    @rig.source(retry=RetryPolicy(base=0.0))
    async def pages(cursor: str | None) -> Page[int]:
        cursors.append(cursor)
        if len(cursors) in (2, 3):
            raise OSError("down")
        return Page([len(cursors)], next="a" if cursor is None else None)

    await rig.start()
    progress = await rig.job_end(await rig.fan_out_pages("block", "pages"))
    assert (2, None) == (progress.done, progress.error)
    assert [None, "a", "a", "a"] == cursors


async def test_a_source_that_keeps_failing_ends_the_job_with_its_error(rig: Rig, block: list[int]) -> None:
    """What was read is run, what was not is named, and nobody waits for ever."""
    told: list[int] = []

    @rig.source(retry=RetryPolicy(max_attempts=2, base=0.0))
    async def pages(cursor: str | None) -> Page[int]:
        if cursor is None:
            return Page([1, 2], next="a")
        raise OSError("gone")

    @rig.task()
    async def tell() -> None:
        told.append(1)

    await rig.start()
    progress = await rig.job_end(await rig.fan_out_pages("block", "pages", then=entry("tell")))
    await rig.idle()
    assert (JobState.DONE, 2, "source pages failed: OSError: gone") == (progress.state, progress.done, progress.error)
    assert [] == told


async def test_a_rate_limited_source_waits_and_goes_on(rig: Rig, block: list[int]) -> None:
    """The follower API has its window, too; it burns no attempt to respect it."""
    cursors: list[str | None] = []

    @rig.source(retry=ONCE)
    async def pages(cursor: str | None) -> Page[int]:
        cursors.append(cursor)
        if len(cursors) in (1, 3):
            raise RateLimited(0.001)
        return Page([1], next="a" if cursor is None else None)

    await rig.start()
    progress = await rig.job_end(await rig.fan_out_pages("block", "pages"))
    assert (2, None) == (progress.done, progress.error)
    assert [None, None, "a", "a"] == cursors


@pytest.mark.parametrize("page", [[1, 2], Page([1], next=7), Page(["x"]), None])  # type: ignore[arg-type]
async def test_what_is_no_page_is_an_error_of_its_source(rig: Rig, block: list[int], page: object) -> None:
    """A wrong return value is the author's mistake, found in the job's error and not in the daemon's log."""

    @rig.source(retry=ONCE)
    async def pages(cursor: str | None) -> Page[int]:
        return page  # type: ignore[return-value]

    await rig.start()
    progress = await rig.job_end(await rig.fan_out_pages("block", "pages"))
    assert (JobState.DONE, 0) == (progress.state, progress.done)
    assert progress.error is not None and progress.error.startswith("source pages failed: ")


async def test_a_page_is_read_only_when_the_lane_has_room(rig: Rig) -> None:
    """Pages that come faster than their items run would otherwise fill the disk."""
    cursors: list[str | None] = []
    two, go_on = asyncio.Event(), asyncio.Event()

    @rig.source()
    async def pages(cursor: str | None) -> Page[int]:
        cursors.append(cursor)
        if cursor == "1":
            two.set()
        number = int(cursor or 0) + 1
        return Page([number] * 3, next=str(number) if number < 4 else None)

    @rig.task()
    async def call(item: int) -> None:
        await go_on.wait()

    rig.queues = {"default": QueueConfig(low_water=4)}
    engine = await rig.start()
    job_id = await rig.fan_out_pages("call", "pages")
    await rig.until(two.wait())
    await rig.reach(lambda: engine.status().pending == 6)
    await engine.committer.flush()
    assert [None, "1"] == cursors
    go_on.set()
    progress = await rig.job_end(job_id)
    assert 12 == progress.done
    assert [None, "1", "2", "3"] == cursors


async def test_waiting_returns_when_there_is_news(rig: Rig) -> None:
    """A watcher asks with the version it knows and is answered when there is another."""
    go_on = asyncio.Event()

    @rig.task()
    async def call(item: int) -> None:
        if item == 2:
            await go_on.wait()

    engine = await rig.start()
    job_id = await rig.fan_out("call", [1, 2], chunk=1)
    await rig.reach(lambda: engine.books.jobs[job_id].done == 1)
    known = await engine.progress(job_id)
    same = await rig.until(engine.wait_job(job_id, version=known.version, timeout_s=0.0))
    assert known == same
    waiting = asyncio.ensure_future(engine.wait_job(job_id, version=known.version, timeout_s=30))
    await asyncio.sleep(0)
    assert not waiting.done()
    go_on.set()
    news = await rig.until(waiting)
    assert news.version > known.version
    assert 2 == news.done


async def test_waiting_for_a_finished_job_returns_at_once(rig: Rig, block: list[int]) -> None:
    """Also after a restart, when only the file knows it."""
    await rig.start()
    job_id = await rig.fan_out("block", [1])
    await rig.job_end(job_id)
    engine = await rig.restart()
    progress = await rig.until(engine.wait_job(job_id, version=1_000, timeout_s=30))
    assert (JobState.DONE, 1) == (progress.state, progress.done)
    assert [job_id] == [each.job_id for each in await engine.jobs()]


async def test_a_sealed_job_that_was_done_at_a_crash_is_finished_by_the_next_generation(rig: Rig) -> None:
    """Between the last item and the job's end there is a moment; a crash in it must not lose the end."""
    told = asyncio.Event()

    @rig.task()
    async def call(item: int) -> None: ...

    @rig.task()
    async def tell() -> None:
        told.set()

    engine = await rig.start()
    job_id = await rig.open_job("call", then=entry("tell"))
    await rig.until(engine.append_items(job_id, 0, raw([1, 2])))
    await rig.reach(lambda: engine.books.jobs[job_id].done == 2)
    job = engine.books.jobs[job_id]
    job.state = JobState.SEALED  # as a seal leaves it that is committed before the job is finished
    engine.committer.gathering.jobs.add(job)
    engine.committer.want(Haste.NOW)
    await rig.until(engine.committer.flush())
    await rig.crash()
    await rig.start()
    await rig.until(told.wait())
    assert JobState.DONE is (await rig.job_end(job_id)).state
