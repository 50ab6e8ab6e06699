"""A job from its items to its end, whatever its items come from and however they end."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from shoestring import (
    ArgumentError,
    Discard,
    Handler,
    ItemsFailed,
    JobState,
    Page,
    Shoestring,
    SourceFailed,
    UnknownHandler,
    UsageError,
)
from tests.serving import Serve

WAIT = timedelta(seconds=30)


@pytest.fixture(params=["embedded", "socket"])
async def queue(request: pytest.FixtureRequest, app: Shoestring, serve: Serve) -> AsyncIterator[None]:
    """The same promises in process and over the socket."""
    if request.param == "socket":
        await serve(app)
        yield
        await app.aclose()
    else:
        async with app.running():
            yield


class Seen:
    """What the handlers of a test were called with."""

    def __init__(self, app: Shoestring) -> None:
        self.items: list[int] = []
        self.told: list[str] = []
        self.chunks: list[int] = []

        @app.task
        async def block(target: int, *, account: str = "troll") -> None:
            self.items.append(target)
            assert account == "troll"

        @app.task(batch=True)
        async def block_all(targets: list[int], account: str) -> None:
            self.items.extend(targets)
            self.chunks.append(len(targets))

        @app.task
        async def tell(who: str) -> None:
            self.told.append(who)

        @app.source
        async def followers(cursor: str | None, *, account: str, pages: int = 3) -> Page[int]:
            number = int(cursor or 0)
            self.told.append(f"page {number} of {account}")
            return Page([10 * number + n for n in range(10)], next=str(number + 1) if number + 1 < pages else None)

        self.block, self.block_all, self.tell, self.followers = block, block_all, tell, followers


@pytest.fixture
def seen(app: Shoestring) -> Seen:
    return Seen(app)


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize("kind", ["list", "generator", "async generator"])
async def test_every_item_is_handled_once(seen: Seen, kind: str) -> None:
    """More items than a slice, in chunks that do not divide them."""
    items: Iterable[int] | AsyncIterator[int] = list(range(6_005))
    if kind == "generator":
        items = (number for number in range(6_005))
    elif kind == "async generator":
        items = numbers(6_005)

    job = await seen.block.using(user="alice").fan_out(items, chunk=100)
    progress = await job.wait(WAIT)

    assert sorted(seen.items) == list(range(6_005))
    assert (progress.state, progress.user) == (JobState.DONE, "alice")
    assert (progress.total, progress.done, progress.pending) == (6_005, 6_005, 0)


@pytest.mark.usefixtures("queue")
async def test_chunks_are_as_large_as_was_asked_for(seen: Seen) -> None:
    """A slice that is no multiple of the chunk would leave a small chunk at each of its ends."""
    job = await seen.block_all.fan_out(numbers(20_123), chunk=300, args={"account": "troll"})
    await job.wait(WAIT)

    assert sorted(seen.items) == list(range(20_123))
    assert sorted(seen.chunks) == [20_123 % 300] + [300] * (20_123 // 300)


@pytest.mark.usefixtures("queue")
async def test_a_job_without_items_is_done(seen: Seen) -> None:
    """And what comes after it comes."""
    job = await seen.block.fan_out([], then=seen.tell.call("alice"))

    assert (await job.wait(WAIT)).total == 0


async def test_what_comes_then_runs_when_the_last_item_has_ended(app: Shoestring, seen: Seen) -> None:
    """The mail that says "done" must not come before it is."""
    async with app.running() as service:
        await seen.block.fan_out(range(120), then=seen.tell.using(user="alice").call("alice"))
        await service.wait_idle()

    assert (len(seen.items), seen.told) == (120, ["alice"])


@pytest.mark.usefixtures("queue")
async def test_the_pages_of_a_source_are_read_by_the_queue(seen: Seen) -> None:
    """The producer hands over a name and a cursor, and may end; the handler's `account` is the source's."""
    job = await seen.block.using(user="alice").fan_out(seen.followers.of(account="troll"), chunk=4)
    progress = await job.wait(WAIT)

    assert sorted(seen.items) == list(range(30))
    assert seen.told == [f"page {number} of troll" for number in range(3)]
    assert (progress.total, progress.done) == (30, 30)


@pytest.mark.usefixtures("queue")
async def test_arguments_given_by_hand_come_before_the_sources(seen: Seen) -> None:
    """A source's name for a thing need not be the handler's value for it."""
    job = await seen.block.fan_out(seen.followers.of(account="other", pages=1), args={"account": "troll"})

    assert (await job.wait(WAIT)).failed == 0


@pytest.mark.usefixtures("queue")
async def test_an_iterable_that_raises_leaves_what_it_gave(app: Shoestring, seen: Seen) -> None:
    """The items before it run, the counts add up, and nothing waits for items that never come."""

    def items() -> Iterator[int]:
        yield from range(1_234)
        raise OSError("the database went away")

    with pytest.raises(SourceFailed, match="stopped at item 1,234: OSError: the database went away") as caught:
        await seen.block.fan_out(items(), then=seen.tell.call("alice"))
    progress = await app.job(caught.value.job_id).wait(WAIT)

    assert caught.value.stored == progress.total == progress.done == len(seen.items) == 1_234
    assert isinstance(caught.value.__cause__, OSError)
    assert progress.error is not None
    assert "the database went away" in progress.error
    assert seen.told == []


@pytest.mark.usefixtures("queue")
async def test_an_item_that_does_not_fit_stops_the_job_there(app: Shoestring, seen: Seen) -> None:
    """Found by its position among millions, after slices before it were stored."""
    items: list[Any] = [*range(700), "seven hundred", *range(701, 2_000)]

    with pytest.raises(SourceFailed, match="stopped at item 700: ArgumentError: block: ") as caught:
        await seen.block.fan_out(items)
    progress = await app.job(caught.value.job_id).wait(WAIT)

    assert caught.value.stored == progress.done == 700
    assert isinstance(caught.value.__cause__, ArgumentError)


@pytest.mark.usefixtures("queue")
async def test_a_fan_out_that_is_cancelled_does_not_leave_its_job_open(app: Shoestring, seen: Seen) -> None:
    """A web request that is closed in the middle must not leave a job that nobody can finish."""
    reached = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        for number in range(300):
            yield number
        reached.set()
        await asyncio.Event().wait()

    fanning = asyncio.ensure_future(seen.block.fan_out(items()))
    await reached.wait()
    fanning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fanning
    progress = await app.job(1).wait(WAIT)

    assert progress.done == progress.total == 300
    assert progress.error is not None
    assert "CancelledError" in progress.error


@pytest.mark.usefixtures("queue")
async def test_an_item_too_large_for_a_chunk_is_said_to_be(seen: Seen, app: Shoestring) -> None:
    """And does not take the connection with it."""

    @app.task
    async def read(text: str) -> None:
        """Read it."""

    with pytest.raises(SourceFailed, match="PayloadTooLarge") as caught:
        await read.fan_out("x" * 20_000 for _ in range(50))

    assert (await app.job(caught.value.job_id).wait(WAIT)).total == 0


@pytest.mark.usefixtures("queue")
async def test_what_cannot_be_fanned_out_opens_no_job(seen: Seen, app: Shoestring) -> None:
    """A mistake in the call costs nothing."""
    block: Handler[..., Any] = seen.block

    @app.task
    async def nothing() -> None:
        """Take nothing."""

    for call, told in (
        (block.fan_out("abc"), "items is 'abc'; give an iterable"),
        (block.fan_out(5), "items is 5; give an iterable"),  # type: ignore[arg-type]
        (block.fan_out([1], chunk=0), "chunk is 0; give a whole number from 1 to 10,000"),
        (block.fan_out([1], then=seen.tell), "give the call of a handler, as in then=report.call(...)"),  # type: ignore[arg-type]
        (block.fan_out([1], every=timedelta(1)), "every= spaces the pages of a source"),
        (block.fan_out([1], args={"acount": "troll"}), "acount"),
        (block.fan_out([1], args={"target": 1}), "target"),
        (block.using(unique="k").fan_out([1]), "unique="),
        (nothing.fan_out([1]), "takes no positional argument"),  # type: ignore[arg-type,misc]
    ):
        with pytest.raises((UsageError, ArgumentError), match=re.escape(told)):
            await call

    assert (await seen.block.fan_out([1])).id == 1


@pytest.mark.usefixtures("queue")
async def test_a_handler_the_daemon_does_not_have_is_named(app: Shoestring) -> None:
    """The producer's code is newer than the daemon's."""
    newer = Shoestring(app.config)

    @newer.task(name="brand_new")
    async def brand_new(n: int) -> None:
        """Take a number."""

    newer._gateways = app._gateways
    newer._engine_loop = app._engine_loop
    with pytest.raises(UnknownHandler, match="brand_new"):
        await brand_new.fan_out([1])


@pytest.mark.usefixtures("queue")
async def test_items_fail_and_are_counted_one_by_one(app: Shoestring) -> None:
    """Two of ten: the job ends with eight done."""

    @app.task
    async def odd(n: int) -> None:
        if n % 5 == 0:
            raise Discard("five")

    @app.task(batch=True)
    async def odd_batch(ns: list[int]) -> None:
        raise ItemsFailed({place: Discard("five") for place, n in enumerate(ns) if n % 5 == 0})

    each = await (await odd.fan_out(range(10), chunk=4)).wait(WAIT)
    batch = await (await odd_batch.fan_out(range(10), chunk=4)).wait(WAIT)

    assert (each.done, each.failed) == (batch.done, batch.failed) == (8, 2)


@pytest.mark.usefixtures("queue")
async def test_a_job_can_be_watched_to_its_end(seen: Seen) -> None:
    """Each progress is later than the one before, and the last is the end."""
    job = await seen.block.fan_out(numbers(2_000))

    watched = [progress async for progress in job.watch()]

    assert [progress.version for progress in watched] == sorted({progress.version for progress in watched})
    assert [progress.finished for progress in watched] == [False] * (len(watched) - 1) + [True]
    assert watched[-1].done == 2_000


@pytest.mark.usefixtures("queue")
async def test_a_cancelled_job_ends_and_what_it_was_waited_for_is_told(app: Shoestring) -> None:
    """What is done stays done; the rest is counted as cancelled."""
    begun = asyncio.Event()

    @app.task(queue="one", concurrency=1)
    async def hang(n: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    job = await hang.fan_out(range(100), chunk=10)
    await begun.wait()
    waiting = asyncio.ensure_future(job.wait(WAIT))

    await job.cancel()
    progress = await waiting

    assert (progress.state, progress.cancelled, progress.done) == (JobState.CANCELLED, 100, 0)


@pytest.mark.usefixtures("queue")
async def test_a_wait_that_is_too_long_says_which_job_and_leaves_it(app: Shoestring) -> None:
    """TimeoutError alone would not tell whether the job was stopped."""

    @app.task
    async def hang(n: int) -> None:
        await asyncio.Event().wait()

    job = await hang.fan_out([1])
    with pytest.raises(TimeoutError, match=r"job 1 was not finished within 0.01 s; it goes on"):
        await job.wait(0.01)

    assert not (await job.progress()).finished


async def test_a_synchronous_program_fans_out_from_its_own_thread(app: Shoestring, seen: Seen, serve: Serve) -> None:
    """A database cursor belongs to the thread that opened it."""
    threads: set[int] = set()

    def items() -> Iterator[int]:
        for number in range(6_000):
            threads.add(threading.get_ident())
            yield number

    def program() -> int:
        job = seen.block.using(user="alice").fan_out_sync(items())
        assert job.wait_sync(WAIT).done == 6_000
        with pytest.raises(SourceFailed, match="stopped at item 1: ArgumentError"):
            seen.block.fan_out_sync([1, "two"])  # type: ignore[list-item]
        paged = seen.block.fan_out_sync(seen.followers.of(account="troll"))
        assert paged.wait_sync(WAIT).done == paged.progress_sync().done == 30
        assert paged.cancel_sync().state is JobState.DONE
        app.close()
        return threading.get_ident()

    await serve(app)
    own = await asyncio.to_thread(program)

    assert threads == {own}
